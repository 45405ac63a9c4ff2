//! What others do to our table.
//!
//! The kernel tells every transaction of anyone, and of each message the port that caused it: what our own doors did is left out
//! here. Elements that packets write (`update @set`) and elements that expire are not told at all.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::abi::{NFNLGRP_NFTABLES, NFPROTO_INET, chain, element as elem, generation, msg, rule, set, table as tab};
use super::door::DoorError;
use super::element::OwnedElement;
use crate::netlink::attr::Fields;
use crate::netlink::message::{Message, Messages};
use crate::netlink::socket::{DATAGRAM, NetfilterSocket, eventfd, wait_for};

/// What the queue may hold: a foreign flush of 100,000 elements, at about 300 bytes each. Beyond that it is an overrun, and a repair.
const RECEIVE_BUFFER: usize = 32 << 20;

/// The call, in errors.
const SUBSCRIBE: &str = "subscribe to nf_tables";

/// Something that another port did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorEvent {
    /// Our table was made.
    TableAdded,
    /// Our table is gone, with all that was in it.
    TableDeleted,
    /// A chain was made or deleted.
    Chain {
        /// Its name.
        name: String,
        /// What happened to it.
        change: Change,
    },
    /// A rule was made or deleted.
    Rule {
        /// The chain it is or was in.
        chain: String,
        /// The kernel's number for it.
        handle: u64,
        /// What happened to it.
        change: Change,
    },
    /// A set was made or deleted.
    Set {
        /// Its name.
        name: String,
        /// What happened to it.
        change: Change,
    },
    /// Elements were added or deleted.
    Elements {
        /// Of this set.
        set: String,
        /// They as the kernel tells them: with data, so that it can be told what was overwritten.
        elements: Vec<OwnedElement>,
        /// What happened to them.
        change: Change,
    },
    /// Something else of our table was touched: an object or a flowtable, which we do not have.
    Other,
    /// A transaction of another port came to its end, on whichever table. Comes after what it did.
    NewGeneration {
        /// The ruleset's generation from now on.
        id: u32,
        /// Whose it was.
        pid: Option<u32>,
        /// The name of that process.
        process: Option<String>,
    },
    /// Events were lost: look at everything.
    Overrun,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was added.
    Added,
    /// It was removed.
    Removed,
}

/// The subscription, for the thread that waits.
#[derive(Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
    socket: Arc<NetfilterSocket>,
    table: String,
    datagram: Vec<u8>,
    pending: VecDeque<MonitorEvent>,
}

/// The subscription, for everybody else.
#[derive(Clone, Debug)]
pub struct MonitorHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    subscription: Mutex<Subscription>,
    /// Raised for the thread that waits: it looks at the two flags then.
    wake: OwnedFd,
    stopped: AtomicBool,
    /// The subscription could not be brought back.
    broken: AtomicBool,
    own_ports: Vec<u32>,
}

#[derive(Debug)]
struct Subscription {
    socket: Arc<NetfilterSocket>,
    /// Between [`MonitorHandle::pause`] and [`MonitorHandle::resume`].
    resting: bool,
}

impl Monitor {
    /// Subscribes in this thread's network namespace to what others than `own_ports` do to `table`.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open(table: &str, own_ports: &[u32]) -> Result<Self, DoorError> {
        let open = || -> io::Result<(Arc<NetfilterSocket>, OwnedFd)> { Ok((subscribe(false)?, eventfd()?)) };
        let (socket, wake) = open().map_err(|source| DoorError::Open { call: SUBSCRIBE, source })?;
        let shared = Shared {
            subscription: Mutex::new(Subscription { socket: Arc::clone(&socket), resting: false }),
            wake,
            stopped: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            own_ports: own_ports.to_vec(),
        };
        let (table, datagram) = (table.to_owned(), vec![0; DATAGRAM]);
        Ok(Self { shared: Arc::new(shared), socket, table, datagram, pending: VecDeque::new() })
    }

    /// Subscribes anew after an error, in this thread's network namespace. What happened since is not told: look at everything.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn reopen(&mut self) -> Result<(), DoorError> {
        let mut subscription = self.shared.subscription();
        let socket = subscribe(subscription.resting).map_err(|source| DoorError::Open { call: SUBSCRIBE, source })?;
        subscription.socket = Arc::clone(&socket);
        self.socket = socket;
        self.pending.clear();
        self.shared.broken.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Waits so long, or until [`MonitorHandle::stop`]; says whether that was called.
    pub fn is_stopped_within(&self, time: Duration) -> bool {
        if let Err(error) = wait_for(self.shared.wake.as_fd(), time) {
            tracing::debug!(%error, "nf_tables monitor: wait");
        }
        self.shared.lower();
        self.shared.stopped.load(Ordering::SeqCst)
    }

    /// What other threads need.
    #[must_use]
    pub fn handle(&self) -> MonitorHandle {
        MonitorHandle(Arc::clone(&self.shared))
    }

    /// Waits for the next event; `None` once [`MonitorHandle::stop`] was called.
    ///
    /// # Errors
    /// Those of the socket, and that [`MonitorHandle::resume`] failed: [`Monitor::reopen`] is what helps. An overrun is no error but
    /// an event.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would go on after its failure")]
    pub fn next(&mut self) -> Result<Option<MonitorEvent>, DoorError> {
        let failed = |source| DoorError::Open { call: "wait for nf_tables events", source };
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if self.shared.stopped.load(Ordering::SeqCst) {
                return Ok(None);
            }
            if self.socket.wait(self.shared.wake.as_fd()).map_err(failed)? {
                self.shared.lower();
                if self.shared.broken.swap(false, Ordering::SeqCst) {
                    return Err(failed(io::Error::other("the subscription did not come back")));
                }
                continue;
            }
            self.read().map_err(failed)?;
        }
    }

    /// What has happened by now, without waiting; `None` when that was all.
    #[cfg(test)]
    fn try_next(&mut self) -> Result<Option<MonitorEvent>, DoorError> {
        while self.pending.is_empty() {
            if !self.read().map_err(|source| DoorError::Open { call: "read nf_tables events", source })? {
                return Ok(None);
            }
        }
        Ok(self.pending.pop_front())
    }

    /// Reads one datagram and says whether there was one.
    fn read(&mut self) -> io::Result<bool> {
        match self.socket.receive(&mut self.datagram) {
            Ok(Some(datagram)) => {
                let own = &self.shared.own_ports;
                let foreign = Messages::new(datagram).filter(|message| !own.contains(&message.port));
                self.pending.extend(foreign.filter_map(|message| MonitorEvent::parse(&message, &self.table)));
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(Errno::ENOBUFS) => {
                self.pending.push_back(MonitorEvent::Overrun);
                Ok(true)
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

impl MonitorHandle {
    /// Rests the subscription for a bulk load: without a subscriber the kernel does not write events at all. What was queued before is
    /// still delivered. Others may change the ruleset meanwhile: compare
    /// [`generation`](super::NftDoor::generation) before and after with the number of own commits.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn pause(&self) -> io::Result<()> {
        let mut subscription = self.0.subscription();
        subscription.socket.leave(NFNLGRP_NFTABLES)?;
        subscription.resting = true;
        Ok(())
    }

    /// Subscribes again.
    ///
    /// # Errors
    /// Those of `setsockopt`. Then [`Monitor::next`] fails too, so that whoever waits there reopens it.
    pub fn resume(&self) -> io::Result<()> {
        let mut subscription = self.0.subscription();
        subscription.resting = false;
        subscription.socket.join(NFNLGRP_NFTABLES).inspect_err(|_| {
            self.0.broken.store(true, Ordering::SeqCst);
            self.0.raise();
        })
    }

    /// Ends the wait in [`Monitor::next`], now and for ever.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.raise();
    }
}

impl Shared {
    fn subscription(&self) -> MutexGuard<'_, Subscription> {
        // Both fields are valid at any time, whatever a thread was doing when it panicked.
        self.subscription.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self) {
        // Fails only when the counter is full: then it is raised already.
        let raised = self.wake.try_clone().map(File::from).and_then(|mut wake| wake.write_all(&1_u64.to_ne_bytes()));
        if let Err(error) = raised {
            tracing::debug!(%error, "nf_tables monitor: wake");
        }
    }

    /// Before the flags are looked at: whoever sets one raises afterwards.
    fn lower(&self) {
        let lowered = self.wake.try_clone().map(File::from).and_then(|mut wake| wake.read(&mut [0; size_of::<u64>()]));
        if let Err(error) = lowered.or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) }) {
            tracing::debug!(%error, "nf_tables monitor: lower");
        }
    }
}

/// A socket with room for what may come, and a member of the group unless it is to rest.
fn subscribe(resting: bool) -> io::Result<Arc<NetfilterSocket>> {
    let socket = NetfilterSocket::open()?;
    socket.grow_receive_buffer(RECEIVE_BUFFER)?;
    if !resting {
        socket.join(NFNLGRP_NFTABLES)?;
    }
    Ok(Arc::new(socket))
}

impl MonitorEvent {
    /// Reads one notification; `None` if it is not of this table.
    #[must_use]
    pub fn parse(message: &Message<'_>, table: &str) -> Option<Self> {
        if message.kind == msg::NEWGEN {
            let fields: Fields<'_, 4> = message.fields();
            return Some(Self::NewGeneration {
                id: fields.u32_be(generation::ID)?,
                pid: fields.u32_be(generation::PROC_PID),
                process: fields.text(generation::PROC_NAME).map(str::to_owned),
            });
        }
        let fields: Fields<'_, 4> = message.fields();
        // Attribute 1 names the table in every message.
        if message.family() != Some(NFPROTO_INET) || fields.text(tab::NAME) != Some(table) {
            return None;
        }
        let name = |kind| fields.text(kind).map(str::to_owned).unwrap_or_default();
        let chain_event = |change| Self::Chain { name: name(chain::NAME), change };
        let rule_event = |change| {
            let handle = fields.u64_be(rule::HANDLE).unwrap_or(0);
            Self::Rule { chain: name(rule::CHAIN), handle, change }
        };
        let set_event = |change| Self::Set { name: name(set::NAME), change };
        let elements_event = |change| {
            let list = fields.bytes(elem::LIST_ELEMENTS).unwrap_or_default();
            Self::Elements { set: name(elem::LIST_SET), elements: OwnedElement::parse_list(list).collect(), change }
        };
        match message.kind {
            msg::NEWTABLE => Some(Self::TableAdded),
            msg::DELTABLE => Some(Self::TableDeleted),
            msg::NEWCHAIN => Some(chain_event(Change::Added)),
            msg::DELCHAIN => Some(chain_event(Change::Removed)),
            msg::NEWRULE => Some(rule_event(Change::Added)),
            msg::DELRULE => Some(rule_event(Change::Removed)),
            msg::NEWSET => Some(set_event(Change::Added)),
            msg::DELSET => Some(set_event(Change::Removed)),
            msg::NEWSETELEM => Some(elements_event(Change::Added)),
            msg::DELSETELEM => Some(elements_event(Change::Removed)),
            msg::NEWOBJ | msg::DELOBJ | msg::NEWFLOWTABLE | msg::DELFLOWTABLE => Some(Self::Other),
            _ => None,
        }
    }
}

#[cfg(test)]
impl MonitorHandle {
    /// Puts something that is no socket in the socket's place, so that every call on it fails.
    pub(crate) fn break_socket(&self) {
        use std::os::fd::AsRawFd as _;
        let nothing = File::open("/dev/null").expect("every Linux has it");
        let subscription = self.0.subscription();
        // SAFETY: both descriptors are open, and the socket's owner goes on owning what is under its number.
        let replaced = unsafe { libc::dup2(nothing.as_raw_fd(), subscription.socket.as_fd().as_raw_fd()) };
        assert!(replaced >= 0, "dup2");
    }
}

#[cfg(test)]
mod tests;
