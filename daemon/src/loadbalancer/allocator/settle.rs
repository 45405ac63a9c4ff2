//! What is looked at again, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Concern, Lack};
use super::refusal::Refusal;
use super::search::{Kept, Seeker};
use super::tidings::{Event, PoolReport, Serving, Settled, StatusChange, Subject};
use super::wish::Request;
use super::{Allocator, Ips, Placement, words};
use crate::model::ServiceKey;

/// How a Service stood when it was first looked at in this turn.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) addresses: Ips,
    /// Why not all of it could stay.
    pub(super) dropped: Option<Refusal>,
    /// What somebody else wrote over it.
    pub(super) overwritten: Option<Ips>,
}

/// The Services of one turn.
type Turn = BTreeMap<ServiceKey, Before>;

impl Allocator {
    /// Decides what has become undecided, and says what came of it. Nothing before [`Allocator::complete`].
    ///
    /// First everything that Services hold and that may have become wrong is put down and taken up again, oldest Service first, so that
    /// nothing that somebody may keep is handed to somebody else. Then those that lack something are served, oldest first, and again as
    /// long as that sets something free.
    pub fn settle(&mut self) -> Settled {
        if !self.complete {
            return Settled::default();
        }
        self.all_due |= self.stock.pools.is_unsettled();
        if std::mem::take(&mut self.all_due) {
            self.due.extend(self.entries.keys().cloned());
        }
        let due = std::mem::take(&mut self.due);
        let mut turn = Turn::new();
        self.put_down(&due);
        if self.stock.pools.is_unsettled() {
            self.stock.decide_pools();
        }
        let due = self.by_age(due);
        for key in &due {
            self.take_up(key, &mut turn);
        }
        let mut queue = due;
        while !queue.is_empty() || self.freed {
            if std::mem::take(&mut self.freed) {
                queue = self.by_age(queue.into_iter().chain(self.waiting.iter().cloned()).collect());
            }
            for key in std::mem::take(&mut queue) {
                self.serve(&key, &mut turn);
            }
        }
        let (services, mut events) = self.told_of_services(turn);
        let pools = self.told_of_pools(&mut events);
        Settled { services, pools, events }
    }

    /// Those that are there, the oldest first; of one age, by name.
    fn by_age(&self, keys: BTreeSet<ServiceKey>) -> Vec<ServiceKey> {
        let age = |key: &ServiceKey| Some(self.entries.get(key)?.service.created.unwrap_or(i64::MAX));
        let mut aged: Vec<_> = keys.into_iter().filter_map(|key| Some((age(&key)?, key))).collect();
        aged.sort_unstable();
        aged.into_iter().map(|(_, key)| key).collect()
    }

    fn put_down(&mut self, due: &BTreeSet<ServiceKey>) {
        for (key, held) in due.iter().filter_map(|key| Some((key, self.entries.get(key)?.held.as_ref()?))) {
            self.stock.release(held, key);
        }
    }

    /// What the Service held, or its status said, or somebody wrote into that: as much of it as is allowed.
    fn take_up(&mut self, key: &ServiceKey, turn: &mut Turn) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let held = entry.held.take();
        let claim = entry.claim.take();
        let concern = entry.concern(&self.options);
        let unseen = || if entry.judged { Ips::new() } else { entry.status() };
        let before = held.as_ref().map_or_else(unseen, |held| held.addresses.clone());
        let mut before = Before { addresses: before, ..Before::default() };

        if let (Concern::Ours, Ok(families)) = (&concern, &entry.wish.families) {
            let terms = entry.wish.terms.clone();
            let shown = entry.status();
            let own = &before.addresses;
            let seeker = Seeker { service: &entry.service, families: *families, terms: &terms, own, shown: &shown };
            let from = held.as_ref().map_or_else(|| entry.allocated_from(), |held| Some(&held.pool));
            let kept = self.stock.retain(&seeker, claim.as_deref().map(|claim| (claim, held.is_none())), from);
            if held.is_none() {
                before.addresses = claim.unwrap_or(before.addresses);
            } else if adopts_nothing(&kept, claim.as_ref()) && entry.overwritten != claim {
                entry.overwritten.clone_from(&claim);
                before.overwritten = claim;
            }
            before.dropped = kept.dropped;
            if let Some(placement) = kept.placement {
                self.stock.hold(&placement, key, &terms);
                entry.held = Some(placement);
            }
        }
        let lost = held.as_ref().is_some_and(|held| held.addresses.iter().any(|ip| !entry.addresses().contains(ip)));
        entry.clearing |= lost && entry.held.is_none();
        entry.judged = concern == Concern::Ours && entry.wanted(&self.options, self.stock.pools.is_empty()).is_some();
        self.freed |= lost;
        turn.insert(key.clone(), before);
    }

    /// What the Service lacks, if it can be had.
    fn serve(&mut self, key: &ServiceKey, turn: &mut Turn) {
        let Some(entry) = self.entries.get(key) else { return };
        let held = entry.held.clone();
        turn.entry(key.clone()).or_insert_with(|| Before { addresses: entry.addresses().into(), ..Before::default() });
        let (placement, lack) = match (entry.concern(&self.options), &entry.wish.families) {
            (Concern::Ours, Ok(_)) => self.answer(key),
            (Concern::Ours, Err(why)) => (None, Some(Lack::Families(why.clone()))),
            (Concern::Anothers | Concern::Nobodys, _) => (None, None),
        };
        if lack.as_ref().is_some_and(Lack::may_pass) {
            self.waiting.insert(key.clone());
        } else {
            self.waiting.remove(key);
        }
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.lack = lack;
        if let Some(placement) = placement.filter(|placement| Some(placement) != held.as_ref()) {
            if let Some(held) = &held {
                self.freed |= held.addresses.iter().any(|ip| !placement.addresses.contains(ip));
                self.stock.release(held, key);
            }
            self.stock.hold(&placement, key, &entry.wish.terms);
            entry.held = Some(placement);
            entry.clearing = false;
        }
    }

    /// Where the Service should be, and what it lacks there. `None`: it stays as it is.
    fn answer(&self, key: &ServiceKey) -> (Option<Placement>, Option<Lack>) {
        let Some(entry) = self.entries.get(key) else { return (None, None) };
        let Ok(families) = entry.wish.families else { return (None, None) };
        let request = match &entry.wish.request {
            Ok(request) => request,
            Err(refusal) => return (None, Some(Lack::Wish(refusal.clone()))),
        };
        let (terms, own, shown) = (&entry.wish.terms, entry.addresses(), entry.status());
        let seeker = Seeker { service: &entry.service, families, terms, own, shown: &shown };
        let Some(held) = &entry.held else { return self.anew(&seeker, request) };

        if !request.addresses.is_empty() || request.pool.as_ref().is_some_and(|pool| *pool != held.pool) {
            let (placement, lack) = self.anew(&seeker, request);
            // The same addresses in another order are what it holds.
            let is_held = |new: &Placement| {
                new.addresses.len() == held.addresses.len() && new.addresses.iter().all(|ip| held.addresses.contains(ip))
            };
            return (placement.filter(|new| !is_held(new)), lack);
        }
        let Some((family, required)) = families.missing(&held.addresses) else { return (None, None) };
        match self.stock.further(&seeker, &held.pool, family) {
            Ok(ip) => {
                let addresses = held.addresses.iter().copied().chain([ip]).collect();
                (Some(Placement { pool: held.pool.clone(), addresses }), None)
            }
            Err(refusal) if !required => (None, Some(Lack::Additional(refusal))),
            Err(_) => self.anew(&seeker, request),
        }
    }

    fn anew(&self, seeker: &Seeker<'_>, request: &Request) -> (Option<Placement>, Option<Lack>) {
        match self.stock.place(seeker, request) {
            Ok(placement) => {
                let lack = seeker.families.missing(&placement.addresses).and_then(|(family, _)| {
                    let refusal = self.stock.further(seeker, &placement.pool, family).err()?;
                    Some(Lack::Additional(refusal))
                });
                (Some(placement), lack)
            }
            Err(refusal) => (None, Some(Lack::Wish(refusal))),
        }
    }
}

/// Whether what is kept is not what somebody wrote.
fn adopts_nothing(kept: &Kept, claim: Option<&Ips>) -> bool {
    claim.is_some_and(|claim| kept.placement.as_ref().is_some_and(|placement| placement.addresses != *claim))
}

// === What came of it ===

impl Allocator {
    fn told_of_services(&mut self, turn: Turn) -> (Vec<StatusChange>, Vec<Event>) {
        let (mut changes, mut events) = (Vec::new(), Vec::new());
        let no_pools = self.stock.pools.is_empty();
        for (key, before) in turn {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let uid = entry.service.uid.clone();
            let mut said = words::passing(entry, &before);
            let standing = words::standing(entry, &self.options, &self.stock);
            said.extend(entry.told.update(standing));
            let about = || Subject::Service(key.clone(), uid.clone());
            events.extend(said.into_iter().map(|tiding| Event { about: about(), reason: tiding.reason, text: tiding.text }));

            match entry.wanted(&self.options, no_pools).filter(|wanted| entry.differs(wanted)) {
                None => entry.asked = None,
                Some(wanted) if entry.asked.as_ref() == Some(&wanted) => {}
                Some(wanted) => {
                    entry.ask(wanted.clone());
                    changes.push(StatusChange { service: key, uid, wanted });
                }
            }
        }
        (changes, events)
    }

    fn told_of_pools(&mut self, events: &mut Vec<Event>) -> Vec<PoolReport> {
        let survey = std::mem::take(&mut self.survey);
        let pools = &self.stock.pools;
        if survey {
            let there: BTreeSet<_> = pools.latest().map(|pool| &pool.key).collect();
            self.told.retain(|key, _| there.contains(key));
        }
        let mut reports = Vec::new();
        for latest in pools.latest() {
            let own = pools.get(latest.key.name()).filter(|own| own.pool.key == latest.key);
            let faults = pools.faults(&latest.key);
            let serving = match own {
                Some(_) if faults.is_empty() => Serving::Latest,
                Some(own) => Serving::LastGood(own.pool.generation),
                None => Serving::Nothing,
            };
            let (told, reported) = self.told.entry(latest.key.clone()).or_default();
            if survey {
                let about = || Subject::Pool(latest.key.clone(), latest.uid.clone());
                let said = told.update(words::of_pool(own, faults, serving, &self.stock));
                events.extend(said.into_iter().map(|tiding| Event { about: about(), reason: tiding.reason, text: tiding.text }));
            }
            let counts = own.map(super::pools::InForce::counts);
            let write = counts.is_some() && counts != latest.counts;
            let report = PoolReport { pool: latest.key.clone(), counts, write, serving, faults: faults.to_vec() };
            if reported.as_ref() != Some(&report) {
                *reported = Some(report.clone());
                reports.push(report);
            }
        }
        reports
    }
}
