//! The chains, line by line as `nft list table inet sheave` shows them. Why each is there: `docs/nftables.md`, and kube-proxy's
//! verdicts (reject, drop, masquerade) which they reproduce.

use std::collections::BTreeSet;

use crate::model::{AffinityTimeout, Family};

use super::features::{FamilyFeatures, Features, PodTest, classes};
use super::line::{FRONTEND, Field, Line, NODE_PORT, ORIGINAL_FRONTEND, ORIGINAL_NODE_PORT, RuleSpec, line};
use crate::dataplane::nftables::names::{Instances, LAYOUT, Pool, Reach, SetKind};

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    /// Where packets enter, for a base chain.
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<RuleSpec>,
}

/// Hook of a base chain. Policy is always accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// `nat` or `filter`.
    pub(crate) nat: bool,
    pub(crate) hook: nftnl::Hook,
    pub(crate) priority: i32,
}

/// Where we translate destinations: just before `dstnat` of `enum nf_ip_hook_priorities`, where kube-proxy does. Once a chain has
/// translated a connection the kernel asks no further one (`nf_nat_inet_fn` in net/netfilter/nf_nat_core.c), so while both sets of
/// rules exist ours decide.
pub const NAT_PRIORITY: i32 = DSTNAT - 1;
const DSTNAT: i32 = -100;
/// The base chains that do so.
pub(crate) const TRANSLATING: [&str; 2] = ["nat-prerouting", "nat-output"];
/// `srcnat`, and for the same reason just before it.
const SRCNAT: i32 = 100;
const FILTER: i32 = 0;

/// Draws that may hit a hole before the draw from the lower half, which cannot: a set of class M has more than M/2 backends.
/// Each further draw halves the bias; six leave the upper half at most 1.6 % short of its share.
const DRAWS: usize = 6;

/// Every chain: regular ones of both families first, then the base chains.
pub(crate) fn chains(features: &Features, names: &Instances) -> Vec<Chain> {
    let mut chains = vec![Chain { name: LAYOUT.to_owned(), hook: None, rules: Vec::new() }];
    for family in Family::ALL {
        FamilyChains { family, features: features.family(family), names, chains: &mut chains }.write();
    }
    chains.extend(base_chains(features, names));
    chains
}

/// The base chains: nothing but jumps, so that a change of everything else touches only these few rules.
fn base_chains(features: &Features, names: &Instances) -> Vec<Chain> {
    let ranges = |family| features.family(family).ranges;
    let learns = |family| features.family(family).learns();
    let always = |_| true;
    let to = |start: fn(Family) -> Line, base: &str, wanted: &dyn Fn(Family) -> bool| -> Vec<RuleSpec> {
        Family::ALL
            .into_iter()
            .filter(|family| wanted(*family))
            .map(|family| start(family).of_family().jump(names.chain(base, family)))
            .collect()
    };
    let any = |family| line(family);
    let new = |family| line(family).new_connection();
    let has_vips = |family| features.family(family).vips;
    let to_vip = |family| {
        let vips = names.set(SetKind::Vips.of(family));
        line(family).of_no_connection().in_set(&[Field::Daddr], vips)
    };
    let new_translated = |family| line(family).new_connection().translated();
    let translated = |family| line(family).translated();

    let base = |name: &str, nat, hook: nftnl::Hook, priority, rules: Vec<Vec<RuleSpec>>| Chain {
        name: name.to_owned(),
        hook: Some(Hook { nat, hook, priority }),
        rules: rules.concat(),
    };
    let mut chains = Vec::new();
    if Family::ALL.into_iter().any(ranges) {
        // Before DNAT, while the packet still shows what it was addressed to; not established flows (kube-proxy 4.1).
        for (name, hook) in [("firewall-prerouting", nftnl::Hook::PreRouting), ("firewall-output", nftnl::Hook::Out)] {
            chains.push(base(name, false, hook, DSTNAT - 10, vec![to(new, "firewall", &ranges)]));
        }
    }
    if features.v4.localhost {
        // Before anything translates: with route_localnet a neighbour could otherwise reach what listens at 127.0.0.1 only
        // (CVE-2020-8558). Answers to translated connections are not addressed to loopback yet here.
        let guard = vec![line(Family::V4).martian().drop()];
        chains.push(base("localnet-guard", false, nftnl::Hook::PreRouting, DSTNAT - 10, vec![guard]));
    }
    for (name, hook) in TRANSLATING.into_iter().zip([nftnl::Hook::PreRouting, nftnl::Hook::Out]) {
        chains.push(base(name, true, hook, NAT_PRIORITY, vec![to(any, "services", &always)]));
    }
    let learn = to(new_translated, "learn", &learns);
    let verdicts = to(new, "verdicts", &always);
    let unknown = to(new, "unknown", &always);
    let input = vec![learn.clone(), to(new, "node-verdicts", &always), verdicts.clone()];
    chains.push(base("filter-input", false, nftnl::Hook::In, FILTER, input));
    chains.push(base("filter-forward", false, nftnl::Hook::Forward, FILTER, vec![verdicts.clone(), unknown.clone()]));
    let duties: Vec<RuleSpec> = Family::ALL
        .into_iter()
        .filter(|family| has_vips(*family))
        .map(|family| to_vip(family).jump(names.chain("duties", family)))
        .collect();
    // The kernel also redirects what we have translated, and says so before the forward hook. Of IPv4 it drops those itself
    // (`nf_nat_icmp_reply_translation`); of IPv6 it takes them for invalid and lets them out, and has no `send_redirects` to be set.
    let redirect = Some(line(Family::V6).nd_redirect().drop()).filter(|_| has_vips(Family::V6));
    let output = vec![redirect.into_iter().collect(), verdicts, unknown, duties.clone()];
    chains.push(base("filter-output", false, nftnl::Hook::Out, FILTER, output));
    if !duties.is_empty() {
        chains.push(base("duties-prerouting", false, nftnl::Hook::PreRouting, DSTNAT + 10, vec![duties]));
    }
    if Family::ALL.into_iter().any(learns) {
        chains.push(base("learn-postrouting", false, nftnl::Hook::PostRouting, SRCNAT - 10, vec![learn]));
    }
    let masquerading = to(translated, "masquerading", &always);
    chains.push(base("nat-postrouting", true, nftnl::Hook::PostRouting, SRCNAT - 1, vec![masquerading]));
    chains
}

struct FamilyChains<'a> {
    family: Family,
    features: &'a FamilyFeatures,
    names: &'a Instances,
    chains: &'a mut Vec<Chain>,
}

impl FamilyChains<'_> {
    fn write(&mut self) {
        for pool in Pool::ALL {
            self.dispatch(pool);
        }
        self.scopes();
        self.services();
        self.verdicts();
        self.masquerading();
        if self.features.learns() {
            self.learning();
        }
        if self.features.vips {
            self.duties();
        }
        if self.features.ranges {
            let (ranged, ranges) = (self.set(SetKind::Ranged), self.set(SetKind::Ranges));
            let allowed = [FRONTEND, &[Field::Saddr]].concat();
            self.chain("firewall", [self.line().in_set(FRONTEND, ranged).not_in_set(&allowed, ranges).drop()]);
        }
    }

    /// One pick chain for each class, and the chain that finds the class of a frontend.
    ///
    /// Each draw is written once to be drawn first, and once, in a chain of its own, for all who draw it again: every element that is
    /// added to the map is checked against every rule that draws from it (`nft_add_set_elem`), 5 ms a rule for 250,000 of them. The
    /// first draw, which is the last one for most packets, needs no jump.
    fn dispatch(&mut self, pool: Pool) {
        let key = key_of(pool);
        let map = self.set(SetKind::Endpoints(pool));
        let draw = |modulus| self.line().dnat_drawn(key, modulus, map.clone());
        let pick = |class| self.name(&format!("{}pick-{class}", pool.prefix()));
        let redraw = |class| self.name(&format!("{}redraw-{class}", pool.prefix()));
        let largest = self.features.top(pool);
        let mut redraws = Vec::new();
        let mut picks = Vec::new();
        let mut dispatch = Vec::new();
        for class in classes(largest) {
            let mut rules = vec![draw(class)];
            if class > 2 {
                redraws.push((redraw(class), vec![draw(class)]));
                let again = if class == 4 { 3 } else { DRAWS - 1 };
                rules.extend(vec![self.line().jump(redraw(class)); again]);
            }
            match class {
                1 => {}
                2 => rules.push(self.line().goto(pick(1))),
                4 => rules.push(self.line().goto(pick(2))),
                // Slot 0 at last: the set shrank between the test for its class and the draw.
                _ => rules.extend([self.line().jump(redraw(class / 2)), self.line().goto(pick(1))]),
            }
            let members = self.set(SetKind::Class(pool, class));
            dispatch.push(self.line().in_set(key, members).goto(pick(class)));
            picks.push((pick(class), rules));
        }
        // The frontend may change its class between two of the tests above, behind our back: 7 of 24,000 packets left untranslated
        // without this rule, none of 128,000 with it, while a Service flipped between two classes 25,000 times a second.
        dispatch.push(self.line().goto(pick(1)));
        let dispatch = (self.name(&format!("{}dispatch", pool.prefix())), dispatch);
        let chains = redraws.into_iter().chain(picks).chain([dispatch]);
        self.chains.extend(chains.map(|(name, rules)| Chain { name, hook: None, rules }));
    }

    /// Policy Local on an external frontend: pods and the node itself are served by the cluster set, all others by the local one.
    fn scopes(&mut self) {
        for (name, general, local) in
            [("scope", "dispatch", "local-dispatch"), ("node-scope", "node-dispatch", "node-local-dispatch")]
        {
            let mut rules = Vec::new();
            if let Some(pods) = self.source_is_pod() {
                rules.push(pods.goto(self.name(general)));
            }
            rules.push(self.line().source_is_local().goto(self.name(general)));
            rules.push(self.line().goto(self.name(local)));
            self.chain(name, rules);
        }
    }

    /// From the destination to its endpoints.
    fn services(&mut self) {
        if self.features.learns() {
            let client = [&[Field::Saddr], FRONTEND].concat();
            self.chain(
                "affinity",
                [
                    self.line().in_set(FRONTEND, self.set(SetKind::Suspended)).leave(),
                    // No entry: fall through to the draw.
                    self.line().dnat_known(&client, self.set(SetKind::Affinity)),
                ],
            );
        }
        let mut special = self.sticky_jumps(Reach::Address, FRONTEND, &self.features.sticky);
        special.push(self.line().in_set(FRONTEND, self.set(SetKind::ExternalLocal(Reach::Address))).goto(self.name("scope")));
        special.push(self.line().goto(self.name("dispatch")));
        self.chain("special", special);

        // `goto`, not `jump`: an outside source without a local backend must not come back to the cluster set.
        let is_special = self.line().in_set(FRONTEND, self.set(SetKind::Special)).goto(self.name("special"));
        self.chain("frontends", [is_special, self.line().goto(self.name("dispatch"))]);

        let mut node_ports = self.sticky_jumps(Reach::NodePort, NODE_PORT, &self.features.node_sticky);
        let local = self.set(SetKind::ExternalLocal(Reach::NodePort));
        node_ports.push(self.line().in_set(NODE_PORT, local).goto(self.name("node-scope")));
        node_ports.push(self.line().goto(self.name("node-dispatch")));
        self.chain("node-ports", node_ports);

        // Answered by the kernel at an address it has; conntrack puts the VIP back in the reply. Not `redirect`: it takes an address
        // of the interface the packet came by, and drops the packet if there is none.
        let vips = self.features.echo.filter(|_| self.features.vips);
        let echo = vips.map(|own| {
            let to_vip = self.line().echo_request().in_set(&[Field::Daddr], self.set(SetKind::Vips));
            to_vip.on_no_interface().dnat_to(own)
        });

        // `jump`: an externalIP may be the node's own address, and its NodePorts come after.
        let service = self.line().in_set(&[Field::Daddr], self.set(SetKind::ServiceIps)).jump(self.name("frontends"));
        let at_node_ports = self.at_node_ports().into_iter().map(|line| line.goto(self.name("node-ports")));
        self.chain("services", echo.into_iter().chain([service]).chain(at_node_ports).collect::<Vec<_>>());
    }

    fn sticky_jumps(&self, reach: Reach, key: &[Field], timeouts: &BTreeSet<AffinityTimeout>) -> Vec<RuleSpec> {
        let sticky = |timeout| self.set(SetKind::Sticky(reach, timeout));
        timeouts.iter().map(|timeout| self.line().in_set(key, sticky(*timeout)).jump(self.name("affinity"))).collect()
    }

    /// What becomes of a connection that no backend takes (kube-proxy 4.1).
    fn verdicts(&mut self) {
        let (drop, reject) = (self.set(SetKind::Drop(Reach::Address)), self.set(SetKind::Reject(Reach::Address)));
        self.chain(
            "verdicts",
            [
                self.line().translated().leave(),
                self.line().in_set(FRONTEND, drop).drop(),
                self.line().in_set(FRONTEND, reject).reject(),
            ],
        );
        let (drop, reject) = (self.set(SetKind::Drop(Reach::NodePort)), self.set(SetKind::Reject(Reach::NodePort)));
        let dropping = self.at_node_ports().into_iter().map(|line| line.in_set(NODE_PORT, drop.clone()).drop());
        let rejecting = self.at_node_ports().into_iter().map(|line| line.in_set(NODE_PORT, reject.clone()).reject());
        self.chain("node-verdicts", dropping.chain(rejecting).collect::<Vec<_>>());
        let to = |set| self.line().in_set(&[Field::Daddr], self.set(set));
        self.chain(
            "unknown",
            [
                self.line().translated().leave(),
                to(SetKind::ClusterIps).reject(),
                to(SetKind::Foreign).leave(),
                to(SetKind::ServiceCidrs).drop(),
            ],
        );
    }

    /// What a host with the address would do of itself: packets that still are for a VIP, after all translation. Before routing, which
    /// would send them back where they came from, after an ICMP redirect.
    fn duties(&mut self) {
        let known = |kind: fn(Reach) -> SetKind| self.line().in_set(FRONTEND, self.set(kind(Reach::Address))).leave();
        let mut rules = vec![
            // Somebody put it on an interface: the kernel does all this, and more may listen there than Services.
            self.line().on_an_interface().leave(),
            // Errors that belong to no connection; neighbour solicitations, which the announcer has seen before us and routing
            // would forward; echo requests that have nobody to answer them. Nothing of it is ever answered with an error.
            self.line().icmp().drop(),
            // A segment outside of its window, say. A reset would end the connection that it was forged for.
            self.line().invalid().drop(),
            // Frontends without a backend are silent or refuse here already.
            self.line().jump(self.name("verdicts")),
            known(SetKind::ExternalCluster),
            known(SetKind::ExternalLocal),
            // Not every TCP takes an ICMP error for an answer to its SYN, and those are limited (`icmp_ratelimit`).
            self.line().tcp().reset(),
        ];
        if self.family == Family::V4 {
            rules.push(self.line().of_family().of_transports().reject());
        }
        rules.push(self.line().reject_protocol());
        self.chain("duties", rules);
    }

    /// Which translated connections also get the node's source address (kube-proxy 4.4), decided from what they were addressed to.
    /// NAT chains see the first packet of a connection only.
    fn masquerading(&mut self) {
        let original = |key, kind: fn(Reach) -> SetKind, reach| {
            let line = if reach == Reach::NodePort { self.line().of_family() } else { self.line() };
            line.of_transports().in_set(key, self.set(kind(reach)))
        };
        let node_port = [
            original(ORIGINAL_NODE_PORT, SetKind::ExternalCluster, Reach::NodePort).masquerade(),
            original(ORIGINAL_NODE_PORT, SetKind::ExternalLocal, Reach::NodePort).goto(self.name("masquerade-local")),
        ];
        let daddr = |set| self.line().in_set(&[Field::OriginalDaddr], self.set(set));
        self.chain(
            "masquerading",
            [
                self.line().in_set(&[Field::Saddr, Field::Daddr], self.set(SetKind::Hairpin)).masquerade(),
                daddr(SetKind::ClusterIps).goto(self.name("masquerade-cluster-ip")),
                original(ORIGINAL_FRONTEND, SetKind::ExternalCluster, Reach::Address).masquerade(),
                original(ORIGINAL_FRONTEND, SetKind::ExternalLocal, Reach::Address).goto(self.name("masquerade-local")),
                daddr(SetKind::NodeIps).goto(self.name("masquerade-node-port")),
            ],
        );
        self.chain("masquerade-cluster-ip", self.masquerading_of_cluster_ips());
        self.chain("masquerade-local", [self.line().source_is_local().masquerade()]);
        self.chain("masquerade-node-port", node_port);
    }

    /// Which backend a sticky client was given. After DNAT, from the original tuple.
    fn learning(&mut self) {
        let map = self.set(SetKind::Affinity);
        let millis = |timeout: &AffinityTimeout| u64::from(timeout.get()) * 1000;
        let mut rules = Vec::new();
        for timeout in &self.features.sticky {
            let sticky = self.set(SetKind::Sticky(Reach::Address, *timeout));
            rules.push(self.line().of_transports().in_set(ORIGINAL_FRONTEND, sticky).learn(map.clone(), millis(timeout)));
        }
        for timeout in &self.features.node_sticky {
            let sticky = self.set(SetKind::Sticky(Reach::NodePort, *timeout));
            let node_port = self.line().in_set(&[Field::OriginalDaddr], self.set(SetKind::NodeIps)).of_transports();
            rules.push(node_port.in_set(ORIGINAL_NODE_PORT, sticky).learn(map.clone(), millis(timeout)));
        }
        self.chain("learn", rules);
    }

    /// Everybody but pods.
    fn masquerading_of_cluster_ips(&self) -> Vec<RuleSpec> {
        match &self.features.pods {
            _ if self.features.masquerade_all => vec![self.line().masquerade()],
            PodTest::Off => Vec::new(),
            PodTest::Address => vec![self.line().not_in_set(&[Field::Saddr], self.set(SetKind::Pods)).masquerade()],
            // A packet that br_netfilter took from a bridge, and that DNAT sends to a neighbour on it, is switched and not routed:
            // in postrouting it has no input interface (net/bridge/br_netfilter_hooks.c, br_nf_post_routing), like one of the
            // node's own, but an address that is not. It leaves by the bridge it came in through.
            PodTest::Interface { name, prefix } => vec![
                self.line().input_interface(name, *prefix).leave(),
                self.line().source_is_local().masquerade(),
                self.line().no_input_interface().output_interface(name, *prefix).leave(),
                self.line().masquerade(),
            ],
        }
    }

    /// `ip saddr @pods`, or by interface. `None`: the detector is off.
    fn source_is_pod(&self) -> Option<Line> {
        match &self.features.pods {
            PodTest::Off => None,
            PodTest::Address => Some(self.line().in_set(&[Field::Saddr], self.set(SetKind::Pods))),
            PodTest::Interface { name, prefix } => Some(self.line().input_interface(name, *prefix)),
        }
    }

    /// The destination is one at which NodePorts are served, in one of these ways. 127.0.0.1 is in the set where it is served.
    fn at_node_ports(&self) -> Vec<Line> {
        if !self.features.match_all {
            return vec![self.line().in_set(&[Field::Daddr], self.set(SetKind::NodeIps))];
        }
        let localhost = self.features.localhost.then(|| self.line().at_localhost());
        [self.line().destination_is_local()].into_iter().chain(localhost).collect()
    }

    fn chain(&mut self, base: &str, rules: impl IntoIterator<Item = RuleSpec>) {
        let name = self.name(base);
        self.chains.push(Chain { name, hook: None, rules: rules.into_iter().collect() });
    }

    fn line(&self) -> Line {
        line(self.family)
    }

    fn set(&self, kind: SetKind) -> String {
        self.names.set(kind.of(self.family))
    }

    fn name(&self, base: &str) -> String {
        self.names.chain(base, self.family)
    }
}

fn key_of(pool: Pool) -> &'static [Field] {
    match pool.reach() {
        Reach::Address => FRONTEND,
        Reach::NodePort => NODE_PORT,
    }
}
