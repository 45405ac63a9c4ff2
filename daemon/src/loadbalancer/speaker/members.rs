//! The membership as the speaker has it: it runs while there are others who may announce and a key to speak with them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::daemon::with_causes;
use crate::loadbalancer::membership::{self, Departure, Driver, DriverError, Facts, Handle, Key, View};
use crate::retry::Retry;

/// Pauses between attempts to listen.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AT_LATEST: Duration = Duration::from_secs(30);
/// A farewell is said three times, 25 ms apart.
const FAREWELL: Duration = Duration::from_millis(100);

/// Who may announce, and where each hears the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roster {
    /// Where we listen; `None`: our Node has no InternalIP.
    pub(super) own: Option<IpAddr>,
    /// Everybody else, with an address of our family where there is one.
    pub(super) others: Vec<(Arc<str>, IpAddr)>,
}

/// Starts and ends it, and holds on to what it says.
#[derive(Debug)]
pub(super) struct Members {
    node: Arc<str>,
    port: u16,
    options: membership::Options,
    keys: Vec<Key>,
    running: Option<Running>,
    retry: Retry,
    retry_at: Option<Instant>,
    problem: Option<String>,
}

#[derive(Debug)]
struct Running {
    address: SocketAddr,
    roster: Roster,
    keys: Vec<Key>,
    told: Option<Facts>,
    handle: Handle,
    view: watch::Receiver<View>,
    /// Ends it when dropped; before the thread, which is waited for by nobody.
    _until: DropGuard,
    _thread: JoinHandle<()>,
}

impl Members {
    pub(super) fn new(node: Arc<str>, port: u16, options: membership::Options) -> Self {
        let retry = Retry::new(AGAIN_AFTER, AGAIN_AT_LATEST);
        Self { node, port, options, keys: Vec::new(), running: None, retry, retry_at: None, problem: None }
    }

    /// What is said is sealed with the first of these, and opened with any. None: nothing can be said yet.
    pub(super) fn set_keys(&mut self, keys: Vec<Key>) {
        self.keys = keys;
    }

    /// Brings everything along with who may announce. `None`: nobody else may, so there is nothing to say to anybody.
    pub(super) async fn follow(&mut self, roster: Option<Roster>, now: Instant) {
        let Some(roster) = roster else {
            *self = Self { keys: std::mem::take(&mut self.keys), ..Self::new(self.node.clone(), self.port, self.options) };
            return;
        };
        let Some(own) = roster.own else {
            (self.running, self.retry_at) = (None, None);
            self.problem = Some("our Node has no InternalIP, at which others could hear us".to_owned());
            return;
        };
        let address = SocketAddr::from((own, self.port));
        if self.running.as_ref().is_some_and(|running| running.address != address || running.is_over()) {
            self.running = None;
        }
        if self.running.is_none() && self.retry_at.is_none_or(|at| at <= now) {
            self.start(address, now).await;
        }
        let Some(running) = &mut self.running else { return };
        if running.roster != roster {
            let all = roster.others.iter().map(|(name, ip)| (name.clone(), SocketAddr::from((*ip, self.port))));
            running.handle.set_roster(all.collect()).await;
            running.roster = roster;
        }
        if running.keys != self.keys && !self.keys.is_empty() {
            running.handle.set_keys(self.keys.clone()).await;
            running.keys.clone_from(&self.keys);
        }
    }

    async fn start(&mut self, address: SocketAddr, now: Instant) {
        if self.keys.is_empty() {
            self.problem = Some("there is no key yet: the controller makes it, in Secret sheave-gossip".to_owned());
            self.retry_at = None;
            return;
        }
        match Running::start(self.node.clone(), address, self.keys.clone(), self.options).await {
            Ok(running) => {
                tracing::info!(%address, "hearing the other announcers");
                self.running = Some(running);
                self.retry.reset();
                (self.retry_at, self.problem) = (None, None);
            }
            Err(why) => {
                if self.problem.as_ref() != Some(&why) {
                    tracing::warn!("the other announcers are not heard, so nothing new is announced: {why}");
                }
                self.problem = Some(why);
                self.retry_at = Some(now + self.retry.next());
            }
        }
    }

    /// The members as they are known now; `None`: nobody is heard at all.
    pub(super) fn view(&mut self) -> Option<View> {
        self.running.as_mut().map(|running| running.view.borrow_and_update().clone())
    }

    /// Tells the others about us. Those that join later are told, too.
    pub(super) async fn tell(&mut self, facts: Facts) {
        let Some(running) = &mut self.running else { return };
        if running.told.as_ref() == Some(&facts) {
            return;
        }
        match running.handle.set_facts(facts.clone()).await {
            Ok(()) => running.told = Some(facts),
            Err(error) => {
                tracing::warn!("what this node holds cannot be told to the others: {error}");
                self.problem = Some(error.to_string());
            }
        }
    }

    /// They have heard of us in this life.
    pub(super) fn has_told(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.told.is_some())
    }

    /// Says how this daemon ends, and waits until that has been said.
    pub(super) async fn depart(&self, departure: Departure) {
        if let Some(running) = &self.running {
            running.handle.depart(departure).await;
            if departure == Departure::Restart {
                tokio::time::sleep(FAREWELL).await;
            }
        }
    }

    /// What it counts.
    pub(super) fn handle(&self) -> Option<&Handle> {
        self.running.as_ref().map(|running| &running.handle)
    }

    /// Why nobody is heard, if that is so.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// When it is tried again to listen.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Waits until something about a member changes.
    pub(super) async fn changed(&mut self) {
        let gone = match &mut self.running {
            Some(running) => running.view.changed().await.is_err(),
            None => std::future::pending().await,
        };
        if gone {
            // Its thread has died, and another one is started at the next look.
            tracing::error!("the membership has died, it is begun again");
            self.running = None;
        }
    }
}

impl Running {
    /// On a thread with a runtime of its own: beats wait for nobody else's work. In the network namespace of this one.
    async fn start(node: Arc<str>, address: SocketAddr, keys: Vec<Key>, options: membership::Options) -> Result<Self, String> {
        let until = CancellationToken::new();
        let (told, begun) = oneshot::channel();
        let (cancelled, sealing) = (until.clone(), keys.clone());
        let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(async {
                let listening = Driver::listen(&node, address, sealing, options);
                let (outcome, driver) = match listening {
                    Ok((driver, handle)) => (Ok(handle), Some(driver)),
                    Err(error) => (Err(told_of(&error)), None),
                };
                if told.send(outcome).is_ok()
                    && let Some(driver) = driver
                {
                    driver.run(cancelled).await;
                }
            }),
            Err(error) => drop(told.send(Err(format!("no runtime for the membership: {error}")))),
        };
        let thread = std::thread::Builder::new().name("membership".into()).spawn(run);
        let thread = thread.map_err(|error| format!("no thread for the membership: {error}"))?;
        let handle = begun.await.map_err(|_| "its thread has died".to_owned())??;
        let view = handle.view();
        let _until = until.drop_guard();
        Ok(Self { address, roster: Roster::default(), keys, told: None, handle, view, _until, _thread: thread })
    }

    fn is_over(&self) -> bool {
        self.view.has_changed().is_err()
    }
}

fn told_of(error: &DriverError) -> String {
    with_causes(error)
}
