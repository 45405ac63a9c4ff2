//! What `:10249` answers: kube-proxy's paths, and readiness.

use std::sync::Arc;

use http::{Method, StatusCode};
use tokio::sync::watch;

use super::{Metrics, exposition};
use crate::health::ProxyHealth;
use crate::http_server::{Answer, Reply, Request, reply, text};
use crate::log_filter::LogFilter;

/// Answers on the metrics port.
pub(crate) struct Admin {
    parts: AdminParts,
}

/// What it has to tell.
pub(crate) struct AdminParts {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<ProxyHealth>,
    /// As in `--plane`; what kube-proxy calls its mode.
    pub(crate) plane: &'static str,
    /// The configuration in force, as `/configz` tells it.
    pub(crate) configz: watch::Receiver<serde_json::Value>,
    pub(crate) log: LogFilter,
}

impl Admin {
    pub(crate) fn new(parts: AdminParts) -> Self {
        Self { parts }
    }

    fn ready(&self) -> Reply {
        match self.parts.health.look().unready() {
            None => text(StatusCode::OK, "ok"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    }

    /// `/debug/flags/v`: kube-proxy's way to change the log level of a process that runs. Whoever scrapes metrics from afar has no
    /// business with it.
    fn log_level(&self, request: &Request<'_>) -> Reply {
        match *request.method {
            Method::GET => text(StatusCode::OK, format!("{}\n", self.parts.log.current())),
            Method::PUT if request.peer.is_some_and(|peer| !peer.ip().to_canonical().is_loopback()) => {
                text(StatusCode::FORBIDDEN, "the log level is changed from the node itself only\n")
            }
            Method::PUT => match self.parts.log.set(String::from_utf8_lossy(request.body).trim()) {
                Ok(filter) => text(StatusCode::OK, format!("successfully set the log filter to {filter}\n")),
                Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            },
            _ => text(StatusCode::NOT_ACCEPTABLE, "unsupported http method\n"),
        }
    }
}

impl Answer for Admin {
    fn answer(&self, request: &Request<'_>) -> Reply {
        if request.path == "/debug/flags/v" {
            return self.log_level(request);
        }
        if !matches!(*request.method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match request.path {
            "/metrics" => reply(StatusCode::OK, exposition::CONTENT_TYPE, self.parts.metrics.text()),
            "/proxyMode" => text(StatusCode::OK, self.parts.plane),
            "/configz" => reply(StatusCode::OK, "application/json", self.parts.configz.borrow().to_string()),
            // The process answers: that is all that kube-proxy's says, too.
            "/healthz" => text(StatusCode::OK, "ok"),
            "/readyz" => self.ready(),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }
}
