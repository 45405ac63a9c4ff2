//! What probes are told of the controller.

use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;

use crate::http_server::{Answer, Reply, Request, text};

/// What this replica is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The Lease has not been seen yet, or was lost a moment ago.
    #[default]
    Starting,
    /// Another one leads. Ready: it would take over at any time.
    Following {
        /// `holderIdentity` of the Lease; empty for a moment after it was released.
        leader: String,
    },
    /// This one does.
    Leading {
        /// Everything has been listed, and is decided upon.
        listed: bool,
    },
}

/// What probes are told.
#[derive(Debug, Default)]
pub struct ControllerHealth {
    role: Mutex<Role>,
}

/// Answers `/healthz` and `/readyz`.
pub(crate) struct ControllerProbes(pub(crate) Arc<ControllerHealth>);

impl ControllerHealth {
    /// As of now.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, role: Role) {
        *self.role.lock().unwrap_or_else(PoisonError::into_inner) = role;
    }
}

impl Answer for ControllerProbes {
    fn answer(&self, request: &Request<'_>) -> Reply {
        match (request.path, self.0.role()) {
            // The process answers. An API server that is away is mended by no restart.
            ("/healthz" | "/livez", _) | ("/readyz", Role::Leading { listed: true } | Role::Following { .. }) => {
                text(StatusCode::OK, "ok")
            }
            ("/readyz", Role::Starting) => text(StatusCode::SERVICE_UNAVAILABLE, "the lease has not been seen yet\n"),
            ("/readyz", Role::Leading { listed: false }) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not everything is listed, or it is not said which namespace's pools count\n",
            ),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }
}
