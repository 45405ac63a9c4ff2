//! Which machines there are and how they are wired.

use crate::{
    BadLink, Error, Host, Namespace, Node, Result,
    address::{ipv4, twin, twin_net},
    link::{Links, Route, links},
    pod,
    relay::Relay,
};
use ipnet::{IpNet, Ipv4Net};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The network: see the picture at the top of the crate. Machines can be added while it runs.
///
/// Off-cluster hosts reach every address through the node under test, as if it were the router's next hop for ClusterIPs and
/// VIPs alike; packets that come *from* the LAN for an address nobody has are answered "network unreachable" by the router.
/// So a packet that the node leaks shows as [`Unreachable`](crate::Outcome::Unreachable), one that it drops as
/// [`TimedOut`](crate::Outcome::TimedOut).
#[derive(Debug)]
pub struct Lab {
    router: Namespace,
    node: Node,
    remote: Node,
    client: Host,
    fabric: Mutex<Fabric>,
}

/// What grows.
#[derive(Debug, Default)]
struct Fabric {
    nodes: Vec<Node>,
    /// Every pod's address and the place of its node in `nodes`.
    pods: Vec<(Ipv4Addr, usize)>,
    /// Numbers interfaces, which may have 15 bytes and must differ.
    wires: usize,
    relays: Vec<Relay>,
    /// Machines live as long as the lab, also those nobody keeps: a pod that only serves need not have a name in a scenario.
    hosts: Vec<Host>,
}

/// A bridge at the router, and the router's own address on it.
#[derive(Clone, Copy)]
struct Segment {
    bridge: &'static str,
    networks: &'static [&'static str],
}

/// Where nodes and hosts of the LAN are; the second network is for the alternate node addresses.
const LAN: Segment = Segment { bridge: "lan", networks: &["192.168.0.1/24", "192.168.1.1/24"] };
/// Where clients outside are.
const WAN: Segment = Segment { bridge: "wan", networks: &["203.0.113.1/24"] };
/// The router's table for packets from outside.
const FROM_OUTSIDE: u32 = 100;

// === impl Lab ===

impl Lab {
    /// Builds the standard network: router, node under test `test-node` (192.168.0.2 and 192.168.1.2), `remote` (192.168.0.3),
    /// and `client` (203.0.113.2).
    ///
    /// # Errors
    /// If namespaces or links cannot be made.
    pub fn new() -> Result<Self> {
        let router = Namespace::new("router")?;
        forward(&router)?;
        links(&router, async |links| {
            for segment in [LAN, WAN] {
                links.add_bridge(segment.bridge).await?;
                for network in segment.networks {
                    add_twins(links, segment.bridge, parse(network)?).await?;
                }
            }
            links.add_rule_for_input(WAN.bridge, FROM_OUTSIDE).await
        })?;
        let mut fabric = Fabric::default();
        let node = fabric.add_node(&router, "test-node", &[ipv4("192.168.0.2")?, ipv4("192.168.1.2")?], None)?;
        let remote = fabric.add_node(&router, "remote", &[ipv4("192.168.0.3")?], None)?;
        links(&router, async |links| {
            for (to, via) in defaults(node.ipv4()) {
                links.add_route(&Route::via(to, via, LAN.bridge).in_table(FROM_OUTSIDE)).await?;
            }
            Ok(())
        })?;
        let client = fabric.add_host(&router, "client", &[ipv4("203.0.113.2")?], WAN, None)?;
        Ok(Self { router, node, remote, client, fabric: Mutex::new(fabric) })
    }

    /// The node under test.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The other node.
    #[must_use]
    pub fn remote(&self) -> &Node {
        &self.remote
    }

    /// The standard client outside the cluster.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The router between the LAN and the outside.
    #[must_use]
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// Adds a pod on the node under test.
    ///
    /// # Errors
    /// If the address is none.
    pub fn pod(&self, name: &str, address: &str) -> Result<Host> {
        self.pod_on(&self.node, name, address)
    }

    /// Adds a pod on the other node.
    ///
    /// # Errors
    /// If the address is none.
    pub fn remote_pod(&self, name: &str, address: &str) -> Result<Host> {
        self.pod_on(&self.remote, name, address)
    }

    /// Adds a pod on a node, on a veth of its own with host routes. Every other machine learns the way to it.
    ///
    /// # Errors
    /// If the address is none.
    pub fn pod_on(&self, node: &Node, name: &str, address: &str) -> Result<Host> {
        let address = ipv4(address)?;
        let mut fabric = self.fabric();
        let pod = pod::hang_on(node, name, address, &fabric.wire("pod"))?;
        fabric.announce_pod(&self.router, address, node)?;
        Ok(fabric.keep(Host::new(pod, address, &[], None)))
    }

    /// Adds a pod that hangs on the node's bridge `cni0`, as with the bridge and flannel CNI plugins: its neighbours within
    /// the /24 are switched, not routed. Where the kernel has `br_netfilter`, bridged packets pass the netfilter hooks.
    ///
    /// # Errors
    /// If the address is none.
    pub fn bridged_pod(&self, node: &Node, name: &str, address: &str) -> Result<Host> {
        let address = ipv4(address)?;
        let pod = Namespace::new(name)?;
        let mut fabric = self.fabric();
        let wire = fabric.wire("pod");
        let subnet = Ipv4Net::new_assert(address, 24);
        let gateway = Ipv4Addr::from(u32::from(subnet.broadcast()) - 1);
        links(node, async |links| {
            if links.index("cni0").await.is_err() {
                links.add_bridge("cni0").await?;
            }
            add_twins(links, "cni0", Ipv4Net::new_assert(gateway, 24)).await?;
            links.add_veth(&wire, "eth0", &pod).await?;
            links.enslave(&wire, "cni0").await?;
            links.set_hairpin(&wire).await
        })?;
        if crate::Capability::BridgeNf.probe()? {
            let on = [("net.bridge.bridge-nf-call-iptables", "1"), ("net.bridge.bridge-nf-call-ip6tables", "1")];
            node.sysctls(&on)?;
        }
        links(&pod, async |links| {
            links.set_up("eth0", true).await?;
            links.await_carrier("eth0").await?;
            add_twins(links, "eth0", Ipv4Net::new_assert(address, 24)).await?;
            for (to, via) in defaults(gateway) {
                links.add_route(&Route::via(to, via, "eth0")).await?;
            }
            Ok(())
        })?;
        links(node, async |links| {
            links.await_carrier(&wire).await?;
            links.await_carrier("cni0").await
        })?;
        fabric.announce_pod(&self.router, address, node)?;
        Ok(fabric.keep(Host::new(pod, address, &[], None)))
    }

    /// Adds a client outside, in 203.0.113.0/24; with a bad link, what it sends and gets passes a relay.
    ///
    /// # Errors
    /// If the address is none.
    pub fn outside(&self, name: &str, address: &str, link: Option<BadLink>) -> Result<Host> {
        self.fabric().add_host(&self.router, name, &[ipv4(address)?], WAN, link)
    }

    /// Adds a host to the LAN, in 192.168.0.0/24: a neighbour of the nodes, which asks for VIPs by ARP and NDP.
    ///
    /// # Errors
    /// If the address is none.
    pub fn lan_host(&self, name: &str, address: &str, link: Option<BadLink>) -> Result<Host> {
        self.fabric().add_host(&self.router, name, &[ipv4(address)?], LAN, link)
    }

    /// Adds a node to the LAN, in 192.168.0.0/24.
    ///
    /// # Errors
    /// If the address is none.
    pub fn add_node(&self, name: &str, address: &str, link: Option<BadLink>) -> Result<Node> {
        self.fabric().add_node(&self.router, name, &[ipv4(address)?], link)
    }

    /// Cuts a machine's link silently: its carrier stays, but no frame passes either way. A pod's link cannot be cut so.
    ///
    /// # Errors
    /// If the machine is not on the router's bridges.
    pub fn cut_off(&self, host: &Host) -> Result<()> {
        self.set_port(host, false)
    }

    /// Mends what [`cut_off`](Self::cut_off) did.
    ///
    /// # Errors
    /// As there.
    pub fn reconnect(&self, host: &Host) -> Result<()> {
        self.set_port(host, true)
    }

    fn set_port(&self, host: &Host, forwarding: bool) -> Result<()> {
        let port = host.port().ok_or_else(|| Error::Call {
            call: "cut off",
            subject: host.name().to_owned(),
            source: std::io::Error::other("it is not on a bridge of the router"),
        })?;
        links(&self.router, async |links| links.set_port_forwarding(port, forwarding).await)
    }

    fn fabric(&self) -> MutexGuard<'_, Fabric> {
        self.fabric.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Fabric ===

impl Fabric {
    fn wire(&mut self, kind: &str) -> String {
        self.wires += 1;
        format!("{kind}{}", self.wires)
    }

    fn keep(&mut self, host: Host) -> Host {
        self.hosts.push(host.clone());
        host
    }

    /// Adds a machine to a segment: `eth0`, an address in each family, and the router as the way to everywhere.
    fn add_host(
        &mut self,
        router: &Namespace,
        name: &str,
        addresses: &[Ipv4Addr],
        segment: Segment,
        link: Option<BadLink>,
    ) -> Result<Host> {
        let namespace = Namespace::new(name)?;
        let wire = self.wire(segment.bridge);
        let peer = match link {
            None => namespace.clone(),
            Some(link) => {
                let relay = Relay::start(name, &namespace, "eth0", link)?;
                let side = relay.namespace().clone();
                self.relays.push(relay);
                side
            }
        };
        let peer_name = if link.is_some() { Relay::OUTER } else { "eth0" };
        links(router, async |links| {
            links.add_veth(&wire, peer_name, &peer).await?;
            links.enslave(&wire, segment.bridge).await
        })?;
        if let (Some(_), Some(relay)) = (link, self.relays.last_mut()) {
            relay.run()?;
        }
        let gateway = parse(segment.networks[0])?.addr();
        links(&namespace, async |links| {
            links.set_up("eth0", true).await?;
            links.await_carrier("eth0").await?;
            // The first address is the one the host sends from: among equals IPv4 prefers the oldest, IPv6 the newest.
            for &address in addresses {
                links.add_address("eth0", Ipv4Net::new_assert(address, 24).into()).await?;
            }
            for &address in addresses.iter().rev() {
                links.add_address("eth0", twin_of(Ipv4Net::new_assert(address, 24))).await?;
            }
            for (to, via) in defaults(gateway) {
                links.add_route(&Route::via(to, via, "eth0")).await?;
            }
            Ok(())
        })?;
        // The bridge takes its port into use when the port's own carrier is seen, which may be later than the other end's.
        links(router, async |links| {
            links.await_carrier(&wire).await?;
            links.await_carrier(segment.bridge).await
        })?;
        let (first, further) = addresses
            .split_first()
            .ok_or_else(|| Error::Address { text: name.to_owned(), expected: "a machine with an address" })?;
        Ok(self.keep(Host::new(namespace, *first, further, Some(wire))))
    }

    fn add_node(&mut self, router: &Namespace, name: &str, addresses: &[Ipv4Addr], link: Option<BadLink>) -> Result<Node> {
        let host = self.add_host(router, name, addresses, LAN, link)?;
        forward(&host)?;
        let node = Node::new(host, self.nodes.len());
        links(&node, async |links| {
            for &(pod, home) in &self.pods {
                add_pod_route(links, "eth0", pod, &self.nodes[home]).await?;
            }
            Ok(())
        })?;
        self.nodes.push(node.clone());
        Ok(node)
    }

    /// Tells the router and the other nodes the way to a pod.
    fn announce_pod(&mut self, router: &Namespace, pod: Ipv4Addr, home: &Node) -> Result<()> {
        for other in self.nodes.iter().filter(|node| node.index != home.index) {
            links(other, async |links| add_pod_route(links, "eth0", pod, home).await)?;
        }
        links(router, async |links| add_pod_route(links, LAN.bridge, pod, home).await)?;
        self.pods.push((pod, home.index));
        Ok(())
    }
}

async fn add_pod_route(links: &Links, device: &str, pod: Ipv4Addr, home: &Node) -> Result<()> {
    pod::add_route(links, device, pod, home.ipv4()).await
}

/// Adds an address and its twin, each with its network.
pub(crate) async fn add_twins(links: &Links, device: &str, address: Ipv4Net) -> Result<()> {
    links.add_address(device, address.into()).await?;
    links.add_address(device, twin_of(address)).await
}

/// An address' twin, with the twin's network.
fn twin_of(address: Ipv4Net) -> IpNet {
    IpNet::new_assert(twin(address.addr()).into(), twin_net(address).prefix_len())
}

pub(crate) fn forward(namespace: &Namespace) -> Result<()> {
    namespace.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])
}

/// The default routes over a machine and its twin.
pub(crate) fn defaults(via: Ipv4Addr) -> [(IpNet, IpAddr); 2] {
    [(everything_v4(), via.into()), (everything_v6(), twin(via).into())]
}

fn everything_v4() -> IpNet {
    IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0)
}

fn everything_v6() -> IpNet {
    IpNet::new_assert(std::net::Ipv6Addr::UNSPECIFIED.into(), 0)
}

fn parse(network: &str) -> Result<Ipv4Net> {
    network.parse().map_err(|_| Error::Address { text: network.to_owned(), expected: "an IPv4 network" })
}
