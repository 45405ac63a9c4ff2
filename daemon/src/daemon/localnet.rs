//! `route_localnet`, while NodePorts are served at 127.0.0.1: without it the kernel sends nothing from a loopback address, and takes
//! nothing for one, on any device but `lo`.
//!
//! Whether it was off before us has to outlive this process: a later one, or `sheave cleanup`, sets it back. So an empty table says it,
//! `inet sheave-localnet`. It is there wherever rules can be written, which a directory is not, it belongs to the network namespace that
//! the setting belongs to, and a reboot ends both.

#[cfg(test)]
mod tests;

use super::kernel_settings::{Setting, Sysctls};
use super::report::with_causes;
use crate::dataplane::nftables::LOCALNET_TABLE;
use crate::migration::State;
use crate::netlink::nft::{Batch, CommitError, DoorError, KernelNft, NftDoor as _};

/// The setting, as the sync loop follows it.
pub(super) struct Localnet {
    sysctls: Sysctls,
    memory: Box<dyn Memory>,
    on: bool,
}

/// Remembers that it was off before us.
trait Memory: Send {
    /// Whether it was. What does not answer has forgotten.
    fn was_off(&self) -> bool;
    /// Remembers it, or that it no longer matters. A failure is told.
    fn remember(&mut self, was_off: bool);
}

/// Among the rules in the kernel.
struct InKernel;

/// In this process.
#[derive(Default)]
struct Here(bool);

const ROUTE_LOCALNET: &str = "net.ipv4.conf.all.route_localnet";
const ON: Setting = Setting { name: ROUTE_LOCALNET, value: 1 };
const OFF: Setting = Setting { name: ROUTE_LOCALNET, value: 0 };
/// Of a sysctl that is on without the rules that belong to it (CVE-2020-8558).
const UNGUARDED: &str = "net.ipv4.conf.all.route_localnet is 1 and sheave does not need it here (kube-proxy's iptables mode, or somebody \
                         else, may have set it): neighbours may reach services that listen at 127.0.0.1 only; set it to 0";

/// What to tell of one that is on, by whomever, when the rules that guard it are gone.
pub(crate) fn unguarded_localnet() -> Option<&'static str> {
    unguarded(&Sysctls::default())
}

/// The same where these settings are. One that was off before us is set back by whoever no longer wants it.
pub(super) fn unguarded(sysctls: &Sysctls) -> Option<&'static str> {
    (sysctls.read(ROUTE_LOCALNET) == Some(1) && !InKernel.was_off()).then_some(UNGUARDED)
}

/// Sets it back if it was off before us, for rules that go for good. Not for a kube-proxy that takes over in iptables mode: it serves
/// NodePorts at 127.0.0.1 as well, guards the address itself, and looks at the setting at its start only.
///
/// # Errors
/// See [`MigrationError`](crate::migration::MigrationError).
pub(crate) fn give_back(door: &mut KernelNft) -> anyhow::Result<()> {
    if !door.table_exists(LOCALNET_TABLE)? {
        return Ok(());
    }
    if State::look(door)?.may_serve_localhost() {
        tracing::info!("{ROUTE_LOCALNET} stays 1, for kube-proxy");
    } else if !set(&Sysctls::default(), OFF) {
        // What is remembered may help whoever is allowed to.
        return Ok(());
    }
    Ok(InKernel::write(door, false)?)
}

/// Whether it could be set; if not, somebody is told.
fn set(sysctls: &Sysctls, setting: Setting) -> bool {
    let made = sysctls.make(setting);
    if let Err(text) = &made {
        tracing::warn!("{text}");
    }
    made.is_ok()
}

impl Localnet {
    /// As a process before this one has left it.
    pub(super) fn resume() -> Self {
        Self::new(Sysctls::default(), Box::new(InKernel))
    }

    fn new(sysctls: Sysctls, memory: Box<dyn Memory>) -> Self {
        let on = memory.was_off() && sysctls.read(ROUTE_LOCALNET) == Some(1);
        Self { sysctls, memory, on }
    }

    /// Turns it on or off again. The rules that keep others from 127.0.0.0/8 are in force whenever it is on: on comes after them,
    /// off before they go. One that somebody else turned on stays on, and somebody has to be told. Returns whether it is on without
    /// the rules.
    pub(super) fn follow(&mut self, wanted: bool) -> bool {
        if wanted == self.on {
            return false;
        }
        self.on = wanted;
        if wanted {
            if self.sysctls.read(ROUTE_LOCALNET) == Some(0) {
                // First of all: a process that ends between the two has turned nothing on.
                self.memory.remember(true);
                if !set(&self.sysctls, ON) {
                    self.memory.remember(false);
                }
            }
            return false;
        }
        if self.memory.was_off() && set(&self.sysctls, OFF) {
            self.memory.remember(false);
        }
        let unguarded = self.sysctls.read(ROUTE_LOCALNET) == Some(1);
        if unguarded {
            tracing::warn!("{UNGUARDED}");
        }
        unguarded
    }
}

impl Default for Localnet {
    /// One that remembers nothing of an earlier process.
    fn default() -> Self {
        Self { sysctls: Sysctls::default(), memory: Box::new(Here::default()), on: false }
    }
}

impl InKernel {
    fn write(door: &mut KernelNft, was_off: bool) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        if was_off {
            batch.add_table(LOCALNET_TABLE, None);
        } else {
            batch.delete_table(LOCALNET_TABLE);
        }
        door.commit(batch).map(drop)
    }
}

impl Memory for InKernel {
    fn was_off(&self) -> bool {
        let ask = || -> Result<bool, DoorError> { KernelNft::open()?.table_exists(LOCALNET_TABLE) };
        ask().unwrap_or(false)
    }

    fn remember(&mut self, was_off: bool) {
        let write = || -> anyhow::Result<()> {
            let mut door = KernelNft::open()?;
            if door.table_exists(LOCALNET_TABLE)? != was_off {
                Self::write(&mut door, was_off)?;
            }
            Ok(())
        };
        if let Err(error) = write() {
            let error = with_causes(error.as_ref());
            tracing::warn!(error, "{ROUTE_LOCALNET}: what it was before sheave is not remembered");
        }
    }
}

impl Memory for Here {
    fn was_off(&self) -> bool {
        self.0
    }

    fn remember(&mut self, was_off: bool) {
        self.0 = was_off;
    }
}
