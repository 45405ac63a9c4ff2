//! `:10256`, in kube-proxy's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use super::{Look, ProxyHealth};
use crate::http_server::{Answer, Reply, Request, reply, text};
use crate::metrics::Metrics;
use crate::model::Family;

/// Answers `/healthz` and `/livez`, whatever the method.
pub(crate) struct HealthServer {
    health: Arc<ProxyHealth>,
    metrics: Arc<Metrics>,
}

/// The body of both. Clients parse it: the fields and their order are kube-proxy's; `problems` is ours, and only there if there are any.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'l> {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    status: BTreeMap<String, FamilyStatus>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    problems: &'l [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyStatus {
    last_updated: String,
    healthy: bool,
}

impl HealthServer {
    pub(crate) fn new(health: Arc<ProxyHealth>, metrics: Arc<Metrics>) -> Self {
        Self { health, metrics }
    }
}

impl Answer for HealthServer {
    fn answer(&self, request: &Request<'_>) -> Reply {
        let look = self.health.look();
        let probes = &self.metrics.probes;
        // Liveness must not look at the Node (KEP-3836).
        let (healthy, node_eligible, counter) = match request.path {
            "/healthz" => (look.is_healthy(), Some(look.node_eligible), &probes.healthz),
            "/livez" => (look.is_alive(), None, &probes.livez),
            _ => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        let status = if healthy && node_eligible != Some(false) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        counter.of([status.as_str()]).inc();
        json(status, &body(&look, healthy, node_eligible, status == StatusCode::OK, Timestamp::now()), CompactFormatter)
    }
}

/// On 200, `lastUpdated` is now: in old kube-proxies a sync ran every half minute, and monitors look at its age.
fn body(look: &Look, healthy: bool, node_eligible: Option<bool>, fine: bool, now: Timestamp) -> Body<'_> {
    let updated = time(look.updated);
    let family = |family: &Family| (family.to_string(), FamilyStatus { last_updated: updated.clone(), healthy });
    Body {
        last_updated: if fine { now.to_string() } else { updated.clone() },
        current_time: now.to_string(),
        node_eligible,
        healthy,
        status: look.families.iter().map(family).collect(),
        problems: &look.problems,
    }
}

/// Never is what Go's zero time prints.
fn time(when: Option<Timestamp>) -> String {
    when.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |when| when.to_string())
}

/// A reply whose body is a plain tree of ours: writing it cannot fail.
pub(super) fn json(status: StatusCode, body: &impl Serialize, look: impl Formatter) -> Reply {
    let mut text = Vec::new();
    _ = body.serialize(&mut serde_json::Serializer::with_formatter(&mut text, look));
    reply(status, "application/json", text)
}
