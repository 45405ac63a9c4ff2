//! The announcer as the daemon owns it: a thread that waits for frames, interfaces and orders, and a handle.
//!
//! A thread of its own, without async: between a question and its answer there is one `poll`, one `recv` and one `send`, and nobody
//! else's work.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use compact_str::CompactString;
use nix::errno::Errno;
use tokio::sync::{mpsc, watch};

use super::engine::{Engine, Event};
use super::exclusions::Exclusions;
use super::socket::PacketSockets;
use super::vip::{Counters, Vip, VipStats};
use crate::model::Family;
use crate::netlink::links::{LinkMonitor, Links};
use crate::netlink::route::RouteError;
use crate::netlink::socket::eventfd;
use crate::retry::Retry;

/// Events that may wait for their reader.
const EVENTS: usize = 4096;
/// Pauses after the interfaces could not be followed.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const AGAIN_AT_LATEST: Duration = Duration::from_secs(10);

/// What an announcer is told at its start.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Interfaces that never announce.
    pub exclusions: Exclusions,
    /// Each address is announced again in this interval; `None`: only when something changes, as MetalLB does.
    pub period: Option<Duration>,
}

/// Announces addresses on the interfaces of the network namespace of the thread that started it. Ends when dropped: then nobody
/// answers any more, and nothing is left behind.
#[derive(Debug)]
pub struct Announcer {
    shared: Arc<Shared>,
    links: watch::Receiver<Arc<Links>>,
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// The announcer cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The interfaces are not known.
    #[error(transparent)]
    Links(#[from] RouteError),
    /// No thread, or no way to wake it.
    #[error("start the announcer's thread: {0}")]
    Thread(#[source] io::Error),
}

/// What handle and thread have in common. Neither holds a lock for longer than it takes to move a value.
#[derive(Debug)]
struct Shared {
    orders: Mutex<Orders>,
    /// Raised when there are orders.
    wake: OwnedFd,
    status: Mutex<Status>,
}

#[derive(Debug, Default)]
struct Orders {
    /// The last ones, and since when; those that were replaced before the thread saw them never were.
    vips: Option<(Instant, Vec<Vip>)>,
    announce: Vec<IpAddr>,
    stop: bool,
}

#[derive(Debug, Default)]
struct Status {
    vips: Vec<(IpAddr, Vec<CompactString>, Arc<Counters>)>,
    troubles: Vec<String>,
}

impl Announcer {
    /// Starts a thread that announces nothing yet. Events come out of the receiver; if nobody takes them, the newest are lost.
    ///
    /// # Errors
    /// See [`StartError`]. A packet socket is not needed before there is an address: without `CAP_NET_RAW` see [`Self::troubles`].
    pub fn start(options: Options) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        let Options { exclusions, period } = options;
        let monitor = LinkMonitor::open()?;
        let (links_sender, links) = watch::channel(Arc::new(monitor.links().clone()));
        let wake = eventfd().map_err(StartError::Thread)?;
        let shared = Arc::new(Shared { orders: Mutex::default(), wake, status: Mutex::default() });
        let (events_sender, events) = mpsc::channel(EVENTS);
        let mut engine = Engine::new(PacketSockets, exclusions, period, events_sender);
        engine.interfaces(monitor.links(), &every(monitor.links()), Instant::now());
        let (follower, lost) = (Follower::new(monitor), engine.lost());
        let thread = {
            let shared = shared.clone();
            let run = move || Worker { engine, follower, links: links_sender, shared, published: None }.run();
            std::thread::Builder::new().name("announcer".into()).spawn(run).map_err(StartError::Thread)?
        };
        Ok((Self { shared, links, lost, thread: Some(thread) }, events))
    }

    /// Announces these addresses, and no others. Does not wait: [`Event::Announced`] tells when an address that was added has been
    /// announced. Those that stay are not announced again.
    pub fn set(&self, vips: Vec<Vip>) {
        self.order(|orders| orders.vips = Some((Instant::now(), vips)));
    }

    /// Announces these again, as if they had just been added.
    pub fn announce_again(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.order(|orders| orders.announce.extend(addresses));
    }

    /// Of every address ever announced by this process: where it is announced now, and its counters.
    #[must_use]
    pub fn stats(&self) -> Vec<VipStats> {
        let status = lock(&self.shared.status);
        status.vips.iter().map(|(address, interfaces, counters)| counters.stats(*address, interfaces.clone())).collect()
    }

    /// Frames about our addresses that found no room, since this was asked last: more came at once than a storm should have. Whoever asked
    /// asks again.
    #[must_use]
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// What does not work, and is tried again; empty if all does.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        lock(&self.shared.status).troubles.clone()
    }

    /// The node's interfaces as the announcer sees them, and each change.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<Arc<Links>> {
        self.links.clone()
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut lock(&self.shared.orders));
        // A flag that is raised already is as good.
        let _ = nix::unistd::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.order(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            // It panicked, and has said so.
            let _ = thread.join();
        }
    }
}

/// The interfaces, followed through failures.
struct Follower {
    monitor: Option<LinkMonitor>,
    /// Without a monitor: what the last one said.
    known: Links,
    retry: Retry,
    retry_at: Option<Instant>,
    trouble: Option<String>,
}

impl Follower {
    fn new(monitor: LinkMonitor) -> Self {
        let retry = Retry::new(AGAIN_AFTER, AGAIN_AT_LATEST);
        Self { monitor: Some(monitor), known: Links::default(), retry, retry_at: None, trouble: None }
    }

    /// Looks what changed, through a new socket if the last one failed. The interfaces, and which of them changed, if any did.
    fn look(&mut self, now: Instant) -> Option<(&Links, BTreeSet<u32>)> {
        let changed = match &mut self.monitor {
            Some(monitor) => monitor.look(),
            None if self.retry_at.is_some_and(|at| at <= now) => LinkMonitor::open().map(|monitor| {
                // Against what was known before; those that are gone, too.
                let changed = every(&self.known).into_iter().chain(every(monitor.links())).collect();
                self.monitor = Some(monitor);
                changed
            }),
            None => return None,
        };
        match changed {
            Ok(changed) => {
                if self.trouble.take().is_some() {
                    tracing::info!("interfaces are followed again");
                }
                self.retry.reset();
                self.retry_at = None;
                let monitor = self.monitor.as_ref().filter(|_| !changed.is_empty())?;
                Some((monitor.links(), changed))
            }
            Err(error) => {
                if let Some(monitor) = self.monitor.take() {
                    self.known = monitor.links().clone();
                }
                self.retry_at = Some(now + self.retry.next());
                let trouble = error.to_string();
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!("interfaces not followed, the last known stay in force: {trouble}");
                }
                self.trouble = Some(trouble);
                None
            }
        }
    }
}

fn every(links: &Links) -> BTreeSet<u32> {
    links.iter().map(|link| link.index).collect()
}

/// The thread.
struct Worker {
    engine: Engine<PacketSockets>,
    follower: Follower,
    links: watch::Sender<Arc<Links>>,
    shared: Arc<Shared>,
    /// The follower's trouble, as [`Self::publish`] told it last.
    published: Option<String>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    // Only a lack of memory is possible here, and whoever waits may have some later.
                    tracing::warn!(%error, "poll failed");
                    std::thread::sleep(AGAIN_AFTER);
                    continue;
                }
            };
            let now = Instant::now();
            for key in ready.ports {
                self.engine.serve(key, now);
            }
            if ready.links
                && let Some((links, changed)) = self.follower.look(now)
            {
                self.engine.interfaces(links, &changed, now);
                self.links.send_replace(Arc::new(links.clone()));
            }
            let orders = if ready.orders { self.orders() } else { Orders::default() };
            if orders.stop {
                return;
            }
            if let Some((asked, vips)) = orders.vips {
                self.engine.set(vips, asked, now);
            }
            self.engine.announce(&orders.announce, now);
            self.engine.try_again(now);
            // Before it is told: whoever hears of something finds it there.
            if self.engine.take_changed() || self.published != self.follower.trouble {
                self.publish();
            }
            self.engine.announce_due(now);
            self.engine.tell();
        }
    }

    /// Waits until something is there, or due.
    fn wait(&self) -> io::Result<Ready> {
        let poll = |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let ports = self.engine.ports();
        let mut fds = Vec::with_capacity(ports.len() + 2);
        fds.push(poll(self.shared.wake.as_fd()));
        fds.extend(ports.values().map(|port| poll(port.door.as_fd())));
        fds.extend(self.follower.monitor.as_ref().map(|monitor| poll(monitor.as_fd())));
        let deadline = [self.engine.deadline(), self.follower.retry_at].into_iter().flatten().min();
        let milliseconds = deadline.map_or(-1, |at| {
            let wait = at.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
            i32::try_from(wait).unwrap_or(i32::MAX)
        });
        let count = libc::nfds_t::try_from(fds.len()).map_err(io::Error::other)?;
        // SAFETY: `fds` is an array of so many initialised entries, borrowed for the call.
        match Errno::result(unsafe { libc::poll(fds.as_mut_ptr(), count, milliseconds) }) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |at: usize| fds.get(at).is_some_and(|fd| fd.revents != 0);
        let keys = (1..).zip(ports.keys()).filter(|(at, _)| is_ready(*at)).map(|(_, key)| *key).collect();
        let retried = self.follower.retry_at.is_some_and(|at| at <= Instant::now());
        Ok(Ready { orders: is_ready(0), ports: keys, links: retried || is_ready(ports.len() + 1) })
    }

    fn orders(&self) -> Orders {
        let mut count = [0; 8];
        let _ = nix::unistd::read(&self.shared.wake, &mut count);
        std::mem::take(&mut *lock(&self.shared.orders))
    }

    fn publish(&mut self) {
        self.published.clone_from(&self.follower.trouble);
        let vips = self.engine.status();
        let troubles = self.engine.trouble().map(str::to_owned).into_iter().chain(self.follower.trouble.clone()).collect();
        *lock(&self.shared.status) = Status { vips, troubles };
    }
}

/// What [`Worker::wait`] found.
struct Ready {
    orders: bool,
    links: bool,
    ports: Vec<(u32, Family)>,
}

/// Nothing is done under these locks that could panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
