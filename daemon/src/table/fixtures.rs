//! Desired state in a few words, for the tests of this module.

use std::net::IpAddr;

use super::{Backend, Frontend, FrontendAddress, FrontendKind, Notice, PortId, Scope, ServicePort, ServiceTable};
use crate::model::{Family, Protocol, ServiceKey, TrafficPolicy};
use crate::policy::{Desired, DesiredPort, Seniority};

/// What `set_service` takes.
pub(super) type Staged = Option<(Desired, Seniority)>;

pub(super) fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

pub(super) fn id(service: &str, port: &str) -> PortId {
    PortId { service: key(service), name: port.into(), protocol: Protocol::Tcp, family: Family::V4 }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn at(address: &str, port: u16) -> FrontendAddress {
    FrontendAddress::Ip { ip: ip(address), protocol: Protocol::Tcp, port }
}

/// A backend; a `*` behind it makes it local.
pub(super) fn backend(text: &str) -> Backend {
    Backend { address: text.trim_end_matches('*').parse().unwrap(), local: text.ends_with('*') }
}

pub(super) fn backends(list: &[&str]) -> Vec<Backend> {
    list.iter().map(|text| backend(text)).collect()
}

/// A port without frontends and backends.
pub(super) fn port(service: &str, name: &str) -> DesiredPort {
    DesiredPort {
        id: id(service, name),
        frontends: Vec::new(),
        cluster: Vec::new(),
        local: Vec::new(),
        any_usable: true,
        affinity: None,
        serving: [].into(),
    }
}

/// A Service of this age.
pub(super) fn service<const N: usize>(created: i64, ports: [DesiredPort; N]) -> Staged {
    Some((Desired { ports: ports.into(), notices: Vec::new() }, Seniority { created, uid: "uid".into() }))
}

impl DesiredPort {
    pub(super) fn frontend(mut self, kind: FrontendKind, address: FrontendAddress, policy: TrafficPolicy) -> Self {
        self.frontends.push(Frontend { address, kind, policy, source_ranges: None });
        self
    }

    pub(super) fn cluster_ip(self, address: &str, port: u16) -> Self {
        self.frontend(FrontendKind::ClusterIp, at(address, port), TrafficPolicy::Cluster)
    }

    pub(super) fn external_ip(self, address: &str, port: u16) -> Self {
        self.frontend(FrontendKind::ExternalIp, at(address, port), TrafficPolicy::Cluster)
    }

    pub(super) fn to(mut self, cluster: &[&str]) -> Self {
        self.cluster = backends(cluster);
        self
    }

    pub(super) fn locally_to(mut self, local: &[&str]) -> Self {
        self.local = backends(local);
        self
    }
}

impl ServiceTable {
    /// Stages these and commits.
    pub(super) fn put<const N: usize>(&mut self, services: [(&str, Staged); N]) -> super::Committed {
        for (name, service) in services {
            self.set_service(key(name), service);
        }
        self.commit()
    }

    /// Name of the Service that holds it.
    pub(super) fn held_by(&self, address: FrontendAddress) -> Option<&str> {
        self.holder(&address).map(|port| port.id.service.name())
    }
}

impl ServicePort {
    pub(super) fn addresses(&self, scope: Scope) -> Vec<String> {
        self.set(scope).iter().map(|backend| backend.address.to_string()).collect()
    }
}

/// Reasons and subjects of notices.
pub(super) fn reasons(notices: &[Notice]) -> Vec<(&str, &'static str)> {
    notices.iter().map(|notice| (notice.service.name(), notice.reason)).collect()
}
