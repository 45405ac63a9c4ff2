//! The Nodes as candidates: no more of them are watched than this node has a use for.
//!
//! Every node knows pools and advertisements. Its own labels matter where advertisements select by them, and all other Nodes only to
//! one that may announce: 5,000 nodes that all watched each other would make the server send 83,000 events a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Rules;
use crate::model::load_balancer::PeerNode;
use crate::model::{Held, Labels, ObjectKey};
use crate::source::kube::Watches;
use crate::source::{Change, Kind, Object};

/// Changes on their way here.
const QUEUED: usize = 1024;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let mut watching: Option<(mpsc::Receiver<Change>, tokio_util::sync::DropGuard)> = None;
        loop {
            let wanted = self.scope();
            if wanted != scope {
                scope = wanted;
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
            tokio::select! {
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
