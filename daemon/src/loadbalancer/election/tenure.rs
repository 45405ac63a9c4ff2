//! What this node holds, since when, and until when it may stay.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::loadbalancer::membership::State;

/// For how long a VIP that moved by fault or restart does not move back: its clients' connections were cut once already.
pub const PROTECTION: Duration = Duration::from_secs(300);

/// Why a VIP came to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nobody held it before, or an object of the API was changed so that it moved.
    Elected,
    /// Its holder failed, or its daemon ended.
    Inherited,
}

impl Arrival {
    /// By what is known of the node that held it last.
    #[must_use]
    pub fn from_holder(last: Option<State>) -> Self {
        match last {
            Some(State::Leaving | State::Gone { .. }) => Self::Inherited,
            None | Some(State::Unheard | State::Alive | State::DaemonDown { .. }) => Self::Elected,
        }
    }
}

/// How this node holds one VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Since when.
    pub since: Instant,
    /// Until when it stays here if this node can announce it at all; `None` without such protection.
    pub protected_until: Option<Instant>,
}

/// The VIPs that this node announces.
#[derive(Clone, Debug, Default)]
pub struct Tenures(BTreeMap<IpAddr, Tenure>);

impl Tenures {
    /// This node announces a VIP from now on. One that it has already stays as it is.
    pub fn take(&mut self, vip: IpAddr, arrival: Arrival, now: Instant) {
        let protected_until = (arrival == Arrival::Inherited).then(|| now + PROTECTION);
        self.0.entry(vip).or_insert(Tenure { since: now, protected_until });
    }

    /// It took up what it held before it was restarted; what is protected is so anew: how long it was is not known any more.
    pub fn resume(&mut self, vip: IpAddr, protected: bool, now: Instant) {
        self.take(vip, if protected { Arrival::Inherited } else { Arrival::Elected }, now);
    }

    /// It announces it no longer. Says whether it did.
    pub fn give_up(&mut self, vip: IpAddr) -> bool {
        self.0.remove(&vip).is_some()
    }

    /// Ends the protections that are over; says whether there were any. Peers have to be told then, and decide anew.
    pub fn expire(&mut self, now: Instant) -> bool {
        let over = self.0.values_mut().filter(|tenure| tenure.protected_until.is_some_and(|until| until <= now));
        over.map(|tenure| tenure.protected_until = None).count() > 0
    }

    /// When the next protection is over.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.0.values().filter_map(|tenure| tenure.protected_until).min()
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (IpAddr, Tenure)> {
        self.0.iter().map(|(&vip, &tenure)| (vip, tenure))
    }

    /// How it holds this one.
    #[must_use]
    pub fn get(&self, vip: IpAddr) -> Option<Tenure> {
        self.0.get(&vip).copied()
    }
}
