//! How old a Service without a creationTimestamp is: the older one keeps a contested address, and a newcomer must not take it from
//! one that works (`docs/decisions/manifest-ages.md`).

use std::collections::HashMap;

use crate::model::{Service, ServiceKey};

/// The ages given in this run.
#[derive(Debug, Default)]
pub(super) struct Ages {
    /// `created` of every Service that is there, in seconds since 1970.
    given: HashMap<ServiceKey, i64>,
    /// The largest of them when the last load was complete; `None` before the first.
    youngest: Option<i64>,
}

impl Ages {
    /// Gives a Service an age, unless it brings one: what it had before; else, at the start, when its file was `modified`; else later
    /// than everybody's who is there, since a copied file may be old.
    pub(super) fn date(&mut self, service: &mut Service, modified: i64) {
        let youngest = self.youngest;
        let age = || youngest.map_or(modified, |youngest| modified.max(youngest.saturating_add(1)));
        service.created = service.created.or_else(|| Some(*self.given.entry(service.key.clone()).or_insert_with(age)));
    }

    /// A load is complete, and these are all Services. Who is gone is forgotten, and a newcomer if it comes back.
    pub(super) fn settle<'a>(&mut self, services: impl Iterator<Item = &'a Service>) {
        self.given = services.filter_map(|service| Some((service.key.clone(), service.created?))).collect();
        self.youngest = Some(self.given.values().copied().max().unwrap_or(i64::MIN));
    }
}
