//! Notices what others do to our table, and tells the loop to mend it.

use std::io;

use tokio::sync::mpsc;

use super::report::with_causes;
use super::sync::Control;
use crate::dataplane::nftables::{NatHold, TABLE};
use crate::dataplane::{Damage, DamagedElement, PlaneError};
use crate::netlink::nft::{Change, DoorError, KernelNft, Monitor, MonitorEvent, MonitorHandle, NftDoor as _};

/// What is said of the worst.
const TABLE_DELETED: &str = "the table was deleted";

/// The loop's end of the monitor.
pub struct Watchman {
    monitor: MonitorHandle,
    /// Asked for the ruleset's generation around a load, during which the monitor rests.
    door: KernelNft,
    /// Keeps established flows translated until a flush is repaired.
    hold: Option<NatHold>,
    told_no_hold: bool,
}

impl Watchman {
    /// Starts the thread that waits for events. `own_port` is the plane's door.
    ///
    /// # Errors
    /// No netlink socket, no thread.
    pub fn start(own_port: u32, control: mpsc::Sender<Control>) -> Result<Self, DoorError> {
        let door = KernelNft::open()?;
        let mut monitor = Monitor::open(TABLE, &[own_port])?;
        let handle = monitor.handle();
        let thread = move || {
            let mut transaction = Transaction::default();
            loop {
                match monitor.next() {
                    Ok(Some(event)) => {
                        if let Some(damage) = transaction.take_in(event)
                            && control.blocking_send(Control::Damage(damage)).is_err()
                        {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => {
                        tracing::error!(%error, "the watch over our table ends: changes by others will not be noticed until a restart");
                        return;
                    }
                }
            }
        };
        std::thread::Builder::new()
            .name("monitor".into())
            .spawn(thread)
            .map_err(|source| DoorError::Open { call: "start the monitor's thread", source })?;
        Ok(Self { monitor: handle, door, hold: None, told_no_hold: false })
    }

    /// Rests the monitor: a bulk load would only make it read our own 250,000 elements. Returns the ruleset's generation.
    pub(super) fn rest(&mut self) -> Option<u32> {
        self.monitor.pause().inspect_err(|error| log_io("pause", error)).ok()?;
        self.door.generation().ok()
    }

    /// Wakes the monitor. Says whether somebody else committed anything meanwhile, to whichever table.
    pub(super) fn wake(&mut self, rested_at: Option<u32>, own_transactions: u32) -> bool {
        if let Err(error) = self.monitor.resume() {
            log_io("resume", &error);
        }
        match (rested_at, self.door.generation()) {
            (Some(before), Ok(now)) => now.wrapping_sub(before) != own_transactions,
            _ => true,
        }
    }

    /// Keeps the hold that was taken at the start.
    #[must_use]
    pub(super) fn holding(mut self, hold: Option<NatHold>) -> Self {
        self.hold = hold;
        self
    }

    /// Takes the hold on the NAT hooks, if it is not taken. Without it nothing is lost but the flows that a flush meets.
    ///
    /// # Errors
    /// [`PlaneError::Owned`]: another daemon serves this node. Nothing may be written then.
    pub(super) fn hold(&mut self) -> Result<(), PlaneError> {
        if self.hold.is_some() {
            return Ok(());
        }
        match NatHold::take() {
            Ok(hold) => self.hold = Some(hold),
            Err(owned @ PlaneError::Owned { .. }) => return Err(owned),
            Err(error) if !std::mem::replace(&mut self.told_no_hold, true) => {
                let error = with_causes(&error);
                tracing::warn!(
                    error,
                    "no hold on the NAT hooks: should somebody flush the ruleset, established flows will break"
                );
            }
            Err(_) => {}
        }
        Ok(())
    }
}

impl Drop for Watchman {
    fn drop(&mut self) {
        self.monitor.stop();
    }
}

fn log_io(what: &str, error: &io::Error) {
    tracing::warn!(%error, "nf_tables monitor: {what}");
}

/// What one foreign transaction did, until its end is told.
#[derive(Default)]
struct Transaction {
    structure: Option<String>,
    elements: Vec<DamagedElement>,
}

impl Transaction {
    /// The damage, at the end of a transaction that did any.
    fn take_in(&mut self, event: MonitorEvent) -> Option<Damage> {
        let structure = match event {
            MonitorEvent::NewGeneration { process, pid, .. } => return std::mem::take(self).damage(process, pid),
            MonitorEvent::Overrun => {
                *self = Self::default();
                return Some(Damage::Structure("events were lost".to_owned()));
            }
            MonitorEvent::Elements { set, elements, change } => {
                let removed = change == Change::Removed;
                if self.elements.len() <= Damage::MOST_ELEMENTS {
                    self.elements.extend(elements.into_iter().map(|element| DamagedElement {
                        set: set.clone(),
                        key: element.key,
                        removed,
                    }));
                }
                return None;
            }
            MonitorEvent::TableDeleted => TABLE_DELETED.to_owned(),
            // Made anew, or told to sleep (`flags dormant`).
            MonitorEvent::TableAdded => "the table was added or changed".to_owned(),
            MonitorEvent::Chain { name, change } => format!("chain {name} was {}", word(change)),
            MonitorEvent::Rule { chain, change, .. } => format!("a rule of chain {chain} was {}", word(change)),
            MonitorEvent::Set { name, change } => format!("set {name} was {}", word(change)),
            MonitorEvent::Other => "an object was added or removed".to_owned(),
        };
        // The table's end says more than the thousand ends of what was in it.
        let deleted = structure == TABLE_DELETED;
        if deleted || self.structure.is_none() {
            self.structure = Some(structure);
        }
        None
    }

    fn damage(self, process: Option<String>, pid: Option<u32>) -> Option<Damage> {
        let by = match (process, pid) {
            (Some(process), Some(pid)) => format!(", by {process} (pid {pid})"),
            _ => String::new(),
        };
        match self.structure {
            Some(structure) => Some(Damage::Structure(format!("{structure}{by}"))),
            None if self.elements.is_empty() => None,
            None if self.elements.len() > Damage::MOST_ELEMENTS => {
                Some(Damage::Structure(format!("many elements were changed{by}")))
            }
            None => Some(Damage::Elements(self.elements)),
        }
    }
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> MonitorEvent {
        MonitorEvent::NewGeneration { id: 7, pid: Some(42), process: Some("nft".to_owned()) }
    }

    #[test]
    fn a_flush_is_one_damage_that_names_the_culprit() {
        let mut transaction = Transaction::default();
        for event in [
            MonitorEvent::Rule { chain: "services-4".to_owned(), handle: 3, change: Change::Removed },
            MonitorEvent::Set { name: "class-1-4".to_owned(), change: Change::Removed },
            MonitorEvent::TableDeleted,
        ] {
            assert_eq!(transaction.take_in(event), None);
        }
        assert_eq!(transaction.take_in(end()), Some(Damage::Structure("the table was deleted, by nft (pid 42)".to_owned())));
        assert_eq!(transaction.take_in(end()), None, "somebody else's table is nothing to us");
    }

    #[test]
    fn an_edit_of_elements_is_mended_element_by_element() {
        let mut transaction = Transaction::default();
        let element = crate::netlink::nft::OwnedElement { key: vec![1, 2, 3, 4], ..Default::default() };
        let event = MonitorEvent::Elements { set: "service-ips-4".to_owned(), elements: vec![element], change: Change::Removed };
        assert_eq!(transaction.take_in(event), None);
        let expected = DamagedElement { set: "service-ips-4".to_owned(), key: vec![1, 2, 3, 4], removed: true };
        assert_eq!(transaction.take_in(end()), Some(Damage::Elements(vec![expected])));
    }
}
