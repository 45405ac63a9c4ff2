//! What can be done to the cables of a [`Lan`].

use super::{Lan, within};
use ipnet::Ipv4Net;
use sheave_lab::Cable;
use std::net::Ipv4Addr;

/// One of the three networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Where VIPs are announced and the client is.
    Lan,
    /// Where the nodes have their InternalIPs, tell each other that they live, and reach pods of others.
    Members,
    /// Where the API server is.
    Api,
}

impl Network {
    /// All, in the order of a node's interfaces.
    pub const ALL: [Self; 3] = [Self::Lan, Self::Members, Self::Api];

    /// The interface that a node has there.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Lan => "eth0",
            Self::Members => "eth1",
            Self::Api => "eth2",
        }
    }

    pub(super) const fn bridge(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Members => "members",
            Self::Api => "api",
        }
    }

    /// The bridge of those on the other side of a partition.
    const fn other_side(self) -> &'static str {
        match self {
            Self::Lan => "lan-2",
            Self::Members => "members-2",
            Self::Api => "api-2",
        }
    }

    /// A cable for a machine with this number.
    pub(super) fn cable(self, last: u8) -> Cable<'static> {
        let third = match self {
            Self::Lan => 1,
            Self::Members => 2,
            Self::Api => 3,
        };
        let network = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third, 0), 24);
        Cable { bridge: self.bridge(), address: within(network, last), link: None }
    }
}

impl Lan {
    /// Cuts a node off from everything, as a switch does that dies: silently, its carriers stay.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn cut_off(&self, node: usize) -> anyhow::Result<()> {
        Network::ALL.into_iter().try_for_each(|network| self.cut(node, network))
    }

    /// Mends what [`cut_off`](Self::cut_off) did.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn reconnect(&self, node: usize) -> anyhow::Result<()> {
        Network::ALL.into_iter().try_for_each(|network| self.mend(node, network))
    }

    /// Cuts a node off from one network, silently.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn cut(&self, node: usize, network: Network) -> anyhow::Result<()> {
        Ok(self.switchboard.set_forwarding(self.node(node), network.interface(), false)?)
    }

    /// Mends what [`cut`](Self::cut) did.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn mend(&self, node: usize, network: Network) -> anyhow::Result<()> {
        Ok(self.switchboard.set_forwarding(self.node(node), network.interface(), true)?)
    }

    /// Pulls a node's cable out of the LAN: its carrier goes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn unplug(&self, node: usize) -> anyhow::Result<()> {
        Ok(self.switchboard.set_carrier(self.node(node), Network::Lan.interface(), false)?)
    }

    /// Puts it in again.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn plug_in(&self, node: usize) -> anyhow::Result<()> {
        Ok(self.switchboard.set_carrier(self.node(node), Network::Lan.interface(), true)?)
    }

    /// Parts a network: these nodes reach each other there, and none of the others, nor what else is there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn part(&self, network: Network, nodes: &[usize]) -> anyhow::Result<()> {
        self.move_to(network, nodes, network.other_side())
    }

    /// Joins what [`part`](Self::part) parted.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn join(&self, network: Network, nodes: &[usize]) -> anyhow::Result<()> {
        self.move_to(network, nodes, network.bridge())
    }

    fn move_to(&self, network: Network, nodes: &[usize], bridge: &str) -> anyhow::Result<()> {
        nodes.iter().try_for_each(|&node| Ok(self.switchboard.move_to(self.node(node), network.interface(), bridge)?))
    }

    /// The API server stops: connections are closed, and new ones refused.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn stop_api(&self) -> anyhow::Result<()> {
        self.api.refuse_connections()?;
        self.api.cut_connections();
        Ok(())
    }

    /// The API server is there again, with everything it had.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn resume_api(&self) -> anyhow::Result<()> {
        Ok(self.api.accept_connections()?)
    }
}
