//! What the log was told and still holds.

use std::collections::BTreeSet;

use super::kernel_settings::{Amiss, OwnScore};
use crate::config::LogFormat;

/// Kept for the life of the process, which may see many configurations: a thing is said once while it holds.
#[derive(Default)]
pub(super) struct Told {
    /// Of the kernel's settings.
    pub(super) kernel: Amiss,
    /// Of this process's own score.
    pub(super) score: OwnScore,
    /// Of `route_localnet`, which the sync loop sets.
    pub(super) localnet: Amiss,
    /// Of what others drop at forward.
    pub(super) forwarding: Amiss<String>,
    /// Remarks and warnings about the configuration.
    pub(super) configuration: BTreeSet<String>,
    /// How the lines look that it was told: settled when the process started.
    pub(super) log_format: Option<LogFormat>,
    /// The configuration's verbosity, as the filter was last set by it.
    pub(super) verbosity: Option<u32>,
}
