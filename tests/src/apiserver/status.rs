//! `metav1.Status`: how the API says no. Texts are the real server's own, because people and clients match on them.

use serde_json::{Value, json};

use super::resource::Resource;

/// A refusal, with everything a client sees of it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status, repeated in the body.
    pub code: u16,
    /// Machine-readable reason: `NotFound`, `Conflict`, `Expired`, ... Empty for none.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details`: name, group, kind, causes, retryAfterSeconds; `Null` for none.
    pub details: Value,
    /// `metadata.continue`: where an expired paged list may go on, at the price of consistency.
    pub continue_token: Option<String>,
}

/// One field that was refused, a `details.causes[]` of a 422.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    reason: &'static str,
    field: String,
    message: String,
}

/// Text of a 410 for a continue token whose version is no longer there (apiserver `storage/etcd3/errors.go`).
const INCONSISTENT_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new \
     list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing \
     with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first \
     chunk was returned and now may show up in the list.";

impl Status {
    /// A refusal without details.
    #[must_use]
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null, continue_token: None }
    }

    fn about(code: u16, reason: &'static str, message: String, resource: &Resource, name: &str) -> Self {
        Self { details: details(name, &resource.group, &resource.plural), ..Self::new(code, reason, message) }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(super) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::about(404, "NotFound", format!("{} \"{name}\" not found", resource.name()), resource, name)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(super) fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::about(409, "AlreadyExists", format!("{} \"{name}\" already exists", resource.name()), resource, name)
    }

    pub(super) fn conflict(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::about(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.name()),
            resource,
            name,
        )
    }

    pub(super) fn unsupported_media_type(given: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: application/merge-patch+json, \
             application/strategic-merge-patch+json, application/apply-patch+yaml (got {given:?})"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422 of an object: every refused field at once, as the API reports them.
    pub(super) fn invalid(resource: &Resource, name: &str, causes: &[Cause]) -> Self {
        Self::invalid_kind(&resource.kind, &resource.group, name, causes)
    }

    /// 422 of the query of a list or a watch.
    pub(super) fn invalid_options(field: &str, why: &str) -> Self {
        let cause = Cause { reason: "FieldValueForbidden", field: field.to_owned(), message: format!("Forbidden: {why}") };
        Self::invalid_kind("ListOptions", "meta.k8s.io", "", &[cause])
    }

    fn invalid_kind(kind: &str, group: &str, name: &str, causes: &[Cause]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let each: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let text = if let [one] = each.as_slice() { one.clone() } else { format!("[{}]", each.join(", ")) };
        let causes: Vec<Value> =
            causes.iter().map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field})).collect();
        let mut details = details(name, group, kind);
        details["causes"] = Value::Array(causes);
        Self { details, ..Self::new(422, "Invalid", format!("{qualified} \"{name}\" is invalid: {text}")) }
    }

    /// 410 of a list at a version that is compacted.
    pub(super) fn expired_list() -> Self {
        Self::new(410, "Expired", "The resourceVersion for the provided list is too old.")
    }

    /// 410 of a continue token, with a token that goes on at the present state.
    pub(super) fn expired_continue(token: String) -> Self {
        Self { continue_token: Some(token), ..Self::new(410, "Expired", INCONSISTENT_CONTINUE) }
    }

    /// 410 of a watch, in an ERROR event: asked from `version`, oldest kept is `oldest`.
    pub(super) fn expired_watch(version: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {version} ({oldest})"))
    }

    /// 504 of a version that this server has not reached (`NewTooLargeResourceVersionError` of the apiserver's `storage`).
    pub(super) fn too_large_version(version: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {version}, current: {current}");
        let causes = json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        Self { details: json!({"causes": causes, "retryAfterSeconds": 1}), ..Self::new(504, "Timeout", message) }
    }

    /// The Status object of the body.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            body["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            body["details"] = self.details.clone();
        }
        if let Some(token) = &self.continue_token {
            body["metadata"]["continue"] = token.as_str().into();
        }
        body
    }
}

impl Cause {
    pub(super) fn invalid(field: impl Into<String>, value: &Value, why: impl AsRef<str>) -> Self {
        let message = format!("Invalid value: {value}: {}", why.as_ref());
        Self { reason: "FieldValueInvalid", field: field.into(), message }
    }

    pub(super) fn required(field: impl Into<String>) -> Self {
        Self { reason: "FieldValueRequired", field: field.into(), message: "Required value".to_owned() }
    }

    pub(super) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {why}") }
    }

    pub(super) fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }
}

/// `details` with what is known: an empty name or group is left out.
fn details(name: &str, group: &str, kind: &str) -> Value {
    let mut details = serde_json::Map::new();
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details.insert(key.to_owned(), value.into());
        }
    }
    Value::Object(details)
}
