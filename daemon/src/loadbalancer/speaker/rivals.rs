//! The Leases of those that are not heard: whether they live all the same, and who of two gives way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::record::{Record, Rival};

/// Between two looks at the Lease of one that has one.
const CLOSELY: Duration = Duration::from_secs(1);
/// Between two looks at one that has none: at first, and at the latest. A node that runs no sheave is in the roster, too.
const AT_FIRST: Duration = Duration::from_secs(1);
const AT_LATEST: Duration = Duration::from_secs(60);

/// The Leases of nodes that are not heard, as far as they were looked at.
pub(super) type Leases = BTreeMap<Arc<str>, Rival>;

/// Looks at Leases.
#[derive(Debug)]
pub(super) struct Lookout {
    record: Record,
    wanted: watch::Receiver<BTreeSet<Arc<str>>>,
    leases: watch::Sender<Arc<Leases>>,
    due: BTreeMap<Arc<str>, Due>,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    pause: Duration,
}

impl Lookout {
    /// One that looks for whom it is told to, and tells what it sees.
    pub(super) fn new(record: Record, wanted: watch::Receiver<BTreeSet<Arc<str>>>, leases: watch::Sender<Arc<Leases>>) -> Self {
        Self { record, wanted, leases, due: BTreeMap::new() }
    }

    /// Until nobody asks any more.
    pub(super) async fn run(mut self) {
        loop {
            self.bring_along();
            let next = self.due.iter().min_by_key(|(_, due)| due.at).map(|(node, due)| (node.clone(), due.at));
            let looked = async {
                match next {
                    Some((node, at)) => {
                        tokio::time::sleep_until(at.into()).await;
                        node
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                node = looked => self.look(node).await,
            }
        }
    }

    fn bring_along(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        self.due.retain(|node, _| wanted.contains(node));
        for node in &wanted {
            self.due.entry(node.clone()).or_insert_with(|| Due { at: Instant::now(), pause: AT_FIRST });
        }
        self.leases.send_if_modified(|leases| {
            let news = leases.keys().any(|node| !wanted.contains(node));
            if news {
                Arc::make_mut(leases).retain(|node, _| wanted.contains(node));
            }
            news
        });
    }

    async fn look(&mut self, node: Arc<str>) {
        let rival = self.record.lease_of(&node).await;
        let Some(due) = self.due.get_mut(&node) else { return };
        // Without an answer it is what it was.
        let has_one = rival.as_ref().is_none_or(|rival| rival.claim.is_some());
        due.at = Instant::now() + if has_one { CLOSELY } else { due.pause };
        due.pause = if has_one { AT_FIRST } else { (due.pause * 2).min(AT_LATEST) };
        let Some(rival) = rival else { return };
        self.leases.send_if_modified(|leases| {
            let news = leases.get(&node) != Some(&rival);
            if news {
                Arc::make_mut(leases).insert(node, rival);
            }
            news
        });
    }
}
