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

mod driver;
mod in_process;
mod matrix;
pub(crate) mod memory;
mod objects;
mod observer;
mod operations;
mod pipeline;
mod stage;
mod subject;
mod wire;

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use sheave_tests::apiserver::load::{Mix, Shape};

use crate::machine;
use crate::progress::Progress;
use crate::results::Measurement;
use crate::session::{Destination, Session};
use crate::statistics::{Samples, milliseconds};
use operations::Scope;

/// The sizes that the budgets are for.
const BUDGETED: (u32, u32, u32) = (5_000, 50, 50_000);

/// Endpoints up to which there are budgets at all, and those for so many: cold sync in ms, peak memory in MB.
const MOST_ENDPOINTS: u64 = 1_000_000;
const AT_MOST_ENDPOINTS: (f64, f64) = (3_000.0, 400.0);

/// Memory that one endpoint needs in all parts of a bench together: the double's JSON, the daemon, the kernel and what plays the
/// loop. Measured: 1.1 GB for a million.
const BYTES_PER_ENDPOINT: f64 = 1_500.0;
const BYTES_AT_LEAST: f64 = 300e6;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What carries the traffic
    #[arg(long, default_value = "nftables")]
    plane: Plane,

    /// Services at the cold sync and at the changes
    #[arg(long, value_name = "N", default_value_t = BUDGETED.0, value_parser = clap::value_parser!(u32).range(1..))]
    services: u32,

    /// Endpoints of each of them
    #[arg(long, value_name = "N", default_value_t = BUDGETED.1, value_parser = clap::value_parser!(u32).range(1..))]
    endpoints_per_service: u32,

    /// Endpoints to change one after the other, and Services to add
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    changes: u32,

    /// Services that are there when one is added. They share the same total of endpoints, each having at least one
    #[arg(long, value_name = "N", default_value_t = BUDGETED.2, value_parser = clap::value_parser!(u32).range(1..))]
    add_at: u32,

    /// Which Services there are
    #[arg(long, default_value = "plain")]
    mix: MixName,

    /// Instead of one size, sweep 10 to 50,000 Services and 10 to 1,000,000 endpoints and show how cost grows
    #[arg(long)]
    matrix: bool,

    /// Begin no further size of the matrix after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 15)]
    time_limit: u32,

    #[command(flatten)]
    pub(crate) destination: Destination,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Plane {
    Nftables,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MixName {
    /// ClusterIP, IPv4, without affinity
    Plain,
    /// 70 % ClusterIP, 20 % NodePort, 10 % LoadBalancer with policy Local; 5 % with affinity; all dual stack
    Realistic,
}

impl Plane {
    fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
        }
    }
}

impl Arguments {
    /// A cluster of this mix, of any size.
    fn shape(&self) -> Shape {
        match self.mix {
            MixName::Plain => Shape { mix: Mix::Plain, dual_stack: false, ..Shape::default() },
            MixName::Realistic => Shape { mix: Mix::Realistic, dual_stack: true, ..Shape::default() },
        }
    }

    /// The cluster of the cold sync and the changes.
    fn cluster(&self) -> Shape {
        Shape { services: self.services, endpoints_per_service: self.endpoints_per_service, ..self.shape() }
    }

    /// The cluster that Services are added to.
    fn wide_cluster(&self) -> Shape {
        let endpoints = u64::from(self.services) * u64::from(self.endpoints_per_service);
        let each = u32::try_from(endpoints / u64::from(self.add_at)).unwrap_or(u32::MAX).max(1);
        Shape { services: self.add_at, endpoints_per_service: each, ..self.shape() }
    }

    /// A budget, where the sizes are not above those it is for. The realistic mix may take twice as much.
    fn budget(&self, budget: f64) -> Option<f64> {
        let (services, endpoints, add_at) = BUDGETED;
        let within = self.services <= services && self.endpoints_per_service <= endpoints && self.add_at <= add_at;
        within.then_some(budget * self.allowance())
    }

    /// A budget that grows with the cluster: of the usual sizes, or of a million endpoints.
    fn budget_by_size(&self, usual: f64, of_a_million: f64) -> Option<f64> {
        let endpoints = u64::from(self.services) * u64::from(self.endpoints_per_service);
        let large = (endpoints <= MOST_ENDPOINTS).then_some(of_a_million * self.allowance());
        self.budget(usual).or(large)
    }

    fn allowance(&self) -> f64 {
        match self.mix {
            MixName::Plain => 1.0,
            MixName::Realistic => 2.0,
        }
    }
}

/// Refuses what would not fit into memory, rather than be killed half-way through.
pub(crate) fn ensure_fits(shape: Shape) -> Result<()> {
    let families = if shape.dual_stack { 2.0 } else { 1.0 };
    let endpoints = f64::from(shape.services) * f64::from(shape.endpoints_per_service) * families;
    let needed = (endpoints * BYTES_PER_ENDPOINT + BYTES_AT_LEAST) / 1e6;
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 MB")]
    let available = machine::available_memory_mb().map_or(f64::INFINITY, |megabytes| megabytes as f64);
    ensure!(needed <= available, "{endpoints} endpoints need some {needed:.0} MB of memory, and {available:.0} MB are available");
    Ok(())
}

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
pub(crate) fn measure(arguments: &Arguments, report: &Session) -> Result<()> {
    if arguments.matrix {
        return matrix::measure(arguments, report);
    }
    let (cluster, wide) = (arguments.cluster(), arguments.wide_cluster());
    ensure_fits(cluster)?;
    ensure_fits(wide)?;
    let Shape { services, endpoints_per_service, .. } = cluster;
    let changes = arguments.changes;

    let progress = Progress::new(5);
    progress.begin(&format!("{services} Services x {endpoints_per_service} endpoints, served to a `sheave run` of its own"));
    let cold = wire::changes(cluster, changes)?;
    add_cold(report, arguments, &cold);
    progress.done();

    progress.begin(&format!("the same in process, {changes} changes"));
    let (_, change) = in_process::changes(cluster, changes)?;
    let budget = |milliseconds| arguments.budget(milliseconds);
    let of_loop = "one endpoint: loop's channel -> acknowledged, in process";
    report.add("change_p50_ms", milliseconds(change.percentile(50)), budget(0.5), of_loop);
    report.add("change_p99_ms", milliseconds(change.percentile(99)), budget(3.0), "the same");
    report.add("change_max_ms", milliseconds(change.max()), None, "the same");
    add_wire(report, &cold.changes, ["change_wire_p50_ms", "change_wire_p99_ms"]);
    progress.done();

    progress.begin(&format!("{} Services x {} endpoints, {changes} added", wide.services, wide.endpoints_per_service));
    let added_wire = wire::additions(wide, changes)?;
    let (_, added) = in_process::additions(wide, changes)?;
    let of_loop = "one Service with its endpoints: loop's channel -> acknowledged";
    report.add("service_add_p50_ms", milliseconds(added.percentile(50)), None, of_loop);
    report.add("service_add_p99_ms", milliseconds(added.percentile(99)), budget(5.0), "the same");
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
    let budget = |number| arguments.budget(number);
    let by_size = |usual, of_a_million| arguments.budget_by_size(usual, of_a_million);
    let (cold_at_most, rss_at_most) = AT_MOST_ENDPOINTS;
    let whole = "both lists complete -> policy, table, kernel's acknowledgement";
    report.add("cold_sync_ms", milliseconds(first.whole), by_size(500.0, cold_at_most), whole);
    report.add("cold_sync_kernel_ms", milliseconds(first.kernel), None, "of that, inside sendmsg: the floor for these bytes");
    let processor = "processor time of the loop's thread until then, taking in objects included";
    report.add("cold_sync_cpu_ms", milliseconds(*loop_time), None, processor);
    let answered = "spawn -> a pod answers through the probe's ClusterIP";
    report.add("start_to_programmed_ms", milliseconds(*programmed), budget(3000.0), answered);
    report.add("peak_rss_mb", *peak_rss_mb, by_size(100.0, rss_at_most), "VmHWM of `sheave run` after all changes, 10^6 bytes");
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

    fn arguments(services: u32, endpoints_per_service: u32, add_at: u32) -> Arguments {
        let plane = Plane::Nftables;
        let (mix, destination) = (MixName::Plain, Destination::default());
        Arguments { plane, services, endpoints_per_service, changes: 1, add_at, mix, matrix: false, time_limit: 1, destination }
    }

    #[test]
    fn many_services_share_the_same_total_of_endpoints() {
        let wide = arguments(5_000, 50, 50_000).wide_cluster();
        assert_eq!((wide.services, wide.endpoints_per_service), (50_000, 5));
        assert_eq!(arguments(10, 3, 50_000).wide_cluster().endpoints_per_service, 1);
    }

    #[test]
    fn a_budget_is_for_its_sizes_and_smaller_ones() {
        assert_eq!(arguments(5_000, 50, 50_000).budget(3.0), Some(3.0));
        assert_eq!(arguments(50, 5, 50).budget(3.0), Some(3.0));
        assert_eq!(arguments(5_001, 50, 50_000).budget(3.0), None);
        assert_eq!(arguments(20_000, 50, 50_000).budget_by_size(500.0, 3_000.0), Some(3_000.0));
        assert_eq!(arguments(20_001, 50, 50_000).budget_by_size(500.0, 3_000.0), None);
        let realistic = Arguments { mix: MixName::Realistic, ..arguments(5_000, 50, 50_000) };
        assert_eq!(realistic.budget_by_size(500.0, 3_000.0), Some(1_000.0));
    }

    #[test]
    fn what_does_not_fit_into_memory_is_refused_with_the_sizes() {
        let huge = Shape { services: 1_000_000, endpoints_per_service: 1_000_000, ..Shape::default() };
        assert!(ensure_fits(huge).unwrap_err().to_string().contains("MB are available"));
        ensure_fits(Shape { services: 10, endpoints_per_service: 5, ..Shape::default() }).unwrap();
    }

    #[test]
    fn changes_are_spread_and_stay_within_the_cluster() {
        let mut services: Vec<u32> = spread(200, 5_000).collect();
        assert!(services.iter().all(|service| *service < 5_000));
        services.sort_unstable();
        services.dedup();
        assert!(services.len() > 150, "{} different Services of 200", services.len());
    }
}
