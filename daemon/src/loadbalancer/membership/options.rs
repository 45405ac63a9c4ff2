//! How quick, and how patient.

use std::time::Duration;

/// UDP, as MetalLB's memberlist uses. Docker Swarm uses it, too, so it can be configured.
pub const DEFAULT_PORT: u16 = 7946;

/// Times of the membership. The defaults reach a verdict 300 to 400 ms after a node was cut off, on a quiet LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Between two beats to a watcher.
    pub heartbeat: Duration,
    /// Between two beats to everybody else, and to those that are gone: a partition is healed so long after its end.
    pub roll_call: Duration,
    /// How many watch each member.
    pub watchers: usize,
    /// For how long a node whose kernel answers keeps its VIPs without its daemon (`daemonRestartGrace`).
    pub daemon_restart_grace: Duration,
}

/// The most that jitter adds to a silence that is accused. Beyond that the network is too bad to tell.
pub(super) const MAX_LATENESS: Duration = Duration::from_millis(250);
/// Between two questions to a peer that is silent.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);
/// For so long an accusation that is not shared by most watchers waits for somebody who says otherwise.
pub(super) const UNCONTRADICTED: Duration = Duration::from_millis(150);
/// A timer that fires later than this tells of our own stall: nobody is accused of what we have missed.
pub(super) const STALL: Duration = Duration::from_millis(50);
/// After so long without hearing of a member nobody waits for it any more at the start.
pub(super) const SETTLING: Duration = Duration::from_secs(1);
/// Between two attempts to bring a peer our facts.
pub(super) const PUSH_AGAIN: Duration = Duration::from_millis(250);
/// Between two answers to a session that has not proved that it is no recording.
pub(super) const KNOCK: Duration = Duration::from_millis(20);
/// For so long an answer of a peer's kernel proves that it forwards. Probes go out every [`ASK_AGAIN`] while the peer is silent.
pub(super) const KERNEL_FRESH: Duration = Duration::from_millis(400);

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            roll_call: Duration::from_secs(1),
            watchers: 8,
            daemon_restart_grace: Duration::from_secs(3),
        }
    }
}

impl Options {
    /// Silence after which a peer is asked, for one that beats at this interval.
    pub(super) fn suspect_after(interval: Duration, lateness: Duration) -> Duration {
        interval * 2 + lateness.min(MAX_LATENESS)
    }

    /// Silence after which it is accused: three beats missed, and half an interval for the fourth to be late.
    pub(super) fn accuse_after(interval: Duration, lateness: Duration) -> Duration {
        interval * 7 / 2 + lateness.min(MAX_LATENESS)
    }
}
