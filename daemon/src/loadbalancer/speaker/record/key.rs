//! The key of the membership: the Secret that the controller makes, followed. It is never logged, nor is what the server says of it.
//!
//! Another key is not sealed with at once: whoever gets it a moment later could not read what is said meanwhile, and members would be
//! taken for gone. It is accepted at once and used after [`SWITCH`], and the one before is accepted for as long again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use crate::health::ProxyHealth;
use crate::loadbalancer::controller::{GOSSIP_KEY, GOSSIP_PREVIOUS, GOSSIP_SECRET};
use crate::loadbalancer::membership::{KEY_BYTES, Key};
use crate::retry::Retry;
use crate::source::kube::ApiServers;

/// From when a key is known until it is sealed with, and from then until the one before it is refused.
const SWITCH: Duration = Duration::from_secs(10);
/// Pauses between attempts to follow it.
const AGAIN_AFTER: Duration = Duration::from_millis(800);
const AGAIN_AT_LATEST: Duration = Duration::from_secs(30);
/// How long a watch is to last, seconds; and how much later it must have ended.
const WATCH: u32 = 290;
const OVERDUE: Duration = Duration::from_secs(20);
/// For the head of an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Name of the problem in `/healthz`.
const PROBLEM: &str = "membership key";

/// Which keys count when. Pure.
#[derive(Debug, Default)]
struct Keyring {
    sealing: Option<Key>,
    /// What the Secret says: the key, and one that is accepted beside it.
    wanted: Option<(Key, Option<Key>)>,
    /// When the next change is due.
    next: Option<Instant>,
    /// The one before, as long as it is accepted.
    before: Option<Key>,
}

/// Follows the Secret, and says which keys count. Does not end by itself.
pub(super) async fn follow(
    servers: Arc<ApiServers>,
    namespace: Arc<str>,
    keys: watch::Sender<Vec<Key>>,
    health: Arc<ProxyHealth>,
) {
    let _end = Unproblematic(health.clone());
    let (found, mut known) = watch::channel(None);
    let turn = async {
        let mut ring = Keyring::default();
        loop {
            let due = async {
                match ring.next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = known.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Some((key, previous)) = *known.borrow_and_update() {
                        ring.learn(key, previous, Instant::now());
                    }
                }
                () = due => ring.turn(Instant::now()),
            }
            let now = ring.keys();
            keys.send_if_modified(|known| {
                let news = *known != now;
                *known = now;
                news
            });
        }
    };
    tokio::join!(watch_secret(servers, namespace, found, health), turn);
}

type Found = Option<(Key, Option<Key>)>;

/// Whoever follows no key misses none.
struct Unproblematic(Arc<ProxyHealth>);

impl Drop for Unproblematic {
    fn drop(&mut self) {
        self.0.problem(PROBLEM, None);
    }
}

async fn watch_secret(servers: Arc<ApiServers>, namespace: Arc<str>, found: watch::Sender<Found>, health: Arc<ProxyHealth>) {
    let mut retry = Retry::new(AGAIN_AFTER, AGAIN_AT_LATEST);
    let mut told = false;
    loop {
        let began = Instant::now();
        let why = follow_once(&servers, &namespace, &found, &health).await;
        if let Some(why) = why {
            let place = format!("{namespace}/{GOSSIP_SECRET}");
            if std::mem::replace(&mut told, true) {
                tracing::debug!("Secret {place}: {why}");
            } else {
                tracing::warn!("Secret {place} cannot be followed, it is tried again until it can: {why}");
            }
            if found.borrow().is_none() {
                health.problem(PROBLEM, Some(format!("Secret {place}: {why}; without it no other announcer is heard")));
            }
        } else {
            told = false;
        }
        if began.elapsed() >= AGAIN_AT_LATEST {
            retry.reset();
        }
        tokio::time::sleep(retry.next()).await;
    }
}

/// One list and one watch. Why it did not come to the watch's own end, in words without anything of the server's.
async fn follow_once(
    servers: &ApiServers,
    namespace: &str,
    found: &watch::Sender<Found>,
    health: &ProxyHealth,
) -> Option<String> {
    let secrets: Api<Secret> = Api::namespaced(servers.client(), namespace);
    let only = format!("metadata.name={GOSSIP_SECRET}");
    let list = ListParams::default().fields(&only);
    let list = match timeout(ANSWER, secrets.list(&list).with_subscriber(NoSubscriber::new())).await {
        Ok(Ok(list)) => list,
        Ok(Err(error)) => return Some(cause(&error)),
        Err(_) => return Some("no answer".to_owned()),
    };
    match list.items.first() {
        Some(secret) => take(secret, found, health),
        None if found.borrow().is_none() => health.problem(
            PROBLEM,
            Some(format!(
                "there is no Secret {namespace}/{GOSSIP_SECRET}, which sheave's controller makes; no other announcer is heard"
            )),
        ),
        None => {}
    }
    let version = list.metadata.resource_version.unwrap_or_default();
    let watching = WatchParams::default().fields(&only).timeout(WATCH);
    let events = match timeout(ANSWER, secrets.watch(&watching, &version).with_subscriber(NoSubscriber::new())).await {
        Ok(Ok(events)) => events,
        Ok(Err(error)) => return Some(cause(&error)),
        Err(_) => return Some("no answer".to_owned()),
    };
    let mut events = std::pin::pin!(events);
    let end = Duration::from_secs(WATCH.into()) + OVERDUE;
    let reading = async {
        while let Some(event) = events.next().with_subscriber(NoSubscriber::new()).await {
            match event {
                Ok(WatchEvent::Added(secret) | WatchEvent::Modified(secret)) => take(&secret, found, health),
                Ok(WatchEvent::Deleted(_)) => {
                    tracing::warn!(
                        "Secret {namespace}/{GOSSIP_SECRET} is gone; what it held stays in use until there is another"
                    );
                }
                Ok(WatchEvent::Bookmark(_)) => {}
                // 410 among others: everything is listed again.
                Ok(WatchEvent::Error(_)) => return None,
                Err(error) => return Some(cause(&error)),
            }
        }
        None
    };
    timeout(end, reading).await.unwrap_or_else(|_| Some("the watch fell silent".to_owned()))
}

fn take(secret: &Secret, found: &watch::Sender<Found>, health: &ProxyHealth) {
    match read(secret) {
        Ok(keys) => {
            found.send_if_modified(|known| known.replace(keys) != Some(keys));
            health.problem(PROBLEM, None);
        }
        Err(why) => {
            tracing::warn!("Secret {GOSSIP_SECRET}: {why}; what it held before stays in use");
            health.problem(PROBLEM, Some(format!("Secret {GOSSIP_SECRET}: {why}")));
        }
    }
}

fn read(secret: &Secret) -> Result<(Key, Option<Key>), String> {
    let entry = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| Key::new(&bytes.0));
    let wrong = |name: &str| format!("data.{name} is not {KEY_BYTES} bytes");
    let key = entry(GOSSIP_KEY).flatten().ok_or_else(|| wrong(GOSSIP_KEY))?;
    let previous = match entry(GOSSIP_PREVIOUS) {
        Some(None) => return Err(wrong(GOSSIP_PREVIOUS)),
        Some(Some(previous)) => Some(previous),
        None => None,
    };
    Ok((key, previous))
}

/// Of what a client says, only what cannot hold anything of an answer.
fn cause(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => match status.code {
            403 => "refused: 403; the account needs list and watch for it (a Role with resourceNames)".to_owned(),
            code => format!("refused: {code}"),
        },
        kube::Error::SerdeError(_) => "the answer makes no sense".to_owned(),
        _ => "the API server cannot be reached".to_owned(),
    }
}

impl Keyring {
    /// The Secret says so.
    fn learn(&mut self, key: Key, previous: Option<Key>, now: Instant) {
        self.wanted = Some((key, previous));
        match self.sealing {
            // Nobody was spoken to so far.
            None => self.sealing = Some(key),
            Some(sealing) if sealing != key => self.next = Some(now + SWITCH),
            Some(_) => {}
        }
    }

    /// The next change is due.
    fn turn(&mut self, now: Instant) {
        let wanted = self.wanted.map(|(key, _)| key);
        if wanted == self.sealing {
            (self.before, self.next) = (None, None);
        } else {
            self.before = std::mem::replace(&mut self.sealing, wanted);
            self.next = Some(now + SWITCH);
        }
    }

    /// The one that is sealed with first.
    fn keys(&self) -> Vec<Key> {
        let (wanted, previous) = self.wanted.unzip();
        let mut keys = Vec::new();
        for key in [self.sealing, wanted, previous.flatten(), self.before].into_iter().flatten() {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    fn key(byte: u8) -> Key {
        Key::new(&[byte; KEY_BYTES]).expect("as long as a key")
    }

    #[test]
    fn another_key_is_accepted_at_once_used_later_and_the_one_before_is_accepted_as_long_again() {
        let start = Instant::now();
        let mut ring = Keyring::default();
        assert_eq!(ring.keys(), []);
        ring.learn(key(1), None, start);
        assert_eq!((ring.keys(), ring.next), (vec![key(1)], None), "nobody was spoken to so far");
        ring.learn(key(2), None, start);
        assert_eq!((ring.keys(), ring.next), (vec![key(1), key(2)], Some(start + SWITCH)));
        ring.turn(start + SWITCH);
        assert_eq!((ring.keys(), ring.next), (vec![key(2), key(1)], Some(start + SWITCH * 2)));
        ring.turn(start + SWITCH * 2);
        assert_eq!((ring.keys(), ring.next), (vec![key(2)], None));
        ring.learn(key(2), Some(key(1)), start);
        assert_eq!((ring.keys(), ring.next), (vec![key(2), key(1)], None));
    }

    #[test]
    fn one_that_is_taken_back_before_it_is_used_never_is() {
        let start = Instant::now();
        let mut ring = Keyring::default();
        ring.learn(key(1), None, start);
        ring.learn(key(2), None, start);
        ring.learn(key(1), None, start);
        ring.turn(start + SWITCH);
        assert_eq!((ring.keys(), ring.next), (vec![key(1)], None));
    }

    #[test]
    fn a_secret_that_is_no_key_is_named_without_a_byte_of_it() {
        let secret = |entries: &[(&str, &[u8])]| Secret {
            data: Some(
                entries.iter().map(|(name, bytes)| ((*name).to_owned(), ByteString(bytes.to_vec()))).collect::<BTreeMap<_, _>>(),
            ),
            ..Secret::default()
        };
        assert_eq!(read(&Secret::default()), Err("data.key is not 32 bytes".to_owned()));
        assert_eq!(read(&secret(&[("key", b"hunter2")])), Err("data.key is not 32 bytes".to_owned()));
        assert_eq!(read(&secret(&[("key", &[1; 32])])), Ok((key(1), None)));
        assert_eq!(read(&secret(&[("key", &[1; 32]), ("previous", &[2; 32])])), Ok((key(1), Some(key(2)))));
        assert_eq!(read(&secret(&[("key", &[1; 32]), ("previous", b"x")])), Err("data.previous is not 32 bytes".to_owned()));
    }
}
