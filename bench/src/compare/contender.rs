//! One proxy on a node of its own: from its start to the last change.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sheave_tests::apiserver::load::Shape;
use tempfile::NamedTempFile;

use super::api::Api;
use super::commits::Commits;
use super::control_plane::Programs;
use super::field::{self, Door, Field};
use super::stock;
use crate::peer::Mode;
use crate::proxy::{Proxy, Server};
use crate::results::Measurement;
use crate::statistics::{Samples, milliseconds};

/// What every contender goes through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) shape: Shape,
    /// Of the probe's endpoint.
    pub(super) changes: u32,
}

/// What was seen of a contender.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// From its start until everything is in the kernel.
    pub(super) programmed: Duration,
    /// Processor time of that, and of the rest after it.
    pub(super) start_cpu: Duration,
    /// Each change, from before the API server is told until the kernel has it.
    pub(super) changes: Samples,
    /// Processor time of one change, the rest after it included.
    pub(super) change_cpu: Duration,
    /// The most memory it ever had.
    pub(super) peak_rss_mb: f64,
    /// Memory at the end; of stock nft, which does not stay, nothing.
    pub(super) rss_mb: Option<f64>,
    /// Of stock nft, what of every time is the start of a program: that of one which does nothing.
    pub(super) empty_program: Option<Duration>,
}

/// Is told how long the start took, as soon as that is known.
pub(super) type Told<'a> = dyn Fn(Duration) + Sync + 'a;

/// Before each change. kube-proxy syncs once a second at most (`minSyncPeriod`), and a lone change must find it ready.
const REST: Duration = Duration::from_millis(1_500);
/// How often virtual servers are counted.
const COUNT_EVERY: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a proxy on a cluster, and changes the probe's endpoint. `programs`: of a real API server. `ruleset`: where to write what
/// `table inet sheave` holds then.
/// Everything else waits for the changes, and so does whoever is interrupted meanwhile: `told` has the time of the start at once.
pub(super) fn run(
    server: &Server,
    programs: Option<&Programs>,
    plan: Plan,
    ruleset: Option<&NamedTempFile>,
    told: &Told<'_>,
) -> Result<Seen> {
    let Plan { shape, changes } = plan;
    let field = Field::build()?;
    let api = Api::start(field.node(), programs)?;
    field.node().run(|| {
        api.fill(shape)?;
        field::probe(Door::Front).iter().try_for_each(|object| api.create(object))
    })??;
    // After what it depends on, so that it ends before.
    let mut proxy = server.start(field.node(), api.access())?;
    field.node().run(|| {
        let answered = field.await_open(Door::Front, &mut proxy)?;
        let programmed = all_programmed(server, shape, answered, &mut proxy)?.saturating_duration_since(proxy.started);
        proxy.ensure_wrote(server, shape.services)?;
        told(programmed);

        std::thread::sleep(REST);
        // Not before: the time of a program that it has started (kube-proxy's nft) counts when that has ended and was waited for.
        let start_cpu = proxy.processor_time()?;
        // Not before: a listener to nf_tables events makes loads slower.
        let commits = Commits::subscribe()?;
        let (mut durations, mut door) = (Vec::new(), Door::Front);
        for _ in 0..changes {
            door = door.other();
            let begun = Instant::now();
            api.change(&field::probe_slice(door))?;
            durations.push(field.await_moved(door, begun, &commits, &mut proxy)?.saturating_duration_since(begun));
            std::thread::sleep(REST);
        }
        drop(commits);
        let change_cpu = proxy.processor_time()?.saturating_sub(start_cpu) / changes.max(1);
        let (peak_rss_mb, rss_mb) = proxy.memory()?;
        if let Some(file) = ruleset {
            stock::list(field.node(), file)?;
        }
        let changes = Samples::new(durations).context("nothing was changed")?;
        Ok(Seen { programmed, start_cpu, changes, change_cpu, peak_rss_mb, rss_mb: Some(rss_mb), empty_program: None })
    })?
}

/// When everything was in the kernel. Rules come in one transaction, or, as sheave's, with their entrance last, so that one answer
/// means all; virtual servers come one by one and are counted.
fn all_programmed(server: &Server, shape: Shape, answered: Instant, proxy: &mut Proxy) -> Result<Instant> {
    let Server::KubeProxy(peer) = server else { return Ok(answered) };
    if peer.mode != Mode::Ipvs {
        return Ok(answered);
    }
    let wanted = usize::try_from(shape.services).unwrap_or(usize::MAX);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let servers = fs::read_to_string("/proc/thread-self/net/ip_vs").context("reading the virtual servers")?;
        if virtual_servers(&servers) >= wanted {
            return Ok(Instant::now().max(answered));
        }
        proxy.ensure_running()?;
        std::thread::sleep(COUNT_EVERY);
    }
    bail!("fewer than {wanted} virtual servers within {PATIENCE:?}; the proxy {}", proxy.last_words())
}

fn virtual_servers(listed: &str) -> usize {
    listed.lines().filter(|line| ["TCP ", "UDP ", "SCTP "].iter().any(|protocol| line.starts_with(protocol))).count()
}

impl Seen {
    /// Fills a row of the results.
    pub(super) fn complete(&self, row: Measurement) -> Measurement {
        let row = self.values().into_iter().fold(row, |row, (name, value)| row.value(name, value));
        row.value("empty_program_ms", self.empty_program.map_or(f64::NAN, milliseconds))
    }

    /// Everything that is compared, by name.
    pub(super) fn values(&self) -> [(&'static str, f64); 7] {
        let Self { programmed, start_cpu, changes, change_cpu, peak_rss_mb, rss_mb, empty_program: _ } = self;
        [
            ("programmed_ms", milliseconds(*programmed)),
            ("start_cpu_ms", milliseconds(*start_cpu)),
            ("change_p50_ms", milliseconds(changes.percentile(50))),
            ("change_p99_ms", changes.p99().map_or(f64::NAN, milliseconds)),
            ("change_cpu_ms", milliseconds(*change_cpu)),
            ("peak_rss_mb", *peak_rss_mb),
            ("rss_mb", rss_mb.unwrap_or(f64::NAN)),
        ]
    }
}

/// A row of the results, which nothing is known of yet.
pub(super) fn row(contender: &str, shape: Shape, changes: u32) -> Measurement {
    Measurement::new("start and changes")
        .at("contender", contender)
        .at("services", shape.services)
        .at("endpoints_per_service", shape.endpoints_per_service)
        .at("changes", changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_servers_are_counted_without_heads_and_destinations() {
        let listed = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
            -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A600001:01BB rr \n  -> C0A80002:192B      Masq    1      0 \
            0         \nUDP  0A60000A:0035 rr \n";
        assert_eq!(virtual_servers(listed), 2);
        assert_eq!(virtual_servers(""), 0);
    }
}
