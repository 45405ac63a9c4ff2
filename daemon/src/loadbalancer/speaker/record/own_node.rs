//! Our Node as the owner of what we write, so that it goes with the Node. Not the Pod, as in MetalLB: an owner is in the namespace of what
//! it owns, or in none, and pools need not be in ours.

use serde_json::{Value, json};

use super::lease::PATIENCE;
use crate::source::kube::{ApiRequest, ApiServers, RequestError};

/// `ownerReferences` for a new object; none where there is no Node of this name. A list of one, which takes no other right than the
/// watch of our Node.
pub(super) async fn owner_references(servers: &ApiServers, node: &str) -> Result<Value, RequestError> {
    let own = ApiRequest::get(format!("/api/v1/nodes?fieldSelector=metadata.name%3D{node}"));
    let list = servers.ask_within(own, PATIENCE).await?;
    let uid = list["items"][0]["metadata"]["uid"].as_str();
    Ok(uid.map_or_else(|| json!([]), |uid| json!([{ "apiVersion": "v1", "kind": "Node", "name": node, "uid": uid }])))
}
