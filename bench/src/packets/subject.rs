//! Who asks whom, and by which address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::probe;
use crate::proxy::NODE_ADDRESS;

/// Where the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In a pod on the node under test, as the answering pod is.
    Pod,
    /// On the node itself.
    Node,
    /// Beyond a router, outside the cluster.
    Outside,
}

/// What the client addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// The pod's own address.
    Straight,
    /// The Service's ClusterIP.
    ClusterIp,
    /// The node's address and the Service's NodePort.
    NodePort,
    /// The Service's load balancer address, which the router sends to the node.
    Vip,
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    pub(super) place: Place,
    pub(super) way: Way,
}

/// The pod that answers.
pub(super) const SERVER: Ipv4Addr = probe::POD;
/// The pod that asks.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 180, 0, 2);
/// The first port that the pod answers on; there is one for each endpoint of the Service.
pub(super) const FIRST_POD_PORT: u16 = 8080;
/// Of the measured Service; there is no probe beside it.
pub(super) const CLUSTER_IP: Ipv4Addr = probe::IP;
/// Of TEST-NET-2 (RFC 5737); on no interface.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The Service's port, at the ClusterIP and the VIP.
pub(super) const SERVICE_PORT: u16 = probe::PORT;
/// Its NodePort.
pub(super) const NODE_PORT: u16 = 31_080;

impl Subject {
    /// All of them, a straight one before those that are compared with it.
    pub(super) const ALL: [Self; 7] = [
        Self { place: Place::Pod, way: Way::Straight },
        Self { place: Place::Pod, way: Way::ClusterIp },
        Self { place: Place::Node, way: Way::Straight },
        Self { place: Place::Node, way: Way::ClusterIp },
        Self { place: Place::Outside, way: Way::Straight },
        Self { place: Place::Outside, way: Way::NodePort },
        Self { place: Place::Outside, way: Way::Vip },
    ];

    /// The same client, straight to the pod.
    pub(super) fn straight(self) -> Self {
        Self { way: Way::Straight, ..self }
    }

    /// Where it sends to. Straight, there is no Service that would choose one of the `endpoints`, so the client takes turns.
    pub(super) fn addresses(self, endpoints: u16) -> Vec<SocketAddr> {
        let one = |address: Ipv4Addr, port| vec![SocketAddr::new(IpAddr::V4(address), port)];
        match self.way {
            Way::Straight => (0..endpoints).map(|place| SocketAddr::from((SERVER, FIRST_POD_PORT + place))).collect(),
            Way::ClusterIp => one(CLUSTER_IP, SERVICE_PORT),
            Way::NodePort => one(NODE_ADDRESS, NODE_PORT),
            Way::Vip => one(VIP, SERVICE_PORT),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Straight => "straight",
            Way::ClusterIp => "ClusterIP",
            Way::NodePort => "NodePort",
            Way::Vip => "VIP",
        };
        let place = match self.place {
            Place::Pod => "a pod",
            Place::Node => "the node",
            Place::Outside => "outside",
        };
        // Padded by whoever prints a column.
        f.pad(&format!("{way} from {place}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_has_its_straight_one_before_it() {
        for (at, subject) in Subject::ALL.iter().enumerate() {
            assert!(Subject::ALL[..=at].contains(&subject.straight()), "{subject}");
        }
    }

    #[test]
    fn straight_takes_turns_and_a_service_has_one_address() {
        let [straight, cluster_ip, ..] = Subject::ALL;
        assert_eq!(straight.addresses(3).len(), 3);
        assert_eq!(cluster_ip.addresses(3), [SocketAddr::from((CLUSTER_IP, SERVICE_PORT))]);
        assert_eq!(format!("{cluster_ip:<20}|"), "ClusterIP from a pod|");
    }
}
