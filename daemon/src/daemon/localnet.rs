//! `route_localnet`, while NodePorts are served at 127.0.0.1: without it the kernel sends nothing from a loopback address, and takes
//! nothing for one, on any device but `lo`.
//!
//! Whether it was off before us has to outlive this process: a later one, or `sheave cleanup`, sets it back. So an empty table says it,
//! `inet sheave-localnet`. It is there wherever rules can be written, which a directory is not, it belongs to the network namespace that
//! the setting belongs to, and a reboot ends both.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use nix::errno::Errno;

use super::kernel_settings::{Amiss, Missed, ROUTE_LOCALNET, Setting, Sysctls, problem};
use super::report::with_causes;
use crate::dataplane::nftables::LOCALNET_TABLE;
use crate::health::ProxyHealth;
use crate::metrics::Metrics;
use crate::migration::State;
use crate::netlink::nft::{Batch, CommitError, DoorError, KernelNft, NftDoor};

/// The setting, as the sync loop follows it.
pub(super) struct Localnet {
    sysctls: Sysctls,
    memory: Box<dyn Memory>,
    health: Arc<ProxyHealth>,
    metrics: Arc<Metrics>,
    /// What cannot be set, until it can.
    told: Amiss,
    /// It cannot be set: one of the kernel settings that are missed.
    missed: bool,
    on: bool,
    /// It is on and was off before us. What the memory says, which somebody else may flush.
    set_by_us: bool,
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

const ON: Setting = Setting { name: ROUTE_LOCALNET, value: 1 };
const OFF: Setting = Setting { name: ROUTE_LOCALNET, value: 0 };
/// Of a sysctl that is on without the rules that belong to it (CVE-2020-8558).
const UNGUARDED: &str = "net.ipv4.conf.all.route_localnet is 1 and sheave does not need it here (kube-proxy's iptables mode, or somebody \
                         else, may have set it): neighbours may reach services that listen at 127.0.0.1 only; set it to 0";

/// What to tell of one that is on, by whomever, when the rules that guard it are gone.
pub(crate) fn unguarded_localnet() -> Option<&'static str> {
    still_on(&Sysctls::default())
}

/// The same of a daemon that does not need it. One that was off before us is set back by the sync loop, or told there.
pub(super) fn unguarded(sysctls: &Sysctls) -> Option<&'static str> {
    unguarded_but_for(&InKernel, sysctls)
}

fn unguarded_but_for(memory: &dyn Memory, sysctls: &Sysctls) -> Option<&'static str> {
    // Asked first: the sync loop sets it back, and then forgets.
    if memory.was_off() { None } else { still_on(sysctls) }
}

fn still_on(sysctls: &Sysctls) -> Option<&'static str> {
    (sysctls.read(ROUTE_LOCALNET) == Some(1)).then_some(UNGUARDED)
}

/// The setting that [`give_back`] would set to 0, if it would.
///
/// # Errors
/// See [`MigrationError`](crate::migration::MigrationError).
pub(crate) fn would_give_back(door: &mut KernelNft) -> anyhow::Result<Option<&'static str>> {
    let ours = door.table_exists(LOCALNET_TABLE)? && Sysctls::default().read(ROUTE_LOCALNET) == Some(1);
    Ok((ours && !State::look(door)?.may_serve_localhost()).then_some(ROUTE_LOCALNET))
}

/// Sets it back if it was off before us, for rules that go for good: before they go, since they guard it. Not for a kube-proxy that
/// takes over in iptables mode: it serves NodePorts at 127.0.0.1 as well, guards the address itself, and looks at the setting at its
/// start only.
///
/// # Errors
/// See [`MigrationError`](crate::migration::MigrationError).
pub(crate) fn give_back(door: &mut KernelNft) -> anyhow::Result<()> {
    if !door.table_exists(LOCALNET_TABLE)? {
        return Ok(());
    }
    if State::look(door)?.may_serve_localhost() {
        tracing::info!("{ROUTE_LOCALNET} stays 1, for kube-proxy");
    } else if let Err(missed) = Sysctls::default().make(OFF) {
        // What is remembered may help whoever is allowed to.
        tracing::warn!("{missed}");
        return Ok(());
    }
    Ok(InKernel::write(door, false)?)
}

impl Localnet {
    /// As a process before this one has left it. What cannot be set is told once, and in `problems` while it lasts.
    pub(super) fn resume(health: Arc<ProxyHealth>, metrics: Arc<Metrics>, told: Amiss) -> Self {
        Self::new(Sysctls::default(), Box::new(InKernel), health, metrics, told)
    }

    /// One that remembers nothing of an earlier process.
    pub(super) fn forgetful(health: Arc<ProxyHealth>, metrics: Arc<Metrics>) -> Self {
        Self::new(Sysctls::default(), Box::new(Here::default()), health, metrics, Amiss::default())
    }

    fn new(sysctls: Sysctls, mut memory: Box<dyn Memory>, health: Arc<ProxyHealth>, metrics: Arc<Metrics>, told: Amiss) -> Self {
        let was_off = memory.was_off();
        let is_off = sysctls.read(ROUTE_LOCALNET) == Some(0);
        if was_off && is_off {
            // Ended between the two, or somebody has set it back: nothing is left to do.
            memory.remember(false);
        }
        let set_by_us = was_off && !is_off;
        Self { sysctls, memory, health, metrics, told, missed: false, on: set_by_us, set_by_us }
    }

    /// Turns it on or off again. The rules that keep others from 127.0.0.0/8 are in force whenever it is on: on comes after them,
    /// off before they go. One that somebody else turned on stays on, which is the [`Keeper`](super::kernel_settings::Keeper)'s to
    /// tell. What fails is told, and tried again at the next call.
    pub(super) fn follow(&mut self, wanted: bool) {
        if wanted == self.on && self.told.is_nothing() {
            return;
        }
        let turned = if wanted { self.turn_on() } else { self.turn_off() };
        let missed = turned.err().map(|missed| missed.to_string());
        if missed.is_none() {
            self.on = wanted;
        }
        let before = std::mem::replace(&mut self.missed, missed.is_some());
        self.metrics.kernel_settings_missed.inc_by(i64::from(self.missed) - i64::from(before));
        self.health.problem(&problem(ROUTE_LOCALNET), missed.clone());
        self.told.are(missed.map(|text| (ROUTE_LOCALNET, text)).into_iter().collect::<BTreeMap<_, _>>());
    }

    /// Remembers what it was once more: whoever took our rules may have taken the memory as well (`nft flush ruleset`).
    pub(super) fn remember_again(&mut self) {
        if self.set_by_us {
            self.memory.remember(true);
        }
    }

    fn turn_on(&mut self) -> Result<(), Missed> {
        if self.sysctls.read(ROUTE_LOCALNET).is_some_and(|value| value != 0) {
            return Ok(());
        }
        // Most who may not set it never may, and this is asked at every commit: nothing is written to the kernel's tables for that.
        self.sysctls.may_make(ON)?;
        // First of all: a process that ends between the two has turned nothing on.
        self.remember(true);
        self.sysctls.make(ON).inspect_err(|_| self.remember(false))
    }

    fn turn_off(&mut self) -> Result<(), Missed> {
        if self.set_by_us {
            self.sysctls.make(OFF)?;
            self.remember(false);
        }
        Ok(())
    }

    fn remember(&mut self, was_off: bool) {
        self.set_by_us = was_off;
        self.memory.remember(was_off);
    }
}

impl InKernel {
    fn write(door: &mut dyn NftDoor, was_off: bool) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        if was_off {
            batch.add_table(LOCALNET_TABLE, None);
        } else {
            batch.delete_table(LOCALNET_TABLE);
        }
        match door.commit(batch) {
            // Somebody else was faster: `sheave migrate back` and the daemon that it asks to stand down both give back.
            Err(refused) if !was_off && refused.errno() == Some(Errno::ENOENT) => Ok(()),
            outcome => outcome.map(drop),
        }
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
