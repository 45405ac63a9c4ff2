//! What the kernel says about itself: commits as they are notified, and elements as they are counted.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sheave::dataplane::nftables::TABLE;
use sheave::netlink::nft::{Change, KernelNft, Monitor, MonitorEvent, MonitorHandle, NftDoor as _};

/// Nothing that a healthy daemon does takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A subscription to the commits of others in this thread's namespace.
pub(super) struct Observer {
    handle: MonitorHandle,
    commits: mpsc::Receiver<Commit>,
}

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
            // Ends with the observer, which stops the monitor; an error ends the channel, and whoever waits there is told.
            while let Ok(Some(event)) = monitor.next() {
                match event {
                    MonitorEvent::Elements { set, elements, change: Change::Added } => {
                        added
                            .extend(elements.iter().filter_map(|element| Added::of(&set, &element.key, element.data.as_deref())));
                    }
                    MonitorEvent::NewGeneration { .. } => {
                        let commit = Commit { at: Instant::now(), added: std::mem::take(&mut added) };
                        if sender.send(commit).is_err() {
                            return;
                        }
                    }
                    _ => {}
                }
            }
        });
        Ok(Self { handle, commits })
    }

    /// Waits for the commit that adds this, and says when it was told.
    pub(super) fn await_added(&self, wanted: Added) -> Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.commits.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(commit) if commit.added.contains(&wanted) => return Ok(commit.at),
                Ok(_) => {}
                Err(_) => bail!("the kernel did not tell of {wanted:?} within {PATIENCE:?}"),
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
