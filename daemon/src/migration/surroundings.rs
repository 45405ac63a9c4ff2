//! What others have in this network that matters for Services once kube-proxy's rules are gone: pure.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::State;
use super::check::{Finding, Kind, Severity};
use super::forwarding::{self, Dropping};
use super::iptables::{self, Rule};
use super::rollback::REQUEST_TABLE;
use crate::dataplane::nftables::{HOLD_TABLE, LOCALNET_TABLE, NAT_PRIORITY, STAND_BY_TABLE, TABLE as OWN_TABLE};
use crate::netlink::nft::{ForeignChain, ForeignRule, ForeignTable, TableFamily};

/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT` of `enum nf_inet_hooks`.
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;

/// Chains of tables that are neither ours nor kube-proxy's, with the rules of each table.
pub(super) struct Surroundings<'a> {
    pub(super) chains: &'a [ForeignChain],
    pub(super) rules: &'a [(ForeignTable, Vec<ForeignRule>)],
    /// The networks that pods are in, as far as they are known.
    pub(super) pods: &'a [IpNet],
    /// `net.netfilter.nf_conntrack_tcp_be_liberal` is on.
    pub(super) liberal: bool,
}

/// Whether a table is one of those that packets of Services pass and that belong to others.
pub(super) fn is_foreign(table: &ForeignTable) -> bool {
    let routed = [TableFamily::IPV4, TableFamily::IPV6, TableFamily::INET].contains(&table.family);
    let ours = table.family == TableFamily::INET
        && [OWN_TABLE, HOLD_TABLE, LOCALNET_TABLE, REQUEST_TABLE, STAND_BY_TABLE].contains(&table.name.as_str());
    routed && !ours && table.name != super::TABLE
}

impl Surroundings<'_> {
    pub(super) fn findings(&self, state: &State) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.forward_drops(state));
        findings.extend(self.invalid(state));
        findings.extend(self.earlier());
        findings.extend(self.masquerades());
        findings
    }

    /// iptables mode accepted forwarded packets of Services; a rule set that drops what nobody accepts has relied on that.
    fn forward_drops(&self, state: &State) -> Vec<Finding> {
        // iptables-nft's tables have tens of thousands of rules and of chains beside kube-proxy: each table once, and few of them.
        let mut of_tables: BTreeMap<&ForeignTable, Vec<Rule>> = BTreeMap::new();
        let in_nf_tables = self.chains.iter().filter(|chain| forwarding::may_drop(chain)).filter_map(|chain| {
            let rules = of_tables.entry(&chain.table).or_insert_with(|| self.rules_of(&chain.table));
            Dropping::of(chain, rules)
        });
        in_nf_tables.chain(state.dropping_legacy.iter().cloned()).filter_map(|chain| chain.finding(self.pods)).collect()
    }

    fn rules_of(&self, table: &ForeignTable) -> Vec<Rule> {
        let of_table = self.rules.iter().filter(|(of, _)| of == table).flat_map(|(_, rules)| rules);
        of_table.map(Rule::from).collect()
    }

    /// Packets outside of the window of their connection go to the pod untranslated; its answer resets the connection (kubernetes#74839).
    fn invalid(&self, state: &State) -> Option<Finding> {
        let dropped = state.iptables.iter().any(|iptables| iptables.share.drops_invalid);
        (dropped && !self.liberal).then(|| {
            Finding::new(
                Kind::InvalidNoLongerDropped,
                Severity::Manual,
                "kube-proxy's chain KUBE-FORWARD drops packets that conntrack takes for invalid, and goes; without it a packet that \
                 comes late can reset a connection, so set net.netfilter.nf_conntrack_tcp_be_liberal=1 (conntrack.tcpBeLiberal in \
                 a KubeProxyConfiguration)"
                    .to_owned(),
            )
        })
    }

    /// Who translates a connection first has it.
    fn earlier(&self) -> Vec<Finding> {
        let earlier = self.chains.iter().filter_map(|chain| {
            let base = chain.base.as_ref()?;
            let hook = match base.hook {
                PREROUTING => "prerouting",
                OUTPUT => "output",
                _ => return None,
            };
            (base.kind == "nat" && base.priority <= NAT_PRIORITY).then_some((chain, base, hook))
        });
        earlier
            .map(|(chain, base, hook)| {
                let (table, name, priority) = (&chain.table, &chain.name, base.priority);
                let text = format!(
                    "chain {table} {name} may translate packets before sheave does (nat, {hook}, priority {priority}; sheave's is \
                     {NAT_PRIORITY}): a connection that it translates is not balanced"
                );
                Finding::new(Kind::EarlierNat, Severity::Note, text)
            })
            .collect()
    }

    /// With kube-proxy it was the same: a note, because it is what people look for when a client's address is not the one they expect.
    fn masquerades(&self) -> Vec<Finding> {
        let own = |rule: &ForeignRule| iptables::is_chain(&rule.chain);
        let mut findings = Vec::new();
        for (table, rules) in self.rules {
            let mut chains: Vec<&str> =
                rules.iter().filter(|rule| rule.masquerades() && !own(rule)).map(|rule| rule.chain.as_str()).collect();
            chains.dedup();
            findings.extend(chains.into_iter().map(|chain| {
                let text = format!(
                    "chain {table} {chain} masquerades, too: where it matches packets of Services, pods see this node's address even \
                     though sheave keeps the client's"
                );
                Finding::new(Kind::ForeignMasquerade, Severity::Note, text)
            }));
        }
        findings
    }
}
