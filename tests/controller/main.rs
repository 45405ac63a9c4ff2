//! The controller of the load balancer against the API double, over HTTP: what stands in the objects in the end, and what was written
//! to get there.

#![expect(clippy::unwrap_used, reason = "tests")]

mod allocation;
mod leadership;
mod rights;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sheave::loadbalancer::controller::{self, ControllerHealth, ControllerOptions, ControllerView, LeaseTiming, Role};
use sheave::metrics::ControllerMetrics;
use sheave::source::kube::{KubeOptions, connect};
use sheave_tests::apiserver::{ApiServer, Config};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// For anything to happen that will: a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// One replica of the controller.
struct Replica {
    health: Arc<ControllerHealth>,
    metrics: ControllerMetrics,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Times of tests: attempts follow each other quickly, and a machine that stands still for a while loses no Lease.
const TIMING: LeaseTiming = LeaseTiming {
    duration: Duration::from_secs(60),
    renew_deadline: Duration::from_secs(50),
    retry_period: Duration::from_millis(100),
};

impl Replica {
    async fn start(api: &ApiServer, identity: &str) -> Self {
        Self::with(api, identity, TIMING).await
    }

    async fn with(api: &ApiServer, identity: &str, timing: LeaseTiming) -> Self {
        let kube = KubeOptions { api_servers: vec![api.url()], ..KubeOptions::default() };
        let servers = Arc::new(connect(&kube).await.unwrap());
        let options = ControllerOptions {
            kube,
            class: None,
            namespace: "kube-system".into(),
            lease: "sheave-controller".to_owned(),
            timing,
            identity: identity.to_owned(),
            prober: None,
        };
        let (health, metrics) = (Arc::<ControllerHealth>::default(), ControllerMetrics::new());
        let view = ControllerView { health: health.clone(), metrics: metrics.allocator() };
        let stop = CancellationToken::new();
        let task = tokio::spawn(controller::run(options, servers, view, stop.clone()));
        Self { health, metrics, stop, task }
    }

    /// SIGTERM.
    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }

    fn leads(&self) -> bool {
        matches!(self.health.role(), Role::Leading { .. })
    }
}

/// A cluster with MetalLB's definitions, and its usual first pool.
fn cluster() -> ApiServer {
    let api = ApiServer::start(Config { metallb: true, ..Config::default() }).unwrap();
    api.apply(&pool("lan", "192.168.1.240-192.168.1.250")).unwrap();
    api
}

fn pool(name: &str, addresses: &str) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": { "name": name, "namespace": "metallb-system" },
        "spec": { "addresses": [addresses] },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }], "selector": { "app": name } },
    })
}

/// The first address in a Service's status.
fn address(api: &ApiServer, name: &str) -> Option<String> {
    let service = api.get("services", "default", name)?;
    Some(service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str()?.to_owned())
}

/// Waits until the Service has an address.
async fn addressed(api: &ApiServer, name: &str) -> String {
    api.wait_for(&format!("an address for {name}"), PATIENCE, |api| address(api, name)).await.unwrap()
}

/// Waits until a fact about replicas holds that the server has no part in.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

/// The version of an object.
fn version(api: &ApiServer, resource: &str, namespace: &str, name: &str) -> Value {
    api.get(resource, namespace, name).unwrap()["metadata"]["resourceVersion"].clone()
}
