//! What is kube-proxy's in a table of iptables, whichever of its two backends keeps it: pure, and careful.
//!
//! kube-proxy's are chains with its names, and the jumps to them from built-in chains. A chain of somebody else's that jumps to
//! one of them (host ports of container runtimes use KUBE-MARK-MASQ) keeps that chain alive, and all that it needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::forwarding::{self, FORWARD_HOOK, Passage, Passes};
use crate::netlink::condition::{Condition, INVALID};

/// A rule, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The chain it is in.
    pub chain: String,
    /// The chain it sends packets to.
    pub target: Option<String>,
    /// It is not for all packets.
    pub conditional: bool,
    /// The one destination address that it looks for.
    pub destination: Option<IpAddr>,
    /// The protocol and the port that it looks for.
    pub transport: Option<(u8, u16)>,
    /// It drops packets that belong to no connection.
    pub drops_invalid: bool,
    /// It drops every packet.
    pub drops_all: bool,
    /// It sends every packet back to where its chain was jumped to.
    pub returns_all: bool,
    /// What it lets through, if it accepts.
    pub(super) passes: Option<Passes>,
    /// It gives packets another destination.
    pub translates: bool,
    /// How its backend finds it again.
    pub place: Place,
}

/// What becomes of a packet at a rule, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on to the next hook.
    Accept,
    /// It is dropped, or refused.
    Drop,
    /// It goes on behind the jump to the rule's chain; in a built-in one, the policy decides.
    Return,
    /// Something else.
    Other,
}

/// How a backend finds a rule again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The kernel's number.
    Handle(u64),
    /// It does not: a tool does.
    #[default]
    Tool,
}

/// What is kube-proxy's in one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Its chains, which nobody else needs.
    pub chains: Vec<String>,
    /// Rules of built-in chains that jump to them.
    pub jumps: Vec<Rule>,
    /// Its chains that somebody else needs.
    pub kept: BTreeMap<String, Need>,
    /// Service addresses that it has rules for.
    pub services: BTreeSet<IpAddr>,
    /// It drops packets of no connection in forward.
    pub drops_invalid: bool,
    /// It accepts forwarded packets of Services.
    pub accepts_forwarded: bool,
    /// What rules of others accept of what is forwarded.
    pub passage: Passage,
    /// Frontends that it has endpoints for: with an address, and NodePorts.
    pub frontends: BTreeSet<(IpAddr, u8, u16)>,
    /// See [`frontends`](Self::frontends).
    pub node_ports: BTreeSet<(u8, u16)>,
}

/// Why a chain of kube-proxy's has to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Whose chain jumps to one of kube-proxy's.
    pub by: String,
    /// To which: the chain itself, or one that is of no use without it.
    pub jumps_to: String,
}

/// Chains with a fixed name, of the iptables and the ipvs mode. kubelet's own (KUBE-FIREWALL, KUBE-IPTABLES-HINT,
/// KUBE-KUBELET-CANARY, KUBE-MARK-DROP) are not among them.
const CHAINS: [&str; 14] = [
    SERVICES,
    "KUBE-EXTERNAL-SERVICES",
    NODE_PORTS,
    MARK,
    MASQUERADE,
    FORWARD,
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-NODE-PORT",
    "KUBE-LOAD-BALANCER",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-SOURCE-RANGE-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];
const SERVICES: &str = "KUBE-SERVICES";
const NODE_PORTS: &str = "KUBE-NODEPORTS";
pub(super) const FORWARD: &str = "KUBE-FORWARD";
/// Marks for masquerading, and masquerades what is marked: one is of no use without the other.
const MARK: &str = "KUBE-MARK-MASQ";
const MASQUERADE: &str = "KUBE-POSTROUTING";

/// Chains of one Service or endpoint: the prefix, and sixteen characters of base 32 (`servicePortChainNameBase` of
/// pkg/proxy/iptables/proxier.go). kube-router and others use longer names that begin alike.
const PREFIXES: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-", "KUBE-XLB-"];
const HASH: usize = 16;

/// The ipsets of the ipvs mode (`ipsetInfo` of pkg/proxy/ipvs/proxier.go).
const IPSETS: [&str; 19] = [
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-SOURCE-CIDR",
    "LOAD-BALANCER-SOURCE-IP",
    "NODE-PORT-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
    "NODE-PORT-SCTP",
    "NODE-PORT-LOCAL-SCTP",
];
/// The longest name of an ipset. kube-proxy cuts its IPv6 names there.
const LONGEST_IPSET: usize = 31;

/// Whether a chain of this name is kube-proxy's.
#[must_use]
pub fn is_chain(name: &str) -> bool {
    let hashed = |prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|hash| hash.len() == HASH && hash.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7')))
    };
    CHAINS.contains(&name) || PREFIXES.iter().any(|prefix| hashed(prefix))
}

/// Whether an ipset of this name is kube-proxy's.
#[must_use]
pub fn is_ipset(name: &str) -> bool {
    let is = |own: &str| {
        let cut = |mut name: String| {
            name.truncate(LONGEST_IPSET);
            name
        };
        name == cut(format!("KUBE-{own}")) || name == cut(format!("KUBE-6-{own}"))
    };
    IPSETS.into_iter().any(is)
}

/// What is kube-proxy's among these chains and rules of one table. `builtin` says which chains are the table's own.
#[must_use]
pub fn share<'a>(chains: impl Iterator<Item = &'a str>, builtin: impl Fn(&str) -> bool, rules: &[Rule]) -> Share {
    let own: BTreeSet<&str> = chains.filter(|chain| is_chain(chain)).collect();
    let kept = kept(&own, &builtin, rules);
    let goes = |chain: &str| own.contains(chain) && !kept.contains_key(chain);
    let into = |rule: &&Rule| rule.target.as_deref().is_some_and(goes);
    let chains = Chains::of(rules);
    let served = || rules.iter().filter(|rule| rule.target.as_deref().is_some_and(|target| chains.translates(target)));
    Share {
        chains: own.iter().filter(|chain| goes(chain)).map(|&chain| chain.to_owned()).collect(),
        jumps: rules.iter().filter(|rule| builtin(&rule.chain)).filter(into).cloned().collect(),
        services: rules.iter().filter(|rule| own.contains(rule.chain.as_str())).filter_map(|rule| rule.destination).collect(),
        drops_invalid: rules.iter().any(|rule| rule.chain == FORWARD && rule.drops_invalid),
        accepts_forwarded: forwarding::accepts_by_kube_proxy(rules),
        passage: Passage::of(rules, FORWARD_HOOK),
        frontends: served()
            .filter(|rule| rule.chain == SERVICES)
            .filter_map(|rule| rule.destination.zip(rule.transport).map(|(ip, (protocol, port))| (ip, protocol, port)))
            .collect(),
        node_ports: served().filter(|rule| rule.chain == NODE_PORTS).filter_map(|rule| rule.transport).collect(),
        kept,
    }
}

/// Rules by chain.
pub(super) struct Chains<'a>(BTreeMap<&'a str, Vec<&'a Rule>>);

impl<'a> Chains<'a> {
    pub(super) fn of(rules: &'a [Rule]) -> Self {
        let mut chains: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
        for rule in rules {
            chains.entry(&rule.chain).or_default().push(rule);
        }
        Self(chains)
    }

    pub(super) fn rules(&self, chain: &str) -> &[&'a Rule] {
        self.0.get(chain).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a packet that is sent there may be given another destination.
    pub(super) fn translates<'b>(&'b self, chain: &'b str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![chain];
        while let Some(chain) = open.pop() {
            if seen.insert(chain) {
                for rule in self.rules(chain) {
                    if rule.translates {
                        return true;
                    }
                    open.extend(rule.target.as_deref());
                }
            }
        }
        false
    }
}

/// Chains that must stay, with the stranger that needs them. Who is jumped to comes before what it needs in turn.
fn kept(own: &BTreeSet<&str>, builtin: &impl Fn(&str) -> bool, rules: &[Rule]) -> BTreeMap<String, Need> {
    let mut kept: BTreeMap<String, Need> = BTreeMap::new();
    let mut found: VecDeque<(&str, &str, &str)> = VecDeque::new();
    for rule in rules.iter().filter(|rule| !builtin(&rule.chain) && !own.contains(rule.chain.as_str())) {
        found.extend(rule.target.as_deref().map(|target| (target, rule.chain.as_str(), target)));
    }
    while let Some((chain, by, jumps_to)) = found.pop_front() {
        if !own.contains(chain) || kept.contains_key(chain) {
            continue;
        }
        kept.insert(chain.to_owned(), Need { by: by.to_owned(), jumps_to: jumps_to.to_owned() });
        let further = rules.iter().filter(|rule| rule.chain == chain).filter_map(|rule| rule.target.as_deref());
        let further = further.chain((chain == MARK).then_some(MASQUERADE));
        found.extend(further.map(|target| (target, by, jumps_to)));
    }
    kept
}

impl Need {
    /// Why this chain stays, in words that go on after its name and a colon.
    #[must_use]
    pub fn of(&self, chain: &str) -> String {
        let Self { by, jumps_to } = self;
        if jumps_to == chain {
            format!("chain {by}, which is not kube-proxy's, jumps to it")
        } else {
            format!("chain {by}, which is not kube-proxy's, jumps to {jumps_to}, which is of no use without it")
        }
    }
}

impl Rule {
    /// A rule that has these conditions, and that is nothing but a target and a fate otherwise.
    #[must_use]
    pub fn new(chain: &str, target: Option<&str>, fate: Fate, conditions: &[Condition]) -> Self {
        let find = |of: fn(&Condition) -> Option<u16>| conditions.iter().find_map(of);
        let protocol = find(|condition| match condition {
            Condition::Protocol(protocol) => Some((*protocol).into()),
            _ => None,
        });
        let port = find(|condition| match condition {
            Condition::DestinationPort(port) => Some(*port),
            _ => None,
        });
        let host = conditions.iter().find_map(|condition| match condition {
            Condition::Destination(net) if net.prefix_len() == net.max_prefix_len() => Some(net.addr()),
            _ => None,
        });
        Self {
            chain: chain.to_owned(),
            target: target.map(str::to_owned),
            conditional: !conditions.is_empty(),
            destination: host,
            transport: protocol.and_then(|protocol| u8::try_from(protocol).ok()).zip(port),
            drops_invalid: fate == Fate::Drop && conditions == [Condition::States(INVALID)],
            drops_all: fate == Fate::Drop && conditions.is_empty(),
            returns_all: fate == Fate::Return && conditions.is_empty(),
            passes: (fate == Fate::Accept).then(|| Passes::of(conditions)),
            ..Self::default()
        }
    }
}

impl Share {
    /// Whether nothing here is kube-proxy's.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "KUBE-SVC-NPX46M4PTMTKRN6Y";

    fn rule(chain: &str, target: &str, handle: u64) -> Rule {
        Rule { chain: chain.to_owned(), target: Some(target.to_owned()), place: Place::Handle(handle), ..Rule::default() }
    }

    fn of(chains: &[&str], rules: &[Rule]) -> Share {
        share(chains.iter().copied(), |chain| chain.chars().all(|letter| letter.is_ascii_uppercase()), rules)
    }

    #[test]
    fn names_of_others_are_not_taken_for_kube_proxys() {
        for own in ["KUBE-SERVICES", "KUBE-PROXY-CANARY", SERVICE, "KUBE-SEP-ABCDEFGHIJKLM234"] {
            assert!(is_chain(own), "{own}");
        }
        // kubelet's, kube-router's, a plugin's, and one that a person made.
        let others = [
            "KUBE-FIREWALL",
            "KUBE-KUBELET-CANARY",
            "KUBE-IPTABLES-HINT",
            "KUBE-MARK-DROP",
            "KUBE-ROUTER-FORWARD",
            "KUBE-FW-MINE",
        ];
        for other in others {
            assert!(!is_chain(other), "{other}");
        }
        assert!(is_ipset("KUBE-CLUSTER-IP") && is_ipset("KUBE-6-CLUSTER-IP"));
        assert!(is_ipset("KUBE-6-LOAD-BALANCER-SOURCE-CID"), "cut at 31 characters");
        assert!(!is_ipset("KUBE-SRC-ABCDEFGHIJKLMNOP") && !is_ipset("KUBE-CLUSTER-IPS") && !is_ipset("cali40masq-ipam-pools"));
    }

    #[test]
    fn jumps_from_built_in_chains_go_and_all_other_rules_stay() {
        let rules = [
            rule("PREROUTING", "KUBE-SERVICES", 1),
            rule("PREROUTING", "CNI-HOSTPORT-DNAT", 2),
            rule("KUBE-SERVICES", SERVICE, 3),
            rule("POSTROUTING", "KUBE-POSTROUTING", 4),
        ];
        let share = of(&["PREROUTING", "KUBE-SERVICES", SERVICE, "KUBE-POSTROUTING", "CNI-HOSTPORT-DNAT"], &rules);
        assert_eq!(share.chains, ["KUBE-POSTROUTING", "KUBE-SERVICES", SERVICE]);
        assert_eq!(share.jumps, [rules[0].clone(), rules[3].clone()]);
        assert!(share.kept.is_empty());
    }

    #[test]
    fn a_chain_that_a_stranger_jumps_to_stays_with_all_that_it_needs() {
        let rules = [
            rule("POSTROUTING", "KUBE-POSTROUTING", 1),
            rule("CNI-HOSTPORT-SETMARK", "KUBE-MARK-MASQ", 2),
            rule("PREROUTING", "KUBE-SERVICES", 3),
        ];
        let share = of(&["KUBE-SERVICES", "KUBE-MARK-MASQ", "KUBE-POSTROUTING", "CNI-HOSTPORT-SETMARK"], &rules);
        assert_eq!(share.chains, ["KUBE-SERVICES"]);
        assert_eq!(share.jumps, [rules[2].clone()]);
        assert_eq!(share.kept.keys().collect::<Vec<_>>(), ["KUBE-MARK-MASQ", "KUBE-POSTROUTING"]);
        let why = |share: &Share, chain: &str| share.kept[chain].of(chain);
        let direct = "chain CNI-HOSTPORT-SETMARK, which is not kube-proxy's, jumps to it";
        assert_eq!(why(&share, "KUBE-MARK-MASQ"), direct);
        assert_eq!(
            why(&share, "KUBE-POSTROUTING"),
            "chain CNI-HOSTPORT-SETMARK, which is not kube-proxy's, jumps to KUBE-MARK-MASQ, which is of no use without it"
        );

        let mut rules = rules.to_vec();
        rules.insert(0, rule("CNI-HOSTPORT-SETMARK", "KUBE-POSTROUTING", 4));
        rules.reverse();
        let share = of(&["KUBE-MARK-MASQ", "KUBE-POSTROUTING", "CNI-HOSTPORT-SETMARK"], &rules);
        assert_eq!(why(&share, "KUBE-POSTROUTING"), direct, "jumped to in both ways");
    }

    #[test]
    fn a_frontend_is_served_once_its_chain_leads_to_an_endpoint() {
        let at = |chain: &str, target: &str, conditions: &[Condition]| Rule::new(chain, Some(target), Fate::Other, conditions);
        let web =
            [Condition::Destination("10.96.0.1/32".parse().unwrap()), Condition::Protocol(6), Condition::DestinationPort(443)];
        let endpoint = "KUBE-SEP-ABCDEFGHIJKLM234";
        let mut rules = vec![at("KUBE-SERVICES", SERVICE, &web), at("KUBE-NODEPORTS", SERVICE, &web[1..])];
        let chains = ["KUBE-SERVICES", "KUBE-NODEPORTS", SERVICE, endpoint];
        assert_eq!((of(&chains, &rules).frontends.len(), of(&chains, &rules).node_ports.len()), (0, 0), "no endpoints");
        rules.push(rule(SERVICE, endpoint, 1));
        rules.push(Rule { translates: true, ..rule(endpoint, "DNAT", 2) });
        let share = of(&chains, &rules);
        assert_eq!(share.frontends, BTreeSet::from([(IpAddr::from([10, 96, 0, 1]), 6, 443)]));
        assert_eq!(share.node_ports, BTreeSet::from([(6, 443)]));
        assert_eq!(share.services, BTreeSet::from([IpAddr::from([10, 96, 0, 1])]));
    }
}
