//! A Node that is not there: a misspelt name, a node that has not registered yet, one that was deleted.
//!
//! Services work without it, but not all of them as they should, and nobody would look for the reason in a name.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::{NodeNameOrigin, Options};
use crate::health::ProxyHealth;

/// A kubelet that starts beside us registers its Node within this, most often.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Under this name `/healthz` tells of it.
const PROBLEM: &str = "node";

/// Tells of it once while it lasts, when it has for as long as `patience`, and when it is over.
pub(super) async fn watch_over(options: Arc<Options>, health: Arc<ProxyHealth>, patience: Duration) {
    let mut there = health.node_there();
    loop {
        if there.wait_for(|there| *there == Some(false)).await.is_err() {
            return;
        }
        if timeout(patience, there.wait_for(|there| *there == Some(true))).await.is_ok() {
            continue;
        }
        let text = if health.node_seen() { gone(&options) } else { absent(&options) };
        tracing::warn!("{text}");
        health.problem(PROBLEM, Some(text));
        if there.wait_for(|there| *there == Some(true)).await.is_err() {
            return;
        }
        health.problem(PROBLEM, None);
        tracing::info!("the Node {:?} is there", options.node_name);
    }
}

/// The last object counts (kube-proxy 6.6).
fn gone(options: &Options) -> String {
    format!(
        "the API server has no Node {:?} any more: zone, node IPs and podCIDRs, and whether it is eligible for new traffic, stay as they were",
        options.node_name
    )
}

fn absent(options: &Options) -> String {
    let Options { node_name, node_name_origin, .. } = options;
    let origin = match node_name_origin {
        NodeNameOrigin::CommandLine => "which --node-name, --hostname-override or NODE_NAME gives",
        NodeNameOrigin::File => "which hostnameOverride of the configuration gives",
        NodeNameOrigin::HostName => "which is this host's name in lower case",
    };
    format!(
        "the API server has no Node {node_name:?}, {origin}: zone, node IPs and podCIDRs are not known until it has; another name is \
         given by --node-name, NODE_NAME or hostnameOverride"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured_log::Log;
    use crate::config::SourceOptions;
    use crate::health::STALE_AFTER;
    use crate::model::samples;

    /// A watch over a Node of this name, and what it tells of.
    fn watched(patience: Duration) -> (Arc<ProxyHealth>, tokio::task::JoinHandle<()>) {
        let options = Options {
            node_name_origin: NodeNameOrigin::HostName,
            ..Options::new("tpyo".into(), SourceOptions::Manifests("none".into()))
        };
        let health = Arc::new(ProxyHealth::new(STALE_AFTER, true));
        let watching = tokio::spawn(watch_over(Arc::new(options), health.clone(), patience));
        (health, watching)
    }

    async fn until(mut holds: impl FnMut() -> bool) {
        while !holds() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_node_that_does_not_come_is_told_once_and_so_is_its_coming() {
        let (log, _until) = Log::capture();
        let (health, watching) = watched(Duration::ZERO);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(log.lines(), [""; 0], "nobody has said yet which Nodes there are");
        health.node_absent();
        until(|| !health.look().problems.is_empty()).await;
        let problems = health.look().problems;
        assert!(problems.len() == 1 && problems[0].starts_with("node: the API server has no Node \"tpyo\""), "{problems:?}");
        // Listed once more, without it.
        health.node_absent();
        health.node(&samples::node("tpyo", []));
        until(|| health.look().problems.is_empty()).await;
        let lines = log.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("WARN the API server has no Node \"tpyo\", which is this host's name"), "{lines:?}");
        assert_eq!(lines[1], "INFO the Node \"tpyo\" is there");
        health.node_absent();
        until(|| log.lines().len() == 3).await;
        let gone = "WARN the API server has no Node \"tpyo\" any more: zone, node IPs and podCIDRs";
        assert!(log.lines()[2].starts_with(gone), "{:?}", log.lines());
        watching.abort();
    }

    #[tokio::test]
    async fn a_node_that_registers_anew_is_not_worth_a_word() {
        let (log, _until) = Log::capture();
        let (health, watching) = watched(Duration::from_secs(3600));
        for _ in 0..3 {
            health.node_absent();
            tokio::task::yield_now().await;
            health.node(&samples::node("tpyo", []));
            tokio::task::yield_now().await;
        }
        assert_eq!((log.lines(), health.look().problems), (vec![], vec![]));
        watching.abort();
    }
}
