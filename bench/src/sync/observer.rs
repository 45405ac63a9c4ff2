//! What the kernel says about itself: commits as they are notified, and elements as they are counted.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use sheave::dataplane::nftables::TABLE;
use sheave::netlink::nft::{Change, KernelNft, Monitor, MonitorEvent, MonitorHandle, NftDoor as _};

use crate::proxy::Proxy;

/// Nothing that a healthy daemon does takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the daemon is looked at meanwhile: one that has ended tells the kernel nothing more.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A subscription to the commits of others in this thread's namespace.
pub(super) struct Observer {
    handle: MonitorHandle,
    commits: Commits,
}

/// As they are told; an error is the last of them.
struct Commits(mpsc::Receiver<Result<Commit>>);

/// What one transaction added.
pub(super) struct Commit {
    /// When this process was told.
    at: Instant,
    added: Vec<Added>,
}

/// Elements' first address: the backend of an endpoint map, the frontend of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// An endpoint map sends to this address now.
    Backend(Ipv4Addr),
    /// Packets to this address are dispatched now.
    Frontend(Ipv4Addr),
}

impl Observer {
    /// Subscribes.
    pub(super) fn start() -> Result<Self> {
        let mut monitor = Monitor::open(TABLE, &[]).context("subscribing to nf_tables events")?;
        let handle = monitor.handle();
        let (sender, commits) = mpsc::channel();
        std::thread::spawn(move || {
            let mut added = Vec::new();
            // Ends with the observer, which stops the monitor, and with an error, which is told to whoever waits.
            loop {
                let event = match monitor.next() {
                    Ok(Some(event)) => event,
                    Ok(None) => return,
                    Err(error) => {
                        let _ = sender.send(Err(anyhow!(error).context("following nf_tables events")));
                        return;
                    }
                };
                match event {
                    MonitorEvent::Overrun => {
                        let _ = sender.send(Err(anyhow!("the kernel had more nf_tables events than the socket has room for")));
                        return;
                    }
                    MonitorEvent::Elements { set, elements, change: Change::Added } => {
                        added
                            .extend(elements.iter().filter_map(|element| Added::of(&set, &element.key, element.data.as_deref())));
                    }
                    MonitorEvent::NewGeneration { .. } => {
                        let commit = Commit { at: Instant::now(), added: std::mem::take(&mut added) };
                        if sender.send(Ok(commit)).is_err() {
                            return;
                        }
                    }
                    _ => {}
                }
            }
        });
        Ok(Self { handle, commits: Commits(commits) })
    }

    /// Waits for the daemon's commit that adds this, and says when it was told.
    pub(super) fn await_added(&self, wanted: Added, daemon: &mut Proxy) -> Result<Instant> {
        let told = self.commits.await_added(wanted, PATIENCE, || daemon.ensure_running());
        told.with_context(|| format!("waiting for {wanted:?} in the kernel"))
    }
}

impl Commits {
    /// `ensure_running`: whether there is still somebody who would commit.
    fn await_added(&self, wanted: Added, within: Duration, mut ensure_running: impl FnMut() -> Result<()>) -> Result<Instant> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.0.recv_timeout(left.min(LOOK_EVERY)) {
                Ok(commit) => {
                    let commit = commit?;
                    if commit.added.contains(&wanted) {
                        return Ok(commit.at);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("nf_tables events are not followed any more"),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    ensure_running()?;
                    if left.is_zero() {
                        bail!("the kernel did not tell of it within {within:?}");
                    }
                }
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

impl Added {
    fn of(set: &str, key: &[u8], data: Option<&[u8]>) -> Option<Self> {
        let address = |bytes: &[u8]| bytes.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
        if set.starts_with("endpoints-4") {
            data.and_then(address).map(Self::Backend)
        } else if set.starts_with("class-") && set.contains("-4") {
            address(key).map(Self::Frontend)
        } else {
            None
        }
    }
}

/// Elements of our table in this thread's namespace. Kernels from 6.16 say how many a set has; before, they are dumped, and so are
/// interval sets, of which the kernel counts intervals where two elements are written.
pub(super) fn count_elements() -> Result<u64> {
    let mut door = KernelNft::open().context("opening nf_tables")?;
    let mut count = 0;
    for set in door.sets(TABLE).context("listing the sets")? {
        count += match set.count {
            Some(told) if !set.flags.interval => u64::from(told),
            _ => door.dump(TABLE, &set.name).with_context(|| format!("counting {}", set.name))?.len() as u64,
        };
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_commit_is_not_told_is_told_itself() {
        let (frontend, (sender, receiver)) = (Added::Frontend(Ipv4Addr::new(10, 96, 0, 1)), mpsc::channel());
        let commits = Commits(receiver);
        let wait = |within, ended: Option<&'static str>| {
            let ensure_running = || ended.map_or(Ok(()), |words| Err(anyhow!(words)));
            commits.await_added(frontend, within, ensure_running).map_err(|error| error.to_string())
        };
        assert_eq!(wait(Duration::from_secs(600), Some("it ended")).unwrap_err(), "it ended");
        assert!(wait(Duration::ZERO, None).unwrap_err().contains("did not tell"));
        let at = Instant::now();
        for added in [vec![], vec![frontend]] {
            sender.send(Ok(Commit { at, added })).unwrap();
        }
        assert_eq!(wait(Duration::from_secs(600), None), Ok(at));
        sender.send(Err(anyhow!("too many"))).unwrap();
        assert_eq!(wait(Duration::from_secs(600), None).unwrap_err(), "too many");
        drop(sender);
        assert!(wait(Duration::from_secs(600), None).unwrap_err().contains("any more"));
    }

    #[test]
    fn what_was_added_is_read_from_endpoint_maps_and_classes() {
        let (key, data) = ([10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0], [10, 128, 0, 9, 0x1f, 0x90, 0, 0]);
        let backend = Some(Added::Backend(Ipv4Addr::new(10, 128, 0, 9)));
        let frontend = Some(Added::Frontend(Ipv4Addr::new(10, 96, 0, 1)));
        assert_eq!(Added::of("endpoints-4.b", &key, Some(&data)), backend);
        assert_eq!(Added::of("class-64-4", &key, None), frontend);
        assert_eq!(Added::of("class-64-6", &key, None), None, "another family");
        assert_eq!(Added::of("service-ips-4", &key[..4], None), None);
        assert_eq!(Added::of("class-1-4", &[10, 96], None), None);
    }
}
