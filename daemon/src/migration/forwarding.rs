//! Who decides what is forwarded in a table of iptables, beside kube-proxy: pure.

use std::collections::BTreeSet;

use super::iptables::{self, Chains, Rule};
use crate::netlink::condition::{Condition, ESTABLISHED, Interface};

/// What a rule lets through that accepts, and has one thing at most to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    /// Every packet, or those that a plugin has marked for it: it has decided.
    All,
    /// What goes into a network, or out by interfaces of pods.
    Into,
    /// What comes out of a network, or in by interfaces of pods.
    OutOf,
    /// What belongs to a connection that was let through before.
    Established,
    /// Something more particular.
    Some,
}

/// The built-in chain of table `filter` that forwarded packets pass.
pub(super) const FORWARD_HOOK: &str = "FORWARD";
/// What Calico accepts by: the first bit of `iptablesMarkMask`, 0xffff0000 by default. Others' marks are for others' packets: Tailscale's
/// (0x40000) are what came by its tunnel.
const CALICO_ACCEPTS: Condition = Condition::Mark { value: 0x10000, mask: 0x10000 };
/// The interfaces that Cilium accepts by (`CILIUM_FORWARD` of pkg/datapath/iptables). Any other may be a tunnel or a bridge of somebody's.
const CILIUM: [&str; 3] = ["cilium_host", "cilium_net", "lxc+"];

/// Whether a chain drops what its other rules leave, by its last rule: what distributions write where the policy stays ACCEPT.
#[must_use]
pub(super) fn drops_the_rest(rules: &[Rule], chain: &str) -> bool {
    rules.iter().any(|rule| rule.chain == chain && rule.drops_all)
}

/// Whether rules of others accept what is forwarded to pods, and what comes from them, on every packet's way through a chain: as plugins
/// and people write it, by network, by a plugin's interfaces or mark, or by what was let through before. What kube-proxy's chains accept
/// is not counted, as they go. A rule with more to look for is for something else (Docker's bridges, one published port), and so is a
/// chain that only some packets are sent to (a firewall's zones).
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
            let target = rule.target.as_deref().filter(|target| !rule.conditional && !iptables::is_chain(target));
            open.extend(target);
        }
    }
    into && out
}

impl Passes {
    pub(super) fn of(conditions: &[Condition]) -> Self {
        let is_network = |net: &ipnet::IpNet| net.prefix_len() < net.max_prefix_len();
        let is_pods = |interface: &Interface| CILIUM.iter().any(|name| interface.is(name));
        match conditions {
            [] | [CALICO_ACCEPTS] => Self::All,
            [Condition::Destination(net)] if is_network(net) => Self::Into,
            [Condition::OutputInterface(interface)] if is_pods(interface) => Self::Into,
            [Condition::Source(net)] if is_network(net) => Self::OutOf,
            [Condition::InputInterface(interface)] if is_pods(interface) => Self::OutOf,
            [Condition::States(states)] if states & ESTABLISHED != 0 => Self::Established,
            _ => Self::Some,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::iptables::Fate;
    use super::*;

    fn accept(chain: &str, conditions: &[Condition]) -> Rule {
        Rule::new(chain, None, Fate::Accept, conditions)
    }

    fn jump(to: &str, conditions: &[Condition]) -> Rule {
        Rule::new("FORWARD", Some(to), Fate::Other, conditions)
    }

    fn into(interface: &str) -> Condition {
        Condition::OutputInterface(Interface::compared_with(interface.as_bytes()).unwrap())
    }

    fn out_of(interface: &str) -> Condition {
        Condition::InputInterface(Interface::compared_with(interface.as_bytes()).unwrap())
    }

    fn mark(value: u32, mask: u32) -> Condition {
        Condition::Mark { value, mask }
    }

    fn passes(rules: &[Rule]) -> bool {
        lets_pods_through(rules, FORWARD_HOOK)
    }

    const ANSWERS: Condition = Condition::States(ESTABLISHED | 4);

    #[test]
    fn pods_are_let_through_by_rules_of_others_that_say_so() {
        let net = |text: &str| text.parse().unwrap();
        let to = |text: &str| Condition::Destination(net(text));
        let from = |text: &str| Condition::Source(net(text));
        // flannel's, Cilium's and Calico's own; a person's; and everything.
        let flannel = [accept("FLANNEL-FWD", &[from("10.244.0.0/16")]), accept("FLANNEL-FWD", &[to("10.244.0.0/16")])];
        assert!(passes(&[&flannel[..], &[jump("FLANNEL-FWD", &[])]].concat()) && !passes(&flannel));
        let cilium = |into_pods, out_of_pods| {
            let (into, out) = (accept("CILIUM_FORWARD", &[into_pods]), accept("CILIUM_FORWARD", &[out_of_pods]));
            passes(&[jump("CILIUM_FORWARD", &[]), into, out])
        };
        assert!(cilium(into("cilium_host\0"), out_of("cilium_host\0")) && cilium(into("lxc"), out_of("cilium_net\0")));
        assert!(passes(&[accept("FORWARD", &[mark(0x10000, 0x10000)])]) && passes(&[accept("FORWARD", &[])]));
        assert!(passes(&[accept("FORWARD", &[to("10.244.0.0/16")]), accept("FORWARD", &[ANSWERS])]));
        // Docker's: one bridge, answers to it, a published port; and half of what is needed.
        let docker = [
            accept("FORWARD", &[into("docker0\0"), ANSWERS]),
            accept("FORWARD", &[out_of("docker0\0"), Condition::Other]),
            accept("FORWARD", &[to("172.17.0.2/32")]),
        ];
        assert!(!passes(&docker));
        assert!(!passes(&[accept("FORWARD", &[from("10.244.0.0/16")]), accept("FORWARD", &[ANSWERS])]));
        let refuses = Rule::new("FORWARD", None, Fate::Drop, &[]);
        let rules = [refuses];
        assert!(drops_the_rest(&rules, FORWARD_HOOK) && !drops_the_rest(&rules, "INPUT"));
        assert!(!drops_the_rest(&[Rule::new("FORWARD", None, Fate::Drop, &[mark(1, 1)])], FORWARD_HOOK));
        // kube-proxy's own accept, and go.
        assert!(!passes(&[
            jump("KUBE-FORWARD", &[]),
            accept("KUBE-FORWARD", &[mark(0x4000, 0x4000)]),
            accept("KUBE-FORWARD", &[ANSWERS])
        ]));
    }

    #[test]
    fn what_others_let_through_for_themselves_is_not_for_pods() {
        let tailscale = [jump("ts-forward", &[]), accept("ts-forward", &[mark(0x40000, 0xff_0000)])];
        assert!(!passes(&tailscale) && !passes(&[accept("FORWARD", &[mark(0x40000, u32::MAX)])]));
        // WireGuard's, and LXC's bridge, which begins like Cilium's interfaces of pods.
        for one in ["wg0\0", "lxcbr0\0"] {
            assert!(!passes(&[accept("FORWARD", &[into(one)]), accept("FORWARD", &[out_of(one)])]), "{one}");
        }
        // firewalld's zones: whoever is sent there may all pass.
        let zone = accept("FWD_trusted", &[]);
        assert!(!passes(&[jump("FWD_trusted", &[out_of("eth1\0")]), zone.clone()]));
        assert!(passes(&[jump("FWD_trusted", &[]), zone]));
    }
}
