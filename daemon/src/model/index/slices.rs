//! EndpointSlices, grouped by the Service they belong to.

use std::collections::HashMap;

use super::held::Sweep;
use crate::model::{EndpointSlice, ObjectKey, ServiceKey};

/// All slices, those of one Service side by side.
#[derive(Debug, Default)]
pub(super) struct Slices {
    /// By ascending slice key, so that the order does not depend on arrival. No list is empty.
    by_service: HashMap<ServiceKey, Vec<EndpointSlice>>,
    /// Where each slice is: a deletion names the slice alone, and a changed label moves it to another Service.
    homes: HashMap<ObjectKey, Home>,
    pub(super) sweep: Sweep,
}

#[derive(Debug)]
struct Home {
    service: ServiceKey,
    list: u32,
}

impl Slices {
    pub(super) fn of(&self, service: &ServiceKey) -> &[EndpointSlice] {
        self.by_service.get(service).map_or(&[], Vec::as_slice)
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&EndpointSlice> {
        let slices = self.of(&self.homes.get(key)?.service);
        position(slices, key).ok().map(|at| &slices[at])
    }

    pub(super) fn len(&self) -> usize {
        self.homes.len()
    }

    pub(super) fn insert(&mut self, slice: EndpointSlice) {
        let home = Home { service: slice.service.clone(), list: self.sweep.list() };
        if let Some(before) = self.homes.insert(slice.key.clone(), home)
            && before.service != slice.service
        {
            self.take(&before.service, &slice.key);
        }
        // Most Services have one slice: room for exactly one, not for the four that a growing Vec starts with.
        let slices = self.by_service.entry(slice.service.clone()).or_insert_with(|| Vec::with_capacity(1));
        match position(slices, &slice.key) {
            Ok(at) => slices[at] = slice,
            Err(at) => slices.insert(at, slice),
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) -> Option<EndpointSlice> {
        let home = self.homes.remove(key)?;
        self.take(&home.service, key)
    }

    /// Keys that the running list has not named.
    pub(super) fn unseen(&self) -> Vec<ObjectKey> {
        self.sweep.unseen(self.homes.iter().map(|(key, home)| (key, home.list)))
    }

    fn take(&mut self, service: &ServiceKey, key: &ObjectKey) -> Option<EndpointSlice> {
        let slices = self.by_service.get_mut(service)?;
        let slice = position(slices, key).ok().map(|at| slices.remove(at));
        if slices.is_empty() {
            self.by_service.remove(service);
        }
        slice
    }
}

fn position(slices: &[EndpointSlice], key: &ObjectKey) -> Result<usize, usize> {
    slices.binary_search_by(|slice| slice.key.cmp(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::arbitrary;

    proptest! {
        /// Services come and go for months: nothing of one that has no slices any more may stay behind.
        #[test]
        fn nothing_is_left_of_what_is_gone(steps in prop::collection::vec((arbitrary::slice(), any::<bool>()), 0..40)) {
            let mut slices = Slices::default();
            for (slice, keep) in steps {
                let key = slice.key.clone();
                slices.insert(slice);
                if !keep {
                    slices.remove(&key);
                }
                prop_assert!(slices.by_service.values().all(|slices| !slices.is_empty()));
                prop_assert_eq!(slices.by_service.values().map(Vec::len).sum::<usize>(), slices.homes.len());
            }
        }
    }
}
