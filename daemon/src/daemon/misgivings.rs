//! Services that are served as they ask, and take something from somebody by it: the node's own address, a pod's, a port at which this
//! daemon listens. kube-proxy serves them without a word. An API server would allocate none of it, so it takes manifests, or networks
//! that overlap, to come here.
//!
//! Looked at after the commit, and only where something changed: the kernel waits for none of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Options, SourceOptions};
use crate::model::{Family, Index, Protocol, Service, ServiceKey};
use crate::table::{FrontendAddress, NodeState, Notice, ServiceTable};

/// What else listens on a node and is missed most when it cannot be reached: how one would mend this.
const MISSED_MOST: [(u16, &str); 2] = [(22, "SSH"), (10_250, "the kubelet")];

/// What a Service could take something from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Addresses of this node, without those of loopback.
    own: BTreeSet<IpAddr>,
    service_cidrs: BTreeSet<IpNet>,
    /// Ports at which this daemon answers, and what.
    listening: BTreeMap<u16, &'static str>,
}

/// What was said of each Service.
#[derive(Debug, Default)]
pub(super) struct Misgivings {
    surroundings: Surroundings,
    /// The surroundings changed: every Service has to be looked at again.
    all: bool,
    said: HashMap<ServiceKey, Vec<Notice>>,
    /// `healthCheckNodePort`s, which this daemon answers as well.
    health_checks: HashMap<u16, ServiceKey>,
}

/// What holds from now on, and what no longer does.
#[derive(Debug, Default, PartialEq)]
pub(super) struct News {
    pub(super) raised: Vec<Notice>,
    pub(super) cleared: Vec<Notice>,
}

impl Surroundings {
    /// `local` are the addresses of all interfaces. With an API server the Node's own count instead: after kube-proxy's IPVS mode every
    /// ClusterIP is on an interface, and nobody's mistake.
    pub(super) fn new(options: &Options, index: &Index, local: &BTreeSet<IpAddr>, state: &NodeState) -> Self {
        let mut own: BTreeSet<IpAddr> =
            index.node().into_iter().flat_map(|node| &node.addresses).map(|own| own.address).collect();
        if matches!(options.source, SourceOptions::Manifests(_)) {
            own.extend(local);
        }
        own.retain(|ip| !ip.is_loopback());
        let servers = [(options.servers.healthz, "/healthz"), (options.servers.metrics, "/metrics")];
        let listening = servers.into_iter().filter_map(|(address, path)| Some((address?.port(), path))).collect();
        Self { own, service_cidrs: state.service_cidrs.clone(), listening }
    }
}

impl Misgivings {
    pub(super) fn set_surroundings(&mut self, surroundings: Surroundings) {
        if self.surroundings != surroundings {
            self.surroundings = surroundings;
            self.all = true;
        }
    }

    /// Looks at the Services that changed, the table being settled.
    pub(super) fn look(&mut self, changed: Vec<ServiceKey>, index: &Index, table: &ServiceTable) -> News {
        let looked_at = if std::mem::take(&mut self.all) {
            // Those that are gone are among the changed.
            changed.into_iter().chain(index.services().map(|service| service.key.clone())).collect()
        } else {
            changed
        };
        for key in &looked_at {
            self.note_health_check(key, table);
        }
        let mut news = News::default();
        for key in looked_at {
            let found = index.service(&key).map(|service| self.judge(service, table)).unwrap_or_default();
            let known = self.said.get(&key).map_or(&[][..], Vec::as_slice);
            news.raised.extend(found.iter().filter(|notice| !known.contains(notice)).cloned());
            news.cleared.extend(known.iter().filter(|notice| !found.contains(notice)).cloned());
            if found.is_empty() {
                self.said.remove(&key);
            } else {
                self.said.insert(key, found);
            }
        }
        news
    }

    fn note_health_check(&mut self, key: &ServiceKey, table: &ServiceTable) {
        if !self.health_checks.is_empty() {
            self.health_checks.retain(|_, owner| owner != key);
        }
        if let Some(check) = table.health_check_of(key) {
            self.health_checks.insert(check.port.get(), key.clone());
        }
    }

    fn judge(&self, service: &Service, table: &ServiceTable) -> Vec<Notice> {
        let mut found = Vec::new();
        let mut note = |reason, field: &str, what: String| {
            let notice = Notice { service: service.key.clone(), reason, message: format!("{field}: {what}") };
            if !found.contains(&notice) {
                found.push(notice);
            }
        };
        for &ip in &service.cluster_ips {
            if let Some(what) = self.whose(ip, table) {
                note("AddressOverlap", "spec.clusterIP", what);
            }
        }
        for (field, addresses) in [("spec.externalIPs", &service.external_ips), ("status.loadBalancer.ingress", &service.vips)] {
            for ip in addresses.iter().filter(|ip| self.surroundings.own.contains(ip)) {
                for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
                    if let Some(missed) = self.missed(port.port) {
                        let what =
                            format!("connections to {ip}:{} on this node go to this Service, and {missed} gets none", port.port);
                        note("PortOverlap", field, what);
                    }
                }
            }
        }
        for (place, port) in service.ports.iter().enumerate().filter(|(_, port)| port.protocol == Protocol::Tcp) {
            if let Some(answers) = self.answers(port.node_port) {
                let what = format!("{} is where this daemon answers {answers}: who asks there gets this Service", port.node_port);
                note("PortOverlap", &format!("spec.ports[{place}].nodePort"), what);
            }
        }
        if let Some(check) = table.health_check_of(&service.key) {
            let port = check.port.get();
            let node_port = |family| FrontendAddress::NodePort { family, protocol: Protocol::Tcp, port };
            if let Some(holder) = Family::ALL.iter().find_map(|&family| table.holder(&node_port(family))) {
                let what =
                    format!("{port} is a nodePort of {}: a load balancer that asks there gets that Service", holder.id.service);
                note("PortOverlap", "spec.healthCheckNodePort", what);
            }
        }
        found
    }

    /// What a ClusterIP is beside that.
    fn whose(&self, ip: IpAddr, table: &ServiceTable) -> Option<String> {
        let Surroundings { own, service_cidrs, listening: _ } = &self.surroundings;
        let instead = "connections from here to the Service's ports there go to its endpoints instead, and others may be refused";
        if own.contains(&ip) {
            return Some(format!("{ip} is an address of this node: {instead}"));
        }
        if table.is_local_endpoint(ip) {
            return Some(format!("{ip} is the address of a pod on this node: {instead}"));
        }
        let mut of_family = service_cidrs.iter().filter(|cidr| Family::of(cidr.addr()) == Family::of(ip)).peekable();
        of_family.peek()?;
        if of_family.clone().any(|cidr| cidr.contains(&ip)) {
            return None;
        }
        let known = of_family.map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Some(format!(
            "{ip} is in no ServiceCIDR ({known}): it is served, and whoever else has that address is not reached from here"
        ))
    }

    /// What does not get the connections to a port of the node itself.
    fn missed(&self, port: u16) -> Option<String> {
        let missed_most = || MISSED_MOST.iter().find(|(missed, _)| *missed == port).map(|(_, what)| (*what).to_owned());
        self.answers(port).map(|what| format!("this daemon's {what}")).or_else(missed_most)
    }

    /// What this daemon answers at a port.
    fn answers(&self, port: u16) -> Option<String> {
        let server = self.surroundings.listening.get(&port).map(|path| (*path).to_owned());
        server.or_else(|| self.health_checks.get(&port).map(|service| format!("the healthCheckNodePort of {service}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Servers;
    use crate::model::{Endpoint, ObjectKey, ServiceType, TrafficPolicy, samples};
    use crate::policy::Context;
    use crate::reconciler::{Purpose, Reconciler};
    use crate::source::{Change, Object};

    const OWN: &str = "192.168.0.2";

    /// A node named `n`, and the Services of a test.
    struct World {
        reconciler: Reconciler,
        misgivings: Misgivings,
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey::new("default", name)
    }

    impl World {
        fn new() -> Self {
            let reconciler = Reconciler::new(Context { node_name: "n".into(), ..Context::default() });
            let mut world = Self { reconciler, misgivings: Misgivings::default() };
            world.surrounded_by(&["10.96.0.0/16"]);
            world
        }

        fn surrounded_by(&mut self, cidrs: &[&str]) {
            let at = |address: &str| Some(address.parse().unwrap());
            let servers = Servers { healthz: at("0.0.0.0:10256"), metrics: at("127.0.0.1:10249"), bind_address_hard_fail: false };
            let options = Options { servers, ..Options::new("n".into(), SourceOptions::Manifests("".into())) };
            let local = ["127.0.0.1", OWN].map(ip).into_iter().collect();
            let state =
                NodeState { service_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(), ..NodeState::default() };
            self.misgivings.set_surroundings(Surroundings::new(&options, self.reconciler.index(), &local, &state));
        }

        /// What is raised, and how much is cleared.
        fn put(&mut self, services: impl IntoIterator<Item = Service>) -> (Vec<String>, usize) {
            for service in services {
                self.reconciler.apply(Change::Applied(Object::Service(Box::new(service))));
            }
            self.look()
        }

        fn look(&mut self) -> (Vec<String>, usize) {
            let dirty = self.reconciler.take_dirty();
            let changed = dirty.services.keys().cloned().collect();
            self.reconciler.reconcile(dirty, Purpose::Delta, |_, _| {});
            let News { raised, cleared } = self.misgivings.look(changed, self.reconciler.index(), self.reconciler.table());
            let mut raised: Vec<_> = raised.into_iter().map(|notice| format!("{} {}", notice.service, notice.message)).collect();
            raised.sort();
            (raised, cleared.len())
        }
    }

    #[test]
    fn an_ordinary_service_gives_none_and_neither_does_loopback() {
        let mut world = World::new();
        assert_eq!(world.put([samples::service(key("web"), ip("10.96.0.1"))]), (vec![], 0));
        let own =
            Service { external_ips: vec![ip(OWN)], vips: vec![ip(OWN)], ..samples::service(key("ingress"), ip("10.96.0.2")) };
        assert_eq!(world.put([own]), (vec![], 0), "an externalIP that is the node's is what they are for");
    }

    #[test]
    fn a_cluster_ip_that_is_somebodys_is_named_once_and_until_it_is_not() {
        let mut world = World::new();
        let local = Endpoint { node: Some("n".into()), ..samples::endpoint(ip("10.244.0.7")) };
        let slice = samples::slice(ObjectKey::new("default", "web-a"), key("web"), [local]);
        world.reconciler.apply(Change::Applied(Object::EndpointSlice(Box::new(slice))));
        world.put([samples::service(key("web"), ip("10.96.0.1"))]);
        let of = |name: &str, address: &str| samples::service(key(name), ip(address));
        let (told, _) = world.put([of("node", OWN), of("pod", "10.244.0.7"), of("stray", "172.30.0.1")]);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("default/node spec.clusterIP: 192.168.0.2 is an address of this node: "), "{told:?}");
        assert!(told[1].starts_with("default/pod spec.clusterIP: 10.244.0.7 is the address of a pod on this node: "), "{told:?}");
        assert!(
            told[2].starts_with("default/stray spec.clusterIP: 172.30.0.1 is in no ServiceCIDR (10.96.0.0/16): "),
            "{told:?}"
        );
        assert_eq!(world.put([Service { affinity: std::num::NonZeroU32::new(9), ..of("node", OWN) }]), (vec![], 0));
        world.surrounded_by(&["10.96.0.0/16", "172.30.0.0/16"]);
        assert_eq!(world.look(), (vec![], 1), "another ServiceCIDR");
        world.surrounded_by(&[]);
        assert_eq!(world.look(), (vec![], 0), "where none is known, nothing is outside");
        assert_eq!(world.put([of("node", "10.96.0.9")]), (vec![], 1));
        world.reconciler.apply(Change::Deleted(crate::source::Kind::Service, key("pod")));
        assert_eq!(world.look(), (vec![], 1), "gone");
    }

    #[test]
    fn ports_at_which_the_daemon_answers_are_named() {
        let mut world = World::new();
        let node_port = |name: &str, address: &str, number| {
            let mut service = samples::service(key(name), ip(address));
            service.ports[0].node_port = number;
            service
        };
        let checked = Service {
            kind: ServiceType::LoadBalancer,
            external_traffic_policy: TrafficPolicy::Local,
            health_check_node_port: 31_000,
            ..samples::service(key("lb"), ip("10.96.0.1"))
        };
        let ssh = Service {
            external_ips: vec![ip(OWN)],
            ports: vec![samples::port("", Protocol::Tcp, 22)],
            ..samples::service(key("ssh"), ip("10.96.0.5"))
        };
        let services = [
            checked,
            node_port("a", "10.96.0.2", 10_256),
            node_port("b", "10.96.0.3", 10_249),
            node_port("c", "10.96.0.4", 31_000),
            ssh,
        ];
        let (told, _) = world.put(services);
        assert_eq!(
            told,
            [
                "default/a spec.ports[0].nodePort: 10256 is where this daemon answers /healthz: who asks there gets this Service",
                "default/b spec.ports[0].nodePort: 10249 is where this daemon answers /metrics: who asks there gets this Service",
                "default/c spec.ports[0].nodePort: 31000 is where this daemon answers the healthCheckNodePort of default/lb: who asks there gets this Service",
                "default/lb spec.healthCheckNodePort: 31000 is a nodePort of default/c: a load balancer that asks there gets that Service",
                "default/ssh spec.externalIPs: connections to 192.168.0.2:22 on this node go to this Service, and SSH gets none",
            ]
        );
    }
}
