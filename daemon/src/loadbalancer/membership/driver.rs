//! The membership with a socket and a clock.
//!
//! It belongs on a thread with a runtime of its own: its beats must not wait for anybody else's work.

mod probe;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::core::{Change, Member, Membership, Output, Refused};
use super::facts::{Facts, FactsError};
use super::options::Options;
use super::seal::Key;
use super::verdict::{Evidence, State};
use super::wire::Departure;

/// Datagrams taken from the socket before timers are looked at again: a flood must not stop our own beats.
const BATCH: usize = 512;
/// The largest datagram of ours is smaller than the least MTU of IPv6; a longer one is cut, and so is no longer authentic.
const LARGEST: usize = 1500;
/// Probes under way at a time; with more, the next ones are left out.
const PROBES: usize = 256;
/// Orders that wait.
const ORDERS: usize = 64;

/// Drives one [`Membership`].
#[derive(Debug)]
pub struct Driver {
    socket: UdpSocket,
    membership: Membership,
    orders: mpsc::Receiver<Order>,
    view: watch::Sender<View>,
    counts: Arc<Counts>,
    probes: JoinSet<Option<(Arc<str>, Evidence)>>,
    /// The view was other than what is published.
    news: bool,
}

/// How others talk to a [`Driver`].
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
    view: watch::Receiver<View>,
    counts: Arc<Counts>,
}

/// The members as they are known now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Every node of the roster but our own.
    pub members: Arc<[Member]>,
    /// Enough is known to hold elections ([`Membership::is_settled`]).
    pub settled: bool,
    /// What this node told before its daemon was restarted ([`Membership::remembered`]).
    pub remembered: Option<Arc<Facts>>,
}

/// What was received and sent, for the metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Datagrams that counted.
    pub received: AtomicU64,
    /// Datagrams sent.
    pub sent: AtomicU64,
    /// Datagrams that the kernel did not take: no route, no room.
    pub unsent: AtomicU64,
    /// Datagrams refused, by reason.
    refused: std::sync::Mutex<BTreeMap<&'static str, u64>>,
}

/// Membership cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Something else uses the port, or the address is not ours.
    #[error("cannot listen for other members on {address}/udp")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No key.
    #[error("there is no key to seal what members say")]
    NoKey,
    /// The kernel gives no randomness.
    #[error("no random bytes for a session")]
    Random,
}

#[derive(Debug)]
enum Order {
    Roster(Vec<(Arc<str>, SocketAddr)>),
    Facts(Facts, tokio::sync::oneshot::Sender<Result<(), FactsError>>),
    Keys(Vec<Key>),
    Depart(Departure),
}

impl Driver {
    /// Listens at `address`, the node's own, for the node `name`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`DriverError`].
    pub fn listen(name: &str, address: SocketAddr, keys: Vec<Key>, options: Options) -> Result<(Self, Handle), DriverError> {
        let bind = |source| DriverError::Bind { address, source };
        let socket = std::net::UdpSocket::bind(address).map_err(bind)?;
        socket.set_nonblocking(true).map_err(bind)?;
        let socket = UdpSocket::from_std(socket).map_err(bind)?;
        let mut seed = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed).map_err(|_| DriverError::Random)?;
        let membership = Membership::new(name, keys, options, seed, Instant::now()).ok_or(DriverError::NoKey)?;
        let (sender, orders) = mpsc::channel(ORDERS);
        let (view, receiver) = watch::channel(View { members: Arc::default(), settled: false, remembered: None });
        let counts = Arc::<Counts>::default();
        let handle = Handle { orders: sender, view: receiver, counts: counts.clone() };
        Ok((Self { socket, membership, orders, view, counts, probes: JoinSet::new(), news: true }, handle))
    }

    /// Until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            self.carry_out();
            let deadline = self.membership.next_deadline();
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(order) = self.orders.recv() => self.obey(order),
                Some(found) = self.probes.join_next() => {
                    if let Ok(Some((member, evidence))) = found {
                        self.membership.evidence(&member, evidence, Instant::now());
                    }
                }
                ready = self.socket.readable() => {
                    // An error of the socket is an ICMP message about somebody else; the datagrams come all the same.
                    if ready.is_err() {
                        tokio::task::yield_now().await;
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
            // Before time is told: what has come in is no silence.
            self.receive();
            if Instant::now() >= deadline {
                self.membership.tick(Instant::now());
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Roster(roster) => {
                self.membership.set_roster(roster, now);
                self.news = true;
            }
            Order::Facts(facts, answer) => {
                // Whoever asked may be gone; the facts are told all the same.
                let _ = answer.send(self.membership.set_facts(&facts, now));
            }
            Order::Keys(keys) => self.membership.set_keys(keys),
            Order::Depart(departure) => self.membership.depart(departure, now),
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; LARGEST];
        for _ in 0..BATCH {
            let length = match self.socket.try_recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP message about a member that is gone.
                Err(_) => continue,
            };
            match self.membership.receive(&buffer[..length], Instant::now()) {
                Ok(()) => {
                    self.counts.received.fetch_add(1, Ordering::Relaxed);
                }
                Err(refused) => self.counts.refuse(refused),
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.membership.poll() {
            match output {
                Output::Send { to, datagram } => {
                    // A beat that cannot be sent now would be late anyhow: the next one follows.
                    let counter = match self.socket.try_send_to(&datagram, to) {
                        Ok(_) => &self.counts.sent,
                        Err(_) => &self.counts.unsent,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                Output::Probe { member, address, datagram } => {
                    if self.probes.len() < PROBES {
                        self.probes.spawn(probe::port(member.clone(), address, datagram));
                        self.probes.spawn(probe::kernel(member, address));
                    }
                }
                Output::Changed(change) => {
                    self.news = true;
                    log(&change);
                }
            }
        }
        let settled = self.membership.is_settled(Instant::now());
        if self.news || settled != self.view.borrow().settled {
            self.news = false;
            let (members, remembered) = (self.membership.members().collect(), self.membership.remembered().cloned());
            self.view.send_replace(View { members, settled, remembered });
        }
    }
}

fn log(change: &Change) {
    match change {
        Change::State { member, state } => match state {
            State::Unheard | State::Alive | State::Leaving => tracing::info!(%member, ?state, "member"),
            State::DaemonDown { fault, .. } => {
                tracing::warn!(%member, ?fault, "the daemon of a member does not answer, its node does");
            }
            State::Gone { cause, .. } => tracing::warn!(%member, ?cause, "a member is gone"),
        },
        Change::Removed { member } => tracing::info!(%member, "no longer a member: its Node is gone"),
        Change::Facts { .. } | Change::Remembered => {}
    }
}

impl Handle {
    /// See [`Membership::set_roster`].
    pub async fn set_roster(&self, roster: Vec<(Arc<str>, SocketAddr)>) {
        self.order(Order::Roster(roster)).await;
    }

    /// See [`Membership::set_facts`].
    ///
    /// # Errors
    /// As there.
    pub async fn set_facts(&self, facts: Facts) -> Result<(), FactsError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.order(Order::Facts(facts, answer)).await;
        // A driver that has ended tells nobody anything any more.
        answered.await.unwrap_or(Ok(()))
    }

    /// See [`Membership::set_keys`].
    pub async fn set_keys(&self, keys: Vec<Key>) {
        self.order(Order::Keys(keys)).await;
    }

    /// See [`Membership::depart`].
    pub async fn depart(&self, departure: Departure) {
        self.order(Order::Depart(departure)).await;
    }

    /// The members, now and whenever something about them changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// What was received and sent so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    async fn order(&self, order: Order) {
        if self.orders.send(order).await.is_err() {
            tracing::debug!("the membership has ended");
        }
    }
}

impl Counts {
    /// Datagrams refused so far, by reason: the names are those of [`Refused`], in lower case.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn refuse(&self, refused: Refused) {
        let mut counts = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *counts.entry(refused.name()).or_default() += 1;
    }
}
