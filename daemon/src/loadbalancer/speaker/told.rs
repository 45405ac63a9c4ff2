//! What people have been told, so that each thing is told once for as long as it holds. MetalLB says `nodeAssigned` at every look.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::decide::{Decision, Decisions};
use super::words::{self, Word};
use crate::model::ServiceKey;

/// What holds, as it was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Services of which it was said that they are announced here.
    assigned: BTreeSet<ServiceKey>,
    /// Of a VIP and one of its Services, why it is silent.
    silent: BTreeMap<(IpAddr, ServiceKey), Word>,
}

/// A word about a Service.
pub(super) type Saying = (ServiceKey, Word);

impl Told {
    /// It was decided so: what has to be said now. Of what nobody announces only the `spokesman` speaks, or every node would.
    pub(super) fn decided(&mut self, node: &str, is_spokesman: bool, decisions: &Decisions) -> Vec<Saying> {
        let here: BTreeSet<&ServiceKey> =
            decisions.values().filter(|decision| decision.outcome.is_ok()).flat_map(|decision| decision.tenants.keys()).collect();
        self.assigned.retain(|service| here.contains(service));
        let mut before = std::mem::take(&mut self.silent);
        let mut sayings = Vec::new();
        for (&vip, Decision { tenants, outcome, .. }) in decisions {
            for service in tenants.keys() {
                let known = before.remove(&(vip, service.clone()));
                let word = match outcome {
                    // What the announcer said of it stays said until it announces.
                    Ok(_) => known.clone().filter(|word| *word == words::unheard(vip, node)),
                    Err(quiet) => words::quiet(vip, node, quiet).filter(|_| is_spokesman),
                };
                if let Some(word) = word {
                    if known.as_ref() != Some(&word) {
                        sayings.push((service.clone(), word.clone()));
                    }
                    self.silent.insert((vip, service.clone()), word);
                }
            }
        }
        sayings
    }

    /// The VIP of these Services has been announced.
    pub(super) fn announced(&mut self, vip: IpAddr, node: &str, decision: &Decision) -> Vec<Saying> {
        let news: Vec<&ServiceKey> = decision.tenants.keys().filter(|service| self.assigned.insert((*service).clone())).collect();
        self.silent.retain(|(silent, _), _| *silent != vip);
        news.into_iter().map(|service| (service.clone(), words::assigned(node))).collect()
    }

    /// It should be, and cannot be on any interface.
    pub(super) fn unheard(&mut self, vip: IpAddr, node: &str, decision: &Decision) -> Vec<Saying> {
        let word = words::unheard(vip, node);
        let say = |service: &ServiceKey| {
            let known = self.silent.insert((vip, service.clone()), word.clone());
            (known.as_ref() != Some(&word)).then(|| (service.clone(), word.clone()))
        };
        decision.tenants.keys().filter_map(say).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loadbalancer::election::{Arrival, Exclusion, Interfaces, Silence};
    use crate::loadbalancer::speaker::decide::Quiet;
    use crate::model::ObjectKey;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 240));

    fn decided(services: &[&str], outcome: Result<Interfaces, Quiet>) -> Decision {
        let tenants = services.iter().map(|name| (ObjectKey::new("default", name), "uid".into()));
        Decision {
            tenants: tenants.collect(),
            pool: "lan".into(),
            elected: Err(Silence::NoEligibleNode),
            outcome,
            standings: Vec::new(),
            arrival: Arrival::Elected,
        }
    }

    fn unable(why: Exclusion) -> Quiet {
        Quiet::Unable(vec![("a".into(), why)], 0)
    }

    fn one(decision: Decision) -> Decisions {
        [(VIP, decision)].into()
    }

    fn reasons(sayings: &[Saying]) -> Vec<(&str, &str)> {
        sayings.iter().map(|(service, word)| (service.name(), word.reason)).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let mut told = Told::default();
        let waiting = one(decided(&["web"], Err(Quiet::Nobody(Silence::NoEndpoints))));
        assert_eq!(reasons(&told.decided("a", true, &waiting)), [("web", "NoReadyEndpoints")]);
        assert_eq!(told.decided("a", true, &waiting), []);
        let here = decided(&["web"], Ok(Interfaces::All));
        assert_eq!(told.decided("a", true, &one(here.clone())), []);
        let said = told.announced(VIP, "a", &here);
        assert_eq!(said[0].1.text, "announcing from node \"a\" with protocol \"layer2\"");
        assert_eq!(told.announced(VIP, "a", &here), [], "its second address, or once more after an outage");
        let shared = decided(&["api", "web"], Ok(Interfaces::All));
        told.decided("a", true, &one(shared.clone()));
        assert_eq!(reasons(&told.announced(VIP, "a", &shared)), [("api", "nodeAssigned")]);
        let gone = one(decided(&["api", "web"], Err(unable(Exclusion::NoCarrier))));
        assert_eq!(reasons(&told.decided("a", true, &gone)), [("api", "NoEligibleNode"), ("web", "NoEligibleNode")]);
        told.decided("a", true, &one(here.clone()));
        assert_eq!(reasons(&told.announced(VIP, "a", &here)), [("web", "nodeAssigned")], "it is another time");
    }

    #[test]
    fn one_of_many_speaks_for_all_and_names_a_few_with_their_reasons() {
        let each = [("a", Exclusion::NoCarrier), ("b", Exclusion::Absent)].map(|(node, why)| (node.into(), why));
        let silent = one(decided(&["web"], Err(Quiet::Unable(each.into(), 7))));
        let mut told = Told::default();
        assert_eq!(told.decided("b", false, &silent), []);
        let said = told.decided("b", true, &silent);
        assert_eq!(
            said[0].1.text,
            "nobody announces 192.168.0.240: of node \"a\", the interfaces on which it would have to announce have no carrier; see \
             cables and switch; of node \"b\", no sheave is heard from it; and 7 more, which `sheave get vips -o wide` names"
        );
        for of_this_node in [Quiet::Unsettled, Quiet::CutOff, Quiet::Withdrawn, Quiet::Elsewhere("c".into())] {
            assert_eq!(told.decided("b", true, &one(decided(&["web"], Err(of_this_node)))), []);
        }
    }

    #[test]
    fn what_no_interface_can_announce_is_told_until_one_can() {
        let mut told = Told::default();
        let here = decided(&["web"], Ok(Interfaces::All));
        assert_eq!(reasons(&told.unheard(VIP, "a", &here)), [("web", "announceFailed")]);
        assert_eq!(told.decided("a", true, &one(here.clone())), []);
        assert_eq!(told.unheard(VIP, "a", &here), []);
        told.announced(VIP, "a", &here);
        assert_eq!(told.unheard(VIP, "a", &here).len(), 1);
    }

    #[test]
    fn what_others_tell_is_not_told_here_and_the_rest_names_vip_and_cause() {
        for (quiet, words) in [
            (Quiet::Unprogrammed, None),
            (Quiet::Nobody(Silence::NoAdvertisement), None),
            (
                Quiet::Nobody(Silence::NoEndpoints),
                Some("nobody announces 192.168.0.240: none of its Services has a ready endpoint"),
            ),
            (
                unable(Exclusion::NoInterface),
                Some(
                    "the interfaces specified by LB IP \"192.168.0.240\" doesn't exist in assigned node \"a\" with protocol \"layer2\"",
                ),
            ),
            (
                unable(Exclusion::NotSelected),
                Some(
                    "nobody announces 192.168.0.240: of node \"a\", no L2Advertisement that applies selects it; see nodeSelectors",
                ),
            ),
        ] {
            let word = words::quiet(VIP, "a", &quiet);
            assert_eq!(word.is_some(), words.is_some(), "{word:?}");
            let text = word.map(|word| word.text).unwrap_or_default();
            assert!(text.starts_with(words.unwrap_or_default()), "{text}");
        }
    }
}
