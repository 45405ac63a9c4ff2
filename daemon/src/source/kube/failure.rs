//! What can go wrong between us and the API server, and what each thing asks for.

use std::error::Error;
use std::io;
use std::time::Duration;

use crate::source::decode::field::{Field, Text};
use crate::source::decode::wire::Document;

/// Of what a server has to say, this many bytes are repeated.
const LONGEST_MESSAGE: usize = 500;

/// Why a request or a stream of the API server came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection, or one that broke.
    #[error("API server {server} cannot be reached: {reason}")]
    Unreachable {
        /// Its URL.
        server: String,
        /// From the socket, TLS or HTTP. Never holds credentials.
        reason: String,
        /// No connection came about in the time that there was for it, name resolution included.
        too_slow: bool,
    },
    /// A connection on which nothing came for too long.
    #[error("API server {server} has been silent for {} s", after.as_secs())]
    Silent {
        /// Its URL.
        server: String,
        /// How long was waited.
        after: Duration,
    },
    /// An answer with a status other than success, or an ERROR event in a stream.
    #[error("API server refuses {what}: {code} {}", [reason.as_str(), message].join(": ").trim_matches([':', ' ']))]
    Refused {
        /// The resource asked for.
        what: &'static str,
        /// HTTP status code, or the code of the Status object.
        code: u16,
        /// Its machine-readable reason (`Expired`, `Forbidden`).
        reason: String,
        /// For a person.
        message: String,
        /// `Retry-After`, where the server named a time.
        retry_after: Option<Duration>,
    },
    /// The server ended a streaming list before its end was reached.
    #[error("API server ended the list of {what} before it was complete")]
    Unfinished {
        /// The resource asked for.
        what: &'static str,
    },
    /// A streaming list that stands still before its end.
    #[error("API server does not end the list of {what}: nothing more came of it for {} s", after.as_secs())]
    Unending {
        /// The resource asked for.
        what: &'static str,
        /// How long was waited for the next object.
        after: Duration,
    },
    /// An answer that makes no sense.
    #[error("answer of the API server makes no sense: {reason}")]
    Garbled {
        /// What is wrong with it.
        reason: String,
    },
    /// A successful answer that does not even begin as an object of Kubernetes does.
    #[error("answers with something that is not JSON ({begin:?}): is this an API server?")]
    NotJson {
        /// Its first line, cut.
        begin: String,
    },
    /// Nobody listens to the source any more.
    #[error("the daemon is stopping")]
    Closed,
}

/// What an outage is, so that it is reported once and not per retry and stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outage {
    /// This server as a whole: down, cut off, or failing. Of several each has its own reason.
    Server(String),
    /// It does not know us.
    Unauthorized,
    /// It throttles us.
    Throttled,
    /// It refuses this resource.
    Resource(&'static str),
}

impl Outage {
    /// Not of what was asked, or of who asked.
    pub(super) fn is_a_servers(&self) -> bool {
        matches!(self, Self::Server(_))
    }
}

impl Failure {
    /// From an error of the client.
    pub(super) fn of_client(server: &str, error: &kube::Error) -> Self {
        Self::Unreachable { server: server.to_owned(), reason: reason(error), too_slow: is_too_slow(error) }
    }

    /// From an answer that is no success, whose body may or may not be a Status.
    pub(super) fn of_status(what: &'static str, code: u16, status: &Document<'_>, retry_after: Option<Duration>) -> Self {
        let text = |field: &Field<Text<'_>>| {
            let text = field.get().map_or("", AsRef::as_ref);
            text[..text.floor_char_boundary(LONGEST_MESSAGE)].to_owned()
        };
        let told = status.details.get().and_then(|details| details.retry_after_seconds.get());
        let told = told.and_then(|&seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let mut reason = text(&status.reason);
        if reason.is_empty() {
            let usual = http::StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason());
            reason.push_str(usual.unwrap_or_default());
        }
        Self::Refused { what, code, reason, message: text(&status.message), retry_after: retry_after.or(told) }
    }

    /// The version asked for is gone, or not there yet (410; 504 "Too large resource version" of a server that lags behind the one
    /// we came from): only a list from the store itself helps.
    pub(super) fn is_expired(&self) -> bool {
        match self {
            Self::Refused { code: 410, .. } => true,
            Self::Refused { reason, .. } if reason == "Expired" || reason == "Gone" => true,
            Self::Refused { code: 504, message, .. } => message.contains("Too large resource version"),
            _ => false,
        }
    }

    /// The server does not stream lists: it says so by status (older than 1.27: `sendInitialEvents is forbidden`; or the gate is
    /// off), or by an ERROR event with code 500 inside a 200 (its etcd is too old), or never comes to the end.
    pub(super) fn refuses_streaming(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code, 400 | 403 | 405 | 406 | 415 | 422 | 500 | 501),
            Self::Unending { .. } => true,
            _ => false,
        }
    }

    /// The resource does not exist on this server.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Another server could do better.
    pub(super) fn is_the_servers(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Garbled { .. }
            | Self::NotJson { .. }
            | Self::Unfinished { .. }
            | Self::Unending { .. } => true,
            Self::Refused { code, .. } => *code >= 500,
            Self::Closed => false,
        }
    }

    /// It wants to be left alone, see [`Self::retry_after`].
    pub(super) fn is_throttling(&self) -> bool {
        matches!(self, Self::Refused { code: 429, .. })
    }

    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Nothing came back at all. The message names the server.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. })
    }

    /// What somebody should look at who sees this from the beginning on.
    pub(super) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::NotJson { .. } => Some("check --api-server or the kubeconfig"),
            Self::Refused { code: 400, message, .. } if message.contains("HTTP request to an HTTPS server") => {
                Some("it speaks TLS: check that the URL of --api-server or the kubeconfig begins with https://")
            }
            Self::Refused { code: 401, .. } => Some(
                "check the credentials: the token or certificate of the kubeconfig's user, or in a pod of its service account, is missing, \
                 expired or of another cluster",
            ),
            Self::Refused { code: 403, .. } => Some(
                "check RBAC: the user of these credentials needs the verbs list and watch for it, by a ClusterRole and its binding",
            ),
            Self::Refused { code: 404, .. } => Some(
                "check --api-server or the kubeconfig: at this URL, path included, is no API server, or none that has this resource",
            ),
            _ => None,
        }
    }

    /// What tells this failure from others of its outage, for comparison. Numbers do not: of a certificate they are the time of day.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Unreachable { reason, .. } => reason.chars().filter(|letter| !letter.is_ascii_digit()).collect(),
            Self::Silent { .. } => "silent".to_owned(),
            // A server in trouble answers now this and now that.
            Self::Refused { .. }
            | Self::Unfinished { .. }
            | Self::Unending { .. }
            | Self::Garbled { .. }
            | Self::NotJson { .. }
            | Self::Closed => "answer".to_owned(),
        }
    }

    /// `server` is the one that was asked.
    pub(super) fn outage(&self, server: &str) -> Outage {
        match self {
            Self::Refused { code: 401, .. } => Outage::Unauthorized,
            Self::Refused { code: 429, .. } => Outage::Throttled,
            Self::Refused { code, what, .. } if *code < 500 => Outage::Resource(what),
            _ => Outage::Server(server.to_owned()),
        }
    }
}

/// No connection came about in the time that there was for it, name resolution included.
fn is_too_slow(error: &kube::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        next = match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Service(inner)) => Some(&**inner),
            _ => error.source(),
        };
    }
    false
}

/// Why a name has no address, in the resolver's words.
pub(super) fn unresolved(error: &io::Error) -> String {
    let own = error.to_string();
    own.strip_prefix(LOOKUP).unwrap_or(&own).to_owned()
}

/// What the standard library puts before the resolver's words.
const LOOKUP: &str = "failed to lookup address information: ";

/// What went wrong, in the words of whoever knows best: the socket, TLS, the resolver. An error of obtaining credentials can quote the
/// output of a plugin: not repeated.
pub(super) fn reason(error: &kube::Error) -> String {
    let mut text = String::new();
    // The outermost error only says that there is one.
    let mut next: Option<&(dyn Error + 'static)> = match error {
        kube::Error::Service(inner) => Some(&**inner),
        other => Some(other),
    };
    while let Some(error) = next {
        if error.is::<kube::client::AuthError>() {
            return "credentials could not be obtained".into();
        }
        next = error.source();
        let own = match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
            Some(io::ErrorKind::TimedOut) => "no connection in time".to_owned(),
            _ if error.to_string() == "dns error" => "host name cannot be resolved".to_owned(),
            _ => error.to_string(),
        };
        let wraps = ["client error (", "tcp connect error"].iter().any(|wrapper| own.starts_with(wrapper)) && next.is_some();
        let own = own.strip_prefix(LOOKUP).map_or_else(|| in_plain_words(&own), ToOwned::to_owned);
        // Most errors already end in the words of their cause.
        if !wraps && !text.contains(&own) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&own);
        }
    }
    text
}

/// What TLS and HTTP say of each other, for whoever has mixed them up.
fn in_plain_words(own: &str) -> String {
    match own {
        "received corrupt message of type InvalidContentType" => "it does not speak TLS at this port, as https:// wants it to",
        "invalid HTTP version parsed" => "it does not speak HTTP at this port, perhaps TLS, which is https://",
        other => other,
    }
    .to_owned()
}
