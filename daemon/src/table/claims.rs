//! Who asks for which frontend, and in which order they get it.
//!
//! kube-proxy keeps one map element per address and lets the iteration order of a Go map decide who is in it, so that a contested
//! frontend may change hands at every sync. Here the order of claims is total and made of nothing but the objects themselves:
//! the same objects give the same holder, on every node, in whatever order they arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::types::{FrontendAddress, FrontendKind, PortId};
use crate::model::{Protocol, ServiceKey};
use crate::policy::Seniority;

/// A Service port's wish for a frontend. The order is the order of precedence, strongest first: kind, seniority, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) kind: FrontendKind,
    pub(super) claimant: Arc<Claimant>,
}

/// Who claims. Shared by all claims of a Service port.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    pub(super) seniority: Seniority,
    pub(super) port: PortId,
}

/// Every claim, and where the order of precedence has changed since it was last asked.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Strongest first; never empty. Ordered by address, so that the claims at one IP are a range.
    by_address: BTreeMap<FrontendAddress, SmallVec<[Claim; 1]>>,
    /// The strongest claim before the first change since the last [`Claims::settle`].
    touched: BTreeMap<FrontendAddress, Option<Claim>>,
}

impl Claims {
    pub(super) fn stake(&mut self, address: FrontendAddress, claim: Claim) {
        self.touch(address);
        let claims = self.by_address.entry(address).or_default();
        if let Err(rank) = claims.binary_search(&claim) {
            claims.insert(rank, claim);
        }
    }

    pub(super) fn withdraw(&mut self, address: FrontendAddress, claim: &Claim) {
        self.touch(address);
        let Some(claims) = self.by_address.get_mut(&address) else { return };
        if let Ok(rank) = claims.binary_search(claim) {
            claims.remove(rank);
        }
        if claims.is_empty() {
            self.by_address.remove(&address);
        }
    }

    /// The claim that wins, unless its address is refused to it.
    pub(super) fn strongest(&self, address: &FrontendAddress) -> Option<&Claim> {
        self.by_address.get(address)?.first()
    }

    /// Services to decide anew, beside those that were changed themselves: all that claim a frontend whose strongest claim is
    /// another than before, and all that want an address of `reowned` as something else than a ClusterIP.
    pub(super) fn settle(&mut self, reowned: &BTreeSet<IpAddr>) -> BTreeSet<ServiceKey> {
        let mut services = BTreeSet::new();
        for (address, before) in std::mem::take(&mut self.touched) {
            if self.strongest(&address) != before.as_ref() {
                let claims = self.by_address.get(&address).into_iter().flatten();
                services.extend(claims.map(|claim| claim.claimant.port.service.clone()));
            }
        }
        for &ip in reowned {
            let others = self.at(ip).filter(|claim| claim.kind != FrontendKind::ClusterIp);
            services.extend(others.map(|claim| claim.claimant.port.service.clone()));
        }
        services
    }

    /// The claim by which an address is a ClusterIP: of several Services' the strongest, on whatever port. Only where manifests are
    /// mixed are there several.
    pub(super) fn cluster_ip(&self, ip: IpAddr) -> Option<&Claim> {
        self.at(ip).filter(|claim| claim.kind == FrontendKind::ClusterIp).min()
    }

    /// All claims at one IP.
    fn at(&self, ip: IpAddr) -> impl Iterator<Item = &Claim> {
        let end = |protocol, port| FrontendAddress::Ip { ip, protocol, port };
        self.by_address.range(end(Protocol::Tcp, 0)..=end(Protocol::Sctp, u16::MAX)).flat_map(|(_, claims)| claims)
    }

    fn touch(&mut self, address: FrontendAddress) {
        let Self { by_address, touched } = self;
        touched.entry(address).or_insert_with(|| by_address.get(&address).and_then(|claims| claims.first()).cloned());
    }
}
