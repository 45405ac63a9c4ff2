//! What the manifests say now, and what has to be told about it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::ages::Ages;
use super::files::{Contents, Found, digest_of};
use super::parse::{self, Parsed};
use super::{ManifestOptions, STREAM};
use crate::model::{Interner, ObjectKey};
use crate::source::{Change, Kind, Mark, Object};

/// The order in which kinds are delivered: what says where we are, then what may be given to Services, then what is served, then by whom.
const KINDS: [Kind; 9] = [
    Kind::Node,
    Kind::Peer,
    Kind::Namespace,
    Kind::ServiceCidr,
    Kind::AddressPool,
    Kind::Advertisement,
    Kind::ForeignService,
    Kind::Service,
    Kind::EndpointSlice,
];

/// The state of the source between two loads.
pub(super) struct Store {
    options: ManifestOptions,
    names: Interner,
    /// Per file: the bytes last seen, and what was last understood of it. Only files whose bytes differ are read again.
    files: BTreeMap<PathBuf, File>,
    /// What the loop has been told; `None` before the first load.
    told: Option<BTreeMap<Id, Arc<Object>>>,
    ages: Ages,
    /// Double definitions that have been warned about.
    doubles: BTreeSet<(Id, PathBuf)>,
    /// Digest of the last load, to leave out loads that would say nothing.
    digest: String,
}

struct File {
    bytes: Result<Arc<[u8]>, String>,
    /// Its last good version. A file that was never good says nothing.
    objects: Vec<(Id, Arc<Object>)>,
    /// What was last said about its documents, so that the same is not said again when something else in it changes.
    warnings: HashSet<String>,
}

type Id = (KindOrder, ObjectKey);

/// A kind's place in [`KINDS`].
type KindOrder = u8;

impl Store {
    pub(super) fn new(options: ManifestOptions) -> Self {
        Self {
            options,
            names: Interner::default(),
            files: BTreeMap::new(),
            told: None,
            ages: Ages::default(),
            doubles: BTreeSet::new(),
            digest: String::new(),
        }
    }

    /// Takes in what the files hold now and answers with the changes to be told; none if nothing differs.
    ///
    /// The first load is a complete list of every kind. Later ones tell the difference, so that their cost in the loop follows the
    /// change and not the directory.
    pub(super) fn load(&mut self, contents: &Contents) -> Vec<Change> {
        let digest = digest_of(contents);
        if self.told.is_some() && digest == self.digest {
            return Vec::new();
        }
        self.digest.clone_from(&digest);
        self.files.retain(|path, _| contents.contains_key(path));
        for (path, found) in contents {
            self.refresh(path, found);
        }
        let now = self.merge();
        self.ages.settle(now.values().filter_map(|object| match &**object {
            Object::Service(service) => Some(&**service),
            _ => None,
        }));
        let mut changes = match self.told.take() {
            None => complete(&now),
            Some(before) => difference(&before, &now),
        };
        self.told = Some(now);
        changes.push(Change::Mark(Mark { stream: STREAM, point: digest }));
        changes
    }

    fn refresh(&mut self, path: &Path, found: &Found) {
        if self.files.get(path).is_some_and(|file| file.bytes == found.bytes) {
            return;
        }
        let bytes = match &found.bytes {
            Ok(bytes) => bytes,
            Err(error) => return self.keep_last_good(path, found, format_args!(" cannot be read ({error})")),
        };
        let json = path.extension().is_some_and(|extension| extension == "json");
        match parse::parse(json, bytes, &self.options, &mut self.names) {
            // Editors and `cp` truncate a file before they write it, and a full disk leaves it at that.
            Ok(Parsed { blank: true, .. }) if self.files.get(path).is_some_and(|file| !file.objects.is_empty()) => {
                self.keep_last_good(path, found, format_args!(" is empty now (to remove its objects, remove the file)"));
            }
            Ok(parsed) => self.replace(path, found, parsed),
            Err(error) => self.keep_last_good(path, found, format_args!("{error}")),
        }
    }

    fn replace(&mut self, path: &Path, found: &Found, Parsed { objects, warnings, blank: _ }: Parsed) {
        let known = self.files.get(path).map(|file| &file.warnings);
        for warning in warnings.iter().filter(|&warning| known.is_none_or(|known| !known.contains(warning))) {
            warn!(file = %path.display(), "{warning}");
        }
        let dated = objects.into_iter().map(|(kind, key, mut object)| {
            if let Object::Service(service) = &mut object {
                self.ages.date(service, found.modified);
            }
            ((order(kind), key), Arc::new(object))
        });
        let file = File { bytes: found.bytes.clone(), objects: dated.collect(), warnings: warnings.into_iter().collect() };
        self.files.insert(path.to_owned(), file);
    }

    /// `flaw` follows the name of the file, with a place in it or a space.
    fn keep_last_good(&mut self, path: &Path, found: &Found, flaw: fmt::Arguments<'_>) {
        let file = self.files.entry(path.to_owned());
        let stays =
            if matches!(file, Entry::Occupied(_)) { "its last good version stays in force" } else { "nothing is taken from it" };
        warn!("{}:{flaw}: {stays}", path.display());
        file.or_insert_with(|| File { bytes: Err(String::new()), objects: Vec::new(), warnings: HashSet::new() }).bytes =
            found.bytes.clone();
    }

    /// All files together. The first definition of an object, by path and then by place in the file, is the one that counts.
    fn merge(&mut self) -> BTreeMap<Id, Arc<Object>> {
        let mut merged: BTreeMap<Id, (Arc<Object>, &Path)> = BTreeMap::new();
        let mut doubles = BTreeSet::new();
        for (path, file) in &self.files {
            for (id, object) in &file.objects {
                match merged.entry(id.clone()) {
                    Entry::Vacant(free) => _ = free.insert((object.clone(), path)),
                    Entry::Occupied(taken) => {
                        let kind = KINDS[usize::from(id.0)];
                        let (first, winner) = taken.get();
                        if !is_worth_a_word(kind, object, first) {
                            continue;
                        }
                        let double = (id.clone(), path.clone());
                        if !self.doubles.contains(&double) {
                            let (winner, loser) = (winner.display(), path.display());
                            warn!("{kind} {} is defined in {winner} and again in {loser}: the first counts", id.1);
                        }
                        doubles.insert(double);
                    }
                }
            }
        }
        let merged = merged.into_iter().map(|(id, (object, _))| (id, object)).collect();
        self.doubles = doubles;
        merged
    }
}

/// A Peer is a Node, of which it is said already; a Namespace often comes with each of what is in it, word for word.
fn is_worth_a_word(kind: Kind, object: &Object, first: &Object) -> bool {
    match kind {
        Kind::Peer => false,
        Kind::Namespace => object != first,
        _ => true,
    }
}

fn order(kind: Kind) -> KindOrder {
    match kind {
        Kind::Node => 0,
        Kind::Peer => 1,
        Kind::Namespace => 2,
        Kind::ServiceCidr => 3,
        Kind::AddressPool => 4,
        Kind::Advertisement => 5,
        Kind::ForeignService => 6,
        Kind::Service => 7,
        Kind::EndpointSlice => 8,
    }
}

fn complete(now: &BTreeMap<Id, Arc<Object>>) -> Vec<Change> {
    let mut changes = Vec::with_capacity(now.len() + 2 * KINDS.len() + 1);
    for kind in KINDS {
        changes.push(Change::Listing(kind));
        let of_kind = now.iter().filter(|((order, _), _)| *order == self::order(kind));
        changes.extend(of_kind.map(|(_, object)| Change::Applied(Object::clone(object))));
        changes.push(Change::Listed(kind));
    }
    changes
}

/// Deletions first: an address may pass from one Service to another within one load.
fn difference(before: &BTreeMap<Id, Arc<Object>>, now: &BTreeMap<Id, Arc<Object>>) -> Vec<Change> {
    let gone = before
        .keys()
        .filter(|id| !now.contains_key(id))
        .map(|(order, key)| Change::Deleted(KINDS[usize::from(*order)], key.clone()));
    let changed = now.iter().filter(|(id, object)| {
        // An object of an untouched file is the same allocation: nothing to compare.
        before.get(id).is_none_or(|known| !Arc::ptr_eq(known, object) && known != *object)
    });
    gone.chain(changed.map(|(_, object)| Change::Applied(Object::clone(object)))).collect()
}
