//! Over the wire: an API server, a process, a kernel, and packets.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sheave_tests::apiserver::load::{Load, Shape};

use super::observer::{Added, Observer, count_elements};
use super::stage::{self, Stage};
use super::{samples, spread};
use crate::machine;
use crate::peer::Access;
use crate::proxy::{Proxy, Server, Sync};
use crate::statistics::Samples;

/// Between two changes, so that each finds the daemon at rest, as a lone change does.
const PAUSE: Duration = Duration::from_millis(3);

/// What was seen of one daemon's start.
pub(super) struct Cold {
    /// From the spawn to an answer through the probe.
    pub(super) programmed: Duration,
    /// The first sync, as the daemon tells it.
    pub(super) first: Sync,
    /// Processor time of the loop's thread until then.
    pub(super) loop_time: Duration,
    /// Elements in the kernel after the first sync.
    pub(super) elements: u64,
}

/// And of what came after.
pub(super) struct Seen {
    /// Each change, from before the double was told to the kernel's notification.
    pub(super) changes: Samples,
    /// At the end.
    pub(super) peak_rss_mb: f64,
    /// At the end.
    pub(super) rss_mb: f64,
}

/// What one daemon and the kernel keep.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// Once everything is programmed.
    pub(super) rss_mb: f64,
    /// The most there ever was, churn included.
    pub(super) peak_rss_mb: f64,
    /// After the churn.
    pub(super) rss_after_churn_mb: f64,
    /// What the kernel had more than before the daemon's start: see [`machine::kernel_memory_mb`].
    pub(super) kernel_memory_mb: f64,
    pub(super) elements: u64,
    /// Endpoints that were changed.
    pub(super) churned: u32,
}

/// A cold sync, then one endpoint changed at a time, each as soon as the one before is in the kernel. `programmed` is told what there is
/// before the first change.
pub(super) fn memory(server: &Server, shape: Shape, churn: u32, programmed: impl FnOnce(&Kept) + Send) -> Result<Kept> {
    let stage = Stage::build()?;
    let double = stage.api_server()?;
    let mut load = Load::fill(&double, shape).context("filling the API server double")?;
    stage::create_probe(&double)?;
    let before = machine::settled_kernel_memory_mb();
    let mut daemon = server.start(stage.node(), Access::Double(&double.url()))?;
    stage.node().run(move || {
        stage::await_probe(&mut daemon)?;
        let first = first_sync(&mut daemon, shape)?;
        let (peak_rss_mb, rss_mb) = daemon.memory()?;
        let kernel_memory_mb = machine::kernel_memory_mb() - before;
        let elements = first.elements;
        let kept = Kept { rss_mb, peak_rss_mb, rss_after_churn_mb: f64::NAN, kernel_memory_mb, elements, churned: 0 };
        programmed(&kept);
        let observer = Observer::start()?;
        let churned = if shape.services == 0 { 0 } else { churn };
        for service in spread(churned, shape.services) {
            let change = load.change_endpoint(service).context("a cluster without endpoints has none to change")?;
            observer.await_added(Added::Backend(ipv4(change.new)?), &mut daemon)?;
        }
        let (peak_rss_mb, rss_after_churn_mb) = daemon.memory()?;
        Ok(Kept { peak_rss_mb, rss_after_churn_mb, churned, ..kept })
    })?
}

/// A cold sync, of which `cold` is told, then one endpoint changed at a time.
pub(super) fn changes(server: &Server, shape: Shape, changes: u32, cold: impl FnOnce(&Cold) + Send) -> Result<Seen> {
    observe(server, shape, spread(changes, shape.services), cold, |load, service| {
        let change = load.change_endpoint(service).context("a cluster without endpoints has none to change")?;
        Ok(Added::Backend(ipv4(change.new)?))
    })
}

/// A cold sync, then one Service added at a time.
pub(super) fn additions(server: &Server, shape: Shape, changes: u32) -> Result<Seen> {
    observe(
        server,
        shape,
        shape.services..shape.services.saturating_add(changes),
        |_| (),
        |load, service| {
            load.add_service(service);
            let address = shape.cluster_ips(service).first().copied().context("a Service without a ClusterIP")?;
            Ok(Added::Frontend(ipv4(address)?))
        },
    )
}

fn observe(
    server: &Server,
    shape: Shape,
    services: impl Iterator<Item = u32> + Send,
    cold: impl FnOnce(&Cold) + Send,
    change: impl Fn(&mut Load<'_>, u32) -> Result<Added> + Send,
) -> Result<Seen> {
    let stage = Stage::build()?;
    let double = stage.api_server()?;
    let mut load = Load::fill(&double, shape).context("filling the API server double")?;
    stage::create_probe(&double)?;

    let mut daemon = server.start(stage.node(), Access::Double(&double.url()))?;
    stage.node().run(move || {
        let programmed = stage::await_probe(&mut daemon)?.saturating_duration_since(daemon.started);
        let first = first_sync(&mut daemon, shape)?;
        let loop_time = daemon.loop_time()?;
        let elements = count_elements()?;
        ensure!(elements == first.elements, "the daemon says it wrote {} elements, the kernel has {elements}", first.elements);
        cold(&Cold { programmed, first, loop_time, elements });

        let observer = Observer::start()?;
        let mut durations = Vec::new();
        for service in services {
            std::thread::sleep(PAUSE);
            let told = Instant::now();
            let awaited = change(&mut load, service)?;
            durations.push(observer.await_added(awaited, &mut daemon)?.saturating_duration_since(told));
        }
        let (peak_rss_mb, rss_mb) = daemon.memory()?;
        Ok(Seen { changes: samples(durations)?, peak_rss_mb, rss_mb })
    })?
}

/// The sync that the packet's answer belongs to. Whatever comes before the node's own facts are known is not it: the daemon must
/// have written every Service at once.
fn first_sync(daemon: &mut Proxy, shape: Shape) -> Result<Sync> {
    let first = daemon.next_sync()?;
    // The probe, and the API server's own Service without endpoints.
    if first.services < u64::from(shape.services) {
        bail!("the first sync had {} Services of {}", first.services, shape.services);
    }
    let more = daemon.further_syncs();
    ensure!(more.is_empty(), "the first sync was not the only one: {more:?}");
    Ok(first)
}

fn ipv4(address: IpAddr) -> Result<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => bail!("{address} of a load that is IPv4"),
    }
}
