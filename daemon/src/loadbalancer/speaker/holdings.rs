//! The VIPs that this node announces, and what it tells the others of them. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::decide::Decisions;
use crate::loadbalancer::election::{Tenure, Tenures};
use crate::loadbalancer::membership::{Facts, Hold, NetworkInterface};

/// What is announced here.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    tenures: Tenures,
    /// Those that somebody on the LAN can have heard of: only these are told. Who gives a VIP away goes on until then.
    heard: BTreeSet<IpAddr>,
}

impl Holdings {
    /// What this node held before its daemon was restarted, as the others remember it. It stays, and its kernel has served it all along.
    pub(super) fn resume(&mut self, remembered: &Facts, now: Instant) {
        for hold in &remembered.holds {
            self.tenures.resume(hold.vip, hold.protected, now);
            self.heard.insert(hold.vip);
        }
    }

    /// Does as decided. What nothing was decided about stays while `complete` is false: its Services are not known yet.
    pub(super) fn follow(&mut self, decisions: &Decisions, complete: bool, now: Instant) {
        for (&vip, decision) in decisions.iter().filter(|(_, decision)| decision.outcome.is_ok()) {
            self.tenures.take(vip, decision.arrival, now);
        }
        let stays = |vip: &IpAddr| decisions.get(vip).map_or(!complete, |decision| decision.outcome.is_ok());
        let over: Vec<IpAddr> = self.tenures.iter().map(|(vip, _)| vip).filter(|vip| !stays(vip)).collect();
        for vip in over {
            self.tenures.give_up(vip);
            self.heard.remove(&vip);
        }
    }

    /// A VIP has been announced.
    pub(super) fn was_heard(&mut self, vip: IpAddr) {
        if self.tenures.get(vip).is_some() {
            self.heard.insert(vip);
        }
    }

    /// No interface can announce it: as far as the others go, it is not held here.
    pub(super) fn was_silenced(&mut self, vip: IpAddr) {
        self.heard.remove(&vip);
    }

    /// Ends the protections that are over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.tenures.expire(now);
    }

    /// When the next one is.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.tenures.next_expiry()
    }

    /// As this node itself goes by it.
    pub(super) fn facts(&self, interfaces: Vec<NetworkInterface>) -> Facts {
        self.with(interfaces, |_| true)
    }

    /// As the others are told.
    pub(super) fn told(&self, interfaces: Vec<NetworkInterface>) -> Facts {
        self.with(interfaces, |vip| self.heard.contains(&vip))
    }

    fn with(&self, interfaces: Vec<NetworkInterface>, counts: impl Fn(IpAddr) -> bool) -> Facts {
        let holds = self.tenures.iter().filter(|(vip, _)| counts(*vip));
        let holds = holds.map(|(vip, Tenure { protected_until, .. })| Hold { vip, protected: protected_until.is_some() });
        Facts { interfaces, holds: holds.collect() }
    }

    pub(super) fn get(&self, vip: IpAddr) -> Option<Tenure> {
        self.tenures.get(vip)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tenures.iter().len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::loadbalancer::election::{Arrival, Interfaces, PROTECTION, Silence};
    use crate::loadbalancer::speaker::decide::{Decision, Quiet};

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn decided(outcome: Result<Interfaces, Quiet>, arrival: Arrival) -> Decisions {
        let decision = Decision {
            tenants: [].into(),
            pool: "lan".into(),
            outcome,
            elected: Err(Silence::NoEligibleNode),
            standings: Vec::new(),
            arrival,
        };
        [(VIP, decision)].into()
    }

    fn told(holdings: &Holdings) -> Vec<(IpAddr, bool)> {
        holdings.told(Vec::new()).holds.into_iter().map(|hold| (hold.vip, hold.protected)).collect()
    }

    #[test]
    fn a_vip_is_told_when_it_was_heard_of_and_until_it_is_given_up() {
        let now = Instant::now();
        let mut holdings = Holdings::default();
        let here = decided(Ok(Interfaces::All), Arrival::Inherited);
        holdings.follow(&here, true, now);
        assert_eq!((told(&holdings), holdings.facts(Vec::new()).holds.len()), (vec![], 1));
        holdings.was_heard(VIP);
        assert_eq!(told(&holdings), [(VIP, true)]);
        holdings.expire(now + PROTECTION);
        assert_eq!(told(&holdings), [(VIP, false)]);
        holdings.was_silenced(VIP);
        assert_eq!(told(&holdings), []);
        holdings.was_heard(VIP);
        holdings.follow(&decided(Err(Quiet::Elsewhere("b".into())), Arrival::Elected), true, now);
        assert!(holdings.is_empty() && told(&holdings).is_empty());
        holdings.was_heard(VIP);
        assert_eq!(told(&holdings), [], "news of yesterday");
    }

    #[test]
    fn what_an_earlier_life_held_stays_until_its_services_are_known() {
        let now = Instant::now();
        let mut holdings = Holdings::default();
        let hold = Hold { vip: VIP, protected: true };
        holdings.resume(&Facts { interfaces: Vec::new(), holds: vec![hold] }, now);
        holdings.follow(&Decisions::new(), false, now);
        assert_eq!(told(&holdings), [(VIP, true)]);
        assert_eq!(holdings.next_expiry(), Some(now + PROTECTION));
        holdings.follow(&decided(Ok(Interfaces::All), Arrival::Elected), true, now + Duration::from_secs(1));
        assert_eq!(told(&holdings), [(VIP, true)]);
        holdings.follow(&Decisions::new(), true, now);
        assert!(holdings.is_empty());
    }
}
