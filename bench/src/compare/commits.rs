//! Commits to nf_tables as the kernel tells them, whoever made them and to whichever table.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sheave::netlink::nft::{Monitor, MonitorEvent, MonitorHandle};

/// A subscription in one namespace.
pub(super) struct Commits {
    handle: MonitorHandle,
    told: mpsc::Receiver<Instant>,
}

/// How long nothing is told before one looks oneself: what iptables-legacy and IPVS change, the kernel tells nobody.
const PACE: Duration = Duration::from_millis(1);

impl Commits {
    /// Subscribes in this thread's namespace.
    pub(super) fn subscribe() -> Result<Self> {
        // Of no table: ends of transactions are told of all of them.
        let mut monitor = Monitor::open("", &[]).context("subscribing to nf_tables events")?;
        let handle = monitor.handle();
        let (sender, told) = mpsc::channel();
        let follow = move || {
            // An error ends the channel; who waits there then looks at the pace of who is told nothing.
            while let Ok(Some(event)) = monitor.next() {
                let ended = matches!(event, MonitorEvent::NewGeneration { .. } | MonitorEvent::Overrun);
                if ended && sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("commits".into()).spawn(follow).context("following nf_tables events")?;
        Ok(Self { handle, told })
    }

    /// When the kernel told of the latest commit since then, if it does so within a millisecond.
    pub(super) fn next(&self, since: Instant) -> Option<Instant> {
        latest(&self.told, since)
    }
}

/// One from before is of something else, such as a sync between two changes.
fn latest(told: &mpsc::Receiver<Instant>, since: Instant) -> Option<Instant> {
    let begun = Instant::now();
    loop {
        let first = told.recv_timeout(PACE.saturating_sub(begun.elapsed()));
        if matches!(first, Err(mpsc::RecvTimeoutError::Disconnected)) {
            std::thread::sleep(PACE.saturating_sub(begun.elapsed()));
        }
        // The latest: the packet that follows proves no more than that one of them was it.
        let latest = told.try_iter().last().or(first.ok())?;
        if latest >= since {
            return Some(latest);
        }
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_from_before_the_change_is_none_of_it() {
        let (sender, told) = mpsc::channel();
        let before = Instant::now();
        sender.send(before).unwrap();
        let change = before + Duration::from_nanos(1);
        assert_eq!(latest(&told, change), None);
        for later in [before, change, change + PACE] {
            sender.send(later).unwrap();
        }
        assert_eq!(latest(&told, change), Some(change + PACE));
        drop(sender);
        assert_eq!(latest(&told, before), None, "nobody tells any more");
    }
}
