//! The plan of a load: how many of what, and which address is whose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sheave::model::Family;

use super::LoadError;

/// Namespace of everything that the generator makes.
pub(super) const NAMESPACE: &str = "load";

/// ClusterIPs: Service `n` has `10.96.16.0 + n`, past what a server hands out in its default 10.96.0.0/16 unasked for a while.
pub(super) const CLUSTER_V4: IpNet = IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12));
/// ClusterIPs of the second family.
pub(super) const CLUSTER_V6: IpNet = IpNet::V6(ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 108));

const FIRST_CLUSTER_IP: u32 = 4096;
const SERVICES_MAX: u32 = 1_000_000;

/// Pods: `10.128.0.0/9`, by Service and place; replaced ones are in `100.64.0.0/10`.
const PODS_V4: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
const PODS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x128, 0, 0, 0, 0, 0);
const REPLACED_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const PODS_MAX: u32 = 8_000_000;
const REPLACED_MAX: u32 = 4_000_000;

/// VIPs are of the network that RFC 2544 keeps for benchmarks.
const VIPS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// The default node port range. NodePort Services take from below, health checks from above.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// How large a cluster is, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Services, each with one TCP port 80.
    pub services: u32,
    /// Ready endpoints of each Service, spread over the nodes.
    pub endpoints_per_service: u32,
    /// Which Services there are.
    pub mix: Mix,
    /// Two ClusterIPs per Service, and a second set of slices.
    pub dual_stack: bool,
    /// Nodes, over three zones; `node-00000` and on.
    pub nodes: u32,
}

/// Which Services there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// ClusterIP only.
    Plain,
    /// 70 % ClusterIP, 20 % NodePort, 10 % LoadBalancer with policy Local; of all, 5 % with session affinity. Where the 2,768 node
    /// ports are used up (beyond some 9,000 Services), the rest is ClusterIP.
    Realistic,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointAddress {
    /// Its address.
    pub address: IpAddr,
    /// `nodeName`.
    pub node: String,
    /// `zone`.
    pub zone: String,
    /// A number of its own, for the Pod's name and uid.
    pub(super) id: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

/// One Service of the plan.
#[derive(Clone, Debug)]
pub(super) struct ServiceShape {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) kind: ServiceType,
    pub(super) cluster_ips: Vec<IpAddr>,
    pub(super) node_port: Option<u16>,
    pub(super) health_port: Option<u16>,
    pub(super) vip: Option<IpAddr>,
    pub(super) affinity: bool,
}

impl Default for Shape {
    /// The measure of kube-proxy's own scale tests: 5,000 Services of 50 endpoints.
    fn default() -> Self {
        Self { services: 5_000, endpoints_per_service: 50, mix: Mix::Plain, dual_stack: false, nodes: 100 }
    }
}

impl ServiceType {
    /// As `spec.type` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

impl Shape {
    /// The ClusterIPs of a Service, IPv4 first.
    #[must_use]
    pub fn cluster_ips(&self, number: u32) -> Vec<IpAddr> {
        self.families().map(|family| cluster_ip(family, number)).collect()
    }

    /// The endpoint at a place of a Service, as first filled.
    #[must_use]
    pub fn first_endpoint(&self, number: u32, place: u32, family: Family) -> EndpointAddress {
        self.endpoint(number, place, family, None)
    }

    /// An endpoint that was never there before, for a place of a Service. Each replacement has an IPv4 address of its own.
    #[must_use]
    pub fn replacement(&self, number: u32, place: u32, family: Family, replacement: u32) -> EndpointAddress {
        self.endpoint(number, place, family, Some(replacement))
    }

    /// The Service's name, without its namespace `load`.
    #[must_use]
    pub fn service_name(number: u32) -> String {
        format!("svc-{number:06}")
    }

    /// Whether the address plan holds it: better asked before a network is built around it.
    ///
    /// # Errors
    /// With the limit that it is above.
    pub fn check(&self) -> Result<(), LoadError> {
        let Self { services, endpoints_per_service, .. } = *self;
        let endpoints = u64::from(services) * u64::from(endpoints_per_service);
        if endpoints > u64::from(PODS_MAX) {
            return Err(LoadError::TooManyEndpoints { endpoints, limit: PODS_MAX, services, endpoints_per_service });
        }
        if services > SERVICES_MAX {
            return Err(LoadError::TooManyServices { services, limit: SERVICES_MAX });
        }
        Ok(())
    }

    /// Families of every Service, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<> {
        Family::ALL.into_iter().take(if self.dual_stack { 2 } else { 1 })
    }

    pub(super) fn service(&self, number: u32) -> ServiceShape {
        let (kind, node_port, health_port) = self.kind(number);
        ServiceShape {
            number,
            name: Self::service_name(number),
            kind,
            cluster_ips: self.cluster_ips(number),
            node_port,
            health_port,
            vip: (kind == ServiceType::LoadBalancer).then(|| offset_v4(VIPS, number % (1 << 17))),
            affinity: self.mix == Mix::Realistic && number % 20 == 7,
        }
    }

    /// Type and node ports. Of each hundred, 70 to 89 are NodePorts and 90 to 99 LoadBalancers.
    fn kind(&self, number: u32) -> (ServiceType, Option<u16>, Option<u16>) {
        let (hundred, place) = (number / 100, number % 100);
        let room = u32::from(NODE_PORTS.end() - NODE_PORTS.start()) + 1;
        // Thirty ports for each hundred Services.
        if self.mix == Mix::Plain || place < 70 || (hundred + 1) * 30 > room {
            return (ServiceType::ClusterIp, None, None);
        }
        let offset = |n: u32| u16::try_from(n).unwrap_or(0);
        if place < 90 {
            (ServiceType::NodePort, Some(NODE_PORTS.start() + offset(hundred * 20 + place - 70)), None)
        } else {
            (ServiceType::LoadBalancer, None, Some(NODE_PORTS.end() - offset(hundred * 10 + place - 90)))
        }
    }

    pub(super) fn endpoint(&self, number: u32, place: u32, family: Family, replacement: Option<u32>) -> EndpointAddress {
        let at = number.wrapping_mul(self.endpoints_per_service).wrapping_add(place);
        let address = match (family, replacement) {
            (Family::V4, None) => offset_v4(PODS_V4, at % PODS_MAX),
            (Family::V4, Some(replacement)) => offset_v4(REPLACED_V4, replacement % REPLACED_MAX),
            (Family::V6, _) => offset_v6(PODS_V6, at),
        };
        let id = u64::from(replacement.unwrap_or(0)) << 32 | u64::from(at);
        let on = at % self.nodes.max(1);
        EndpointAddress { address, node: node(on), zone: zone(on), id }
    }
}

fn cluster_ip(family: Family, number: u32) -> IpAddr {
    let at = number % SERVICES_MAX + FIRST_CLUSTER_IP;
    match family {
        Family::V4 => offset_v4(Ipv4Addr::new(10, 96, 0, 0), at),
        Family::V6 => offset_v6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), at),
    }
}

pub(super) fn node(number: u32) -> String {
    format!("node-{number:05}")
}

pub(super) fn zone(number: u32) -> String {
    format!("zone-{}", number % 3)
}

pub(super) fn node_address(number: u32) -> IpAddr {
    offset_v4(Ipv4Addr::new(172, 16, 0, 0), number % (1 << 20) + 1)
}

fn offset_v4(base: Ipv4Addr, offset: u32) -> IpAddr {
    Ipv4Addr::from_bits(base.to_bits().wrapping_add(offset)).into()
}

fn offset_v6(base: Ipv6Addr, offset: u32) -> IpAddr {
    Ipv6Addr::from_bits(base.to_bits().wrapping_add(offset.into())).into()
}
