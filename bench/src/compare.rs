//! `sheave-bench compare`: sheave and a kube-proxy in turn, each on a node of its own, on the same objects and seen from the kernel.
//!
//! ```text
//!  API server ──▶ one contender ──▶ kernel of the node's namespace ──▶ a pod with two doors
//!    ▲ the probe's endpoint          │ nf_tables commits                 ▲ which one?
//!    └─────────────────────── this process ── one packet after each ─────┘
//! ```
//! No contender's word is taken: a change is programmed when a packet proves it. Where the kernel tells of commits (nf_tables,
//! whoever made them) that packet follows each of them; for what it does not tell (iptables-legacy, IPVS), one is sent every
//! millisecond. Without a kube-proxy the comparison is with stock nft, loading and changing the very table that sheave made.

mod api;
mod commits;
mod contender;
mod control_plane;
mod field;
mod stock;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use sheave_tests::apiserver::load::Shape;
use tempfile::NamedTempFile;

use crate::daemon::{Daemon, Plane};
use crate::peer::Peer;
use crate::program;
use crate::progress::Progress;
use crate::proxy::Server;
use crate::refusal::Refusal;
use crate::room::Room;
use crate::session::{Destination, Session};
use crate::statistics::milliseconds;
use crate::{say, scratch};
use contender::{Plan, Seen, Told};
use control_plane::{API_SERVER, ETCD, Programs};

/// What to compare.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    peer: Peer,

    /// A real API server, in place of the double
    #[arg(long, value_name = "FILE", requires = "etcd")]
    kube_apiserver: Option<PathBuf>,

    /// Its etcd
    #[arg(long, value_name = "FILE", requires = "kube_apiserver")]
    etcd: Option<PathBuf>,

    /// What carries the traffic of sheave
    #[arg(long, value_name = "PLANE", default_value = "nftables")]
    plane: Plane,

    /// Services, beside the one that is probed
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    services: u32,

    /// Endpoints of each of them
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    endpoints_per_service: u32,

    /// Changes of one endpoint, one after the other
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    changes: u32,

    #[command(flatten)]
    pub(crate) destination: Destination,
}

/// Who sheave is compared with.
enum Other {
    KubeProxy(Server),
    /// Its rules are sheave's, kept here.
    Stock(NamedTempFile),
}

impl Arguments {
    /// Looks at all that can be known before anything is begun.
    ///
    /// # Errors
    /// A size that does not fit, and a program that cannot be run.
    pub(crate) fn ensure_possible(&self) -> Result<()> {
        self.room().ensure_for(self.plan().shape)?;
        self.peer.ensure_runnable()?;
        for (option, program) in [(API_SERVER, &self.kube_apiserver), (ETCD, &self.etcd)] {
            program.iter().try_for_each(|program| program::ensure_runnable(option, program))?;
        }
        if self.peer.kube_proxy.is_none() {
            stock::ensure_there().map_err(Refusal::of)?;
        }
        Ok(())
    }

    fn other(&self) -> Result<Other> {
        if let Some(peer) = self.peer.identify()? {
            return Ok(Other::KubeProxy(Server::KubeProxy(peer)));
        }
        say("no --kube-proxy was given: sheave is compared with stock nft, which loads the rules that sheave made");
        Ok(Other::Stock(scratch::file().context("making a file for sheave's rules")?))
    }

    /// Of a real API server: clap has both or none.
    fn programs(&self) -> Result<Option<Programs>> {
        let both = self.kube_apiserver.as_deref().zip(self.etcd.as_deref());
        both.map(|(api_server, etcd)| Programs::identify(api_server, etcd)).transpose()
    }

    /// What the contenders take one after the other, as if they were there together: each has the whole of an API server beside it.
    fn room(&self) -> Room {
        let other = if self.peer.kube_proxy.is_some() { Room::KUBE_PROXY } else { Room::NFT };
        let both = Room::BENCH.and(other);
        if self.kube_apiserver.is_some() { both.and(Room::CONTROL_PLANE) } else { both }
    }

    fn plan(&self) -> Plan {
        let Self { services, endpoints_per_service, changes, .. } = *self;
        Plan { shape: Shape { services, endpoints_per_service, ..Shape::default() }, changes }
    }
}

impl Other {
    fn name(&self) -> String {
        match self {
            Self::KubeProxy(server) => server.name(),
            Self::Stock(_) => stock::NAME.to_owned(),
        }
    }

    fn run(&self, programs: Option<&Programs>, plan: Plan, told: &Told<'_>) -> Result<Seen> {
        match self {
            Self::KubeProxy(server) => contender::run(server, programs, plan, None, told),
            Self::Stock(ruleset) => stock::run(ruleset, plan.changes, told),
        }
    }

    fn ruleset(&self) -> Option<&NamedTempFile> {
        match self {
            Self::KubeProxy(_) => None,
            Self::Stock(ruleset) => Some(ruleset),
        }
    }
}

/// Runs all of it.
///
/// # Errors
/// A peer that is none, and whatever does not come out as it must.
pub(crate) fn measure(arguments: &Arguments, daemon: &Daemon, session: &Session) -> Result<()> {
    let plan = arguments.plan();
    let Plan { shape, changes } = plan;
    let other = arguments.other()?;
    let programs = arguments.programs()?;
    let programs = programs.as_ref();
    let api_server = programs.map_or_else(|| "double".to_owned(), |programs| format!("kube-apiserver {}", programs.version));
    let Shape { services, endpoints_per_service, .. } = shape;

    let progress = Progress::new(2);
    let sheave = Server::Sheave { daemon: daemon.clone(), plane: arguments.plane };
    let run = |name: &str, run: &dyn Fn(&Told<'_>) -> Result<Seen>| -> Result<Seen> {
        progress.begin(&format!("{services} Services x {endpoints_per_service} endpoints, {changes} changes, {name}"));
        let row = contender::row(name, shape, changes).at("api_server", api_server.as_str());
        let told = |programmed: Duration| session.measured(row.clone().value("programmed_ms", milliseconds(programmed)));
        let before = session.measurements();
        let seen = run(&told).with_context(|| name.to_owned())?;
        session.replace(before.into_iter().chain([seen.complete(row)]).collect());
        progress.done();
        Ok(seen)
    };
    let own = run(&sheave.name(), &|told| contender::run(&sheave, programs, plan, other.ruleset(), told))?;
    let peer = run(&other.name(), &|told| other.run(programs, plan, told))?;
    drop(progress);
    for (name, ratio) in ratios(&own, &peer) {
        session.add(&name, ratio, &format!("{} to sheave: {}", other.name(), meaning(&name, &other)));
    }
    Ok(())
}

/// How many times as much the other takes.
fn ratios(own: &Seen, peer: &Seen) -> impl Iterator<Item = (String, f64)> {
    own.values().into_iter().zip(peer.values()).filter_map(|((name, own), (_, peer))| {
        let unit = name.rfind('_')?;
        Some((format!("{}_ratio", &name[..unit]), peer / own))
    })
}

fn meaning(ratio: &str, other: &Other) -> &'static str {
    let stock = matches!(other, Other::Stock(_));
    match ratio {
        "programmed_ratio" if stock => "`nft -f` from its start to its end; sheave also starts, lists and decodes",
        "programmed_ratio" => "spawn -> everything is in the kernel, proven by a packet",
        "start_cpu_ratio" => "processor time of the start, with the pause after it",
        "change_p50_ratio" | "change_p99_ratio" if stock => "`nft -f` of one element; sheave is told by an API server",
        "change_p50_ratio" | "change_p99_ratio" => "before the API server is told -> the kernel has it, proven by a packet",
        "change_cpu_ratio" => "processor time of one change",
        "peak_rss_ratio" => "the most memory resident",
        _ => "memory resident at the end",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Samples;

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        crate::tests::parse(arguments)
    }

    fn seen(milliseconds: u64, rss_mb: Option<f64>) -> Seen {
        let time = Duration::from_millis(milliseconds);
        let changes = Samples::new(vec![time]).unwrap();
        Seen { programmed: time, start_cpu: time, changes, change_cpu: time, peak_rss_mb: 50.0, rss_mb, empty_program: None }
    }

    #[test]
    fn a_ratio_says_how_many_times_as_much_the_other_takes() {
        let ratios: Vec<_> = ratios(&seen(2, Some(10.0)), &seen(500, Some(40.0))).collect();
        let of = |name: &str| ratios.iter().find(|(ratio, _)| ratio == name).unwrap().1;
        assert!((of("programmed_ratio") - 250.0).abs() < 1e-9 && (of("change_p50_ratio") - 250.0).abs() < 1e-9);
        assert!(of("change_p99_ratio").is_nan(), "of one change there is no such percentile");
        assert!((of("peak_rss_ratio") - 1.0).abs() < 1e-9 && (of("rss_ratio") - 4.0).abs() < 1e-9);
    }

    #[test]
    fn what_does_not_stay_has_no_ratio() {
        let rss = ratios(&seen(2, Some(10.0)), &seen(2, None)).find(|(name, _)| name == "rss_ratio").unwrap().1;
        assert!(rss.is_nan(), "left out where figures are added");
    }

    #[test]
    fn room_is_made_for_whoever_is_there() {
        let room = |arguments: &[&str]| parse(arguments).unwrap().room();
        assert_eq!(room(&[]), Room::BENCH.and(Room::NFT));
        assert_eq!(room(&["--kube-proxy", "/x"]), Room::BENCH.and(Room::KUBE_PROXY));
        let all = room(&["--kube-proxy", "/x", "--kube-apiserver", "/x", "--etcd", "/x"]);
        assert_eq!(all, Room::BENCH.and(Room::KUBE_PROXY).and(Room::CONTROL_PLANE));
    }

    #[test]
    fn sizes_and_programs_are_judged() {
        for bad in [["--services", "0"], ["--changes", "0"], ["--endpoints-per-service", "many"], ["--etcd", "/x"]] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
        let error = |arguments: &[&str]| parse(arguments).unwrap().ensure_possible().unwrap_err();
        for arguments in [
            ["--kube-proxy", "/x", "--kube-apiserver", "/bin/sh", "--etcd", "/bin/sh"],
            ["--kube-proxy", "/bin/sh", "--kube-apiserver", "/x", "--etcd", "/bin/sh"],
            ["--kube-proxy", "/bin/sh", "--kube-apiserver", "/bin/sh", "--etcd", "/x"],
        ] {
            let error = error(&arguments);
            assert!(Refusal::is_behind(&error) && error.to_string().ends_with("/x: there is no such file"), "{error}");
        }
        let error = error(&["--services", "1000001", "--endpoints-per-service", "1"]);
        assert!(Refusal::is_behind(&error) && error.to_string().starts_with("1000001 Services are more than"), "{error}");
    }
}
