//! Who is silent, and what that comes to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::options::{ASK_AGAIN, STALL, UNCONTRADICTED};
use super::super::peer::Peer;
use super::super::ring::{MemberId, watchers};
use super::super::verdict::{Case, Cause, Finding, State};
use super::{Membership, Output};

/// For so long we go on saying that a member is silent that is gone already, for those who missed it.
const AFTERWORD: Duration = Duration::from_secs(3);

impl Membership {
    /// A timer that fired late says that this process did not run, not that the others were silent.
    pub(super) fn notice_stall(&mut self, now: Instant) {
        let Some(promised) = self.promised.take() else { return };
        let stall = now.saturating_duration_since(promised);
        if stall > STALL {
            for peer in self.peers.values_mut() {
                peer.forgive(stall, now);
            }
        }
    }

    /// Asks those that are silent, and accuses those that stay so.
    pub(super) fn watch(&mut self, now: Instant) {
        let mut ask = Vec::new();
        for (&id, peer) in &mut self.peers {
            if !peer.state.is_member() {
                if peer.silent.is_some_and(|since| now >= since + AFTERWORD) {
                    peer.silent = None;
                }
                continue;
            }
            if peer.asked_at().is_some_and(|at| at <= now) {
                peer.ask_at = Some(now + ASK_AGAIN);
                ask.push(id);
            }
            if peer.silent.is_none() && peer.accuse_at().is_some_and(|at| at <= now) {
                peer.silent = Some(now);
            }
        }
        for id in ask {
            if let (Some((address, datagram)), Some(peer)) = (self.beat_for(id, true, now), self.peers.get(&id)) {
                self.output.push_back(Output::Probe { member: peer.name.clone(), address, datagram });
            }
        }
    }

    /// Comes to a finding on everybody that somebody accuses.
    pub(super) fn judge(&mut self, now: Instant) {
        let ring = self.ring();
        let mut cases = self.cases(now);
        let mut changes = Vec::new();
        let ids: Vec<MemberId> = self.peers.iter().filter(|(_, peer)| peer.state.is_member()).map(|(&id, _)| id).collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let case = cases.remove(&id).unwrap_or_default();
            if !case.words.values().any(|says| says.accuses()) {
                peer.accused = None;
                if let State::DaemonDown { fault, since } = peer.state
                    && now >= since + self.options.daemon_restart_grace
                {
                    changes.push((id, State::Gone { cause: Cause::DaemonDown(fault), since: now }));
                }
                continue;
            }
            let accused = *peer.accused.get_or_insert(now);
            changes.extend(self.finding_on(id, &case, accused, &ring, now).map(|state| (id, state)));
        }
        for (id, state) in changes {
            self.change_state(id, state);
        }
    }

    /// All that is said about anybody: by the living, and by ourselves.
    fn cases(&self, now: Instant) -> BTreeMap<MemberId, Case> {
        let mut cases: BTreeMap<MemberId, Case> = BTreeMap::new();
        for (&witness, peer) in self.peers.iter().filter(|(_, peer)| peer.state == State::Alive && peer.silent.is_none()) {
            for report in peer.reports.iter().filter(|report| report.about != witness) {
                cases.entry(report.about).or_default().words.insert(witness, report.says);
            }
        }
        for (&about, peer) in &self.peers {
            if let Some(says) = peer.word(&self.options, now) {
                cases.entry(about).or_default().words.insert(self.own, says);
            }
        }
        cases
    }

    /// What the words make of one member; `None` where nothing changes.
    fn finding_on(&self, id: MemberId, case: &Case, accused: Instant, ring: &[MemberId], now: Instant) -> Option<State> {
        let peer = self.peers.get(&id)?;
        // What we hear ourselves counts more than what we are told.
        let heard_since = peer.heard.is_some_and(|heard| heard > accused) && peer.silent.is_none();
        if heard_since || peer.is_vouched_for(&self.options, now) {
            return None;
        }
        let heard_by_us = |watcher: &MemberId| self.peers.get(watcher).is_none_or(|peer| peer.silent.is_none());
        let watchers = watchers(ring, id, self.options.watchers).filter(heard_by_us);
        let finding = case.judge(watchers, accused, now);
        let state = peer.state.after(finding, now);
        if let State::DaemonDown { fault, since } = state
            && now >= since + self.options.daemon_restart_grace
        {
            return Some(State::Gone { cause: Cause::DaemonDown(fault), since: now });
        }
        (state != peer.state && finding != Finding::Up).then_some(state)
    }

    /// When time alone can change what is found on a member.
    pub(super) fn next_judgement(&self, peer: &Peer) -> Option<Instant> {
        let grace = match peer.state {
            State::DaemonDown { since, .. } => Some(since + self.options.daemon_restart_grace),
            _ => None,
        };
        let accused = peer.accused.map(|since| since + UNCONTRADICTED);
        // Words that came while we heard it ourselves count from then on.
        let vouched = peer.accused.and_then(|_| peer.vouched_until(&self.options));
        [grace, accused, vouched].into_iter().flatten().filter(|&at| at > self.ticked).min()
    }
}
