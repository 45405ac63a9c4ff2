//! What a Service port answers to.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Context, addresses, ranges, service};
use crate::model::{Family, Service, ServicePortSpec, TrafficPolicy};
use crate::table::{Frontend, FrontendAddress, FrontendKind, Notice};

/// What all ports of a Service have in common in one family: the addresses, and who may use them.
#[derive(Debug)]
pub(super) struct FamilyFrontends {
    family: Family,
    /// Strongest kind first, no address twice: an address that is both a VIP and an externalIP is a VIP, with its source ranges.
    addresses: Vec<(IpAddr, FrontendKind)>,
    internal_policy: TrafficPolicy,
    external_policy: TrafficPolicy,
    source_ranges: Option<Arc<[IpNet]>>,
}

/// What a Service asks for beside its ClusterIPs, VIPs first, each with its field.
fn asked<'a>(service: &'a Service, context: &Context) -> [(&'static str, &'a [IpAddr]); 2] {
    let external_ips = if context.external_ips_denied { &[][..] } else { &service.external_ips };
    [("status.loadBalancer.ingress[].ip", &service.vips), ("spec.externalIPs", external_ips)]
}

/// What is asked for in a family in which nothing of the Service is served. Nothing is said of one that is served in none.
pub(super) fn note_strangers(service: &Service, family: Family, context: &Context, notices: &mut Vec<Notice>) {
    if Family::ALL.into_iter().any(|other| service::cluster_ip(service, other).is_some()) {
        for (field, asked) in asked(service, context) {
            addresses::note_strangers(service, field, asked, family, context, notices);
        }
    }
}

impl FamilyFrontends {
    /// Addresses that are refused go to `notices`.
    pub(super) fn new(
        service: &Service,
        family: Family,
        cluster_ip: IpAddr,
        context: &Context,
        notices: &mut Vec<Notice>,
    ) -> Self {
        let [vips, external_ips] =
            asked(service, context).map(|(field, asked)| addresses::accepted(service, field, asked, family, context, notices));
        let source_ranges = ranges::source_ranges(service, family, &vips, context);

        let mut addresses = vec![(cluster_ip, FrontendKind::ClusterIp)];
        addresses.extend(vips.into_iter().map(|ip| (ip, vip_kind(ip, context))));
        addresses.extend(external_ips.into_iter().map(|ip| (ip, FrontendKind::ExternalIp)));
        addresses.sort_unstable();
        addresses.dedup_by_key(|(ip, _)| *ip);

        Self {
            family,
            addresses,
            internal_policy: service.internal_traffic_policy,
            external_policy: service::external_policy(service),
            source_ranges,
        }
    }

    /// The frontends of one port, sorted by address.
    pub(super) fn of(&self, spec: &ServicePortSpec) -> Vec<Frontend> {
        let ips = self.addresses.iter().map(|(ip, kind)| self.at_ip(*ip, *kind, spec));
        // An IP sorts before a NodePort: the list is in order as it is made.
        ips.chain(self.at_node_port(spec)).collect()
    }

    fn at_ip(&self, ip: IpAddr, kind: FrontendKind, spec: &ServicePortSpec) -> Frontend {
        Frontend {
            address: FrontendAddress::Ip { ip, protocol: spec.protocol, port: spec.port },
            kind,
            policy: self.policy(kind),
            source_ranges: self.source_ranges.clone().filter(|_| is_filtered(kind)),
        }
    }

    /// Served whenever the field is set, whatever the type says.
    fn at_node_port(&self, spec: &ServicePortSpec) -> Option<Frontend> {
        (spec.node_port != 0).then(|| Frontend {
            address: FrontendAddress::NodePort { family: self.family, protocol: spec.protocol, port: spec.node_port },
            kind: FrontendKind::NodePort,
            policy: self.policy(FrontendKind::NodePort),
            source_ranges: None,
        })
    }

    fn policy(&self, kind: FrontendKind) -> TrafficPolicy {
        if kind == FrontendKind::ClusterIp { self.internal_policy } else { self.external_policy }
    }
}

/// A VIP of one of our pools wins over one that somebody else wrote into the status.
fn vip_kind(ip: IpAddr, context: &Context) -> FrontendKind {
    if context.pools.iter().any(|pool| pool.contains(ip)) { FrontendKind::PoolVip } else { FrontendKind::LoadBalancer }
}

/// Source ranges are for VIPs only: not for externalIPs, NodePorts or the ClusterIP.
fn is_filtered(kind: FrontendKind) -> bool {
    match kind {
        FrontendKind::PoolVip | FrontendKind::LoadBalancer => true,
        FrontendKind::ClusterIp | FrontendKind::ExternalIp | FrontendKind::NodePort => false,
    }
}
