//! Who decides what is forwarded in a table of a packet filter, beside kube-proxy: pure.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::FILTER;
use super::check::{Finding, Kind, Severity};
use super::iptables::{self, Chains, FORWARD, Rule};
use crate::model::Family;
use crate::netlink::condition::{Condition, ESTABLISHED, Interface};
use crate::netlink::nft::{ForeignChain, TableFamily};

/// What a rule lets through that accepts, and has one thing at most to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    /// Every packet, or those that a plugin has marked for it: it has decided.
    All,
    /// What goes into this network; without one, what goes out by interfaces of pods.
    Into(Option<IpNet>),
    /// What comes out of this network; without one, what comes in by interfaces of pods.
    OutOf(Option<IpNet>),
    /// What belongs to a connection that was let through before.
    Established,
    /// Something more particular.
    Some,
}

/// What rules of others accept on every packet's way through a chain, up to a rule that drops all that has come so far: as plugins and
/// people write it, by network, by a plugin's interfaces or mark, or by what was let through before. What kube-proxy's chains accept is not in it, as they go. A rule with more
/// to look for is for something else (Docker's bridges, one published port), and so is a chain that only some packets are sent to
/// (a firewall's zones).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    into: Opening,
    out: Opening,
}

/// One direction of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Opening {
    /// Whatever network pods are in.
    any: bool,
    /// These.
    networks: Vec<IpNet>,
}

/// A chain at forward that drops what none of its rules accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropping {
    /// As findings name it.
    pub(super) name: String,
    /// Whose packets pass it; none: of both families.
    pub(super) family: Option<Family>,
    /// What others accept there.
    pub(super) passage: Passage,
    /// kube-proxy's KUBE-FORWARD accepts there, too.
    pub(super) by_kube_proxy: bool,
}

/// The built-in chain of table `filter` that forwarded packets pass.
pub(super) const FORWARD_HOOK: &str = "FORWARD";
/// `NF_INET_FORWARD` of `enum nf_inet_hooks`.
const FORWARD_HOOKED: u32 = 2;
/// What Calico accepts by: the first bit of `iptablesMarkMask`, 0xffff0000 by default. Others' marks are for others' packets: Tailscale's
/// (0x40000) are what came by its tunnel.
const CALICO_ACCEPTS: Condition = Condition::Mark { value: 0x10000, mask: 0x10000 };
/// The interfaces that Cilium accepts by (`CILIUM_FORWARD` of pkg/datapath/iptables). Any other may be a tunnel or a bridge of somebody's.
const CILIUM: [&str; 3] = ["cilium_host", "cilium_net", "lxc+"];

/// Whether a chain has a rule that drops whatever the rules before it leave: what distributions write where the policy stays ACCEPT,
/// last as a rule; what follows it is for no packet.
#[must_use]
pub(super) fn drops_the_rest(rules: &[Rule], chain: &str) -> bool {
    rules.iter().any(|rule| rule.chain == chain && rule.drops_all)
}

/// Whether kube-proxy accepts forwarded packets of Services in this table.
#[must_use]
pub(super) fn accepts_by_kube_proxy(rules: &[Rule]) -> bool {
    rules.iter().any(|rule| rule.target.as_deref() == Some(FORWARD))
}

impl Passage {
    /// Through this chain, rule by rule, as a packet goes.
    #[must_use]
    pub(super) fn of(rules: &[Rule], chain: &str) -> Self {
        let chains = Chains::of(rules);
        let mut passage = Self::default();
        // A second time through a chain, nothing more is accepted.
        let mut seen = BTreeSet::from([chain]);
        let mut way = vec![chains.rules(chain).iter()];
        while let Some(ahead) = way.last_mut() {
            let Some(rule) = ahead.next().filter(|rule| !rule.returns_all) else {
                way.pop();
                continue;
            };
            if rule.drops_all {
                break;
            }
            passage.open(rule.passes);
            let target = rule.target.as_deref().filter(|target| !rule.conditional && !iptables::is_chain(target));
            way.extend(target.filter(|target| seen.insert(target)).map(|target| chains.rules(target).iter()));
        }
        passage
    }

    fn open(&mut self, passes: Option<Passes>) {
        match passes {
            Some(Passes::All) => (self.into.any, self.out.any) = (true, true),
            Some(Passes::Into(network)) => self.into.open(network),
            Some(Passes::OutOf(network)) => self.out.open(network),
            Some(Passes::Established) => self.out.any = true,
            Some(Passes::Some) | None => {}
        }
    }

    /// Whether it lets through what goes to pods and what comes from them. `pods`: the networks they are in; with none known, any
    /// network is taken for theirs. Of one `family` only, if packets of no other come by: where pods have none of it, there is nothing
    /// to let through.
    #[must_use]
    pub(super) fn lets_through(&self, pods: &[IpNet], family: Option<Family>) -> bool {
        let of_family = |net: &&IpNet| family.is_none_or(|family| Family::of(net.addr()) == family);
        let of_it: Vec<IpNet> = pods.iter().filter(of_family).copied().collect();
        let nothing = of_it.is_empty() && !pods.is_empty();
        nothing || (self.into.covers(&of_it) && self.out.covers(&of_it))
    }
}

impl Opening {
    fn open(&mut self, network: Option<IpNet>) {
        match network {
            Some(network) => self.networks.push(network),
            None => self.any = true,
        }
    }

    /// Two halves of a network are the whole.
    fn covers(&self, pods: &[IpNet]) -> bool {
        let together = IpNet::aggregate(&self.networks);
        let covered = |pods: &IpNet| together.iter().any(|net| net.contains(pods));
        self.any || (!together.is_empty() && pods.iter().all(covered))
    }
}

/// Whether a chain decides what is forwarded and drops what it does not accept, or may do so by a rule.
#[must_use]
pub(super) fn may_drop(chain: &ForeignChain) -> bool {
    chain
        .base
        .as_ref()
        .is_some_and(|base| base.kind == "filter" && base.hook == FORWARD_HOOKED && (base.drops || is_forward(chain)))
}

/// Elsewhere the last rule of a chain says little: firewalls have chains for each zone.
fn is_forward(chain: &ForeignChain) -> bool {
    (chain.table.name.as_str(), chain.name.as_str()) == (FILTER, FORWARD_HOOK)
}

impl Dropping {
    /// A chain of nf_tables, with the rules of its table.
    pub(super) fn of(chain: &ForeignChain, rules: &[Rule]) -> Option<Self> {
        let by_policy = chain.base.as_ref().is_some_and(|base| base.drops);
        let by_rule = || is_forward(chain) && drops_the_rest(rules, FORWARD_HOOK);
        (may_drop(chain) && (by_policy || by_rule())).then(|| Self {
            name: format!("{} {}", chain.table, chain.name),
            family: match chain.table.family {
                TableFamily::IPV4 => Some(Family::V4),
                TableFamily::IPV6 => Some(Family::V6),
                _ => None,
            },
            passage: Passage::of(rules, &chain.name),
            by_kube_proxy: accepts_by_kube_proxy(rules),
        })
    }

    /// Whether it stops what goes to pods or comes from them, as far as `pods` says where those are.
    #[must_use]
    pub(super) fn stops(&self, pods: &[IpNet]) -> bool {
        !self.passage.lets_through(pods, self.family)
    }

    /// What to tell of it, if it stops traffic.
    pub(super) fn finding(&self, pods: &[IpNet]) -> Option<Finding> {
        self.stops(pods).then(|| Finding::new(Kind::ForwardPolicyDrop, Severity::Manual, self.text(pods)))
    }

    fn text(&self, pods: &[IpNet]) -> String {
        let because = if self.by_kube_proxy {
            "kube-proxy's KUBE-FORWARD accepts those of Services as long as kube-proxy's own rules translate them; "
        } else {
            ""
        };
        format!(
            "chain {} drops forwarded packets, and none of its rules accepts those from and to pods: {because}sheave accepts nothing \
             on behalf of others, so have rules accept packets from and to {}",
            self.name,
            pods_in_words(pods)
        )
    }
}

/// Where pods are, as far as it is known.
#[must_use]
pub fn pods_in_words(pods: &[IpNet]) -> String {
    let known: Vec<String> = pods.iter().map(ToString::to_string).collect();
    if known.is_empty() { "the pods' CIDRs".to_owned() } else { format!("the pods' CIDRs ({})", known.join(", ")) }
}

impl Passes {
    pub(super) fn of(conditions: &[Condition]) -> Self {
        let is_network = |net: &IpNet| net.prefix_len() < net.max_prefix_len();
        let is_pods = |interface: &Interface| CILIUM.iter().any(|name| interface.is(name));
        match conditions {
            [] | [CALICO_ACCEPTS] => Self::All,
            [Condition::Destination(net)] if is_network(net) => Self::Into(Some(*net)),
            [Condition::OutputInterface(interface)] if is_pods(interface) => Self::Into(None),
            [Condition::Source(net)] if is_network(net) => Self::OutOf(Some(*net)),
            [Condition::InputInterface(interface)] if is_pods(interface) => Self::OutOf(None),
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
        Passage::of(rules, FORWARD_HOOK).lets_through(&[], Some(Family::V4))
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
    fn what_is_behind_a_rule_that_drops_all_lets_nothing_through() {
        let rule = |chain: &str, fate| Rule::new(chain, None, fate, &[]);
        let [from, to] = [Condition::Source, Condition::Destination].map(|of| of("10.244.0.0/16".parse().unwrap()));
        let [from, to] = [accept("FORWARD", &[from]), accept("FORWARD", &[to])];
        let (drops, goes) = (rule("FORWARD", Fate::Drop), jump("mine", &[]));
        assert!(passes(&[from.clone(), to.clone(), drops.clone()]));
        for behind in [[drops.clone(), from.clone(), to.clone()], [from.clone(), drops.clone(), to.clone()]] {
            assert!(!passes(&behind), "{behind:?}");
        }
        // A chain of theirs, too, which comes before what follows the jump to it.
        let all = |way: &[Rule]| passes(&[way, &[from.clone(), to.clone()]].concat());
        assert!(!all(&[goes.clone(), rule("mine", Fate::Drop)]) && all(&[jump("mine", &[mark(1, 1)]), rule("mine", Fate::Drop)]));
        assert!(passes(&[goes.clone(), drops, rule("mine", Fate::Accept)]), "it accepts before the chain drops");
        // People append to DOCKER-USER, which ends by sending all back.
        assert!(all(&[goes, rule("mine", Fate::Return), rule("mine", Fate::Drop)]));
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

    /// Somebody's bridge, or a VPN's network, is accepted by network as well.
    #[test]
    fn networks_count_where_the_pods_are() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let (pods, pods6) = (net("10.244.0.0/16"), net("fd00:10:244::/56"));
        let both = |nets: &[&str]| -> Vec<Rule> {
            let of = |text: &&str| [Condition::Source(net(text)), Condition::Destination(net(text))];
            nets.iter().flat_map(of).map(|condition| accept("FORWARD", &[condition])).collect()
        };
        let passes = |nets: &[&str], pods: &[IpNet], family| Passage::of(&both(nets), FORWARD_HOOK).lets_through(pods, family);
        let v4 = Some(Family::V4);
        assert!(passes(&["10.244.0.0/16"], &[pods], v4) && passes(&["10.0.0.0/8"], &[pods], v4));
        assert!(passes(&["10.244.0.0/17", "10.244.128.0/17"], &[pods], v4), "halves of it");
        for unrelated in [&["172.17.0.0/16"][..], &["10.244.3.0/24"], &["10.244.0.0/17", "172.17.0.0/16"]] {
            assert!(!passes(unrelated, &[pods], v4), "{unrelated:?}");
            assert!(passes(unrelated, &[], v4), "where the pods are is not known: {unrelated:?}");
        }
        assert!(passes(&["10.244.0.0/16"], &[pods, pods6], v4), "no packet of the other family comes by");
        assert!(!passes(&["10.244.0.0/16"], &[pods, pods6], None), "a chain of both families");
        assert!(!passes(&[], &[], v4));
        // One family in the cluster, and a firewall of both.
        let v6 = Some(Family::V6);
        assert!(passes(&[], &[pods], v6) && !passes(&[], &[pods], v4) && !passes(&[], &[pods], None));
        assert!(passes(&[], &[pods6], v4) && !passes(&[], &[pods6], v6) && !passes(&[], &[pods6], None));
        let calico = [accept("FORWARD", &[mark(0x10000, 0x10000)])];
        assert!(Passage::of(&calico, FORWARD_HOOK).lets_through(&[pods], v4), "whose mark is for pods wherever they are");
    }
}
