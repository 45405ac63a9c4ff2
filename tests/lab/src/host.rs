//! A machine of the lab: a pod, a node, a client. Everything a scenario asks for is a verb here.

use crate::{
    Namespace, Outcome, Port, Protocol, Request, Result, Tally,
    address::twin,
    link::{Route, host_net, links},
    server::Server,
};
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

/// A machine with a name, a namespace and an address in each family. Clones are the same machine.
/// It dereferences to its [`Namespace`], for `run`, `spawn`, `exec` and `sysctl`.
#[derive(Clone, Debug)]
pub struct Host(Arc<Machine>);

/// A Kubernetes node: a [`Host`] that pods can live on. Its LAN interface is `eth0`.
#[derive(Clone, Debug)]
pub struct Node {
    host: Host,
    /// Its place in the lab.
    pub(crate) index: usize,
}

#[derive(Debug)]
struct Machine {
    namespace: Namespace,
    v4: Ipv4Addr,
    /// The name of its port at the router's end, if it hangs on a bridge there.
    port: Option<String>,
    /// Addresses beyond the first of each family, at which it serves too.
    further: Mutex<Vec<IpAddr>>,
    servers: Mutex<Vec<Server>>,
}

impl Host {
    pub(crate) fn new(namespace: Namespace, v4: Ipv4Addr, further: &[Ipv4Addr], port: Option<String>) -> Self {
        let further = further.iter().flat_map(|&v4| [IpAddr::V4(v4), IpAddr::V6(twin(v4))]).collect();
        Self(Arc::new(Machine { namespace, v4, port, further: Mutex::new(further), servers: Mutex::default() }))
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        self.0.v4
    }

    /// Its IPv6 address, the [twin](crate::twin) of the other.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        twin(self.0.v4)
    }

    /// Asks over TCP: `tcp("172.30.0.41:80")`.
    ///
    /// # Errors
    /// If the address is none. What the network does is in the outcome.
    pub fn tcp(&self, to: &str) -> Result<Outcome> {
        self.ask(&Request::new(Protocol::Tcp, to)?)
    }

    /// Asks over UDP: one datagram, not repeated.
    ///
    /// # Errors
    /// As [`tcp`](Self::tcp).
    pub fn udp(&self, to: &str) -> Result<Outcome> {
        self.ask(&Request::new(Protocol::Udp, to)?)
    }

    /// Asks over SCTP.
    ///
    /// # Errors
    /// As [`tcp`](Self::tcp), and if the kernel has no SCTP.
    pub fn sctp(&self, to: &str) -> Result<Outcome> {
        self.ask(&Request::new(Protocol::Sctp, to)?)
    }

    /// Asks once, with a source or a timeout of the caller's choice.
    ///
    /// # Errors
    /// If the source address or port cannot be had.
    pub fn ask(&self, request: &Request) -> Result<Outcome> {
        request.send(self)
    }

    /// Asks many times, each from a socket of its own, and counts who answered.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn sample(&self, request: &Request, times: usize) -> Result<Tally> {
        request.sample(self, times)
    }

    /// Answers on ports, at every address the host has now: with its name and the client it sees, then with an echo. HTTP requests
    /// get the same line as a response.
    ///
    /// # Errors
    /// If a port is taken.
    pub fn serve(&self, ports: &[Port]) -> Result<()> {
        let mut addresses = vec![IpAddr::V4(self.ipv4()), IpAddr::V6(self.ipv6())];
        addresses.extend(self.0.further.lock().unwrap_or_else(PoisonError::into_inner).iter());
        let server = Server::start(self, self.name(), &addresses, ports)?;
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
        Ok(())
    }

    /// Ends all servers with their connections, as the death of a container does. The machine stays.
    pub fn stop_serving(&self) {
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Adds an address to an interface: `add_address("eth0", "192.168.0.50/32")`. Later servers answer at it too.
    ///
    /// # Errors
    /// If the address is none, or the interface is missing.
    pub fn add_address(&self, interface: &str, address: &str) -> Result<()> {
        let net = network(address)?;
        links(self, async |links| links.add_address(interface, net).await)?;
        self.0.further.lock().unwrap_or_else(PoisonError::into_inner).push(net.addr());
        Ok(())
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// If the address is none, or the interface is missing.
    pub fn del_address(&self, interface: &str, address: &str) -> Result<()> {
        let net = network(address)?;
        links(self, async |links| links.del_address(interface, net).await)?;
        self.0.further.lock().unwrap_or_else(PoisonError::into_inner).retain(|further| *further != net.addr());
        Ok(())
    }

    /// Routes a network over a neighbour: `add_route("1.2.3.0/24", Some("192.168.0.3"), "eth0")`; without one, it is on the link.
    ///
    /// # Errors
    /// If an address is none, or the interface is missing.
    pub fn add_route(&self, to: &str, via: Option<&str>, interface: &str) -> Result<()> {
        let mut route = Route::direct(network(to)?, interface);
        route.via = via.map(|via| network(via).map(|net| net.addr())).transpose()?;
        links(self, async |links| links.add_route(&route).await)
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// If the interface is missing.
    pub fn set_up(&self, interface: &str, up: bool) -> Result<()> {
        links(self, async |links| links.set_up(interface, up).await)
    }

    /// Adds a dummy interface, up. Needs [`Capability::Dummy`](crate::Capability::Dummy).
    ///
    /// # Errors
    /// If the kernel has none.
    pub fn add_dummy(&self, interface: &str) -> Result<()> {
        links(self, async |links| links.add_dummy(interface).await)
    }

    /// The name of its bridge port at the router.
    pub(crate) fn port(&self) -> Option<&str> {
        self.0.port.as_deref()
    }
}

impl Deref for Host {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.0.namespace
    }
}

impl Node {
    pub(crate) fn new(host: Host, index: usize) -> Self {
        Self { host, index }
    }
}

impl Deref for Node {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

/// Reads an address with or without a prefix length.
fn network(text: &str) -> Result<IpNet> {
    let bare = || text.parse::<IpAddr>().map(host_net);
    text.parse().or_else(|_| bare()).map_err(|_| crate::Error::Address {
        text: text.to_owned(),
        expected: "an address or network such as 10.180.0.1 or fd00:10::/32",
    })
}
