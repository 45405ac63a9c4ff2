//! What others do to our table.
//!
//! The kernel tells every transaction of anyone, and of each message the port that caused it: what our own doors did is left out
//! here. Elements that packets write (`update @set`) and elements that expire are not told at all.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;

use super::abi::{NFNLGRP_NFTABLES, NFPROTO_INET, chain, element as elem, generation, msg, rule, set, table as tab};
use super::door::DoorError;
use super::element::OwnedElement;
use crate::netlink::attr::Fields;
use crate::netlink::message::{Message, Messages};
use crate::netlink::socket::{DATAGRAM, NetfilterSocket, eventfd};

/// What the queue may hold: a foreign flush of 100,000 elements, at about 300 bytes each. Beyond that it is an overrun, and a repair.
const RECEIVE_BUFFER: usize = 32 << 20;

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
    table: String,
    datagram: Vec<u8>,
    pending: VecDeque<MonitorEvent>,
}

/// The subscription, for everybody else.
#[derive(Clone, Debug)]
pub struct MonitorHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: NetfilterSocket,
    wake: OwnedFd,
    own_ports: Mutex<Vec<u32>>,
}

impl Monitor {
    /// Subscribes in this thread's network namespace to what others than `own_ports` do to `table`.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open(table: &str, own_ports: &[u32]) -> Result<Self, DoorError> {
        let open = || -> io::Result<Shared> {
            let socket = NetfilterSocket::open()?;
            socket.grow_receive_buffer(RECEIVE_BUFFER)?;
            socket.join(NFNLGRP_NFTABLES)?;
            Ok(Shared { socket, wake: eventfd()?, own_ports: Mutex::new(own_ports.to_vec()) })
        };
        let shared = open().map_err(|source| DoorError::Open { call: "subscribe to nf_tables", source })?;
        Ok(Self { shared: Arc::new(shared), table: table.to_owned(), datagram: vec![0; DATAGRAM], pending: VecDeque::new() })
    }

    /// What other threads need.
    #[must_use]
    pub fn handle(&self) -> MonitorHandle {
        MonitorHandle(Arc::clone(&self.shared))
    }

    /// Waits for the next event; `None` once [`MonitorHandle::stop`] was called.
    ///
    /// # Errors
    /// Those of the socket. An overrun is no error but an event.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would go on after its failure")]
    pub fn next(&mut self) -> Result<Option<MonitorEvent>, DoorError> {
        let failed = |source| DoorError::Open { call: "wait for nf_tables events", source };
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if self.shared.socket.wait(self.shared.wake.as_fd()).map_err(failed)? {
                return Ok(None);
            }
            self.read().map_err(failed)?;
        }
    }

    /// What has happened by now, without waiting; `None` when that was all.
    ///
    /// # Errors
    /// As [`Monitor::next`].
    pub fn try_next(&mut self) -> Result<Option<MonitorEvent>, DoorError> {
        while self.pending.is_empty() {
            if !self.read().map_err(|source| DoorError::Open { call: "read nf_tables events", source })? {
                return Ok(None);
            }
        }
        Ok(self.pending.pop_front())
    }

    /// Reads one datagram and says whether there was one.
    fn read(&mut self) -> io::Result<bool> {
        match self.shared.socket.receive(&mut self.datagram) {
            Ok(Some(datagram)) => {
                let own = self.shared.own_ports.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.0.socket.leave(NFNLGRP_NFTABLES)
    }

    /// Subscribes again.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn resume(&self) -> io::Result<()> {
        self.0.socket.join(NFNLGRP_NFTABLES)
    }

    /// Leaves out what this port does, from now on: of a door opened later.
    pub fn own(&self, port: u32) {
        self.0.own_ports.lock().unwrap_or_else(PoisonError::into_inner).push(port);
    }

    /// Ends the wait in [`Monitor::next`], now and for ever.
    pub fn stop(&self) {
        // Fails only when the counter is full: then it is raised already.
        let raised = self.0.wake.try_clone().map(std::fs::File::from).and_then(|mut wake| wake.write_all(&1_u64.to_ne_bytes()));
        if let Err(error) = raised {
            tracing::debug!(%error, "nf_tables monitor: stop");
        }
    }
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
mod tests;
