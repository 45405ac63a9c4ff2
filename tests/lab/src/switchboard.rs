//! Machines with several interfaces, on bridges whose ports can be cut, unplugged and moved.

use crate::{
    BadLink, Error, Host, Namespace, Result,
    address::ipv4,
    link::links,
    pod,
    relay::Relay,
    topology::{add_twins, forward},
};
use ipnet::Ipv4Net;
use std::{
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Bridges, and machines with a cable to some of them. Machines can be added while it runs.
///
/// Nothing routes between the bridges but the machines themselves. A machine's interfaces are `eth0`, `eth1` and so on, in the order of
/// its cables; its own address ([`Host::ipv4`]) is that of the first.
#[derive(Debug)]
pub struct Switchboard {
    board: Namespace,
    wiring: Mutex<Wiring>,
}

/// One interface of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Cable<'a> {
    /// The bridge at the other end.
    pub bridge: &'a str,
    /// The machine's address there, with its network; its twin comes with it.
    pub address: Ipv4Net,
    /// With a bad link, what goes through passes a relay.
    pub link: Option<BadLink>,
}

/// What grows.
#[derive(Debug, Default)]
struct Wiring {
    bridges: Vec<String>,
    plugs: Vec<Plug>,
    /// Numbers interfaces, which may have 15 bytes and must differ.
    pods: usize,
    relays: Vec<Relay>,
    /// Machines live as long as the board, also those nobody keeps.
    hosts: Vec<Host>,
}

/// Where a cable ends.
#[derive(Debug)]
struct Plug {
    machine: String,
    interface: String,
    /// The port of the bridge.
    port: String,
}

impl Switchboard {
    /// A board with these bridges.
    ///
    /// # Errors
    /// If the namespace or a bridge cannot be made.
    pub fn new(bridges: &[&str]) -> Result<Self> {
        let switchboard = Self { board: Namespace::new("switchboard")?, wiring: Mutex::default() };
        // Nobody lives here: the bridges have no addresses, and discover nothing.
        let off = [("net.ipv6.conf.all.disable_ipv6", "1"), ("net.ipv6.conf.default.disable_ipv6", "1")];
        switchboard.board.sysctls(&off)?;
        bridges.iter().try_for_each(|name| switchboard.ensure_bridge(name))?;
        Ok(switchboard)
    }

    /// Adds a machine. Its name must be its own.
    ///
    /// # Errors
    /// If a bridge is missing, or links cannot be made.
    pub fn machine(&self, name: &str, cables: &[Cable<'_>]) -> Result<Host> {
        let namespace = Namespace::new(name)?;
        for (number, cable) in cables.iter().enumerate() {
            self.plug_in(&namespace, &format!("eth{number}"), cable)?;
        }
        let mut addresses = cables.iter().map(|cable| cable.address.addr());
        let first =
            addresses.next().ok_or_else(|| Error::Address { text: name.to_owned(), expected: "a machine with an address" })?;
        let host = Host::new(namespace, first, &addresses.collect::<Vec<_>>(), None);
        self.wiring().hosts.push(host.clone());
        Ok(host)
    }

    /// Adds a machine that forwards packets, and on which pods can live.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn node(&self, name: &str, cables: &[Cable<'_>]) -> Result<Host> {
        let host = self.machine(name, cables)?;
        forward(&host)?;
        Ok(host)
    }

    /// Adds a pod on a node, on a veth of its own with host routes. The others are told the way by [`route`](Self::route).
    ///
    /// # Errors
    /// If the address is none.
    pub fn pod(&self, node: &Host, name: &str, address: &str) -> Result<Host> {
        let address = ipv4(address)?;
        let wire = {
            let mut wiring = self.wiring();
            wiring.pods += 1;
            format!("pod{}", wiring.pods)
        };
        let host = Host::new(pod::hang_on(node, name, address, &wire)?, address, &[], None);
        self.wiring().hosts.push(host.clone());
        Ok(host)
    }

    /// Tells a machine the way to a pod: over this address, by this interface; and the same for their twins.
    ///
    /// # Errors
    /// If the interface is missing.
    pub fn route(&self, machine: &Host, pod: &Host, via: Ipv4Addr, interface: &str) -> Result<()> {
        links(machine, async |links| pod::add_route(links, interface, pod.ipv4(), via).await)
    }

    /// Lets frames through a cable, or none, silently: its carrier stays.
    ///
    /// # Errors
    /// If there is no such cable.
    pub fn set_forwarding(&self, machine: &Host, interface: &str, forwarding: bool) -> Result<()> {
        let port = self.port(machine, interface)?;
        links(&self.board, async |links| links.set_port_forwarding(&port, forwarding).await)
    }

    /// Pulls a cable out of its bridge, so that its carrier goes, or puts it in. Behind a bad link the machine does not see it.
    ///
    /// # Errors
    /// If there is no such cable.
    pub fn set_carrier(&self, machine: &Host, interface: &str, carrier: bool) -> Result<()> {
        let port = self.port(machine, interface)?;
        links(&self.board, async |links| links.set_up(&port, carrier).await)
    }

    /// Moves a cable to another bridge, which is made if there is none of that name. Its carrier stays.
    ///
    /// # Errors
    /// If there is no such cable.
    pub fn move_to(&self, machine: &Host, interface: &str, bridge: &str) -> Result<()> {
        self.ensure_bridge(bridge)?;
        let port = self.port(machine, interface)?;
        links(&self.board, async |links| {
            links.enslave(&port, bridge).await?;
            links.await_carrier(bridge).await
        })
    }

    fn plug_in(&self, machine: &Namespace, interface: &str, cable: &Cable<'_>) -> Result<()> {
        let mut wiring = self.wiring();
        let port = format!("port{}", wiring.plugs.len());
        let (far, far_name) = match cable.link {
            None => (machine.clone(), interface),
            Some(link) => {
                let relay = Relay::start(machine.name(), machine, interface, link)?;
                let side = relay.namespace().clone();
                wiring.relays.push(relay);
                (side, Relay::OUTER)
            }
        };
        links(&self.board, async |links| {
            links.add_veth(&port, far_name, &far).await?;
            links.enslave(&port, cable.bridge).await
        })?;
        if let (Some(_), Some(relay)) = (cable.link, wiring.relays.last_mut()) {
            relay.run()?;
        }
        links(machine, async |links| {
            links.set_up(interface, true).await?;
            links.await_carrier(interface).await?;
            add_twins(links, interface, cable.address).await
        })?;
        // The bridge takes its port into use when the port's own carrier is seen, which may be later than the other end's.
        links(&self.board, async |links| {
            links.await_carrier(&port).await?;
            links.await_carrier(cable.bridge).await
        })?;
        wiring.plugs.push(Plug { machine: machine.name().to_owned(), interface: interface.to_owned(), port });
        Ok(())
    }

    fn ensure_bridge(&self, name: &str) -> Result<()> {
        let mut wiring = self.wiring();
        if !wiring.bridges.iter().any(|bridge| bridge == name) {
            links(&self.board, async |links| links.add_bridge(name).await)?;
            wiring.bridges.push(name.to_owned());
        }
        Ok(())
    }

    fn port(&self, machine: &Host, interface: &str) -> Result<String> {
        let wiring = self.wiring();
        let mut plugs = wiring.plugs.iter();
        let plug = plugs.find(|plug| plug.machine == machine.name() && plug.interface == interface);
        plug.map(|plug| plug.port.clone()).ok_or_else(|| Error::Call {
            call: "find",
            subject: format!("{interface} of {}", machine.name()),
            source: std::io::Error::other("it is on no bridge of this board"),
        })
    }

    fn wiring(&self) -> MutexGuard<'_, Wiring> {
        self.wiring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
