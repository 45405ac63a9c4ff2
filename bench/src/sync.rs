//! `sheave-bench sync`: how fast the API's changes are in the kernel, and what that costs.
//!
//! ```text
//!  double ── HTTP ──▶ `sheave run`, a process ──▶ kernel of the node's namespace ──▶ a pod that answers
//!    ▲ change                                        │ nf_tables events
//!    └───────────────── this process ◀───────────────┘        (over the wire: `wire`)
//!
//!  this thread ── channel ──▶ SyncLoop, a thread ──▶ kernel    (in process: `in_process`)
//!    ▲                           │
//!    └────────── mark ◀──────────┘
//! ```
//! Two clocks for one change. *In process* it runs from the moment the change is put into the loop's channel to the moment the loop
//! says that the kernel has acknowledged it: what sheave itself costs, and what the budgets are for. *Over the wire* it runs from
//! the moment before the double is told, and so takes in its serialising, HTTP, decoding and two more processes' wake-ups, to the
//! kernel's own notification of the commit; the daemon's log is not believed.

mod arguments;
mod driver;
mod in_process;
mod matrix;
pub(crate) mod memory;
mod objects;
mod observer;
mod operations;
mod pipeline;
mod stage;
mod wire;

use anyhow::{Result, bail};
use clap::ValueEnum as _;
use sheave_tests::apiserver::load::Shape;

use crate::daemon::Daemon;
use crate::progress::Progress;
use crate::proxy::Server;
use crate::results::Measurement;
use crate::room::Room;
use crate::session::Session;
use crate::statistics::{Samples, milliseconds};
pub(crate) use arguments::Arguments;
use operations::Scope;

/// Says of a measurement what it was made with.
fn describe(row: Measurement, arguments: &Arguments, shape: Shape) -> Measurement {
    let Shape { services, endpoints_per_service, .. } = shape;
    row.at("plane", arguments.plane.name())
        .at("mix", arguments.mix.to_possible_value().map(|mix| mix.get_name().to_owned()))
        .at("services", services)
        .at("endpoints", u64::from(services) * u64::from(endpoints_per_service))
}

/// Runs all of it.
///
/// # Errors
/// Missing rights, a size that does not fit, and whatever does not come out as it must: a bench of something broken is no bench.
pub(crate) fn measure(arguments: &Arguments, daemon: &Daemon, report: &Session) -> Result<()> {
    if arguments.matrix {
        return matrix::measure(arguments, report);
    }
    let (cluster, wide) = (arguments.cluster(), arguments.wide_cluster());
    Room::BENCH.ensure_for(cluster)?;
    Room::BENCH.ensure_for(wide)?;
    let Shape { services, endpoints_per_service, .. } = cluster;
    let changes = arguments.changes;
    let server = Server::Sheave { daemon: daemon.clone(), plane: arguments.plane };

    let progress = Progress::new(5);
    progress.begin(&format!("{services} Services x {endpoints_per_service} endpoints, served to a `sheave run` of its own"));
    let cold = wire::changes(&server, cluster, changes)?;
    add_cold(report, arguments, &cold);
    progress.done();

    progress.begin(&format!("the same in process, {changes} changes"));
    let (_, change) = in_process::changes(cluster, changes)?;
    let budgeted = |name, time, budget, meaning| report.add(name, milliseconds(time), arguments.budget(name, budget), meaning);
    let of_loop = "one endpoint: loop's channel -> acknowledged, in process";
    budgeted("change_p50_ms", change.percentile(50), 0.5, of_loop);
    budgeted("change_p99_ms", change.percentile(99), 3.0, "the same");
    report.add("change_max_ms", milliseconds(change.max()), None, "the same");
    add_wire(report, &cold.changes, ["change_wire_p50_ms", "change_wire_p99_ms"]);
    progress.done();

    progress.begin(&format!("{} Services x {} endpoints, {changes} added", wide.services, wide.endpoints_per_service));
    let added_wire = wire::additions(&server, wide, changes)?;
    let (_, added) = in_process::additions(wide, changes)?;
    let of_loop = "one Service with its endpoints: loop's channel -> acknowledged";
    report.add("service_add_p50_ms", milliseconds(added.percentile(50)), None, of_loop);
    budgeted("service_add_p99_ms", added.percentile(99), 5.0, "the same");
    add_wire(report, &added_wire.changes, ["service_add_wire_p50_ms", "service_add_wire_p99_ms"]);
    report.add("wide_peak_rss_mb", added_wire.peak_rss_mb, None, "VmHWM with the many small Services");
    progress.done();

    progress.begin(&format!("{services} Services x {endpoints_per_service} endpoints, every operation by its stages"));
    operations::measure(cluster, changes, Scope::All, &progress, |row| report.measured(describe(row, arguments, cluster)))?;
    drop(progress);
    let sizes = [
        ("services", services),
        ("endpoints_per_service", endpoints_per_service),
        ("changes", changes),
        ("add_at", wide.services),
        ("add_at_endpoints_per_service", wide.endpoints_per_service),
    ];
    for (name, size) in sizes {
        report.add(name, size.into(), None, "");
    }
    Ok(())
}

fn add_cold(report: &Session, arguments: &Arguments, cold: &wire::Seen) {
    let wire::Seen { programmed, first, loop_time, changes: _, elements, peak_rss_mb, rss_mb } = cold;
    let by_size = |name, value, usual, of_a_million, meaning| {
        report.add(name, value, arguments.budget_by_size(name, usual, of_a_million), meaning);
    };
    let whole = "both lists complete -> policy, table, kernel's acknowledgement";
    by_size("cold_sync_ms", milliseconds(first.whole), 500.0, 3_000.0, whole);
    report.add("cold_sync_kernel_ms", milliseconds(first.kernel), None, "of that, inside sendmsg: the floor for these bytes");
    let processor = "processor time of the loop's thread until then, taking in objects included";
    report.add("cold_sync_cpu_ms", milliseconds(*loop_time), None, processor);
    let started = "start_to_programmed_ms";
    let answered = "spawn -> a pod answers through the probe's ClusterIP";
    report.add(started, milliseconds(*programmed), arguments.budget(started, 3_000.0), answered);
    by_size("peak_rss_mb", *peak_rss_mb, 100.0, 400.0, "VmHWM of `sheave run` after all changes, 10^6 bytes");
    report.add("rss_mb", *rss_mb, None, "VmRSS of it at the same moment");
    #[expect(clippy::cast_precision_loss, reason = "no kernel holds 2^53 elements")]
    let count = *elements as f64;
    report.add("kernel_elements", count, None, "counted in the kernel, and equal to what the daemon says it wrote");
}

fn add_wire(report: &Session, samples: &Samples, [p50, p99]: [&'static str; 2]) {
    report.add(p50, milliseconds(samples.percentile(50)), None, "before the double is told -> the kernel's own notification");
    report.add(p99, milliseconds(samples.percentile(99)), None, "the same");
}

/// The Services to change, one for each change: spread over all, the same each time (Knuth's multiplicative hash).
fn spread(changes: u32, services: u32) -> impl Iterator<Item = u32> {
    (0..changes).map(move |change| change.wrapping_mul(2_654_435_761) % services.max(1))
}

/// Samples of a run that made at least one change.
fn samples(durations: Vec<std::time::Duration>) -> Result<Samples> {
    match Samples::new(durations) {
        Some(samples) => Ok(samples),
        None => bail!("nothing was measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_spread_and_stay_within_the_cluster() {
        let mut services: Vec<u32> = spread(200, 5_000).collect();
        assert!(services.iter().all(|service| *service < 5_000));
        services.sort_unstable();
        services.dedup();
        assert!(services.len() > 150, "{} different Services of 200", services.len());
    }
}
