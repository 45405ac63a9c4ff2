//! What the speaker is told at its start.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::report::with_causes;
use super::sources::{self, Grounds};
use super::{DaemonError, Outputs};
use crate::config::{Announcing, Options};
use crate::health::ProxyHealth;
use crate::loadbalancer::announcer::{self, Prober, exclusions::Exclusions};
use crate::loadbalancer::speaker::record::{Record, RecordOptions};
use crate::loadbalancer::speaker::{self, Cluster, Speaker, SpeakerOptions, Surroundings};
use crate::loadbalancer::{election, membership};

/// Announces the VIPs of our pools from this node.
pub(super) fn start(
    options: &Options,
    grounds: Grounds,
    exclusions: Exclusions,
    prober: Prober,
    outputs: &Outputs,
    cancel: CancellationToken,
) -> Result<Speaker, DaemonError> {
    let Announcing {
        class,
        metallb_namespace: _,
        namespace: _,
        interfaces_excluded: _,
        period,
        port,
        daemon_restart_grace,
        ignore_exclude_label,
        move_from_cordoned,
    } = options.announcing.clone();
    let speaker = SpeakerOptions {
        node: options.node_name.clone(),
        class,
        announcer: announcer::Options { exclusions, period },
        election: election::Options { ignore_exclude_label, move_from_unschedulable: move_from_cordoned },
        port,
        membership: membership::Options { daemon_restart_grace, ..membership::Options::default() },
    };
    let Grounds { rules, cluster } = grounds;
    let surroundings = Surroundings {
        rules,
        cluster: cluster.map(|cluster| joined(options, cluster, outputs, &cancel)),
        published: outputs.published.clone(),
        health: outputs.health.clone(),
        metrics: outputs.metrics.speaker.clone(),
        prober: options.controller.is_some().then_some(prober),
    };
    speaker::spawn(speaker, surroundings, cancel).map_err(|source| DaemonError::Process { what: "starting the speaker", source })
}

/// What is written and read at the API server, on this runtime.
fn joined(options: &Options, cluster: sources::Cluster, outputs: &Outputs, cancel: &CancellationToken) -> Cluster {
    let sources::Cluster { peers, servers } = cluster;
    let record = RecordOptions { node: options.node_name.clone(), namespace: options.announcing.namespace.clone() };
    let (health, metrics) = (outputs.health.clone(), outputs.metrics.speaker.clone());
    let (runtime, cancel) = (tokio::runtime::Handle::current(), cancel.clone());
    let begin = move || {
        let _entered = runtime.enter();
        Record::start(servers.clone(), record.clone(), health.clone(), metrics.clone(), &cancel)
    };
    Cluster { peers, record: Box::new(begin) }
}

/// Interfaces that neither announce nor are asked on; where nothing of that is done, nothing is read.
pub(super) fn exclusions(options: &Options, health: &ProxyHealth) -> Exclusions {
    if options.announces || options.controller.is_some() {
        excluded_interfaces(options.announcing.interfaces_excluded.as_deref(), health)
    } else {
        Exclusions::default()
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
