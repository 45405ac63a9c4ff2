//! `sheave-bench memory`: what `sheave run` and the kernel keep, by the number of endpoints, and after churn.

use anyhow::Result;
use clap::Args;
use sheave_tests::apiserver::load::Shape;

use super::arguments::CHANGES_MAX;
use super::wire;
use crate::daemon::{Daemon, Plane};
use crate::progress::Progress;
use crate::promises;
use crate::proxy::Server;
use crate::results::Measurement;
use crate::room::{self, Room};
use crate::session::{Destination, Session};

/// Endpoints of each Service.
const EACH: u32 = 50;
/// Changes after which memory counts as churned: five minutes at ten a second.
pub(crate) const CHURNED: u32 = 3_000;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Endpoints in all, 50 to a Service, rounded up; each number is a daemon of its own
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0,10000,100000,250000,1000000")]
    endpoints: Vec<u32>,

    /// Endpoints changed one after the other at each size. The default is what ten minutes at ten a second make
    #[arg(long, value_name = "N", default_value_t = 6_000, value_parser = clap::value_parser!(u32).range(..=CHANGES_MAX))]
    churn: u32,

    #[command(flatten)]
    pub(crate) destination: Destination,
}

/// Runs all of it that fits into memory.
///
/// # Errors
/// Missing rights, and whatever does not come out as it must.
pub(crate) fn measure(arguments: &Arguments, daemon: &Daemon, report: &Session) -> Result<()> {
    let shapes: Vec<Shape> = arguments.endpoints.iter().copied().map(shape).collect();
    let progress = Progress::new(shapes.len());
    let server = Server::Sheave { daemon: daemon.clone(), plane: Plane::Nftables };
    // Of one size there is nothing to go on with if it does not fit.
    if let [shape] = shapes[..] {
        Room::BENCH.ensure_for(shape)?;
    }
    let (mut empty, mut rows): (Option<wire::Kept>, Vec<Measurement>) = (None, Vec::new());
    for shape in shapes {
        if !room::admits(shape, report) {
            continue;
        }
        let endpoints = shape.services.saturating_mul(shape.endpoints_per_service);
        progress.begin(&format!("{endpoints} endpoints, {} changes", if endpoints == 0 { 0 } else { arguments.churn }));
        let so_far = |kept: &wire::Kept| {
            let row = row(endpoints, kept, empty.as_ref());
            report.replace(rows.iter().cloned().chain([row]).collect());
        };
        let kept = wire::memory(&server, shape, arguments.churn, so_far)?;
        rows.push(row(endpoints, &kept, empty.as_ref()));
        report.replace(rows.clone());
        if let Some(name) = promises::of_memory(endpoints) {
            report.add(name, kept.peak_rss_mb, "VmHWM of `sheave run` at this many endpoints, after churn");
        }
        empty = empty.or_else(|| (endpoints == 0).then_some(kept));
        progress.done();
    }
    Ok(())
}

/// A cluster of at least so many endpoints.
fn shape(endpoints: u32) -> Shape {
    let each = EACH.min(endpoints.max(1));
    Shape { services: endpoints.div_ceil(each), endpoints_per_service: each, ..Shape::default() }
}

/// `empty`: a daemon without Services, which everything by endpoint is compared with.
fn row(endpoints: u32, kept: &wire::Kept, empty: Option<&wire::Kept>) -> Measurement {
    let wire::Kept { rss_mb, peak_rss_mb, rss_after_churn_mb, kernel_memory_mb, elements, churned } = kept;
    let each = |megabytes: f64| if endpoints == 0 { f64::NAN } else { megabytes * 1e6 / f64::from(endpoints) };
    let more = |of: fn(&wire::Kept) -> f64| empty.map_or(f64::NAN, |empty| of(kept) - of(empty));
    #[expect(clippy::cast_precision_loss, reason = "no kernel holds 2^53 elements")]
    let elements = *elements as f64;
    Measurement::new("memory")
        .at("endpoints", endpoints)
        .value("rss_mb", *rss_mb)
        .value("rss_after_churn_mb", *rss_after_churn_mb)
        .value("peak_rss_mb", *peak_rss_mb)
        .value("kernel_memory_mb", *kernel_memory_mb)
        .value("kernel_elements", elements)
        .value("churned", f64::from(*churned))
        .value("rss_per_endpoint_bytes", each(more(|kept| kept.rss_mb)))
        .value("kernel_per_endpoint_bytes", each(more(|kept| kept.kernel_memory_mb)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_what_it_adds_to_an_empty_daemon() {
        let kept = |rss_mb| wire::Kept { rss_mb, kernel_memory_mb: rss_mb / 2.0, ..wire::Kept::default() };
        let row = row(1_000_000, &kept(160.0), Some(&kept(10.0)));
        assert_eq!((row.values["rss_per_endpoint_bytes"], row.values["kernel_per_endpoint_bytes"]), (150.0, 75.0));
        let alone = super::row(0, &kept(10.0), None);
        assert!(!alone.values.contains_key("rss_per_endpoint_bytes"), "{alone:?}");
    }
}
