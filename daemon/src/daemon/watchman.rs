//! Notices what others do to our table, and tells the loop to mend it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::report::with_causes;
use super::sync::Control;
use crate::dataplane::nftables::{NatHold, TABLE};
use crate::dataplane::{Damage, DamagedElement, PlaneError};
use crate::health::ProxyHealth;
use crate::netlink::nft::{Change, DoorError, KernelNft, Monitor, MonitorEvent, MonitorHandle, NftDoor as _};
use crate::retry::Retry;

/// The first wait before the monitor is opened again, and the longest.
const FIRST_REOPEN: Duration = Duration::from_millis(100);
const LAST_REOPEN: Duration = Duration::from_secs(30);
/// A monitor that worked for so long is taken to be well again.
const LASTS: Duration = Duration::from_secs(60);

/// As `/healthz` names it.
const WATCH: &str = "watch over our table";

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

/// Whether the monitor rests.
pub(super) enum Rest {
    /// Since this generation of the ruleset, if the kernel told it.
    Since(Option<u32>),
    /// It would not: it misses nothing, and reads what we write.
    Awake,
}

/// The monitor's thread.
struct Watch {
    monitor: Monitor,
    control: mpsc::Sender<Control>,
    health: Arc<ProxyHealth>,
    retry: Retry,
    /// When it was opened anew.
    reopened: Option<Instant>,
}

impl Watchman {
    /// Starts the thread that waits for events. `own_port` is the plane's door. `health` hears when nobody watches.
    ///
    /// # Errors
    /// No netlink socket, no thread.
    pub fn start(own_port: u32, control: mpsc::Sender<Control>, health: Arc<ProxyHealth>) -> Result<Self, DoorError> {
        let door = KernelNft::open()?;
        let monitor = Monitor::open(TABLE, &[own_port])?;
        let handle = monitor.handle();
        let watch = Watch { monitor, control, health, retry: Retry::new(FIRST_REOPEN, LAST_REOPEN), reopened: None };
        std::thread::Builder::new()
            .name("monitor".into())
            .spawn(|| watch.run())
            .map_err(|source| DoorError::Open { call: "start the monitor's thread", source })?;
        Ok(Self { monitor: handle, door, hold: None, told_no_hold: false })
    }

    /// Rests the monitor: a bulk load would only make it read our own 250,000 elements.
    pub(super) fn rest(&mut self) -> Rest {
        // Asked first: what others commit in between is told, and also counted, which is the safe side.
        let generation = self.door.generation().ok();
        match self.monitor.pause() {
            Ok(()) => Rest::Since(generation),
            Err(error) => {
                log_io("pause", &error);
                Rest::Awake
            }
        }
    }

    /// Wakes the monitor. Says whether somebody else committed anything meanwhile, to whichever table. A monitor that does not wake
    /// is opened anew by its own thread, which then asks for a repair.
    pub(super) fn wake(&mut self, rest: &Rest, own_transactions: u32) -> bool {
        let Rest::Since(before) = *rest else { return false };
        if let Err(error) = self.monitor.resume() {
            log_io("resume", &error);
        }
        match (before, self.door.generation()) {
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

impl Watch {
    /// Until it is stopped, or nobody listens any more.
    fn run(mut self) {
        let mut transaction = Transaction::default();
        loop {
            let damage = match self.monitor.next() {
                Ok(Some(event)) => transaction.take_in(event),
                Ok(None) => return,
                Err(error) => {
                    transaction = Transaction::default();
                    if !self.reopen(&error) {
                        return;
                    }
                    Some(Damage::Structure("nobody watched for a while".to_owned()))
                }
            };
            if let Some(damage) = damage
                && self.control.blocking_send(Control::Damage(damage)).is_err()
            {
                return;
            }
        }
    }

    /// Tries until there is a subscription again; `false` when stopped before. One that does not last is the same outage still: it is
    /// told once, and the waits go on growing.
    fn reopen(&mut self, error: &DoorError) -> bool {
        let error = with_causes(error);
        if self.reopened.is_some_and(|when| when.elapsed() < LASTS) {
            tracing::debug!(error, "the watch over our table is interrupted again");
        } else {
            self.retry.reset();
            tracing::warn!(error, "the watch over our table is interrupted: the table is written anew when it is back");
        }
        self.health.problem(WATCH, Some(error));
        while !self.monitor.is_stopped_within(self.retry.next()) {
            match self.monitor.reopen() {
                Ok(()) => {
                    self.reopened = Some(Instant::now());
                    self.health.problem(WATCH, None);
                    tracing::info!("the table is watched over again");
                    return true;
                }
                Err(error) => {
                    tracing::debug!(%error, "the watch over our table is not back yet");
                    self.health.problem(WATCH, Some(with_causes(&error)));
                }
            }
        }
        false
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
    use crate::health::STALE_AFTER;
    use crate::netlink::nft::Batch;
    use crate::netlink::testns::in_namespace;

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

    /// Whatever happens to the monitor, somebody watches again, and what was missed is taken for damage.
    #[test]
    fn an_interrupted_watch_comes_back_and_asks_for_a_repair() {
        in_namespace(|| {
            let (mut ours, mut theirs) = (KernelNft::open().unwrap(), KernelNft::open().unwrap());
            let (control, mut inbox) = mpsc::channel(8);
            let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
            let mut watchman = Watchman::start(ours.port_id(), control, health.clone()).unwrap();
            let table = |door: &mut KernelNft, add: bool| {
                let mut batch = Batch::new();
                if add {
                    batch.add_table(TABLE, None);
                } else {
                    batch.delete_table(TABLE);
                }
                door.commit(batch).unwrap();
            };
            let mut structure = || match inbox.blocking_recv() {
                Some(Control::Damage(Damage::Structure(what))) => what,
                other => panic!("{other:?}"),
            };
            // At rest nobody would notice: only waking it does.
            let rest = watchman.rest();
            watchman.monitor.break_socket();
            table(&mut ours, true);
            watchman.wake(&rest, 1);
            assert_eq!(structure(), "nobody watched for a while");
            assert_eq!(health.look().problems, Vec::<String>::new(), "it is watched again");
            table(&mut theirs, false);
            assert!(structure().starts_with("the table was deleted"));
            let rest = watchman.rest();
            assert!(!watchman.wake(&rest, 0), "nothing happened");
        });
    }

    #[test]
    fn healthz_tells_that_nobody_watches() {
        in_namespace(|| {
            let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
            let (control, _inbox) = mpsc::channel(8);
            let monitor = Monitor::open(TABLE, &[]).unwrap();
            // It will not be opened again before somebody looks here.
            monitor.handle().stop();
            let retry = Retry::new(FIRST_REOPEN, LAST_REOPEN);
            let mut watch = Watch { monitor, control, health: health.clone(), retry, reopened: None };
            let lost = DoorError::Interrupted { call: "receive events", subject: String::new() };
            assert!(!watch.reopen(&lost));
            let problems = health.look().problems;
            assert!(problems.len() == 1 && problems[0].starts_with("watch over our table: "), "{problems:?}");
        });
    }
}
