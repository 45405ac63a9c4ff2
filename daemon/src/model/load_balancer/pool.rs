//! `IPAddressPool`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use compact_str::CompactString;

use crate::model::{Family, Labels, ObjectKey, Problem, Selector};

/// One `IPAddressPool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// Namespace and name. A pool is known to Services by its name alone.
    pub key: ObjectKey,
    /// `metadata.uid`, for Events.
    pub uid: CompactString,
    /// `metadata.generation`, 0 where absent: what a condition refers to.
    pub generation: i64,
    /// `metadata.creationTimestamp` in seconds since 1970; `None` where it is absent, and then youngest of all. Of two pools that
    /// overlap and are both new to us the older one has its addresses.
    pub created: Option<i64>,
    /// Its labels: `L2Advertisement.spec.ipAddressPoolSelectors` selects by them.
    pub labels: Labels,
    /// `spec.addresses`, in the order given; those that could not be read are left out and are problems.
    pub ranges: Vec<AddressRange>,
    /// `spec.autoAssign`, absent: true. False: only for Services that name the pool or an address.
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs`, absent: false. True: IPv4 addresses that end in .0 or .255 belong to nobody.
    pub avoid_buggy_ips: bool,
    /// `spec.serviceAllocation`. A pool that has it is for those Services alone.
    pub allocation: Option<ServiceAllocation>,
    /// `status`, where it is there: written only if it would change.
    pub counts: Option<PoolCounts>,
    /// What is wrong with it. With any of these nothing of this version of the pool is used.
    pub problems: Vec<Problem>,
}

/// A closed range of addresses of one family, `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Two addresses between which there is no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// One is IPv4, the other IPv6.
    #[error("the two ends are of different families")]
    Families,
    /// The wrong way round.
    #[error("it ends before it begins")]
    Reversed,
}

/// `spec.serviceAllocation`: who may use the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAllocation {
    /// `priority`: the smaller number comes first, 0 and absent come last.
    pub priority: i64,
    /// `namespaces`, by name.
    pub namespaces: Vec<CompactString>,
    /// `namespaceSelectors`: any of them, or a name in `namespaces`.
    pub namespace_selectors: Vec<Selector>,
    /// `serviceSelectors`: any of them, and one of the namespaces if any are given.
    pub service_selectors: Vec<Selector>,
}

/// `status` of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// `assignedIPv4`: addresses in use; one that several Services share counts once.
    pub assigned_v4: i64,
    /// `assignedIPv6`.
    pub assigned_v6: i64,
    /// `availableIPv4`: addresses that could still be handed out.
    pub available_v4: i64,
    /// `availableIPv6`; `i64::MAX` where there are 2^62 or more.
    pub available_v6: i64,
}

impl AddressRange {
    /// Both ends included.
    ///
    /// # Errors
    /// Ends of two families, or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        match (first.is_ipv4() == last.is_ipv4(), first <= last) {
            (false, _) => Err(RangeError::Families),
            (true, false) => Err(RangeError::Reversed),
            (true, true) => Ok(Self { first, last }),
        }
    }

    /// The lowest address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The highest address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        self.last
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.first)
    }

    /// Whether the address is one of these.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && (self.first..=self.last).contains(&address)
    }

    /// An address that is in both, the lowest one.
    #[must_use]
    pub fn overlap(self, other: Self) -> Option<IpAddr> {
        let first = self.first.max(other.first);
        (self.contains(first) && other.contains(first)).then_some(first)
    }

    /// How many addresses there are, less one: a whole IPv6 space would not fit otherwise.
    #[must_use]
    pub fn span(self) -> u128 {
        number(self.last) - number(self.first)
    }

    /// The addresses, lowest first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.first.is_ipv4();
        (number(self.first)..=number(self.last)).map(move |number| address(v4, number))
    }
}

impl std::fmt::Display for AddressRange {
    /// As one writes it in `spec.addresses`: `10.0.0.1-10.0.0.9`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// An address as a number; of IPv4, 32 bits.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(v4: bool, number: u128) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => IpAddr::V4(Ipv4Addr::from_bits(number)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> Result<AddressRange, RangeError> {
        AddressRange::new(first.parse().unwrap(), last.parse().unwrap())
    }

    #[test]
    fn ends_are_included_and_families_are_apart() {
        let pool = range("10.0.0.254", "10.0.1.1").unwrap();
        let all: Vec<_> = pool.iter().map(|address| address.to_string()).collect();
        assert_eq!(all, ["10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1"]);
        assert_eq!(pool.span(), 3);
        assert!(!pool.contains("::a00:fe".parse().unwrap()));
        assert_eq!(range("10.0.0.1", "fd00::1"), Err(RangeError::Families));
        assert_eq!(range("10.0.0.2", "10.0.0.1"), Err(RangeError::Reversed));
        assert_eq!(range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").unwrap().span(), u128::MAX);
        assert_eq!(range("::5", "::6").unwrap().iter().last(), Some("::6".parse().unwrap()), "small numbers stay IPv6");
    }

    #[test]
    fn ranges_that_share_an_address_overlap() {
        let pool = range("10.0.0.10", "10.0.0.20").unwrap();
        for (first, last, shared) in [
            ("10.0.0.20", "10.0.0.30", Some("10.0.0.20")),
            ("10.0.0.1", "10.0.0.10", Some("10.0.0.10")),
            ("10.0.0.12", "10.0.0.13", Some("10.0.0.12")),
            ("10.0.0.21", "10.0.0.30", None),
            ("10.0.0.1", "10.0.0.9", None),
            ("fd00::", "fd00::ff", None),
        ] {
            let other = range(first, last).unwrap();
            let shared = shared.map(|address| address.parse().unwrap());
            assert_eq!((pool.overlap(other), other.overlap(pool)), (shared, shared), "{first} to {last}");
        }
    }
}
