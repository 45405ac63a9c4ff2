//! The daemon ends, by order or by force, and comes back: flows and clients stay where they are, and what it finds is what it makes of
//! the objects as they are then.

use super::{
    ruleset::Ruleset,
    traffic::{self, Traffic},
};
use crate::fixture::{Cluster, DETECT_PODS, Endpoint, Service};
use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sheave_lab::{Host, Outcome, Protocol, Request};
use sheave_tests::{scenario::Scenario, scenarios};
use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    thread,
    time::{Duration, Instant},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("disruption":
        a_restart_on_changed_manifests needs ["nftables", "tool:nft"];
        fifty_kills_in_the_middle_of_syncs needs ["nftables", "tool:nft"], within 120 s;
        a_second_daemon_waits_and_a_leftover_is_no_first needs ["nftables", "tool:nft"];
        clients_stay_with_their_backends_over_restarts needs ["nftables"];
    )
    .to_vec()
}

/// A Service that comes and goes while the daemon is killed.
pub(crate) fn passing(number: usize) -> Service {
    let service = Service::new(&format!("passing-{number}"), &format!("172.30.1.{number}")).only(Protocol::Tcp, 80, 80);
    let service = service.only(Protocol::Udp, 80, 80).endpoint(Endpoint::remote("10.180.2.1"));
    if number.is_multiple_of(2) { service.sticky(60) } else { service.endpoint(Endpoint::local("10.180.0.9")) }
}

/// Writes the two Services of the traffic and some that pass, and waits for nothing.
fn write(cluster: &Cluster, passing_ones: &BTreeSet<usize>) -> anyhow::Result<()> {
    let mut documents = traffic::web().documents();
    documents.extend(traffic::decoy().documents());
    documents.extend(passing_ones.iter().flat_map(|number| passing(*number).documents()));
    cluster.objects_later("world.yaml", documents)
}

fn a_restart_on_changed_manifests() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    write(&cluster, &BTreeSet::from([1]))?;
    cluster.start(&DETECT_PODS)?;
    let traffic = Traffic::start(&cluster)?;
    let newcomers = traffic::newcomers(&cluster)?;
    ensure!(cluster.terminate()?.success(), "SIGTERM is an orderly end");
    // Rules serve on while nobody is there.
    newcomers.await_answers(20, Duration::from_secs(20))?;
    ensure!(cluster.pod.tcp("172.30.1.1:80")?.by().is_some());
    write(&cluster, &BTreeSet::from([2]))?;
    cluster.restart()?;
    let there = cluster.pod.tcp("172.30.1.2:80")?;
    ensure!(there.by() == Some("remote"), "added meanwhile: {there}");
    let gone = cluster.pod.ask(&Request::new(Protocol::Tcp, "172.30.1.1:80")?.timeout(Duration::from_millis(300)))?;
    ensure!(gone.by().is_none(), "removed meanwhile: {gone}");
    traffic.finish()?;
    traffic::welcomed(&newcomers.stop())
}

fn a_second_daemon_waits_and_a_leftover_is_no_first() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    // As a ruleset leaves it that was saved while a daemon ran, by an nft that does not save owners.
    cluster.nft("table inet sheave-hold { chain hold { }; }")?;
    cluster.start(&DETECT_PODS)?;
    let held = cluster.nft("list table inet sheave-hold")?;
    ensure!(held.contains("flags owner"), "{held}");
    ensure!(!cluster.sheave(&["cleanup"])?.status.success(), "not beside a daemon");

    let mut second = std::process::Command::new(sheave_tests::world::executable()?);
    second.args(["run", "--node-name", sheave_tests::world::NODE_NAME, "--source"]);
    second.arg(format!("manifests={}", cluster.manifests().display())).stderr(std::process::Stdio::piped());
    let mut second = cluster.node().spawn(second)?;
    let mut lines = BufReader::new(second.child().stderr.take().context("a pipe")?).lines();
    let mut says = |text: &str| lines.by_ref().map_while(Result::ok).any(|line| line.contains(text));
    ensure!(says("waiting for it to end"));
    cluster.kill()?;
    ensure!(says("sheave starts") && says("synced"), "it takes over");
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some());
    Ok(())
}

fn fifty_kills_in_the_middle_of_syncs() -> anyhow::Result<()> {
    const KILLS: usize = 50;
    let seed = std::env::var("SHEAVE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    say_seed(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    let traffic = Traffic::start(&cluster)?;
    let newcomers = traffic::newcomers(&cluster)?;
    let mut there = BTreeSet::new();
    for _ in 0..KILLS {
        // Somewhere in the start, the first load, or the syncs after it.
        let life = Duration::from_micros(random.random_range(0..60_000));
        let born = Instant::now();
        while born.elapsed() < life {
            let number = random.random_range(1..=6);
            if !there.remove(&number) {
                there.insert(number);
            }
            write(&cluster, &there)?;
            // The moment to kill is random by intent, and no event.
            thread::sleep(Duration::from_micros(random.random_range(0..8_000)).min(life.saturating_sub(born.elapsed())));
        }
        cluster.kill()?;
        cluster.launch()?;
    }
    cluster.await_sync()?;
    for number in 1..=6 {
        let outcome = cluster
            .pod
            .ask(&Request::new(Protocol::Tcp, &format!("172.30.1.{number}:80"))?.timeout(Duration::from_millis(300)))?;
        ensure!(outcome.by().is_some() == there.contains(&number), "passing-{number} of {there:?}: {outcome}");
    }
    traffic.finish().with_context(|| format!("SHEAVE_SEED={seed}"))?;
    traffic::welcomed(&newcomers.stop())?;

    // What is there is what a daemon makes that finds nothing: no debris of half a load or of half a twin.
    let found = Ruleset::of(&cluster)?;
    let unused = Ruleset::unused_sets(&cluster)?;
    cluster.terminate()?;
    let cleaned = cluster.sheave(&["cleanup"])?;
    ensure!(cleaned.status.success(), "{cleaned:?}");
    cluster.restart()?;
    assert_eq!(found, Ruleset::of(&cluster)?);
    assert_eq!(unused, Ruleset::unused_sets(&cluster)?);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the output of a scenario, shown if it fails")]
pub(crate) fn say_seed(seed: u64) {
    eprintln!("SHEAVE_SEED={seed}");
}

fn clients_stay_with_their_backends_over_restarts() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    let backends = (20..26).map(|number| format!("10.180.0.{number}"));
    let mut sticky = Service::new("sticky", "172.30.0.50").only(Protocol::Tcp, 80, 80).node_port(30_050).sticky(600);
    for address in backends {
        cluster.pod(&format!("backend-{address}"), &address)?.serve(&[sheave_lab::Port::tcp(80)])?;
        sticky = sticky.endpoint(Endpoint::local(&address));
    }
    cluster.objects_later("sticky.yaml", sticky.documents())?;
    cluster.start(&DETECT_PODS)?;
    let outside = (10..20).map(|number| cluster.outside(&format!("client-{number}"), &format!("203.0.113.{number}"), None));
    let mut clients: Vec<(Host, &str)> = outside.map(|host| Ok((host?, "192.168.0.2:30050"))).collect::<anyhow::Result<_>>()?;
    clients.push((cluster.pod.clone(), "172.30.0.50:80"));
    clients.push((cluster.pod.clone(), "[fd00:172:30::50]:80"));
    let ask = || -> anyhow::Result<Vec<Option<String>>> {
        clients.iter().map(|(host, to)| Ok(host.tcp(to)?.by().map(str::to_owned))).collect()
    };
    let first = ask()?;
    ensure!(first.iter().all(Option::is_some), "{first:?}");
    for forced in [false, true, true] {
        if forced {
            cluster.kill()?;
        } else {
            cluster.terminate()?;
        }
        assert_eq!(ask()?, first, "nobody is there to serve, and nobody is missed");
        cluster.restart()?;
        assert_eq!(ask()?, first, "killed: {forced}");
    }
    // A backend that went while nobody was there takes its own clients along and no others.
    let lost = first[0].clone().context("the first client has a backend")?;
    cluster.terminate()?;
    let address = lost.trim_start_matches("backend-").to_owned();
    let rest = (20..26).map(|number| format!("10.180.0.{number}")).filter(|other| *other != address);
    cluster.objects_later("sticky.yaml", sticky.clone().with_endpoints(rest.map(|rest| Endpoint::local(&rest))).documents())?;
    cluster.restart()?;
    let moved = ask()?;
    for (before, after) in first.iter().zip(&moved) {
        ensure!(after.is_some() && *after != Some(lost.clone()), "{before:?} -> {after:?}: it is gone");
        ensure!(before == after || *before == Some(lost.clone()), "{before:?} -> {after:?}: it was not its backend that went");
    }
    let refused = cluster.pod.tcp("172.30.0.50:81")?;
    assert_eq!(refused, Outcome::Refused);
    Ok(())
}
