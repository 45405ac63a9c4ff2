//! `sheave migrate check`: what is there, what will happen, and what is to be done first.

use std::fmt;
use std::fs;

use ipnet::IpNet;
use serde::Serialize;

use super::presence::{self, Listeners};
use super::surroundings::{Surroundings, is_foreign};
use super::{Item, MigrationError, State, family_word, look};
use crate::dataplane::nftables;
use crate::netlink::ipvs;
use crate::netlink::nft::KernelNft;

/// What it means that a `sheave run` stands by, and what to do.
pub const STANDS_BY: &str = "this node was given back to kube-proxy, and sheave serves nothing here; it serves again by itself once \
                             there is neither a kube-proxy nor a rule of its own that serves; to return before that, run `sheave cleanup` on \
                             the node, then restart sheave with --adopt";

/// Everything that matters for a migration of this node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What says that kube-proxy runs; empty if it does not, or if that cannot be told.
    pub running: Vec<String>,
    /// Why it cannot be told whether kube-proxy runs, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cannot_be_told: Option<String>,
    /// What is kube-proxy's.
    pub found: Vec<Item>,
    /// A `sheave run` is alive on this node.
    pub sheave_runs: bool,
    /// One is alive and stands by: this node was given back to kube-proxy.
    pub sheave_stands_by: bool,
    /// What follows from it.
    pub findings: Vec<Finding>,
}

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about, for programs.
    pub kind: Kind,
    /// Who has to do something.
    pub severity: Severity,
    /// What it is, for people.
    pub text: String,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// kube-proxy runs.
    KubeProxyRuns,
    /// It does not, and its rules are still there.
    LeftOver,
    /// Connections that IPVS still carries.
    IpvsConnections,
    /// Chains of its that others use.
    UsedByOthers,
    /// iptables-legacy tables that cannot be read or written here.
    LegacyUnread,
    /// A chain at forward drops what nobody accepts.
    ForwardPolicyDrop,
    /// kube-proxy drops invalid packets, and we do not.
    InvalidNoLongerDropped,
    /// Somebody translates before we do.
    EarlierNat,
    /// Somebody else masquerades.
    ForeignMasquerade,
    /// A `sheave run` is alive and does not serve.
    StandsBy,
}

/// Who has to do something about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// A person, before or after.
    Manual,
    /// `sheave run --adopt`.
    Adopt,
    /// Nobody.
    Note,
}

impl Finding {
    pub(super) fn new(kind: Kind, severity: Severity, text: String) -> Self {
        Self { kind, severity, text }
    }
}

impl Report {
    /// Looks at this thread's network namespace. Changes nothing. `pods`: the networks that pods are in; with none known, any network
    /// that others accept is taken for theirs.
    ///
    /// # Errors
    /// See [`MigrationError`].
    pub fn look(door: &mut KernelNft, pods: &[IpNet]) -> Result<Self, MigrationError> {
        let state = State::look(door)?;
        let (sheave_runs, sheave_stands_by) = (nftables::is_held(door)?, nftables::stands_by(door)?);
        // Our own daemon listens on kube-proxy's ports, and may be out of sight in a container.
        let listeners = if state.is_empty() || sheave_runs { Listeners::Ignore } else { Listeners::Count };
        let signs = presence::signs(listeners);
        let presence = match signs.is_empty() {
            false => Presence::Runs,
            true => presence::why_out_of_sight().map_or(Presence::Absent, Presence::CannotBeTold),
        };
        let mut findings = of_state(&state, &presence, sheave_runs);
        if sheave_stands_by {
            let text = format!("a `sheave run` stands by: {STANDS_BY}");
            findings.push(Finding::new(Kind::StandsBy, Severity::Note, text));
        }
        findings.extend(around(door, &state, pods)?);
        findings.sort_by_key(|finding| finding.severity);
        let cannot_be_told = match presence {
            Presence::CannotBeTold(why) => Some(why),
            Presence::Runs | Presence::Absent => None,
        };
        let running = signs.iter().map(ToString::to_string).collect();
        Ok(Self { running, cannot_be_told, found: state.items(), sheave_runs, sheave_stands_by, findings })
    }

    /// What somebody has to do: a person, or `--adopt`.
    pub fn to_do(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity != Severity::Note)
    }
}

/// What others have beside kube-proxy, whose state was looked at already.
fn around(door: &mut KernelNft, state: &State, pods: &[IpNet]) -> Result<Vec<Finding>, MigrationError> {
    let tables: Vec<_> = door.all_tables()?.into_iter().filter(is_foreign).collect();
    let chains: Vec<_> = door.all_chains()?.into_iter().filter(|chain| is_foreign(&chain.table)).collect();
    let mut rules = Vec::with_capacity(tables.len());
    for table in tables {
        let of_table = door.rules_in(&table)?;
        rules.push((table, of_table));
    }
    Ok(Surroundings { chains: &chains, rules: &rules, pods, liberal: is_liberal() }.findings(state))
}

/// What a person has to do before kube-proxy's rules go, or may go: not about kube-proxy itself, whose state was looked at already.
///
/// # Errors
/// See [`MigrationError`].
pub fn manual(door: &mut KernelNft, state: &State, pods: &[IpNet]) -> Result<Vec<Finding>, MigrationError> {
    let mut findings = of_tables(state);
    findings.extend(around(door, state, pods)?);
    findings.retain(|finding| finding.severity == Severity::Manual);
    Ok(findings)
}

/// What drops forwarded packets from and to pods at present, whoever wrote it.
///
/// # Errors
/// See [`MigrationError`].
pub fn forwarding(door: &mut KernelNft, pods: &[IpNet]) -> Result<Vec<Finding>, MigrationError> {
    Ok(look::dropping(door)?.iter().filter_map(|chain| chain.finding(pods)).collect())
}

/// Whether kube-proxy runs.
enum Presence {
    Runs,
    Absent,
    /// Why.
    CannotBeTold(String),
}

fn of_state(state: &State, presence: &Presence, sheave_runs: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let left_over = |text: String| Finding::new(Kind::LeftOver, Severity::Adopt, text);
    match presence {
        // Without --adopt it would not have begun beside a kube-proxy; of one that came later it removes nothing.
        Presence::Runs if sheave_runs => {
            let text = "kube-proxy runs, and so does sheave, whose rules come first: stop kube-proxy now; its rules go then, if sheave \
                        was started with --adopt";
            findings.push(Finding::new(Kind::KubeProxyRuns, Severity::Manual, text.to_owned()));
        }
        Presence::Runs => {
            let text = "kube-proxy runs: `sheave run` refuses beside it; `sheave run --adopt` serves at once, since its rules come first, \
                        and removes kube-proxy's when kube-proxy has ended: stop it then";
            findings.push(Finding::new(Kind::KubeProxyRuns, Severity::Manual, text.to_owned()));
        }
        Presence::Absent if !state.is_empty() => findings.push(left_over(
            "kube-proxy does not run, and its rules are still here: `sheave run --adopt` removes them once its own are complete".to_owned(),
        )),
        Presence::CannotBeTold(why) if !state.is_empty() => findings.push(left_over(format!(
            "kube-proxy's rules are here, and whether it runs cannot be told: {why}; if it does, stop it; `sheave run --adopt` removes \
             them once its own are complete"
        ))),
        Presence::Absent | Presence::CannotBeTold(_) => {}
    }
    let carried = ipvs::connections();
    let connections: u64 = state.virtual_servers.iter().filter_map(|server| carried.get(server)).sum();
    if connections > 0 {
        let text =
            format!("IPVS carries {connections} connections for kube-proxy's virtual servers, which stay until these have ended");
        findings.push(Finding::new(Kind::IpvsConnections, Severity::Note, text));
    }
    if !state.foreign_virtual_servers.is_empty() {
        let servers: Vec<String> = state.foreign_virtual_servers.iter().map(ToString::to_string).collect();
        let text = format!("these virtual servers of IPVS are not kube-proxy's, and stay: {}", servers.join(", "));
        findings.push(Finding::new(Kind::UsedByOthers, Severity::Note, text));
    }
    for iptables in &state.iptables {
        findings.extend(iptables.share.kept.iter().map(|(chain, need)| {
            let text = format!("chain {chain} of {} {iptables} stays: {}", iptables.backend.name(), need.of(chain));
            Finding::new(Kind::UsedByOthers, Severity::Note, text)
        }));
    }
    findings.extend(of_tables(state));
    findings
}

fn of_tables(state: &State) -> Vec<Finding> {
    state.untouchable.iter().map(|table| Finding::new(Kind::LegacyUnread, Severity::Manual, table.to_string())).collect()
}

/// Whether conntrack takes packets outside of the window for valid.
fn is_liberal() -> bool {
    fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal").is_ok_and(|value| value.trim() != "0")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.running[..], &self.cannot_be_told) {
            ([], None) => writeln!(f, "kube-proxy: does not run on this node")?,
            ([], Some(why)) => writeln!(f, "kube-proxy: cannot be told: {why}")?,
            (signs, _) => writeln!(f, "kube-proxy: runs ({})", signs.join(", "))?,
        }
        if self.sheave_runs {
            writeln!(f, "sheave: runs")?;
        }
        if self.sheave_stands_by {
            writeln!(f, "sheave: stands by")?;
        }
        if self.found.is_empty() {
            writeln!(f, "rules of kube-proxy's: none")?;
        } else {
            writeln!(f, "rules of kube-proxy's:")?;
            for Item { kind, name, detail } in &self.found {
                let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
                writeln!(f, "  {kind:<15} {name}{detail}")?;
            }
        }
        for (title, severity) in [
            ("to be done", Severity::Manual),
            ("done by `sheave run --adopt`", Severity::Adopt),
            ("good to know", Severity::Note),
        ] {
            let mut of_severity = self.findings.iter().filter(|finding| finding.severity == severity).peekable();
            if of_severity.peek().is_some() {
                writeln!(f, "{title}:")?;
            }
            of_severity.try_for_each(|finding| writeln!(f, "  - {}", finding.text))?;
        }
        if self.to_do().next().is_none() {
            writeln!(f, "nothing is in the way")?;
        }
        Ok(())
    }
}

/// A chain of iptables-legacy as findings name it.
pub(super) fn legacy_chain(family: crate::model::Family, chain: &str) -> String {
    format!("{chain} of {} filter (iptables-legacy)", family_word(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_sheave_that_serves_kube_proxy_is_to_be_stopped_now() {
        let said = |sheave_runs| of_state(&State::default(), &Presence::Runs, sheave_runs).remove(0);
        assert!(said(false).text.contains("`sheave run` refuses beside it"), "{:?}", said(false));
        assert!(said(true).text.contains("stop kube-proxy now") && !said(true).text.contains("refuses"), "{:?}", said(true));
        assert_eq!((said(true).kind, said(true).severity), (Kind::KubeProxyRuns, Severity::Manual));
    }
}
