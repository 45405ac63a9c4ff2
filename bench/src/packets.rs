//! `sheave-bench packets`: what a Service costs a packet.
//!
//! ```text
//!                                      node under test
//!  outside ── router ── NodePort, VIP ──▶ ┌───────┐
//!                          ClusterIP ──▶  │ rules │ ──▶ a pod that answers
//!  a pod on the node ───── ClusterIP ──▶  └───────┘          ▲
//!       each of them also straight to the pod's address ─────┘
//! ```
//! There is such a network for each proxy and number of Services, all at the same time, and one without any proxy. A *round* visits
//! every network, subject and measure once, for some milliseconds, in random order; what is compared is the same client going straight
//! to the pod, in the same round, in the network without rules (`to_bare`: what the rules cost, conntrack included) and in the same
//! network (`to_straight`: what the Service costs whoever has the rules anyway).

mod conntrack;
pub(crate) mod exchange;
mod results;
mod rounds;
mod seen;
mod site;
mod source_ports;
mod spread;
mod subject;
mod tcp;
mod udp;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::daemon::{Daemon, Plane};
use crate::peer::{KubeProxy, Mode};
use crate::progress::Progress;
use crate::proxy::Server;
use crate::room::{self, Room};
use crate::say;
use crate::session::{Destination, Session};

use rounds::Plan;
use site::{Effort, Site};
use source_ports::SourcePorts;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What carries the traffic of sheave
    #[arg(long, value_name = "PLANE", value_delimiter = ',', default_value = "nftables")]
    plane: Vec<Plane>,

    /// Numbers of Services, each in a network of its own
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "10,1000,10000,30000",
        value_parser = clap::value_parser!(u32).range(1..=SERVICES_MAX))]
    services: Vec<u32>,

    /// Endpoints of each Service
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    endpoints_per_service: u16,

    /// How often everything is measured; ratios are the middle ones of so many
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,

    /// How long a round lasts, shared by all that is measured in it
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    seconds_per_round: f64,

    /// Clients at once where several connect
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,

    /// Of the order within the rounds
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Processor that clients and servers are bound to; not bound without
    #[arg(long, value_name = "N")]
    processor: Option<usize>,

    /// A kube-proxy to measure beside sheave, on the same objects
    #[arg(long, value_name = "FILE")]
    kube_proxy: Option<PathBuf>,

    /// Its mode
    #[arg(long, value_name = "MODE", default_value = "nftables", requires = "kube_proxy")]
    kube_proxy_mode: Mode,

    #[command(flatten)]
    pub(crate) destination: Destination,
}

/// What the address plan of the load holds.
const SERVICES_MAX: i64 = 500_000;
/// Memory of a Service and of an endpoint in API server double, daemon and kernel together: 255 MB were seen for 30,000 of three.
const SERVICE_BYTES: f64 = 6_000.0;
const ENDPOINT_BYTES: f64 = 1_000.0;

impl Arguments {
    /// Whose rules are measured.
    fn servers(&self, daemon: &Daemon) -> Result<Vec<Server>> {
        let mut servers: Vec<Server> =
            self.plane.iter().map(|plane| Server::Sheave { daemon: daemon.clone(), plane: *plane }).collect();
        match &self.kube_proxy {
            Some(program) => servers.push(Server::KubeProxy(KubeProxy::identify(program, self.kube_proxy_mode)?)),
            None => say("no --kube-proxy was given: sheave is compared with pods that are addressed directly only"),
        }
        Ok(servers)
    }

    /// What all networks take together: each is there until the end.
    fn bytes(&self) -> f64 {
        let each = f64::from(self.endpoints_per_service);
        let of_size = |services: &u32| {
            let services = f64::from(*services);
            let whoever = services * (SERVICE_BYTES + ENDPOINT_BYTES * each);
            let own = self.plane.iter().map(|_| whoever);
            let peer = self.kube_proxy.iter().map(|_| whoever + Room::KUBE_PROXY.of(services * each));
            own.chain(peer).sum::<f64>()
        };
        self.services.iter().map(of_size).sum()
    }

    fn ensure_memory(&self) -> Result<()> {
        let sizes = self.services.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        room::ensure_available(&format!("all networks of --services {sizes} together"), self.bytes())
    }
}

/// Runs all of it.
///
/// # Errors
/// Missing rights, a size that does not fit, and whatever does not come out as it must: a bench of something broken is no bench.
pub(crate) fn measure(arguments: &Arguments, daemon: &Daemon, session: &Session) -> Result<()> {
    let servers = arguments.servers(daemon)?;
    arguments.ensure_memory()?;
    conntrack::ensure_room(SourcePorts::total())?;
    ensure_processor(arguments.processor)?;
    let mut sizes = arguments.services.clone();
    sizes.sort_unstable();
    sizes.dedup();

    let endpoints = arguments.endpoints_per_service;
    let building = Progress::new(1 + sizes.len() * servers.len());
    building.begin("a network without rules");
    let mut sites = vec![Site::bare(endpoints)?];
    building.done();
    for &services in &sizes {
        for server in &servers {
            building.begin(&format!("{services} Services, {}", server.name()));
            sites.push(
                Site::ruled(server, services, endpoints).with_context(|| format!("{services} Services, {}", server.name()))?,
            );
            building.done();
        }
    }
    drop(building);

    let cells = rounds::cells(&sites).len();
    let lasting = rounds::slot(arguments.seconds_per_round, cells);
    let effort = Effort { lasting, clients: arguments.clients, processor: arguments.processor };
    let plan = Plan { rounds: arguments.rounds, seed: arguments.seed, effort };
    say(&format!("{} rounds of {cells} slots of {:.0} ms", plan.rounds, lasting.as_secs_f64() * 1e3));
    let legend: Vec<_> = sites.iter().map(results::Rules::of).collect();
    let progress = Progress::new(cells * usize::try_from(plan.rounds).unwrap_or(usize::MAX));
    let record = rounds::run(
        &mut sites,
        plan,
        |round| progress.begin(&format!("round {} of {}", round + 1, plan.rounds)),
        || progress.done(),
        |record| session.replace(results::measurements(record, &legend)),
    )?;
    results::add_figures(session, &record, &legend);
    Ok(())
}

/// Tries on a thread that ends: this one is to stay free.
fn ensure_processor(processor: Option<usize>) -> Result<()> {
    let tried = std::thread::spawn(move || site::bind_to(processor)).join();
    tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.01..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.01 and 86400".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        let line = ["packets"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| cli.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_are_a_list_and_each_is_judged() {
        assert_eq!(parse(&["--services", "10,30000"]).unwrap().services, [10, 30_000]);
        for bad in ["0", "10,", "10,many", "500001", "-1"] {
            assert!(parse(&["--services", bad]).is_err(), "{bad}");
        }
        for bad in ["0", "nan", "inf", "-1", "1e9"] {
            assert!(parse(&["--seconds-per-round", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_processor_that_is_not_there_is_told_before_anything_is_built() {
        assert!(ensure_processor(None).is_ok());
        let error = ensure_processor(Some(1_000_000)).unwrap_err();
        assert!(format!("{error:#}").contains("--processor 1000000"), "{error:#}");
    }

    #[test]
    fn a_mode_without_a_kube_proxy_is_refused() {
        assert!(parse(&["--kube-proxy-mode", "iptables"]).unwrap_err().contains("--kube-proxy"));
        let arguments = parse(&["--kube-proxy", "/x", "--kube-proxy-mode", "iptables"]).unwrap();
        assert_eq!(arguments.kube_proxy_mode, Mode::Iptables);
    }

    #[test]
    fn what_does_not_fit_is_told_before_anything_is_built() {
        let sizes = vec!["500000"; 2_000].join(",");
        let error = parse(&["--services", &sizes, "--endpoints-per-service", "100"]).unwrap().ensure_memory().unwrap_err();
        assert!(error.to_string().contains("MB are available"), "{error}");
        assert!(parse(&[]).unwrap().ensure_memory().is_ok(), "the defaults fit every machine that can run the tests");
        let (alone, beside) = (parse(&[]).unwrap().bytes(), parse(&["--kube-proxy", "/x"]).unwrap().bytes());
        assert!(beside > 2.0 * alone, "a kube-proxy takes more than what is measured beside it: {beside}");
    }
}
