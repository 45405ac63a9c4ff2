//! Asks the LAN who has an address, on this node's interfaces as they are at that moment.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::conflict::Claim;
use super::exclusions::Exclusions;
use super::interface::{Interface, on_link};
use super::probe::{Found, Timing, probe};
use super::socket::PacketError;
use crate::netlink::links::{LinkMonitor, Links};
use crate::netlink::mac::Mac;
use crate::netlink::route::RouteError;

/// Addresses asked for in one go: their questions are one burst, and a switch takes it.
const AT_ONCE: usize = 256;

/// Asks in the network namespace of the thread that calls. Nothing is open between two times. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Prober {
    exclusions: Exclusions,
    timing: Timing,
    fellows: Arc<Mutex<BTreeSet<Mac>>>,
}

/// Nobody could be asked, so nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The interfaces are not known.
    #[error(transparent)]
    Links(#[from] RouteError),
    /// Not on any interface; this was the first one's reason. Without `CAP_NET_RAW` it is always so.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The thread did not come back.
    #[error("probing has panicked")]
    Panicked,
}

impl Prober {
    /// One that leaves out these interfaces, as announcing does.
    #[must_use]
    pub fn new(exclusions: Exclusions) -> Self {
        Self { exclusions, ..Self::default() }
    }

    /// Asks for longer than usual: 60 ms for every address.
    #[must_use]
    pub fn with_timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// From now on these may have an address without being in anybody's way: the interfaces of the other announcers.
    pub fn set_fellows(&self, macs: BTreeSet<Mac>) {
        *self.fellows.lock().unwrap_or_else(PoisonError::into_inner) = macs;
    }

    /// Who else has which of these addresses. Takes 60 ms for each 256 of them, and less if all have somebody.
    ///
    /// # Errors
    /// Nobody could be asked. Where there is no interface to ask on, nobody has them.
    pub async fn ask(&self, addresses: Vec<IpAddr>) -> Result<Vec<Claim>, ProbeError> {
        let prober = self.clone();
        tokio::task::spawn_blocking(move || prober.ask_here(&addresses)).await.map_err(|_| ProbeError::Panicked)?
    }

    /// The same, on the calling thread.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_here(&self, addresses: &[IpAddr]) -> Result<Vec<Claim>, ProbeError> {
        let links = LinkMonitor::open()?.links().clone();
        let mut own: BTreeSet<Mac> = links.iter().filter_map(|link| link.mac).collect();
        own.extend(self.fellows.lock().unwrap_or_else(PoisonError::into_inner).iter());
        let mut claims = Vec::new();
        for addresses in addresses.chunks(AT_ONCE) {
            let asked = places(&links, &self.exclusions, addresses);
            let Found { claims: found, heard_out, failures } = probe(&asked, self.timing, |mac| own.contains(&mac));
            for error in &failures {
                tracing::debug!(%error, "not asked there who has an address");
            }
            claims.extend(found);
            if let Some(error) = failures.into_iter().next().filter(|_| heard_out == 0) {
                return Err(error.into());
            }
        }
        Ok(claims)
    }
}

/// On which interfaces each address is asked for: those that have it in a subnet, since a router may answer for everything elsewhere
/// (RFC 1027). If none has, all that announce, for a VLAN without addresses may be the one.
fn places(links: &Links, exclusions: &Exclusions, addresses: &[IpAddr]) -> Vec<(Interface, Vec<IpAddr>)> {
    let homes: Vec<BTreeSet<u32>> =
        addresses.iter().map(|address| on_link(links, exclusions, *address).map(|link| link.index).collect()).collect();
    let asked_on = |interface: &Interface| {
        let here = addresses.iter().zip(&homes).filter(|(_, homes)| homes.is_empty() || homes.contains(&interface.index));
        here.map(|(address, _)| *address).collect::<Vec<_>>()
    };
    let interfaces = links.iter().filter_map(|link| Interface::new(link, exclusions));
    let places = interfaces.map(|interface| {
        let asked = asked_on(&interface);
        (interface, asked)
    });
    places.filter(|(_, asked)| !asked.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::links::{Link, LinkAddress};

    fn link(index: u32, name: &str, net: Option<&str>) -> Link {
        let addresses = net.iter().map(|net| LinkAddress { net: net.parse().unwrap(), tentative: false });
        Link {
            index,
            name: name.into(),
            mac: Mac::from_slice(&[2, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
            up: true,
            carrier: true,
            broadcast: true,
            arp: true,
            addresses: addresses.collect(),
            ..Link::default()
        }
    }

    #[test]
    fn an_address_is_asked_for_where_it_belongs_and_everywhere_if_that_is_nowhere() {
        let links: Links = [
            link(1, "eth0", Some("192.168.0.1/24")),
            link(2, "eth1", Some("10.0.0.1/24")),
            link(3, "vlan7", None),
            link(4, "cali1", Some("10.0.0.0/8")),
        ]
        .into_iter()
        .collect();
        let addresses: Vec<IpAddr> = ["192.168.0.240", "172.16.0.1"].map(|address| address.parse().unwrap()).to_vec();
        let places = places(&links, &Exclusions::default(), &addresses);
        let places: Vec<_> = places.iter().map(|(interface, asked)| (interface.name.as_str(), asked.as_slice())).collect();
        assert_eq!(places, [("eth0", &addresses[..]), ("eth1", &addresses[1..]), ("vlan7", &addresses[1..])]);
    }
}
