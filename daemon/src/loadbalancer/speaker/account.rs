//! What this node knows of every VIP, for people: who announces it, why there, and of everybody else why not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use jiff::Timestamp;

use crate::loadbalancer::election::{Reason, Silence, Standing};
use crate::loadbalancer::membership::State;
use crate::model::ServiceKey;

/// Everything, as of one moment. A new one is made whenever something in it changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Name of our Node.
    pub node: Arc<str>,
    /// Every VIP that is in a pool and has a Service of our class.
    pub vips: BTreeMap<IpAddr, VipAccount>,
    /// The other members by name, as this node sees them; empty for a single node.
    pub members: BTreeMap<Arc<str>, State>,
}

/// One VIP.
#[derive(Clone, Debug, PartialEq)]
pub struct VipAccount {
    /// The Services that have it, sorted.
    pub services: Vec<ServiceKey>,
    /// The pool that it is from.
    pub pool: CompactString,
    /// Who answers for it on the LAN, as far as this node knows: of itself, or by what that member tells. `None`: nobody does.
    pub announced: Option<Announced>,
    /// Who is to announce it, or why nobody can. Another one than who announces it while it moves.
    pub elected: Result<Elected, Silence>,
    /// Why this node does not announce it, although nobody else is to; for people.
    pub withheld: Option<String>,
    /// Of every candidate how it fared: the eligible ones first and in their order.
    pub standings: Vec<Standing>,
}

/// Who answers for a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Name of the node.
    pub node: Arc<str>,
    /// Since when, or since when this node has known.
    pub since: Timestamp,
    /// On these interfaces; empty if it is another node, which does not tell.
    pub interfaces: Vec<CompactString>,
    /// It came there because another node or daemon failed or ended, so it does not move back for five minutes.
    pub protected: bool,
}

/// Who is to announce a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elected {
    /// Name of the node.
    pub node: Arc<str>,
    /// Why this one.
    pub reason: Reason,
}
