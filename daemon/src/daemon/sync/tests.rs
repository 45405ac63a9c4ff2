mod deferred;
mod loads;
mod telling;

use std::path::PathBuf;

use super::*;
use crate::config::{DetectLocal, NodePortSelection, Servers, SourceOptions};
use crate::health::STALE_AFTER;

fn options() -> Options {
    Options {
        node_name: "node".into(),
        source: SourceOptions::Manifests(PathBuf::new()),
        detect_local: DetectLocal::ClusterCidr(Vec::new()),
        masquerade_all: false,
        node_ports: NodePortSelection::Primary,
        external_ips_denied: false,
        servers: Servers::default(),
    }
}

fn outputs() -> Outputs {
    Outputs {
        published: Arc::new(Published::default()),
        marks: watch::Sender::new(Vec::new()),
        reporter: Reporter::default(),
        stale_flows: None,
        metrics: Arc::default(),
        health: Arc::new(ProxyHealth::new(STALE_AFTER, false)),
    }
}
