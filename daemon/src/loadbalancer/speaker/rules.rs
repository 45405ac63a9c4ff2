//! What counts for announcing, of what a source tells.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::watch;

use crate::model::load_balancer::{AddressPool, Advertisement, Home, PeerNode};
use crate::model::{Held, Labels, ObjectKey, Problem};
use crate::source::{Change, Kind, Object};

/// Pools, advertisements and our Node as they count now. Nothing counts before pools and advertisements were listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// The namespace that counts, once it is known.
    pub namespace: Option<Arc<str>>,
    /// Those of the namespace that counts, by name, each in its last version without [`AddressPool::problems`].
    pub pools: Vec<Arc<AddressPool>>,
    /// The same of advertisements.
    pub advertisements: Vec<Arc<Advertisement>>,
    /// Our Node, as far as a directory of manifests has it.
    pub node: Option<Arc<PeerNode>>,
}

/// Reads along what a source tells the sync loop.
#[derive(Debug)]
pub struct Tap {
    objects: Objects,
    rules: watch::Sender<Arc<Rules>>,
}

#[derive(Debug)]
struct Objects {
    /// Name of our Node.
    own: Arc<str>,
    home: Home,
    /// The namespace that counts, once it is known. As long as it has pools it stays.
    namespace: Option<Arc<str>>,
    pools: Held<Arc<AddressPool>>,
    advertisements: Held<Arc<Advertisement>>,
    node: Option<Arc<PeerNode>>,
}

impl Rules {
    /// Something could be announced.
    #[must_use]
    pub fn announce_something(&self) -> bool {
        !self.pools.is_empty() && !self.advertisements.is_empty()
    }

    /// A node with these labels may announce something: an advertisement that has a pool selects it.
    #[must_use]
    pub fn may_announce(&self, node: &Labels) -> bool {
        let has_pool = |advertisement: &Advertisement| {
            self.pools.iter().any(|pool| advertisement.selects_pool(pool.key.name(), &pool.labels))
        };
        self.advertisements.iter().any(|advertisement| advertisement.selects_node(node) && has_pool(advertisement))
    }

    /// The pool that an address is from.
    #[must_use]
    pub fn pool_of(&self, address: IpAddr) -> Option<&AddressPool> {
        self.pools.iter().find(|pool| pool.ranges.iter().any(|range| range.contains(address))).map(|pool| &**pool)
    }

    /// The advertisements that announce a pool.
    #[must_use]
    pub fn advertisements_of(&self, pool: &AddressPool) -> Vec<&Advertisement> {
        let all = self.advertisements.iter().map(|advertisement| &**advertisement);
        all.filter(|advertisement| advertisement.selects_pool(pool.key.name(), &pool.labels)).collect()
    }
}

impl Tap {
    /// One that has heard nothing yet, for the Node of this name.
    #[must_use]
    pub fn new(own: Arc<str>, home: Home) -> (Self, watch::Receiver<Arc<Rules>>) {
        let (rules, receiver) = watch::channel(Arc::default());
        (Self { objects: Objects::new(own, home), rules }, receiver)
    }

    /// Hands on everything as it is, until one of the two sides is gone. Who reads the rules holds up nobody.
    pub async fn run(mut self, mut from: Receiver<Change>, to: Sender<Change>) {
        while let Some(change) = from.recv().await {
            self.hear(&change);
            if to.send(change).await.is_err() {
                return;
            }
        }
    }

    fn hear(&mut self, change: &Change) {
        if self.objects.take(change) {
            let rules = self.objects.rules();
            self.rules.send_if_modified(|known| {
                let news = **known != rules;
                if news {
                    *known = Arc::new(rules);
                }
                news
            });
        }
    }
}

impl Objects {
    fn new(own: Arc<str>, home: Home) -> Self {
        Self { own, home, namespace: None, pools: Held::default(), advertisements: Held::default(), node: None }
    }

    /// Takes in a change; says whether it was about anything that may count.
    fn take(&mut self, change: &Change) -> bool {
        match change {
            Change::Together(changes) => return changes.iter().fold(false, |counts, change| self.take(change) | counts),
            Change::Listing(Kind::AddressPool) => self.pools.sweep.begin(),
            Change::Listing(Kind::Advertisement) => self.advertisements.sweep.begin(),
            Change::Listed(Kind::AddressPool) => {
                self.pools.unseen().iter().for_each(|key| drop(self.pools.remove(key)));
                self.pools.sweep.end();
            }
            Change::Listed(Kind::Advertisement) => {
                self.advertisements.unseen().iter().for_each(|key| drop(self.advertisements.remove(key)));
                self.advertisements.sweep.end();
            }
            Change::Applied(Object::AddressPool(pool)) => apply(&mut self.pools, &pool.key, pool, pool.problems.is_empty()),
            Change::Applied(Object::Advertisement(advertisement)) => {
                apply(&mut self.advertisements, &advertisement.key, advertisement, advertisement.problems.is_empty());
            }
            Change::Applied(Object::Peer(node)) if node.name == self.own => self.node = Some(Arc::new((**node).clone())),
            Change::Deleted(Kind::AddressPool, key) => drop(self.pools.remove(key)),
            Change::Deleted(Kind::Advertisement, key) => drop(self.advertisements.remove(key)),
            // Our Node without an object is what it was: losing sight of it must not move a VIP.
            _ => return false,
        }
        true
    }

    fn rules(&mut self) -> Rules {
        if !self.pools.sweep.listed() || !self.advertisements.sweep.listed() {
            return Rules::default();
        }
        self.find_home();
        let counts = |key: &ObjectKey| self.namespace.as_ref().is_some_and(|namespace| **namespace == *key.namespace());
        let mut pools: Vec<_> = self.pools.values().filter(|pool| usable(&pool.problems) && counts(&pool.key)).cloned().collect();
        pools.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let advertisements = self.advertisements.values().filter(|ad| usable(&ad.problems) && counts(&ad.key));
        let mut advertisements: Vec<_> = advertisements.cloned().collect();
        advertisements.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Rules { namespace: self.namespace.clone(), pools, advertisements, node: self.node.clone() }
    }

    /// As the controller finds it. Where it cannot be told whose pools count, none does; the controller says so.
    fn find_home(&mut self) {
        let used = |namespace: &Arc<str>| self.pools.values().any(|pool| *pool.key.namespace() == **namespace);
        if self.namespace.as_ref().is_some_and(used) {
            return;
        }
        if let Ok(namespace) = self.home.namespace(self.pools.iter().map(|(key, _)| key)) {
            self.namespace = Some(namespace);
        }
    }
}

fn usable(problems: &[Problem]) -> bool {
    problems.is_empty()
}

/// A version that has problems changes nothing where there is one that had none: what is announced stays so.
fn apply<T: Clone>(held: &mut Held<Arc<T>>, key: &ObjectKey, object: &T, is_valid: bool) {
    let value = match held.get(key) {
        Some(before) if !is_valid => before.clone(),
        _ => Arc::new(object.clone()),
    };
    held.insert(key.clone(), value);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Interner;
    use crate::source::decode::{self, Decoded};

    fn applied(kind: Kind, object: &Value) -> Change {
        match decode::from_json(kind, object.to_string().as_bytes(), &mut Interner::default()) {
            Ok(Decoded::Object(object)) => Change::Applied(object),
            other => panic!("{other:?}"),
        }
    }

    fn pool(namespace: &str, addresses: &str) -> Change {
        let metadata = json!({ "name": "lan", "namespace": namespace });
        applied(Kind::AddressPool, &json!({ "metadata": metadata, "spec": { "addresses": [addresses] } }))
    }

    fn advertisement(namespace: &str, spec: &Value) -> Change {
        let metadata = json!({ "name": "all", "namespace": namespace });
        applied(Kind::Advertisement, &json!({ "metadata": metadata, "spec": spec }))
    }

    fn listed(kind: Kind, objects: Vec<Change>) -> Change {
        let all = [Change::Listing(kind)].into_iter().chain(objects).chain([Change::Listed(kind)]);
        Change::Together(all.collect())
    }

    fn tap() -> (Tap, watch::Receiver<Arc<Rules>>) {
        Tap::new("a".into(), Home::Detected)
    }

    #[test]
    fn nothing_counts_before_both_kinds_were_listed() {
        let (mut tap, rules) = tap();
        tap.hear(&listed(Kind::AddressPool, vec![pool("lb", "10.0.0.1-10.0.0.9")]));
        assert_eq!(**rules.borrow(), Rules::default());
        tap.hear(&listed(Kind::Advertisement, vec![advertisement("lb", &json!({}))]));
        let rules = rules.borrow().clone();
        assert!(rules.announce_something());
        let pool = rules.pool_of([10, 0, 0, 9].into()).expect("it is in the pool");
        assert_eq!(rules.advertisements_of(pool).len(), 1);
        assert_eq!(rules.pool_of([10, 0, 0, 10].into()), None);
    }

    #[test]
    fn a_version_with_problems_changes_nothing_and_a_first_one_is_none() {
        let (mut tap, rules) = tap();
        let bad_selector = json!({ "nodeSelectors": [{ "matchExpressions": [{ "key": "a", "operator": "Perhaps" }] }] });
        tap.hear(&listed(Kind::AddressPool, vec![pool("lb", "10.0.0.9-10.0.0.1")]));
        tap.hear(&listed(Kind::Advertisement, vec![advertisement("lb", &bad_selector)]));
        assert_eq!(**rules.borrow(), Rules::default());
        tap.hear(&pool("lb", "10.0.0.1-10.0.0.9"));
        tap.hear(&advertisement("lb", &json!({})));
        assert!(rules.borrow().announce_something());
        let before = rules.borrow().clone();
        tap.hear(&pool("lb", "10.0.0.9-10.0.0.1"));
        tap.hear(&advertisement("lb", &bad_selector));
        assert_eq!(*rules.borrow(), before);
        tap.hear(&listed(Kind::AddressPool, vec![]));
        assert!(!rules.borrow().announce_something());
    }

    #[test]
    fn objects_of_another_namespace_do_not_count() {
        let (mut tap, rules) = tap();
        tap.hear(&listed(Kind::Advertisement, vec![advertisement("elsewhere", &json!({}))]));
        tap.hear(&listed(Kind::AddressPool, vec![pool("lb", "10.0.0.1-10.0.0.9")]));
        assert!(!rules.borrow().announce_something());
        // One more pool, even in the usual place, takes nothing away from the namespace in use.
        tap.hear(&pool("metallb-system", "10.0.1.1-10.0.1.9"));
        assert!(rules.borrow().pool_of([10, 0, 0, 1].into()).is_some());
        assert!(rules.borrow().pool_of([10, 0, 1, 1].into()).is_none());
        tap.hear(&Change::Deleted(Kind::AddressPool, ObjectKey::new("lb", "lan")));
        assert!(rules.borrow().pool_of([10, 0, 1, 1].into()).is_some(), "until that has none any more");
    }
}
