//! Single requests: what is read to be changed, and written.
//!
//! A watch is followed for ever and reports its own outages; a request is somebody's, who waits for it, and says himself what it means
//! that it failed.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::timeout;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::connect::ApiServers;
use super::failure::reason;

/// For an answer: longer than a busy server lets a request wait before it refuses it (15 s) would be longer than a Lease lasts.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Vec<u8>,
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Somebody else has changed the object since it was read, or has just made one of this name (409).
    #[error("{request}: conflict: {message}")]
    Conflict {
        /// Method and path.
        request: String,
        /// From the server.
        message: String,
    },
    /// There is no such object, or no such resource (404).
    #[error("{request}: not found: {message}")]
    NotFound {
        /// Method and path.
        request: String,
        /// From the server.
        message: String,
    },
    /// Any other refusal.
    #[error("{request}: refused: {code} {reason}: {message}")]
    Refused {
        /// Method and path.
        request: String,
        /// HTTP status code.
        code: u16,
        /// For machines: `Forbidden`.
        reason: String,
        /// For a person.
        message: String,
    },
    /// No connection, or an answer that made no sense.
    #[error("{request}: {reason}")]
    Failed {
        /// Method and path.
        request: String,
        /// From the client.
        reason: String,
    },
    /// Nothing came. The request may have been carried out all the same.
    #[error("{request}: no answer within {} s", after.as_secs_f64())]
    Silent {
        /// Method and path.
        request: String,
        /// How long was waited.
        after: Duration,
    },
}

impl ApiRequest {
    /// Reads an object.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), content_type: "application/json", body: Vec::new() }
    }

    /// Makes an object.
    #[must_use]
    pub fn post(path: impl Into<String>, object: &Value) -> Self {
        Self { method: Method::POST, ..Self::get(path).with(object) }
    }

    /// Takes an object away.
    #[must_use]
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    /// Replaces an object, or its status; with the `resourceVersion` in it, only that version.
    #[must_use]
    pub fn put(path: impl Into<String>, object: &Value) -> Self {
        Self { method: Method::PUT, ..Self::get(path).with(object) }
    }

    /// Server-side apply. The manager's fields are his, whoever wrote them before.
    #[must_use]
    pub fn apply(path: &str, manager: &str, object: &Value) -> Self {
        let request = Self::get(format!("{path}?fieldManager={manager}&force=true")).with(object);
        Self { method: Method::PATCH, content_type: "application/apply-patch+yaml", ..request }
    }

    fn with(self, object: &Value) -> Self {
        // Every JSON is YAML, and can be written down.
        Self { body: object.to_string().into_bytes(), ..self }
    }

    fn shown(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

impl ApiServers {
    /// Asks the server in use, once. One that cannot be reached is given up for the next, which a repetition asks.
    ///
    /// # Errors
    /// Anything but a success.
    pub async fn ask(&self, request: ApiRequest) -> Result<Value, RequestError> {
        self.ask_within(request, PATIENCE).await
    }

    /// The same for somebody who has less time, or more.
    ///
    /// # Errors
    /// Anything but a success.
    pub async fn ask_within(&self, request: ApiRequest, patience: Duration) -> Result<Value, RequestError> {
        let (place, server) = self.current();
        let shown = request.shown();
        let failed = |reason: String| RequestError::Failed { request: shown.clone(), reason };
        let ApiRequest { method, path, content_type, body } = request;
        let built = http::Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, content_type).body(body);
        let built = built.map_err(|error| failed(error.to_string()))?;
        // The client would log an ERROR for every failed attempt.
        match timeout(patience, server.client.request::<Value>(built).with_subscriber(NoSubscriber::new())).await {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(kube::Error::Api(status))) => {
                let (code, reason, message) = (status.code, status.reason, status.message);
                Err(match StatusCode::from_u16(code) {
                    Ok(StatusCode::CONFLICT) => RequestError::Conflict { request: shown, message },
                    Ok(StatusCode::NOT_FOUND) => RequestError::NotFound { request: shown, message },
                    Ok(_) | Err(_) => RequestError::Refused { request: shown, code, reason, message },
                })
            }
            Ok(Err(error)) => {
                self.give_up_on(place);
                Err(failed(reason(&error)))
            }
            Err(_) => {
                self.give_up_on(place);
                Err(RequestError::Silent { request: shown, after: patience })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_named_by_its_method_and_path() {
        let put = ApiRequest::put("/api/v1/namespaces/a/services/b/status", &json!({}));
        assert_eq!(put.shown(), "PUT /api/v1/namespaces/a/services/b/status");
        let apply = ApiRequest::apply("/x", "me", &json!({"a": 1}));
        assert_eq!((apply.shown().as_str(), &apply.body[..]), ("PATCH /x?fieldManager=me&force=true", &br#"{"a":1}"#[..]));
    }
}
