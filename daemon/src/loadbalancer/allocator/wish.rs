//! What a Service asks for, read from what a person wrote.

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use smallvec::SmallVec;

use super::Ips;
use super::ledger::Terms;
use super::refusal::{NoFamilies, Quoted, Refusal};
use crate::model::load_balancer::{IpFamilyPolicy, LoadBalancerRequest};
use crate::model::{Family, Service};

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wish {
    /// Of which families.
    pub(super) families: Result<Families, NoFamilies>,
    /// Which addresses, or any.
    pub(super) request: Result<Request, Refusal>,
    /// What of it others may share.
    pub(super) terms: Arc<Terms>,
}

/// Families of the addresses of a Service: those of its ClusterIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Families {
    One(Family),
    Both {
        /// The one that matters more: the first of `spec.ipFamilies`, IPv4 where it is not said.
        primary: Family,
        /// One alone is not enough.
        required: bool,
    },
}

/// Which addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// These, as written; empty: any.
    pub(super) addresses: Ips,
    /// Of this pool; `None`: of any.
    pub(super) pool: Option<CompactString>,
}

impl Wish {
    pub(super) fn of(service: &Service) -> Self {
        let request = service.load_balancer.as_deref().map_or(Ok(Request::default()), Request::read);
        Self { families: families(service), request, terms: Arc::new(Terms::of(service)) }
    }
}

impl Families {
    pub(super) fn has(self, family: Family) -> bool {
        match self {
            Self::One(own) => own == family,
            Self::Both { .. } => true,
        }
    }

    /// The one that these addresses do not cover, and whether it must be.
    pub(super) fn missing(self, addresses: &[IpAddr]) -> Option<(Family, bool)> {
        let lacks = |family: &Family| !addresses.iter().any(|ip| Family::of(*ip) == *family);
        match self {
            Self::One(own) => Some((own, true)).filter(|(own, _)| lacks(own)),
            Self::Both { required, .. } => Family::ALL.into_iter().find(lacks).map(|family| (family, required)),
        }
    }

    /// Whether they are of these families, none missing and none too many.
    pub(super) fn are_those_of(self, addresses: &[IpAddr]) -> bool {
        self.missing(addresses).is_none() && addresses.iter().all(|ip| self.has(Family::of(*ip)))
    }
}

impl Request {
    fn read(request: &LoadBalancerRequest) -> Result<Self, Refusal> {
        let written = |text: &Option<CompactString>| text.clone().filter(|text| !text.is_empty());
        let pool = written(&request.pool);
        let addresses = match (written(&request.addresses), written(&request.address)) {
            (Some(_), Some(_)) => return Err(Refusal::AskedTwice),
            (Some(list), None) => several(&list)?,
            (None, Some(one)) => {
                let ip = one.parse::<IpAddr>().map_err(|_| Refusal::InvalidAddress(Quoted::from(one.as_str())))?;
                Ips::from_iter([ip.to_canonical()])
            }
            (None, None) => Ips::new(),
        };
        Ok(Self { addresses, pool })
    }
}

/// One address, or two of different families.
fn several(list: &str) -> Result<Ips, Refusal> {
    let mut addresses: SmallVec<[IpAddr; 2]> = Ips::new();
    for text in list.split(',') {
        let ip = text.trim().parse::<IpAddr>().map_err(|_| Refusal::InvalidAddresses(Quoted::from(list)))?;
        addresses.push(ip.to_canonical());
    }
    match addresses[..] {
        [_] => Ok(addresses),
        [one, other] if Family::of(one) != Family::of(other) => Ok(addresses),
        [_, _] => Err(Refusal::SameFamily(addresses.as_slice().into())),
        _ => Err(Refusal::TooMany(addresses.as_slice().into())),
    }
}

fn families(service: &Service) -> Result<Families, NoFamilies> {
    let request = service.load_balancer.as_deref();
    let policy = request.map(|request| request.family_policy).unwrap_or_default();
    let &[first, ref more @ ..] = &service.cluster_ips[..] else { return Err(NoFamilies::NoClusterIp) };
    let both = more.iter().any(|ip| Family::of(*ip) != Family::of(first));
    match (both, policy) {
        (false, IpFamilyPolicy::RequireDualStack) => Err(NoFamilies::NotEnough(first)),
        (false, _) => Ok(Families::One(Family::of(first))),
        (true, policy) => {
            let primary = request.and_then(|request| request.families.first().copied()).unwrap_or(Family::V4);
            Ok(Families::Both { primary, required: policy != IpFamilyPolicy::PreferDualStack })
        }
    }
}
