//! The Nodes as candidates: no more of them are watched than this node has a use for.
//!
//! Every node knows pools and advertisements. Its own labels matter where advertisements select by them, and all other Nodes only to
//! one that may announce: 5,000 nodes that all watched each other would make the server send 83,000 events a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Rules;
use crate::model::load_balancer::PeerNode;
use crate::model::{Held, Labels, ObjectKey};
use crate::source::kube::Watches;
use crate::source::{Change, Kind, Object};

/// Changes on their way here.
const QUEUED: usize = 1024;
/// Who is selected no more looks at the others for so long, to see its VIPs taken.
const LINGER: Duration = Duration::from_secs(1);

/// The Nodes, as far as they are followed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peers {
    /// Our own, as it was last seen: losing sight of it must not move a VIP.
    pub own: Option<Arc<PeerNode>>,
    /// Every Node by name, once all were listed and while this one may announce.
    pub all: Option<BTreeMap<Arc<str>, Arc<PeerNode>>>,
}

/// Follows the Nodes that matter.
#[derive(Debug)]
pub struct PeerFollower {
    own: Arc<str>,
    rules: watch::Receiver<Arc<Rules>>,
    nodes: Held<Arc<PeerNode>>,
    peers: watch::Sender<Arc<Peers>>,
}

/// Which Nodes matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Nobody,
    Ourselves,
    Everybody,
}

impl PeerFollower {
    /// One that follows nobody yet, for the Node of this name.
    #[must_use]
    pub fn new(own: Arc<str>, rules: watch::Receiver<Arc<Rules>>) -> (Self, watch::Receiver<Arc<Peers>>) {
        let (peers, receiver) = watch::channel(Arc::default());
        (Self { own, rules, nodes: Held::default(), peers }, receiver)
    }

    /// Follows, until nobody tells rules any more. `watch` begins to watch, until its token is cancelled.
    pub async fn run(mut self, watch: impl Fn(Watches, mpsc::Sender<Change>, CancellationToken)) {
        let mut scope = Scope::Nobody;
        let mut narrows_at: Option<Instant> = None;
        let mut watching: Option<(mpsc::Receiver<Change>, tokio_util::sync::DropGuard)> = None;
        loop {
            let wanted = self.scope();
            narrows_at = (wanted < scope).then(|| narrows_at.unwrap_or_else(|| Instant::now() + LINGER));
            if wanted > scope || narrows_at.is_some_and(|at| at <= Instant::now()) {
                (scope, narrows_at) = (wanted, None);
                // What was known of others counts no more, or is listed anew; until then the last word of us stands.
                self.nodes = Held::default();
                watching = begin(scope, &watch);
                if scope != Scope::Everybody {
                    self.tell(scope);
                }
            }
            let changes = async {
                match &mut watching {
                    Some((changes, _)) => changes.recv().await,
                    None => std::future::pending().await,
                }
            };
            let narrowed = async {
                match narrows_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = narrowed => {}
                changed = self.rules.changed() => if changed.is_err() { return },
                change = changes => match change {
                    Some(change) => if self.take(&change) { self.tell(scope) },
                    // The watch has died and said so; the daemon ends.
                    None => watching = None,
                }
            }
        }
    }

    /// Whoever cannot be told to be out of it is followed.
    fn scope(&mut self) -> Scope {
        let rules = self.rules.borrow_and_update().clone();
        if !rules.announce_something() {
            return Scope::Nobody;
        }
        let own = self.peers.borrow().own.clone();
        let known = own.as_deref().map(|own| &own.labels);
        let nothing = Labels::default();
        // One without labels is selected by what selects everybody.
        if rules.may_announce(known.unwrap_or(&nothing)) { Scope::Everybody } else { Scope::Ourselves }
    }

    /// Takes in a change; says whether something is other than before.
    fn take(&mut self, change: &Change) -> bool {
        match change {
            Change::Together(changes) => return changes.iter().fold(false, |news, change| self.take(change) | news),
            Change::Listing(Kind::Peer) => self.nodes.sweep.begin(),
            Change::Listed(Kind::Peer) => {
                self.nodes.unseen().iter().for_each(|key| drop(self.nodes.remove(key)));
                self.nodes.sweep.end();
                return true;
            }
            Change::Applied(Object::Peer(node)) => {
                let key = ObjectKey::new("", &node.name);
                // Most changes of a Node are its kubelet's signs of life.
                let known = self.nodes.get(&key).filter(|known| ***known == **node).cloned();
                let is_news = known.is_none();
                self.nodes.insert(key, known.unwrap_or_else(|| Arc::new((**node).clone())));
                return is_news;
            }
            Change::Deleted(Kind::Peer, key) => return self.nodes.remove(key).is_some(),
            _ => {}
        }
        false
    }

    fn tell(&self, scope: Scope) {
        let seen = self.nodes.get(&ObjectKey::new("", &self.own)).cloned();
        let listed = scope == Scope::Everybody && self.nodes.sweep.listed();
        let all = listed.then(|| self.nodes.values().map(|node| (node.name.clone(), node.clone())).collect());
        self.peers.send_if_modified(|known| {
            let peers = Peers { own: seen.or_else(|| known.own.clone()), all };
            let news = **known != peers;
            if news {
                *known = Arc::new(peers);
            }
            news
        });
    }
}

fn begin(
    scope: Scope,
    watch: &impl Fn(Watches, mpsc::Sender<Change>, CancellationToken),
) -> Option<(mpsc::Receiver<Change>, tokio_util::sync::DropGuard)> {
    let watches = match scope {
        Scope::Nobody => return None,
        Scope::Ourselves => Watches::OwnPeer,
        Scope::Everybody => Watches::Peers,
    };
    let (sender, receiver) = mpsc::channel(QUEUED);
    let cancel = CancellationToken::new();
    watch(watches, sender, cancel.clone());
    Some((receiver, cancel.drop_guard()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::Interner;
    use crate::source::decode::{self, Decoded};

    fn object(kind: Kind, value: &Value) -> Object {
        match decode::from_json(kind, value.to_string().as_bytes(), &mut Interner::default()) {
            Ok(Decoded::Object(object)) => object,
            other => panic!("{other:?}"),
        }
    }

    fn node(name: &str, role: &str) -> Change {
        let labels = json!({ "role": role });
        Change::Applied(object(Kind::Peer, &json!({ "metadata": { "name": name, "labels": labels } })))
    }

    /// A pool, and an advertisement by nodes of this role.
    fn rules(role: Option<&str>) -> Arc<Rules> {
        let metadata = json!({ "name": "lan", "namespace": "lb" });
        let pool = json!({ "metadata": metadata, "spec": { "addresses": ["10.0.0.1-10.0.0.9"] } });
        let selectors: Vec<Value> = role.iter().map(|role| json!({ "matchLabels": { "role": role } })).collect();
        let advertisement = json!({ "metadata": metadata, "spec": { "nodeSelectors": selectors } });
        let (Object::AddressPool(pool), Object::Advertisement(advertisement)) =
            (object(Kind::AddressPool, &pool), object(Kind::Advertisement, &advertisement))
        else {
            panic!("other kinds")
        };
        Rules { pools: vec![Arc::new(*pool)], advertisements: vec![Arc::new(*advertisement)], ..Rules::default() }.into()
    }

    /// What was begun to be watched, with the way to tell of it.
    type Begun = Arc<Mutex<Vec<(Watches, mpsc::Sender<Change>, CancellationToken)>>>;

    fn follower(rules: &watch::Sender<Arc<Rules>>) -> (watch::Receiver<Arc<Peers>>, Begun) {
        let (follower, peers) = PeerFollower::new("a".into(), rules.subscribe());
        let begun = Begun::default();
        let told = begun.clone();
        let begin = move |watches, sender, cancel| told.lock().unwrap().push((watches, sender, cancel));
        tokio::spawn(follower.run(begin));
        (peers, begun)
    }

    async fn lists(begun: &Begun, place: usize, nodes: Vec<Change>) {
        let sender = loop {
            if let Some((_, sender, _)) = begun.lock().unwrap().get(place) {
                break sender.clone();
            }
            tokio::task::yield_now().await;
        };
        for change in [Change::Listing(Kind::Peer)].into_iter().chain(nodes).chain([Change::Listed(Kind::Peer)]) {
            sender.send(change).await.unwrap();
        }
    }

    fn watched(begun: &Begun) -> Vec<(Watches, bool)> {
        begun.lock().unwrap().iter().map(|(watches, _, cancel)| (*watches, !cancel.is_cancelled())).collect()
    }

    #[tokio::test]
    async fn nobody_is_watched_without_a_pool_and_everybody_where_all_may_announce() {
        let told = watch::Sender::new(Arc::<Rules>::default());
        let (mut peers, begun) = follower(&told);
        tokio::task::yield_now().await;
        assert_eq!(watched(&begun), []);
        told.send_replace(rules(None));
        lists(&begun, 0, vec![node("a", "x"), node("b", "y")]).await;
        let known = peers.wait_for(|peers| peers.all.is_some()).await.unwrap().clone();
        let names: Vec<&str> = known.all.iter().flatten().map(|(name, _)| &**name).collect();
        assert_eq!((names, known.own.as_ref().map(|own| &*own.name)), (vec!["a", "b"], Some("a")));
        assert_eq!(watched(&begun), [(Watches::Peers, true)]);
        told.send_replace(Arc::default());
        let over = peers.wait_for(|peers| peers.all.is_none()).await.unwrap().clone();
        assert!(over.own.is_some());
        assert_eq!(watched(&begun), [(Watches::Peers, false)]);
    }

    #[tokio::test]
    async fn others_are_watched_only_while_we_are_selected() {
        let told = watch::Sender::new(rules(Some("edge")));
        let (mut peers, begun) = follower(&told);
        lists(&begun, 0, vec![node("a", "inner")]).await;
        peers.wait_for(|peers| peers.own.is_some()).await.unwrap();
        assert_eq!(watched(&begun), [(Watches::OwnPeer, true)]);
        lists(&begun, 0, vec![node("a", "edge")]).await;
        lists(&begun, 1, vec![node("a", "edge"), node("b", "inner")]).await;
        let known = peers.wait_for(|peers| peers.all.is_some()).await.unwrap().clone();
        assert_eq!(known.all.as_ref().map(BTreeMap::len), Some(2));
        assert_eq!(watched(&begun), [(Watches::OwnPeer, false), (Watches::Peers, true)]);
    }
}
