//! Paths about the server itself: health, version, and discovery made from the table of resources (kubectl asks for it).

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Shared;
use super::body::Body;
use super::resource::Resource;
use super::serve::{json_response, plain_response};

/// The answer, if the path is one of these.
pub(super) fn answer(shared: &Shared, path: &str) -> Option<Response<Body>> {
    if matches!(path, "/healthz" | "/livez" | "/readyz") {
        return Some(plain_response(StatusCode::OK, "ok"));
    }
    let mut groups: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for (_, table) in shared.cluster().store.tables() {
        let Resource { group, version, .. } = &*table.resource;
        groups.entry((group.to_string(), version.to_string())).or_default().extend(rows(&table.resource));
    }
    let body = match path.trim_end_matches('/') {
        "/version" => json!({"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"}),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        "/apis" => {
            let named = groups.keys().filter(|(group, _)| !group.is_empty()).map(|(group, version)| {
                let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
                json!({"name": group, "versions": [version], "preferredVersion": version})
            });
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": named.collect::<Vec<_>>()})
        }
        other => {
            let asked = other.strip_prefix("/apis/").or_else(|| (other == "/api/v1").then_some("v1"))?;
            let (group, version) = asked.split_once('/').unwrap_or(("", asked));
            let resources = groups.remove(&(group.to_owned(), version.to_owned()))?;
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": asked, "resources": resources})
        }
    };
    Some(json_response(StatusCode::OK, Body::text(body.to_string())))
}

fn rows(resource: &Resource) -> Vec<Value> {
    let verbs = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
    let row = |name: String, verbs: Value| {
        let singular = resource.kind.to_lowercase();
        json!({"name": name, "singularName": singular, "namespaced": resource.namespaced, "kind": resource.kind, "verbs": verbs})
    };
    let mut rows = vec![row(resource.plural.to_string(), verbs)];
    if resource.status {
        rows.push(row(format!("{}/status", resource.plural), json!(["get", "patch", "update"])));
    }
    rows
}
