//! Who decides what is forwarded in a table of iptables, beside kube-proxy: pure.

use std::collections::BTreeSet;

use super::iptables::{self, Chains, Rule};
use crate::netlink::condition::{Condition, ESTABLISHED};

/// What a rule lets through that accepts, and has one thing at most to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    /// Every packet, or those that somebody has marked for it: who marks has decided.
    All,
    /// What goes into a network, or out by an interface.
    Into,
    /// What comes out of a network, or in by an interface.
    OutOf,
    /// What belongs to a connection that was let through before.
    Established,
    /// Something more particular.
    Some,
}

/// The built-in chain of table `filter` that forwarded packets pass.
pub(super) const FORWARD_HOOK: &str = "FORWARD";
/// Whether a chain drops what its other rules leave, by its last rule: what distributions write where the policy stays ACCEPT.
#[must_use]
pub(super) fn drops_the_rest(rules: &[Rule], chain: &str) -> bool {
    rules.iter().any(|rule| rule.chain == chain && rule.drops_all)
}

/// Whether rules of others accept what is forwarded to pods, and what comes from them, on the way through a chain: as plugins and people
/// write it, by network, by interface, by a mark of their own, or by what was let through before. What kube-proxy's chains accept is not
/// counted, as they go. A rule with more to look for is for something else (Docker's bridges, one published port).
#[must_use]
pub(super) fn lets_pods_through(rules: &[Rule], chain: &str) -> bool {
    let chains = Chains::of(rules);
    let mut seen = BTreeSet::new();
    let mut open = vec![chain];
    let (mut into, mut out) = (false, false);
    while let Some(chain) = open.pop() {
        if !seen.insert(chain) {
            continue;
        }
        for rule in chains.rules(chain) {
            match rule.passes {
                Some(Passes::All) => return true,
                Some(Passes::Into) => into = true,
                Some(Passes::OutOf | Passes::Established) => out = true,
                Some(Passes::Some) | None => {}
            }
            open.extend(rule.target.as_deref().filter(|target| !iptables::is_chain(target)));
        }
    }
    into && out
}

impl Passes {
    pub(super) fn of(conditions: &[Condition]) -> Self {
        let is_network = |net: &ipnet::IpNet| net.prefix_len() < net.max_prefix_len();
        match conditions {
            [] | [Condition::Mark] => Self::All,
            [Condition::Destination(net)] if is_network(net) => Self::Into,
            [Condition::OutputInterface] => Self::Into,
            [Condition::Source(net)] if is_network(net) => Self::OutOf,
            [Condition::InputInterface] => Self::OutOf,
            [Condition::States(states)] if states & ESTABLISHED != 0 => Self::Established,
            _ => Self::Some,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::iptables::Fate;
    use super::*;

    #[test]
    fn pods_are_let_through_by_rules_of_others_that_say_so() {
        let net = |text: &str| text.parse().unwrap();
        let to = |text: &str| Condition::Destination(net(text));
        let from = |text: &str| Condition::Source(net(text));
        let accept = |chain: &str, conditions: &[Condition]| Rule::new(chain, None, Fate::Accept, conditions);
        let jump = |to: &str| Rule::new("FORWARD", Some(to), Fate::Other, &[]);
        let passes = |rules: &[Rule]| lets_pods_through(rules, FORWARD_HOOK);
        let established = Condition::States(ESTABLISHED | 4);
        // flannel's, Cilium's and Calico's own; a person's; and everything.
        let plugin = [accept("FLANNEL-FWD", &[from("10.244.0.0/16")]), accept("FLANNEL-FWD", &[to("10.244.0.0/16")])];
        assert!(passes(&[&plugin[..], &[jump("FLANNEL-FWD")]].concat()) && !passes(&plugin));
        assert!(passes(&[accept("FORWARD", &[Condition::OutputInterface]), accept("FORWARD", &[Condition::InputInterface])]));
        assert!(passes(&[accept("FORWARD", &[Condition::Mark])]) && passes(&[accept("FORWARD", &[])]));
        assert!(passes(&[accept("FORWARD", &[to("10.244.0.0/16")]), accept("FORWARD", &[established])]));
        // Docker's: one bridge, answers to it, a published port; and half of what is needed.
        let docker = [
            accept("FORWARD", &[Condition::OutputInterface, established]),
            accept("FORWARD", &[Condition::InputInterface, Condition::Other]),
            accept("FORWARD", &[to("172.17.0.2/32")]),
        ];
        assert!(!passes(&docker));
        assert!(!passes(&[accept("FORWARD", &[from("10.244.0.0/16")]), accept("FORWARD", &[established])]));
        let refuses = Rule::new("FORWARD", None, Fate::Drop, &[]);
        let rules = [refuses];
        assert!(drops_the_rest(&rules, FORWARD_HOOK) && !drops_the_rest(&rules, "INPUT"));
        assert!(!drops_the_rest(&[Rule::new("FORWARD", None, Fate::Drop, &[Condition::Mark])], FORWARD_HOOK));
        // kube-proxy's own accept, and go.
        assert!(!passes(&[
            jump("KUBE-FORWARD"),
            accept("KUBE-FORWARD", &[Condition::Mark]),
            accept("KUBE-FORWARD", &[established])
        ]));
    }
}
