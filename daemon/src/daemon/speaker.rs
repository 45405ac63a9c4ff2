//! What the speaker is told at its start.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::report::with_causes;
use super::{DaemonError, Outputs};
use crate::config::Options;
use crate::health::ProxyHealth;
use crate::loadbalancer::announcer::{self, exclusions::Exclusions};
use crate::loadbalancer::speaker::{self, Rules, SpeakerOptions, Surroundings};

/// Announces the VIPs of our pools from this node.
pub(super) fn start(
    options: &Options,
    exclusions: Exclusions,
    rules: watch::Receiver<Arc<Rules>>,
    outputs: &Outputs,
    cancel: CancellationToken,
) -> Result<JoinHandle<()>, DaemonError> {
    let class = options.controller.as_ref().and_then(|choice| choice.class.clone());
    let announcer = announcer::Options { exclusions, period: options.announcing.period };
    let options = SpeakerOptions { node: options.node_name.clone(), class, announcer };
    let (published, health) = (outputs.published.clone(), outputs.health.clone());
    let surroundings = Surroundings { rules, published, health, metrics: outputs.metrics.speaker.clone() };
    speaker::spawn(options, surroundings, cancel).map_err(|source| DaemonError::Process { what: "starting the speaker", source })
}

/// Interfaces that neither announce nor are asked on; where nothing of that is done, nothing is read.
pub(super) fn exclusions(options: &Options, health: &ProxyHealth) -> Exclusions {
    match &options.controller {
        Some(_) => excluded_interfaces(options.announcing.interfaces_excluded.as_deref(), health),
        None => Exclusions::default(),
    }
}

/// As the file says, read once, as MetalLB does. One that cannot be used leaves MetalLB's own list in force: what containers have must
/// not announce for want of a file.
fn excluded_interfaces(file: Option<&Path>, health: &ProxyHealth) -> Exclusions {
    let Some(file) = file else { return Exclusions::default() };
    match Exclusions::read(file) {
        Ok(exclusions) => exclusions,
        Err(error) => {
            let text = format!("{}: {}; the usual interfaces are excluded", file.display(), with_causes(&error));
            tracing::warn!("loadBalancer.interfacesExcluded: {text}");
            health.problem("interfacesExcluded", Some(text));
            Exclusions::default()
        }
    }
}
