//! Session affinity: who stays, who moves, and when.

use crate::fixture::{Cluster, Endpoint, Lane, Service, dual, eventually, in_lanes};
use anyhow::{Context as _, ensure};
use sheave_lab::Host;
use sheave_tests::scenario::Scenario;
use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    in_lanes!("affinity":
        clients_stay_and_differ;
        external_clients_of_a_local_policy_stay_here;
        a_lost_backend_moves_its_own_clients_only;
        idle_clients_are_forgotten_and_busy_ones_are_not;
        each_frontend_remembers_for_itself;
        switched_on_and_off;
    )
}

/// So many that all of them drawing the same of two backends by chance is one case in 2^23.
const CLIENTS: u8 = 24;
/// The shortest timeout; a slow machine gets a longer one.
const TIMEOUT: Duration = Duration::from_secs(8);
/// With more than this a scenario that is to be over within minutes tells nothing.
const SLOWEST: Duration = Duration::from_secs(60);

/// Who answered each client.
type Bindings = BTreeMap<String, String>;

/// One host with many addresses: to the node, as many clients.
struct Clients {
    host: Host,
    addresses: Vec<String>,
}

impl Clients {
    fn outside(cluster: &Cluster) -> anyhow::Result<Self> {
        let addresses: Vec<_> = (0..CLIENTS).map(|n| format!("203.0.113.{}", 100 + n)).collect();
        for address in &addresses {
            for own in dual(address) {
                cluster.client().add_address("eth0", &own)?;
            }
        }
        Ok(Self { host: cluster.client().clone(), addresses })
    }

    /// Each asks once.
    fn ask(&self, lane: Lane, (to, port): (&str, u16)) -> anyhow::Result<Bindings> {
        let ask = |from: &String| {
            let request = lane.to(to, port).from_address(lane.address(from));
            let answer = self.host.ask(&request)?.answer().with_context(|| format!("{lane}: {from} -> {to}:{port}"))?;
            Ok((from.clone(), answer.by))
        };
        self.addresses.iter().map(ask).collect()
    }
}

fn sticky() -> Service {
    let endpoints = [Endpoint::local("10.180.0.1"), Endpoint::remote("10.180.2.1")];
    Service::new("svc1", "172.30.0.41").port(80).node_port(30_001).vip("1.2.3.4").with_endpoints(endpoints)
}

/// The ClusterIP, VIP and NodePort of [`sticky`].
const FRONTENDS: [(&str, u16); 3] = [("172.30.0.41", 80), ("1.2.3.4", 80), ("192.168.0.2", 30_001)];

fn names(bindings: &Bindings) -> BTreeSet<&str> {
    bindings.values().map(String::as_str).collect()
}

fn clients_stay_and_differ(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let clients = Clients::outside(&cluster)?;
    cluster.services(&[&sticky().sticky(10_800)])?;
    for &lane in lanes {
        for to in FRONTENDS {
            let first = clients.ask(lane, to)?;
            ensure!(names(&first).len() == 2, "{lane}: {to:?}: everybody was sent to the same backend: {first:?}");
            for _ in 0..4 {
                let again = clients.ask(lane, to)?;
                ensure!(again == first, "{lane}: {to:?}: clients moved: {first:?}, then {again:?}");
            }
        }
        for host in [&cluster.pod, cluster.node()] {
            for (to, port) in FRONTENDS {
                let tally = host.sample(&lane.to(to, port), 16)?;
                ensure!(tally.answered.len() == 1 && tally.failed.is_empty(), "{lane}: {} -> {to}: {tally:?}", host.name());
            }
        }
    }
    Ok(())
}

fn external_clients_of_a_local_policy_stay_here(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let clients = Clients::outside(&cluster)?;
    cluster.local_pod("second", "10.180.0.12")?;
    let service = sticky().endpoint(Endpoint::local("10.180.0.12")).external_local().sticky(10_800);
    cluster.services(&[&service])?;
    for &lane in lanes {
        for to in [("1.2.3.4", 80), ("192.168.0.2", 30_001)] {
            let first = clients.ask(lane, to)?;
            ensure!(names(&first) == BTreeSet::from(["local", "second"]), "{lane}: {to:?}: {first:?}");
            let again = clients.ask(lane, to)?;
            ensure!(again == first, "{lane}: {to:?}: clients moved: {first:?}, then {again:?}");
        }
    }
    Ok(())
}

/// And a backend that comes back, or a new one, moves nobody.
fn a_lost_backend_moves_its_own_clients_only(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let clients = Clients::outside(&cluster)?;
    cluster.local_pod("second", "10.180.0.12")?;
    let three = sticky().endpoint(Endpoint::local("10.180.0.12")).sticky(10_800);
    let two = three.clone().with_endpoints([Endpoint::local("10.180.0.1"), Endpoint::local("10.180.0.12")]);
    for &lane in lanes {
        for to in FRONTENDS {
            cluster.services(&[])?;
            cluster.services(&[&three])?;
            let before = clients.ask(lane, to)?;
            ensure!(names(&before).contains("remote"), "{lane}: {to:?}: nobody was sent to the backend that goes: {before:?}");
            cluster.services(&[&two])?;
            // While the entries of the lost backend are looked for, new connections of all clients are drawn afresh.
            eventually(|| {
                let after = clients.ask(lane, to)?;
                ensure!(!names(&after).contains("remote"), "{lane}: {to:?}: {after:?}");
                for (client, by) in &before {
                    ensure!(
                        by == "remote" || after[client] == *by,
                        "{lane}: {to:?}: {client} moved from {by} to {}",
                        after[client]
                    );
                }
                Ok(())
            })?;
            let after = clients.ask(lane, to)?;
            cluster.services(&[&three])?;
            let back = clients.ask(lane, to)?;
            ensure!(back == after, "{lane}: {to:?}: a new backend moved clients: {after:?}, then {back:?}");
        }
    }
    Ok(())
}

/// Twice three quarters of the timeout with a question between them change nothing; the timeout without one does.
fn idle_clients_are_forgotten_and_busy_ones_are_not(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let clients = Clients::outside(&cluster)?;
    let ask = || lanes.iter().map(|&lane| clients.ask(lane, FRONTENDS[0])).collect::<anyhow::Result<Vec<_>>>();
    // The last quarter of the timeout must have room for two rounds of questions: on an emulated machine they take seconds.
    cluster.services(&[&sticky()])?;
    let begin = Instant::now();
    ask()?;
    let mut timeout = TIMEOUT.max(Duration::from_secs((begin.elapsed() * 10).as_secs() + 1));
    let first = loop {
        cluster.services(&[&sticky().sticky(u32::try_from(timeout.as_secs())?)])?;
        match busy_for_two_rounds(timeout, ask)? {
            Ok(first) => break first,
            Err(took) => ensure!(timeout < SLOWEST, "too slow to tell: {took:?} for two rounds, {timeout:?} to remember"),
        }
        // It was held up for a moment, and some were forgotten as they should be. They are asked anew, with more room.
        timeout *= 2;
    };
    thread::sleep(timeout + Duration::from_millis(500));
    for ((before, after), lane) in first.iter().zip(&ask()?).zip(lanes) {
        ensure!(before != after, "{lane}: all {CLIENTS} clients were remembered beyond the timeout");
    }
    Ok(())
}

/// Who answered everybody, if two more rounds within the timeout gave the same; else how long a round and its pause took.
fn busy_for_two_rounds<T: PartialEq + std::fmt::Debug>(
    timeout: Duration,
    ask: impl Fn() -> anyhow::Result<T>,
) -> anyhow::Result<Result<T, Duration>> {
    let mut asked = Instant::now();
    let first = ask()?;
    for _ in 0..2 {
        // The passing of time is the very matter here.
        thread::sleep(timeout / 4 * 3);
        let now = Instant::now();
        let again = ask()?;
        if asked.elapsed() >= timeout {
            return Ok(Err(asked.elapsed()));
        }
        ensure!(again == first, "busy clients moved: {first:?}, then {again:?}");
        asked = now;
    }
    Ok(Ok(first))
}

/// A difference to kube-proxy, where all addresses of a Service port share one memory (docs/testing.md).
fn each_frontend_remembers_for_itself(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let clients = Clients::outside(&cluster)?;
    cluster.services(&[&sticky().sticky(10_800)])?;
    for &lane in lanes {
        let [cluster_ip, vip, node_port] = FRONTENDS.map(|to| clients.ask(lane, to));
        let [cluster_ip, vip, node_port] = [cluster_ip?, vip?, node_port?];
        ensure!(
            cluster_ip != vip && vip != node_port,
            "{lane}: one memory for several frontends: {cluster_ip:?}, {vip:?}, {node_port:?}"
        );
    }
    Ok(())
}

/// Without affinity everybody is drawn anew; with it, nobody.
fn switched_on_and_off(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let clients = Clients::outside(&cluster)?;
    for timeout in [None, Some(10_800), None, Some(600)] {
        let service = timeout.map_or_else(sticky, |seconds| sticky().sticky(seconds));
        cluster.services(&[&service])?;
        for &lane in lanes {
            for to in FRONTENDS {
                let (first, second) = (clients.ask(lane, to)?, clients.ask(lane, to)?);
                ensure!(
                    (first == second) == timeout.is_some(),
                    "{lane}: {to:?}, timeout {timeout:?}: {first:?}, then {second:?}"
                );
            }
        }
    }
    Ok(())
}
