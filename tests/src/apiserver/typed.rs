//! Whether a body has the types of its kind: what the real server's decoder refuses before anything else looks at it.
//!
//! Unknown fields pass, and are kept. The generated types of the client library are the schema; they are a little stricter than Go's
//! decoder, which takes null for an empty entry of a list.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, NodeSpec, NodeStatus, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event as EventOfToday;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::resource::Resource;
use super::status::Status;

/// Refuses an object of the wrong shape, in the words of the real server's decoder.
///
/// # Errors
/// 400, with the reason.
pub(super) fn check(resource: &Resource, object: &Value) -> Result<(), Status> {
    let read = match (&*resource.group, &*resource.kind) {
        ("", "Service") => is::<Service>(object),
        ("", "Namespace") => is::<Namespace>(object),
        ("", "Node") => is_node(object),
        ("", "ConfigMap") => is::<ConfigMap>(object),
        ("", "Secret") => is::<Secret>(object),
        ("", "Event") => is::<Event>(object),
        ("discovery.k8s.io", "EndpointSlice") => is::<EndpointSlice>(object),
        ("networking.k8s.io", "ServiceCIDR") => is::<ServiceCIDR>(object),
        ("coordination.k8s.io", "Lease") => is::<Lease>(object),
        ("events.k8s.io", "Event") => is::<EventOfToday>(object),
        // A custom resource: of its schema nothing is known here.
        _ => is::<ObjectMeta>(&object["metadata"]),
    };
    read.map_err(|error| {
        let Resource { kind, version, .. } = resource;
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: json: {error}"))
    })
}

fn is<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<(), serde_json::Error> {
    T::deserialize(value).map(drop)
}

/// A quantity may be a number (`cpu: 4`), which the generated type does not know.
fn is_node(node: &Value) -> Result<(), serde_json::Error> {
    is::<ObjectMeta>(&node["metadata"])?;
    is::<Option<NodeSpec>>(&node["spec"])?;
    let mut status = node["status"].clone();
    if let Some(status) = status.as_object_mut() {
        status.retain(|name, _| name != "capacity" && name != "allocatable");
    }
    is::<Option<NodeStatus>>(&status)
}
