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

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use clap::Args;
use sheave_tests::apiserver::load::Shape;

use crate::daemon::{Daemon, Plane};
use crate::peer::Peer;
use crate::progress::Progress;
use crate::proxy::Server;
use crate::refusal::Refusal;
use crate::room::{self, Room};
use crate::say;
use crate::session::{Destination, Session};
use crate::table::significant;

use rounds::{Audience, Plan, Record};
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
        value_parser = clap::value_parser!(u32).range(1..))]
    services: Vec<u32>,

    /// Endpoints of each Service
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    endpoints_per_service: u16,

    /// How often everything is measured; ratios are the middle ones of so many
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1_000))]
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

    #[command(flatten)]
    peer: Peer,

    #[command(flatten)]
    pub(crate) destination: Destination,
}

/// Memory of an endpoint in API server double, daemon and kernel together. An estimate, on the safe side.
const ENDPOINT_BYTES: f64 = 1_000.0;

impl Arguments {
    /// Looks at all that can be known before anything is begun.
    ///
    /// # Errors
    /// A size that does not fit, a program that cannot be run, and a processor that cannot be had.
    pub(crate) fn ensure_possible(&self) -> Result<()> {
        for services in self.sizes() {
            let endpoints_per_service = self.endpoints_per_service.into();
            room::ensure_served(Shape { services, endpoints_per_service, ..Shape::default() })?;
        }
        self.ensure_memory()?;
        self.peer.ensure_runnable()?;
        ensure_processor(self.processor).map_err(Refusal::of)
    }

    /// Each once, the smallest first.
    fn sizes(&self) -> BTreeSet<u32> {
        self.services.iter().copied().collect()
    }

    /// Each once.
    fn planes(&self) -> Vec<Plane> {
        let mut planes = Vec::new();
        for plane in &self.plane {
            if !planes.contains(plane) {
                planes.push(*plane);
            }
        }
        planes
    }

    /// Whose rules are measured.
    fn servers(&self, daemon: &Daemon) -> Result<Vec<Server>> {
        let own = |plane| Server::Sheave { daemon: daemon.clone(), plane };
        let mut servers: Vec<Server> = self.planes().into_iter().map(own).collect();
        match self.peer.identify()? {
            Some(peer) => servers.push(Server::KubeProxy(peer)),
            None => say("no --kube-proxy was given: sheave is compared with pods that are addressed directly only"),
        }
        Ok(servers)
    }

    /// What all networks take together: each is there until the end.
    fn bytes(&self) -> f64 {
        let each = f64::from(self.endpoints_per_service);
        let of_size = |services: u32| {
            let services = f64::from(services);
            let whoever = services * (room::SERVICE_BYTES + ENDPOINT_BYTES * each);
            let own = self.planes().into_iter().map(|_| whoever);
            let peer = self.peer.kube_proxy.iter().map(|_| whoever + Room::KUBE_PROXY.of(services * each));
            own.chain(peer).sum::<f64>()
        };
        self.sizes().into_iter().map(of_size).sum()
    }

    fn ensure_memory(&self) -> Result<()> {
        let sizes = self.sizes().iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        room::ensure_available(&format!("all networks of --services {sizes} together"), self.bytes())
    }
}

/// Runs all of it.
///
/// # Errors
/// A peer that is none, and whatever does not come out as it must: a bench of something broken is no bench.
pub(crate) fn measure(arguments: &Arguments, daemon: &Daemon, session: &Session) -> Result<()> {
    let servers = arguments.servers(daemon)?;
    conntrack::ensure_room(SourcePorts::total()).map_err(Refusal::of)?;
    let mut sites = build(&servers, arguments, session)?;
    let cells = rounds::cells(&sites).len();
    let lasting = rounds::slot(arguments.seconds_per_round, cells);
    let effort = Effort { lasting, clients: arguments.clients, processor: arguments.processor };
    let plan = Plan { rounds: arguments.rounds, seed: arguments.seed, effort };
    say(&format!("{} rounds of {cells} slots of {} ms", plan.rounds, significant(lasting.as_secs_f64() * 1e3)));
    let legend: Vec<_> = sites.iter().map(results::Rules::of).collect();
    let progress = Progress::new(cells * usize::try_from(plan.rounds).unwrap_or(usize::MAX));
    let onlooker = Onlooker { rounds: plan.rounds, progress, legend: &legend, session };
    let record = rounds::run(&mut sites, plan, &onlooker)?;
    results::add_figures(session, &record, &legend);
    Ok(())
}

/// Builds all networks, the small ones first. A kube-proxy that serves some sizes and not a larger one is left out from there on; one
/// that does not serve the first is an error, before anybody waits for rounds without it.
fn build(servers: &[Server], arguments: &Arguments, session: &Session) -> Result<Vec<Site>> {
    let (endpoints, sizes) = (arguments.endpoints_per_service, arguments.sizes());
    let progress = Progress::new(1 + sizes.len() * servers.len());
    progress.begin("a network without rules");
    let mut sites = vec![Site::bare(endpoints)?];
    progress.done();
    let mut peer_is_lost = false;
    for services in sizes {
        for server in servers {
            let what = format!("{services} Services, {}", server.name());
            let is_peer = matches!(server, Server::KubeProxy(_));
            if is_peer && peer_is_lost {
                session.leave_out(what);
                continue;
            }
            progress.begin(&what);
            match Site::ruled(server, services, endpoints).context(what) {
                Ok(site) => sites.push(site),
                Err(error) if is_peer && sites.iter().any(Site::is_of_a_peer) => {
                    session.leave_out(format!("{error:#}"));
                    peer_is_lost = true;
                }
                Err(error) => return Err(error),
            }
            progress.done();
        }
    }
    Ok(sites)
}

/// Shows and keeps what rounds bring.
struct Onlooker<'a> {
    rounds: u32,
    progress: Progress,
    legend: &'a [results::Rules],
    session: &'a Session,
}

impl Audience for Onlooker<'_> {
    fn round_begins(&self, round: u32) {
        self.progress.begin(&format!("round {} of {}", round + 1, self.rounds));
    }

    fn slot_done(&self) {
        self.progress.done();
    }

    fn site_lost(&self, site: usize, error: &anyhow::Error) {
        let whose = self.legend.get(site).map(ToString::to_string).unwrap_or_default();
        self.session.leave_out(format!("the rest of {whose}: {error:#}"));
    }

    fn seen(&self, record: &Record) {
        let measurements = results::measurements(record, self.legend);
        // Nothing takes no place of something that an earlier run has kept.
        if !measurements.is_empty() {
            self.session.replace(measurements);
        }
    }
}

/// Tries on a thread that ends: this one is to stay free.
fn ensure_processor(processor: Option<usize>) -> Result<()> {
    let tried = std::thread::spawn(move || site::bind_to(processor)).join();
    tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.01..=3_600.0).contains(&seconds) { Ok(seconds) } else { Err("between 0.01 and 3600".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        crate::tests::parse(arguments)
    }

    #[test]
    fn sizes_are_a_list_and_each_is_judged() {
        assert_eq!(parse(&["--services", "10,30000"]).unwrap().services, [10, 30_000]);
        for bad in ["0", "10,", "10,many", "-1"] {
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
    fn what_is_asked_for_twice_is_measured_once_and_takes_room_once() {
        let twice = parse(&["--services", "1000,10,1000", "--plane", "nftables,nftables"]).unwrap();
        assert_eq!((twice.sizes().into_iter().collect::<Vec<_>>(), twice.planes().len()), (vec![10, 1_000], 1));
        assert_eq!(twice.bytes(), parse(&["--services", "10,1000"]).unwrap().bytes());
    }

    #[test]
    fn what_does_not_fit_is_told_before_anything_is_built() {
        let sizes = (500_000..502_000).map(|services| services.to_string()).collect::<Vec<_>>().join(",");
        let error = |arguments: &[&str]| parse(arguments).unwrap().ensure_possible().unwrap_err();
        let memory = error(&["--services", &sizes]);
        assert!(Refusal::is_behind(&memory) && memory.to_string().contains("MB are available"), "{memory}");
        let addresses = error(&["--services", "10,100000", "--endpoints-per-service", "100"]);
        assert!(Refusal::is_behind(&addresses) && addresses.to_string().starts_with("10000000 endpoints are"), "{addresses}");
        assert!(parse(&[]).unwrap().ensure_possible().is_ok(), "the defaults fit every machine that can run the tests");
        let (alone, beside) = (parse(&[]).unwrap().bytes(), parse(&["--kube-proxy", "/x"]).unwrap().bytes());
        assert!(beside > 2.0 * alone, "a kube-proxy takes more than what is measured beside it: {beside}");
    }
}
