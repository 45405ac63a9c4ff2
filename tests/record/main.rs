//! What an announcer writes to the API server and reads from it, against the API double, over HTTP.

#![expect(clippy::unwrap_used, reason = "tests")]

mod key;
mod leases;
mod rights;
mod statuses;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sheave::health::{ProxyHealth, STALE_AFTER};
use sheave::loadbalancer::membership::fence::Claim;
use sheave::loadbalancer::speaker::record::{Announced, Record, RecordOptions};
use sheave::metrics::Metrics;
use sheave::model::ObjectKey;
use sheave::source::kube::{KubeOptions, connect};
use sheave_tests::apiserver::{ApiServer, Config};
use tokio_util::sync::CancellationToken;

/// For anything to happen that will: a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);
const HOME: &str = "metallb-system";

/// A node that announces, as far as the API server sees it.
struct Announcer {
    record: Record,
    node: String,
    health: Arc<ProxyHealth>,
    metrics: Metrics,
}

impl Announcer {
    async fn start(api: &ApiServer, node: &str) -> Self {
        let kube = KubeOptions { api_servers: vec![api.url()], ..KubeOptions::default() };
        let servers = Arc::new(connect(&kube).await.unwrap());
        let (health, metrics) = (Arc::new(ProxyHealth::new(STALE_AFTER, false)), Metrics::new());
        let options = RecordOptions { node: node.into(), namespace: "kube-system".into() };
        let record = Record::start(servers, options, health.clone(), metrics.speaker(), &CancellationToken::new());
        Self { record, node: node.to_owned(), health, metrics }
    }

    /// Announces these Services of the namespace `default`, on all interfaces.
    fn announces(&self, services: &[&str]) {
        self.announces_on(services, &[]);
    }

    fn announces_on(&self, services: &[&str], interfaces: &[&str]) {
        let of = |name: &&str| (ObjectKey::new("default", name), interfaces.iter().map(|&name| name.into()).collect());
        let services = services.iter().map(of).collect();
        self.record.announced(Announced { namespace: Some(HOME.into()), services });
    }

    fn holds(&self, heard: usize, any: bool) {
        self.record.holds(Claim { node: self.node.as_str().into(), heard }, any);
    }

    async fn settled(&self) {
        tokio::time::timeout(PATIENCE, self.record.settled()).await.unwrap();
    }

    fn problems(&self) -> String {
        self.health.look().problems.join("; ")
    }

    /// Waits until `/healthz` names a problem, or none.
    async fn until_problems(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        eventually(what, || is_so(&self.problems())).await;
    }
}

/// A cluster with MetalLB's definitions and a Node.
fn cluster() -> ApiServer {
    let api = ApiServer::start(Config { metallb: true, ..Config::default() }).unwrap();
    furnish(&api);
    api
}

fn furnish(api: &ApiServer) {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": HOME } });
    api.apply(&namespace).unwrap();
    for node in ["node-a", "node-b"] {
        api.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } })).unwrap();
    }
}

/// The ServiceL2Statuses, by what they say: node, Service, interfaces.
fn said(api: &ApiServer) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let one = |object: Value| {
        let status = &object["status"];
        let interfaces: Vec<_> = status["interfaces"].as_array().into_iter().flatten().map(|each| text(&each["name"])).collect();
        format!("{} {} {}", text(&status["node"]), text(&status["serviceName"]), interfaces.join(",")).trim_end().to_owned()
    };
    let mut said: Vec<_> = api.list("servicel2statuses").into_iter().map(one).collect();
    said.sort();
    said
}

async fn until_said(api: &ApiServer, expected: &[&str]) {
    let what = format!("{expected:?}");
    let found = api.wait_for(&what, PATIENCE, |api| (said(api) == expected).then_some(())).await;
    assert!(found.is_ok(), "{:?} and not {expected:?}", said(api));
}

/// Waits until a fact holds that the server has no part in.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "not within {PATIENCE:?}: {what}");
}
