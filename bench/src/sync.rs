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
    for cluster in [cluster, wide] {
        Room::BENCH.ensure_for(arguments.with_added(cluster))?;
    }
    let Shape { services, endpoints_per_service, .. } = cluster;
    let changes = arguments.changes;
    let server = Server::Sheave { daemon: daemon.clone(), plane: arguments.plane };

    let progress = Progress::new(5);
    progress.begin(&format!("{services} Services x {endpoints_per_service} endpoints, served to a `sheave run` of its own"));
    let seen = wire::changes(&server, cluster, changes, |cold| add_cold(report, cold))?;
    report.add("peak_rss_mb", seen.peak_rss_mb, "VmHWM of `sheave run` after all changes, 10^6 bytes");
    report.add("rss_mb", seen.rss_mb, "VmRSS of it at the same moment");
    progress.done();

    progress.begin(&format!("the same in process, {changes} changes"));
    let change = in_process::changes(cluster, changes)?;
    let add = |name, time, meaning| report.add(name, milliseconds(time), meaning);
    let of_loop = "one endpoint: loop's channel -> acknowledged, in process";
    add("change_p50_ms", change.percentile(50), of_loop);
    add("change_p99_ms", change.percentile(99), "the same");
    add("change_max_ms", change.max(), "the same");
    add_wire(report, &seen.changes, ["change_wire_p50_ms", "change_wire_p99_ms"]);
    progress.done();

    progress.begin(&format!("{} Services x {} endpoints, {changes} added", wide.services, wide.endpoints_per_service));
    let added_wire = wire::additions(&server, wide, changes)?;
    let added = in_process::additions(wide, changes)?;
    let of_loop = "one Service with its endpoints: loop's channel -> acknowledged";
    add("service_add_p50_ms", added.percentile(50), of_loop);
    add("service_add_p99_ms", added.percentile(99), "the same");
    add_wire(report, &added_wire.changes, ["service_add_wire_p50_ms", "service_add_wire_p99_ms"]);
    report.add("wide_peak_rss_mb", added_wire.peak_rss_mb, "VmHWM with the many small Services");
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
        report.add(name, size.into(), "");
    }
    Ok(())
}

fn add_cold(report: &Session, cold: &wire::Cold) {
    let wire::Cold { programmed, first, loop_time, elements } = cold;
    let whole = "both lists complete -> policy, table, kernel's acknowledgement";
    report.add("cold_sync_ms", milliseconds(first.whole), whole);
    report.add("cold_sync_kernel_ms", milliseconds(first.kernel), "of that, inside sendmsg: the floor for these bytes");
    let processor = "processor time of the loop's thread until then, taking in objects included";
    report.add("cold_sync_cpu_ms", milliseconds(*loop_time), processor);
    let answered = "spawn -> a pod answers through the probe's ClusterIP";
    report.add("start_to_programmed_ms", milliseconds(*programmed), answered);
    #[expect(clippy::cast_precision_loss, reason = "no kernel holds 2^53 elements")]
    let count = *elements as f64;
    report.add("kernel_elements", count, "counted in the kernel, and equal to what the daemon says it wrote");
}

fn add_wire(report: &Session, samples: &Samples, [p50, p99]: [&'static str; 2]) {
    report.add(p50, milliseconds(samples.percentile(50)), "before the double is told -> the kernel's own notification");
    report.add(p99, milliseconds(samples.percentile(99)), "the same");
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
