//! Why a Service does not get what it asks for, in MetalLB's words where it has any: people search for them.

use std::fmt;
use std::net::IpAddr;

use compact_str::CompactString;

use super::Occupant;
use crate::model::{Family, Protocol, ServiceKey};

/// So many bytes of what a person wrote are repeated to them.
const QUOTED: usize = 128;
/// So many Services or pools are named.
const NAMED: usize = 5;

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("service can not have both metallb.io/loadBalancerIPs and svc.Spec.LoadBalancerIP")]
    AskedTwice,
    #[error("invalid metallb.io/loadBalancerIPs: {0}")]
    InvalidAddresses(Quoted),
    #[error("invalid spec.loadBalancerIP {0}")]
    InvalidAddress(Quoted),
    #[error("more than two addresses {0}")]
    TooMany(Addresses),
    #[error("{0} has the same family")]
    SameFamily(Addresses),
    #[error("{0} is not allowed in config")]
    NotAllowed(Addresses),
    #[error("pool {0} not compatible for ip assignment")]
    Incompatible(CompactString),
    #[error("can't change sharing key for \"{service}\", address also in use by {others}")]
    SharingKey { service: ServiceKey, others: Services },
    #[error("port {protocol}/{port} is already in use on \"{ip}\"")]
    PortInUse { protocol: Protocol, port: u16, ip: IpAddr },
    #[error("\"{ip}\" is in use outside the load balancer: it is {by}")]
    Occupied { ip: IpAddr, by: Occupant },
    #[error("unknown pool {0}")]
    UnknownPool(Quoted),
    #[error("no available IPs in pool \"{pool}\" for {family} IPFamily: {why}")]
    PoolExhausted { pool: CompactString, family: Family, why: Lacking },
    #[error("no available IPs: {0}")]
    Exhausted(Shortage),
    #[error("requested loadBalancer IP(s) {0} does not match the ipFamily of the service")]
    FamilyMismatch(Addresses),
    #[error("requested loadBalancer IP(s) {addresses} is not compatible with requested address pool {pool}")]
    PoolMismatch { addresses: Addresses, pool: CompactString },
    #[error("the service has no {0} any more")]
    FamilyGone(Family),
    #[error("\"{ip}\" is of pool {pool:?}, and both addresses of a service are of one")]
    OtherPool { ip: IpAddr, pool: CompactString },
}

/// Why the Service's families cannot be told: without them nothing is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoFamilies {
    /// Headless, or the ClusterIP has not been allocated yet.
    NoClusterIp,
    /// `RequireDualStack`, and there is one.
    NotEnough(IpAddr),
}

/// What a pool lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lacking {
    #[error("all are in use, add addresses to it or release some")]
    Full,
    #[error("it has none of this family")]
    Family,
}

/// Of each pool, why it was of no use to a Service that would have taken any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) pools: Vec<(CompactString, Useless)>,
}

/// Why a pool is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Useless {
    Full,
    Family,
    ByNameOnly,
    Others,
    Invalid,
}

/// Text of a person's, shortened, as a Go programmer quotes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quoted(CompactString);

/// Addresses as MetalLB writes them: `["192.168.1.240"]`, `["10.0.0.1" "fd00::1"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addresses(Vec<IpAddr>);

/// Names of Services, `a,b`, the first few of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Services(Vec<ServiceKey>);

impl Refusal {
    /// Whether it could be another answer once somebody released an address or changed what it shares.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::SharingKey { .. }
            | Self::PortInUse { .. }
            | Self::Occupied { .. }
            | Self::PoolExhausted { .. }
            | Self::Exhausted(_) => true,
            Self::AskedTwice
            | Self::InvalidAddresses(_)
            | Self::InvalidAddress(_)
            | Self::TooMany(_)
            | Self::SameFamily(_)
            | Self::NotAllowed(_)
            | Self::Incompatible(_)
            | Self::UnknownPool(_)
            | Self::FamilyMismatch(_)
            | Self::PoolMismatch { .. }
            | Self::FamilyGone(_)
            | Self::OtherPool { .. } => false,
        }
    }
}

impl From<&str> for Quoted {
    fn from(text: &str) -> Self {
        let end = text.floor_char_boundary(QUOTED);
        Self(if end < text.len() { format!("{}...", &text[..end]).into() } else { text.into() })
    }
}

impl From<&[IpAddr]> for Addresses {
    fn from(addresses: &[IpAddr]) -> Self {
        Self(addresses.to_vec())
    }
}

impl From<Vec<ServiceKey>> for Services {
    fn from(services: Vec<ServiceKey>) -> Self {
        Self(services)
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_str())
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, ip) in self.0.iter().take(NAMED).enumerate() {
            write!(f, "{}\"{ip}\"", if place == 0 { "[" } else { " " })?;
        }
        f.write_str(if self.0.len() > NAMED { " ...]" } else { "]" })
    }
}

impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, service) in self.0.iter().take(NAMED).enumerate() {
            write!(f, "{}{service}", if place == 0 { "" } else { "," })?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Shortage {
    /// What is the matter with each pool, then the next step that helps soonest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pools.is_empty() {
            return f.write_str("there is no IPAddressPool, create one");
        }
        for (place, (name, why)) in self.pools.iter().take(NAMED).enumerate() {
            let why = match why {
                Useless::Full => "is full",
                Useless::Family => "has none of the family",
                Useless::ByNameOnly => "has autoAssign off",
                Useless::Others => "is for other services (serviceAllocation)",
                Useless::Invalid => "is not valid (see its events)",
            };
            write!(f, "{}pool \"{name}\" {why}", if place == 0 { "" } else { ", " })?;
        }
        if self.pools.len() > NAMED {
            write!(f, ", and so on for {} more", self.pools.len() - NAMED)?;
        }
        let any = |wanted| self.pools.iter().any(|(_, why)| *why == wanted);
        f.write_str(if any(Useless::Full) {
            "; add addresses to one, or release some"
        } else if any(Useless::Invalid) {
            "; mend one"
        } else if any(Useless::ByNameOnly) {
            "; name one in the annotation metallb.io/address-pool, or create another"
        } else if any(Useless::Family) {
            "; add addresses of the family to one"
        } else {
            "; create one for this service"
        })
    }
}
