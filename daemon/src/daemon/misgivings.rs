//! Services that are served as they ask, and take something from somebody by it, or from themselves: the node's own address, a pod's, a
//! port at which this daemon listens. kube-proxy serves them without a word. An API server would allocate none of it, so it takes manifests, or networks
//! that overlap, to come here.
//!
//! Looked at after the commit, and only where something changed: the kernel waits for none of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Options, SourceOptions};
use crate::model::{Family, Index, Protocol, Service, ServiceKey, ServicePortSpec};
use crate::table::{FrontendAddress, NodeState, Notice, ServiceTable};

/// What else listens on a node and is missed most when it cannot be reached: how one would mend this.
const MISSED_MOST: [(u16, &str); 2] = [(22, "SSH"), (10_250, "the kubelet")];

/// What becomes of an address that is somebody's already.
const INSTEAD: &str = "connections from here to the Service's ports there go to its endpoints instead, and others may be refused";

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
    /// `healthCheckNodePort`s, which this daemon answers as well, and whose they are; and the other way round.
    health_checks: HashMap<u16, ServiceKey>,
    checked_at: HashMap<ServiceKey, u16>,
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
        let mut looked_at: Vec<ServiceKey> = if std::mem::take(&mut self.all) {
            let gone = changed.into_iter().filter(|key| index.service(key).is_none());
            gone.chain(index.services().map(|service| service.key.clone())).collect()
        } else {
            changed
        };
        // All before any is noted: a port may pass from one to another.
        for key in &looked_at {
            if let Some(port) = self.checked_at.remove(key) {
                self.health_checks.remove(&port);
            }
        }
        for key in &looked_at {
            if let Some(check) = table.health_check_of(key) {
                self.health_checks.insert(check.port.get(), key.clone());
                self.checked_at.insert(key.clone(), check.port.get());
            }
        }
        // The other party of a port that two want did not change, and what was said may be over.
        let others: Vec<_> = looked_at.iter().flat_map(|key| self.other_parties(key, index, table)).collect();
        looked_at.extend(others.into_iter().chain(self.said.keys().cloned()));
        let mut news = News::default();
        for key in looked_at {
            let found = index.service(&key).map(|service| self.judge(service, index, table)).unwrap_or_default();
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

    /// Who has the healthCheckNodePort of a Service as a nodePort, and the other way round; and whose nodePorts are taken at an address
    /// of this node's that the Service has.
    fn other_parties(&self, key: &ServiceKey, index: &Index, table: &ServiceTable) -> Vec<ServiceKey> {
        let holders = self.checked_at.get(key).and_then(|port| holder(*port, table));
        let node_ports = index.service(key).into_iter().flat_map(|service| &service.ports).map(|port| port.node_port);
        let checks = node_ports.filter_map(|port| self.health_checks.get(&port));
        let own = index.service(key).into_iter().filter(|_| !self.surroundings.own.is_empty());
        let own = own.flat_map(|service| outward(service).map(move |(_, ip)| (service, ip)));
        let shadowed = own.filter(|(_, ip)| self.surroundings.own.contains(ip)).flat_map(|(service, ip)| {
            service.ports.iter().filter_map(move |port| {
                let node_port = FrontendAddress::NodePort { family: Family::of(ip), protocol: port.protocol, port: port.port };
                table.holder(&node_port).map(|holder| &holder.id.service)
            })
        });
        holders.into_iter().chain(checks).chain(shadowed).filter(|other| *other != key).cloned().collect()
    }

    fn judge(&self, service: &Service, index: &Index, table: &ServiceTable) -> Vec<Notice> {
        let mut found = Vec::new();
        let mut note = |reason, field: &str, what: String| {
            let notice = Notice { service: service.key.clone(), reason, subject: None, message: format!("{field}: {what}") };
            if !found.contains(&notice) {
                found.push(notice);
            }
        };
        for &ip in &service.cluster_ips {
            if let Some(what) = self.whose(ip, table) {
                note("AddressOverlap", "spec.clusterIP", what);
            }
            if let Some(endpoint) = own_endpoint(service, ip, index, table) {
                let what = format!("{ip} is the ClusterIP of this very Service: what gets there goes nowhere, and it is served");
                note("AddressOverlap", &endpoint, what);
            }
        }
        for (field, ip) in outward(service) {
            let served = |port: &&ServicePortSpec| {
                let frontend = FrontendAddress::Ip { ip, protocol: port.protocol, port: port.port };
                table.holder(&frontend).is_some_and(|holder| holder.id.service == service.key)
            };
            if table.is_local_endpoint(ip) && service.ports.iter().any(|port| served(&port)) {
                note("AddressOverlap", field, of_a_pod(ip));
            }
            if !self.surroundings.own.contains(&ip) {
                continue;
            }
            for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp).filter(served) {
                if let Some(missed) = self.missed(port.port) {
                    let what =
                        format!("connections to {ip}:{} on this node go to this Service, and {missed} gets none", port.port);
                    note("PortOverlap", field, what);
                }
            }
        }
        for (place, port) in service.ports.iter().enumerate().filter(|(_, port)| port.node_port != 0) {
            for &ip in &self.surroundings.own {
                let frontend = FrontendAddress::Ip { ip, protocol: port.protocol, port: port.node_port };
                let other = table.holder(&frontend).map(|holder| &holder.id.service).filter(|other| **other != service.key);
                if let Some(other) = other {
                    let what = format!(
                        "{other} has {ip}, an address of this node: who asks there for {} gets that Service",
                        port.node_port
                    );
                    note("FrontendConflict", &format!("spec.ports[{place}].nodePort"), what);
                }
            }
        }
        for (place, port) in service.ports.iter().enumerate().filter(|(_, port)| port.protocol == Protocol::Tcp) {
            let number = port.node_port;
            let answers = |path| format!("{number} is where this daemon answers {path}: who asks there gets this Service");
            let goes = |missed| format!("connections to {number} of this node go to this Service, and {missed} gets none there");
            let what = self.answers(number).map(answers).or_else(|| missed_most(number).map(goes));
            if let Some(what) = what {
                note("PortOverlap", &format!("spec.ports[{place}].nodePort"), what);
            }
        }
        if let Some(check) = table.health_check_of(&service.key) {
            let port = check.port.get();
            if let Some(holder) = holder(port, table) {
                let what = format!("{port} is a nodePort of {holder}: a load balancer that asks there gets that Service");
                note("PortOverlap", "spec.healthCheckNodePort", what);
            }
        }
        found
    }

    /// What a ClusterIP is beside that.
    fn whose(&self, ip: IpAddr, table: &ServiceTable) -> Option<String> {
        let Surroundings { own, service_cidrs, listening: _ } = &self.surroundings;
        if own.contains(&ip) {
            return Some(format!("{ip} is an address of this node: {INSTEAD}"));
        }
        if table.is_local_endpoint(ip) {
            return Some(of_a_pod(ip));
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
        self.answers(port).map(|what| format!("this daemon's {what}")).or_else(|| missed_most(port).map(str::to_owned))
    }

    /// What this daemon answers at a port.
    fn answers(&self, port: u16) -> Option<String> {
        let server = self.surroundings.listening.get(&port).map(|path| (*path).to_owned());
        server.or_else(|| self.health_checks.get(&port).map(|service| format!("the healthCheckNodePort of {service}")))
    }
}

/// The addresses that a Service has beside its ClusterIPs, and from which field.
fn outward(service: &Service) -> impl Iterator<Item = (&'static str, IpAddr)> + '_ {
    let external = service.external_ips.iter().map(|ip| ("spec.externalIPs", *ip));
    external.chain(service.vips.iter().map(|ip| ("status.loadBalancer.ingress", *ip)))
}

fn of_a_pod(ip: IpAddr) -> String {
    format!("{ip} is the address of a pod on this node: {INSTEAD}")
}

/// Which endpoint in use has the ClusterIP of its own Service, and is translated to what is never translated again.
fn own_endpoint(service: &Service, ip: IpAddr, index: &Index, table: &ServiceTable) -> Option<String> {
    // The slots of a set are a few bytes each, where slices are not.
    let mut sets = table.ports_of(&service.key).flat_map(|port| [&port.cluster, &port.local]);
    if !sets.any(|set| set.slots().iter().any(|slot| slot.ip() == ip)) {
        return None;
    }
    index.slices(&service.key).find_map(|slice| {
        // Without its place: endpoints that cannot be used were left out.
        let has = slice.endpoints.iter().any(|endpoint| endpoint.address == ip);
        has.then(|| format!("endpoint {ip} of EndpointSlice {}", slice.key))
    })
}

/// What else listens there on a node.
fn missed_most(port: u16) -> Option<&'static str> {
    MISSED_MOST.iter().find(|(missed, _)| *missed == port).map(|(_, what)| *what)
}

/// Whose nodePort over TCP a port is.
fn holder(port: u16, table: &ServiceTable) -> Option<&ServiceKey> {
    let node_port = |family| FrontendAddress::NodePort { family, protocol: Protocol::Tcp, port };
    let holder = Family::ALL.iter().find_map(|&family| table.holder(&node_port(family)))?;
    Some(&holder.id.service)
}

#[cfg(test)]
mod tests;
