//! A network with a node, a pod that answers, clients in three places, and the rules of one proxy, or none.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sheave_lab::{Host, Lab, Namespace};
use sheave_tests::apiserver::load::{Load, Shape};
use sheave_tests::apiserver::{ApiServer, Config};

use super::exchange::{Backends, Target};
use super::rounds::Measure;
use super::seen::Seen;
use super::source_ports::SourcePorts;
use super::subject::{CLIENT, CLUSTER_IP, FIRST_POD_PORT, NODE_PORT, Place, SERVER, SERVICE_PORT, Subject, VIP};
use super::{conntrack, tcp, udp};
use crate::peer::Access;
use crate::probe;
use crate::proxy::{NODE, NODE_ADDRESS, Proxy, Server};

/// One network under one proxy with so many Services.
pub(super) struct Site {
    // Fields drop in order: the proxy ends before its API server and its network do.
    proxy: Option<Proxy>,
    /// Answers the proxy's watches.
    _api_server: Option<ApiServer>,
    /// Whose rules, and with how many Services. `None`: nobody's, as if there were no Services.
    pub(super) rules: Option<(Server, u32)>,
    backends: Arc<Backends>,
    client: Host,
    lab: Lab,
    endpoints: u16,
}

/// How a slot is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    pub(super) lasting: Duration,
    /// Of [`Measure::TcpMany`].
    pub(super) clients: u16,
    /// The processor that both ends are bound to, if to one.
    pub(super) processor: Option<usize>,
}

/// A SYN to an address that is not programmed is lost; the next attempt must not wait for its retransmission.
const ATTEMPT: Duration = Duration::from_millis(20);

impl Site {
    /// Builds a network without rules.
    pub(super) fn bare(endpoints: u16) -> Result<Self> {
        let lab = Lab::new().context("building the network")?;
        let server = lab.pod("server", &SERVER.to_string())?;
        // See `tcp`.
        server.sysctl("net.ipv4.tcp_max_tw_buckets", "0")?;
        let client = lab.pod("client", &CLIENT.to_string())?;
        let ports = (0..endpoints).map(|place| FIRST_POD_PORT + place);
        let backends = Arc::new(server.run(|| Backends::open(SERVER, ports))??);
        Ok(Self { proxy: None, _api_server: None, rules: None, backends, client, lab, endpoints })
    }

    /// Builds one, fills an API server with so many Services, starts the proxy and waits until the pod answers to everybody.
    pub(super) fn ruled(server: &Server, services: u32, endpoints: u16) -> Result<Self> {
        let mut site = Self::bare(endpoints)?;
        let api_server =
            site.lab.node().run(|| ApiServer::start(Config::default()))?.context("starting the API server double")?;
        // The measured Service is one of them.
        let shape = Shape { services: services - 1, endpoints_per_service: endpoints.into(), ..Shape::default() };
        Load::fill(&api_server, shape).context("filling the API server double")?;
        for object in objects(endpoints) {
            api_server.apply(&object).with_context(|| format!("creating {} of the measured Service", object["kind"]))?;
        }
        let mut proxy = server.start(site.lab.node(), Access::Double(&api_server.url()))?;
        site.await_answers(&mut proxy)?;
        proxy.ensure_wrote(server, services)?;
        site.proxy = Some(proxy);
        site._api_server = Some(api_server);
        site.rules = Some((server.clone(), services));
        Ok(site)
    }

    /// What can be measured here. Without rules there are only pods to go straight to.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject> + use<> {
        let bare = self.rules.is_none();
        Subject::ALL.into_iter().filter(move |subject| !bare || *subject == subject.straight())
    }

    /// Runs one slot.
    pub(super) fn measure(&self, subject: Subject, measure: Measure, effort: Effort) -> Result<Seen> {
        self.lab.node().run(conntrack::forget)??;
        let mut target = Target::new(subject.addresses(self.endpoints));
        let backends = &*self.backends;
        let seen = self.place(subject.place).run(|| {
            bind_to(effort.processor)?;
            let clients = if measure == Measure::TcpMany { effort.clients } else { 1 };
            let mut parts = SourcePorts::parts(clients);
            let first = parts.first_mut().context("a slot without a client")?;
            let seen = match measure {
                Measure::UdpFirst => udp::fresh(backends, &mut target, first, effort.lasting),
                Measure::UdpEstablished => udp::established(backends, &mut target, first, effort.lasting),
                Measure::TcpOne => tcp::one(backends, &mut target, first, effort.lasting),
                Measure::TcpMany => tcp::many(backends, &target, parts, effort.lasting),
            };
            seen.with_context(|| format!("{subject}, {}", measure.name()))
        })??;
        ensure!(!seen.latency.is_empty(), "{subject}, {}: none of {} questions was answered", measure.name(), seen.lost);
        Ok(seen)
    }

    /// Whether its rules are those of somebody else: whoever brings a kube-proxy may bring one that fails, and loses it alone.
    pub(super) fn is_of_a_peer(&self) -> bool {
        matches!(self.rules, Some((Server::KubeProxy(_), _)))
    }

    /// Whether the proxy still serves.
    pub(super) fn ensure_running(&mut self) -> Result<()> {
        self.proxy.as_mut().map_or(Ok(()), Proxy::ensure_running)
    }

    fn place(&self, place: Place) -> &Namespace {
        match place {
            Place::Pod => &self.client,
            Place::Node => self.lab.node(),
            Place::Outside => self.lab.client(),
        }
    }

    fn await_answers(&self, proxy: &mut Proxy) -> Result<()> {
        for subject in Subject::ALL {
            let mut target = Target::new(subject.addresses(self.endpoints));
            let mut ports = SourcePorts::parts(1).into_iter().flatten().cycle();
            let answers = || -> Result<bool> {
                let (to, port) = (target.next()?, ports.next().context("no source ports")?);
                Ok(self.place(subject.place).run(|| tcp::answers(&self.backends, to, port, ATTEMPT))??)
            };
            probe::await_through(proxy, &subject.to_string(), answers)?;
        }
        Ok(())
    }
}

/// Binds the calling thread, and those that it starts, to a processor.
pub(super) fn bind_to(processor: Option<usize>) -> Result<()> {
    let Some(processor) = processor else { return Ok(()) };
    let mut set = CpuSet::new();
    let bound = set.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    bound.with_context(|| format!("--processor {processor}: it cannot be had"))
}

/// The node and the measured Service. Its endpoints are ports of one pod: a slice has one number for a named port, so there is a
/// slice for each.
fn objects(endpoints: u16) -> Vec<Value> {
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": SERVICE_PORT, "targetPort": name, "nodePort": NODE_PORT});
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
            "status": {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "measured", "namespace": "default"},
            "spec": {"type": "LoadBalancer", "clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP],
                "externalTrafficPolicy": "Cluster", "ports": [port("tcp", "TCP"), port("udp", "UDP")]},
            "status": {"loadBalancer": {"ingress": [{"ip": VIP, "ipMode": "VIP"}]}}}),
    ];
    objects.extend((0..endpoints).map(|place| {
        let number = FIRST_POD_PORT + place;
        let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": number});
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("measured-{place}"), "namespace": "default",
                "labels": {"kubernetes.io/service-name": "measured"}},
            "endpoints": [{"addresses": [SERVER], "nodeName": NODE, "conditions": {"ready": true}}],
            "ports": [port("tcp", "TCP"), port("udp", "UDP")]})
    }));
    objects
}
