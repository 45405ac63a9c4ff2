//! Several nodes on one LAN, each with the real daemon, beside one API server: who announces, who takes over, and what a client on the
//! LAN sees of it.
//!
//! ```text
//!  client .9 ──┬── lan      192.168.1.0/24   VIPs            eth0 of each node
//!              │
//!  node-a .11 ─┼── members  192.168.2.0/24   InternalIPs     eth1            worker .100, with pods
//!  node-b .12 ─┤
//!  node-c .13 ─┴── api      192.168.3.0/24                   eth2            API server double .1, controllers
//! ```
//! Three networks, so that each can be lost alone. Everything exists twice, in IPv4 and in IPv6 ([`twin`]).
//!
//! ```no_run
//! # use sheave_tests::lan::{Lan, LanOptions};
//! # fn main() -> anyhow::Result<()> {
//! let mut lan = Lan::new(&LanOptions::default())?;
//! let vip = "192.168.1.240".parse()?;
//! lan.publish(&[vip])?; // a pool, an L2Advertisement, and a Service of which a pod on the worker answers
//! lan.start_all()?;
//! let first = lan.await_announcer(vip)?;
//! lan.cut_off(first)?;
//! # Ok(()) }
//! ```

mod cables;
mod daemon;
mod objects;

pub use cables::Network;
pub use objects::{Service, advertisement, node, pool};

use self::daemon::Daemon;
use crate::{
    apiserver::{ApiServer, Config},
    scenario::patiently,
};
use anyhow::{Context as _, bail, ensure};
use ipnet::Ipv4Net;
use nix::sys::signal::Signal;
use serde_json::Value;
use sheave_lab::{BadLink, Cable, Finished, Host, Mac, Port, Recorder, Switchboard};
use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    process::ExitStatus,
    time::{Duration, Instant},
};

/// How a [`Lan`] is built.
#[derive(Clone, Debug)]
pub struct LanOptions {
    /// How many nodes, up to 26: `node-a`, `node-b` and so on.
    pub nodes: usize,
    /// What the members' network does to what each node sends and gets there, with a seed of its own for each. A datagram passes two
    /// such links.
    pub members_link: Option<BadLink>,
    /// Further arguments of `sheave run`.
    pub arguments: Vec<String>,
    /// There is a controller, to be started by [`Lan::start_controller`], which makes the Secret that announcers share. Otherwise it is
    /// there from the beginning, and Services have the addresses that their objects say.
    pub controller: bool,
}

/// Nodes, a client, an API server. Dropping it ends everything.
pub struct Lan {
    // Fields drop in order: daemons end before their network does.
    daemons: Vec<Option<Daemon>>,
    controllers: Vec<(Daemon, daemon::Home)>,
    api: ApiServer,
    recorder: Recorder,
    options: LanOptions,
    nodes: Vec<daemon::Home>,
    client: Host,
    worker: Host,
    /// The pod on the worker that answers as `echo`.
    echo: Host,
    switchboard: Switchboard,
}

/// What every Service of [`Lan::publish`] serves, over TCP and UDP.
pub const PORT: u16 = 80;
/// The address of the API server.
const API: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 1);
/// Where nodes have their pods from, for `--cluster-cidr`.
const POD_NETWORKS: &str = "10.0.0.0/8,fd00:10::/32";
/// How long an announcer may take to be there, on a busy machine and in a debug build.
const SETTLING: Duration = Duration::from_secs(30);
/// How long answers to one question are waited for.
const ANSWER: Duration = Duration::from_millis(150);

impl Default for LanOptions {
    fn default() -> Self {
        Self { nodes: 3, members_link: None, arguments: Vec::new(), controller: false }
    }
}

impl Lan {
    /// Builds the network and starts the API server, with a Node object for each node and MetalLB's definitions. No daemon runs yet.
    ///
    /// # Errors
    /// If networks cannot be made.
    pub fn new(options: &LanOptions) -> anyhow::Result<Self> {
        ensure!((1..=26).contains(&options.nodes), "{} nodes: there are names for 1 to 26", options.nodes);
        let switchboard = Switchboard::new(&Network::ALL.map(Network::bridge))?;
        let client = switchboard.machine("client", &[Network::Lan.cable(9)])?;
        let worker = switchboard.node("worker", &[Network::Members.cable(100)])?;
        let server = switchboard.machine("api", &[Network::Api.cable(1)])?;
        let mut nodes = Vec::with_capacity(options.nodes);
        for (letter, number) in (b'a'..=b'z').zip(0..options.nodes) {
            let last = 11 + u8::try_from(number).context("checked above")?;
            let link = options.members_link.map(|link| BadLink { seed: link.seed + u64::from(last), ..link });
            let members = Cable { link, ..Network::Members.cable(last) };
            let cables = [Network::Lan.cable(last), members, Network::Api.cable(last)];
            nodes.push(daemon::Home::new(switchboard.node(&format!("node-{}", char::from(letter)), &cables)?)?);
        }
        let listener = server.run(|| TcpListener::bind((API, 0)))?.context("a port for the API server")?;
        let cidrs = ["172.30.0.0/16", "fd00:172:30::/112"].map(str::parse);
        let config = Config {
            listener: Some(listener),
            service_cidrs: cidrs.into_iter().collect::<Result<_, _>>()?,
            metallb: true,
            ..Config::default()
        };
        let api = ApiServer::start(config)?;
        let echo = switchboard.pod(&worker, "echo", "10.180.100.1")?;
        echo.serve(&[Port::tcp(PORT), Port::udp(PORT)])?;
        let recorder = Recorder::start(&client, "eth0")?;
        let daemons = nodes.iter().map(|_| None).collect();
        let options = options.clone();
        let lan = Self { daemons, controllers: Vec::new(), api, recorder, options, nodes, client, worker, echo, switchboard };
        lan.route(&lan.echo, &lan.worker)?;
        lan.apply(lan.nodes.iter().map(|home| node(&home.host, &[])))?;
        if !lan.options.controller {
            lan.apply([objects::gossip_key()])?;
        }
        Ok(lan)
    }

    /// The API server, in the words of the test's own hand.
    #[must_use]
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// The host on the LAN that asks for VIPs.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// A node of the members' network without a daemon, on which pods live that no fault of an announcer concerns.
    #[must_use]
    pub fn worker(&self) -> &Host {
        &self.worker
    }

    /// The pod on the worker.
    #[must_use]
    pub fn echo(&self) -> &Host {
        &self.echo
    }

    /// What the client has heard since the beginning, and asks.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// How many nodes there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// A node, counted from 0.
    #[must_use]
    pub fn node(&self, number: usize) -> &Host {
        &self.nodes[number].host
    }

    /// The hardware address that answers for what this node announces on the LAN.
    ///
    /// # Errors
    /// If its interface is gone.
    pub fn mac(&self, number: usize) -> anyhow::Result<Mac> {
        Ok(self.node(number).mac(Network::Lan.interface())?)
    }

    /// Adds a pod that answers on [`PORT`] as `name`, on a node or on the [`worker`](Self::worker); every node learns the way to it.
    ///
    /// # Errors
    /// If the address is none.
    pub fn pod(&self, home: &Host, name: &str, address: &str) -> anyhow::Result<Host> {
        let pod = self.switchboard.pod(home, name, address)?;
        pod.serve(&[Port::tcp(PORT), Port::udp(PORT)])?;
        self.route(&pod, home)?;
        Ok(pod)
    }

    /// Tells everybody but its home the way to a pod: over the members' network.
    fn route(&self, pod: &Host, home: &Host) -> anyhow::Result<()> {
        let machines = self.nodes.iter().map(|home| &home.host).chain([&self.worker]);
        // The worker has one cable only, so its address on it is its first.
        let members = if home.name() == self.worker.name() {
            home.ipv4()
        } else {
            let [.., last] = home.ipv4().octets();
            Network::Members.cable(last).address.addr()
        };
        for machine in machines.filter(|machine| machine.name() != home.name()) {
            let interface = if machine.name() == self.worker.name() { "eth0" } else { Network::Members.interface() };
            self.switchboard.route(machine, pod, members, interface)?;
        }
        Ok(())
    }
}

// === Objects ===

impl Lan {
    /// Creates or replaces objects at the API server.
    ///
    /// # Errors
    /// If it refuses one; the error says which and why.
    pub fn apply(&self, objects: impl IntoIterator<Item = Value>) -> anyhow::Result<()> {
        for object in objects {
            self.api.apply(&object).map_err(|status| anyhow::anyhow!("the API server refused {object}: {status:?}"))?;
        }
        Ok(())
    }

    /// A pool `lan` of these addresses, an L2Advertisement `lan` for it on every node, and the Service `web` that has them all, on [`PORT`]. Its
    /// pod is on the worker.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn publish(&self, vips: &[IpAddr]) -> anyhow::Result<()> {
        self.apply([pool("lan", vips), advertisement("lan", &serde_json::json!({ "ipAddressPools": ["lan"] }))])?;
        let service = vips.iter().fold(Service::new("web"), |service, vip| service.vip(*vip));
        self.apply(service.endpoint(&self.echo, None).documents())
    }
}

// === Daemons ===

impl Lan {
    /// Starts `sheave run` on a node. Does not wait: what is to be awaited is that it [announces](Self::await_announcer).
    ///
    /// # Errors
    /// If it is not built, or runs already.
    pub fn start(&mut self, number: usize) -> anyhow::Result<()> {
        let home = &self.nodes[number];
        ensure!(self.daemons[number].is_none(), "the daemon of {} runs already", home.host.name());
        let mut arguments: Vec<String> =
            ["run", "--source", "kube", "--cluster-cidr", POD_NETWORKS, "--node-name", home.host.name()]
                .map(str::to_owned)
                .into();
        arguments.extend(self.api_arguments());
        arguments.extend(self.options.arguments.iter().cloned());
        self.daemons[number] = Some(Daemon::start(home, home.host.name(), &arguments)?);
        Ok(())
    }

    /// Starts it on every node.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        (0..self.size()).try_for_each(|number| self.start(number))
    }

    /// Starts another `sheave controller`, on a machine of its own beside the API server.
    ///
    /// # Errors
    /// If it is not built.
    pub fn start_controller(&mut self) -> anyhow::Result<()> {
        let number = u8::try_from(self.controllers.len()).context("so many controllers?")?;
        let name = format!("controller-{number}");
        let host = self.switchboard.machine(&name, &[Network::Api.cable(50 + number)])?;
        let mut arguments = vec!["controller".to_owned()];
        arguments.extend(self.api_arguments());
        let home = daemon::Home::new(host)?;
        self.controllers.push((Daemon::start(&home, &name, &arguments)?, home));
        Ok(())
    }

    fn api_arguments(&self) -> [String; 4] {
        ["--api-server".to_owned(), self.api.url(), "--log-format".to_owned(), "json".to_owned()]
    }

    /// SIGKILL: nothing is tidied up, nobody is told.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        self.end(number, Signal::SIGKILL).map(drop)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// If it does not run, or does not end.
    pub fn terminate(&mut self, number: usize) -> anyhow::Result<ExitStatus> {
        self.end(number, Signal::SIGTERM)
    }

    /// SIGSTOP: a daemon that is stuck.
    ///
    /// # Errors
    /// If it does not run.
    pub fn stall(&self, number: usize) -> anyhow::Result<()> {
        self.signal(number, Signal::SIGSTOP)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self, number: usize) -> anyhow::Result<()> {
        self.signal(number, Signal::SIGCONT)
    }

    /// Sends a signal to a daemon.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, number: usize, signal: Signal) -> anyhow::Result<()> {
        Ok(self.daemon(number)?.process().signal(signal)?)
    }

    /// The process of a node's daemon.
    ///
    /// # Errors
    /// If it does not run.
    pub fn daemon_id(&self, number: usize) -> anyhow::Result<u32> {
        Ok(self.daemon(number)?.process().id())
    }

    /// Waits for a message in the log of a node's daemon that contains a text, among those that no earlier wait has passed.
    ///
    /// # Errors
    /// If none comes in time, or it ends before.
    pub fn await_log(&self, number: usize, text: &str, limit: Duration) -> anyhow::Result<String> {
        self.daemon(number)?.log().await_message(text, limit)
    }

    /// How many messages of a node's daemon contain a text, since it was started.
    #[must_use]
    pub fn count_log(&self, number: usize, text: &str) -> usize {
        self.daemon(number).map_or(0, |daemon| daemon.log().count(text))
    }

    /// Runs another command of sheave on a node, beside its daemon: `sheave(0, &["get", "vips"])`.
    ///
    /// # Errors
    /// If it cannot be started. Its failure is in the result.
    pub fn sheave(&self, number: usize, arguments: &[&str]) -> anyhow::Result<Finished> {
        self.nodes[number].run(arguments)
    }

    fn daemon(&self, number: usize) -> anyhow::Result<&Daemon> {
        self.daemons[number].as_ref().with_context(|| format!("no daemon runs on {}", self.node(number).name()))
    }

    fn end(&mut self, number: usize, signal: Signal) -> anyhow::Result<ExitStatus> {
        let name = self.node(number).name().to_owned();
        let daemon = self.daemons[number].take().with_context(|| format!("no daemon runs on {name}"))?;
        daemon.end(signal)
    }
}

// === What the LAN sees ===

impl Lan {
    /// The node with this hardware address on the LAN.
    #[must_use]
    pub fn owner(&self, mac: Mac) -> Option<usize> {
        (0..self.size()).find(|&number| self.mac(number).is_ok_and(|own| own == mac))
    }

    /// The nodes that answer for an address, asked once.
    ///
    /// # Errors
    /// If somebody answers who is none of them.
    pub fn answering(&self, vip: IpAddr) -> anyhow::Result<Vec<usize>> {
        let macs = self.recorder.who_has(vip, patiently(ANSWER))?;
        macs.into_iter().map(|mac| self.owner(mac).with_context(|| format!("{mac} answers for {vip}"))).collect()
    }

    /// Waits until exactly one node answers for an address, and says which.
    ///
    /// # Errors
    /// If that does not come about.
    pub fn await_announcer(&self, vip: IpAddr) -> anyhow::Result<usize> {
        self.await_answers(vip, |answering| answering.len() == 1).map(|answering| answering[0])
    }

    /// Waits until this node and nobody else answers for an address.
    ///
    /// # Errors
    /// If that does not come about.
    pub fn await_announced_by(&self, vip: IpAddr, number: usize) -> anyhow::Result<()> {
        self.await_answers(vip, |answering| *answering == [number]).map(drop)
    }

    /// Waits until nobody answers for an address.
    ///
    /// # Errors
    /// If somebody goes on.
    pub fn await_silence(&self, vip: IpAddr) -> anyhow::Result<()> {
        self.await_answers(vip, <[usize]>::is_empty).map(drop)
    }

    fn await_answers(&self, vip: IpAddr, wanted: impl Fn(&[usize]) -> bool) -> anyhow::Result<Vec<usize>> {
        let limit = patiently(SETTLING);
        let deadline = Instant::now() + limit;
        loop {
            let answering = self.answering(vip)?;
            if wanted(&answering) {
                return Ok(answering);
            }
            if Instant::now() > deadline {
                let names: Vec<&str> = answering.iter().map(|&number| self.node(number).name()).collect();
                bail!("after {limit:?} these answer for {vip}: {names:?}");
            }
        }
    }
}

/// A network and an address in it.
fn within(network: Ipv4Net, last: u8) -> Ipv4Net {
    let [a, b, c, _] = network.addr().octets();
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, last), network.prefix_len())
}
