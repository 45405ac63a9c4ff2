//! The HTTP side: connections, who may ask, and which handler answers.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use sheave::model::ObjectKey;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::body::Body;
use super::cluster::{Deleted, Part};
use super::discovery;
use super::fault::{Effect, Traits};
use super::gate::Gate;
use super::list::Page;
use super::patch::Patch;
use super::resource::Resource;
use super::route::{Query, ResourcePath, Verb};
use super::selector::Selector;
use super::status::Status;
use super::store::{Table, TableId};
use super::watch;

/// The real server's limit of a request body.
const MAX_BODY: usize = 3 << 20;

/// No answer at all: the connection is closed. What a fault ordered, or a client that went away while it was sending.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed without an answer")]
pub(super) struct HangUp;

/// A request that was understood.
struct Call<'a> {
    verb: Verb,
    table: TableId,
    resource: Arc<Resource>,
    path: &'a ResourcePath,
    query: &'a Query,
    content_type: String,
    body: Bytes,
    effects: Vec<Effect>,
}

/// Accepts until the server ends, on a thread of its own. A listener that is shut down and listens again cannot be left to the
/// runtime: readiness that once said "closed" says so for ever there, and a poll of `accept` that finds nothing then never ends.
pub(super) fn accept(gate: &Gate, listener: &TcpListener, accepted: &UnboundedSender<TcpStream>) {
    while gate.wait_open() {
        match listener.accept() {
            Ok((stream, _)) => {
                if accepted.send(stream).is_err() {
                    return;
                }
            }
            // The listener was just shut down, which the gate knows already, or descriptors ran out: let others give some back.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Serves the connections until the server ends.
pub(super) async fn serve(shared: Arc<Shared>, mut accepted: UnboundedReceiver<TcpStream>, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            stream = accepted.recv() => stream,
        };
        let Some(stream) = stream else { return };
        // One that cannot be served was closed by its client already.
        let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            tokio::spawn(connection(shared.clone(), stream, stop.clone()));
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: tokio::net::TcpStream, stop: CancellationToken) {
    // Events are small and must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let cut = shared.connections();
    let serving = shared.clone();
    let service = service_fn(move |request| answer(serving.clone(), request));
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = connection => if let Err(error) = result { tracing::debug!(%error, "connection ended") },
        () = cut.cancelled() => {}
        () = stop.cancelled() => {}
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, HangUp> {
    match handle(&shared, request).await {
        Ok(response) => Ok(response),
        Err(Refused::Status(status)) => Ok(status_response(&status)),
        Err(Refused::HangUp) => Err(HangUp),
    }
}

/// Why a request has no ordinary answer.
enum Refused {
    Status(Box<Status>),
    HangUp,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

async fn handle(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
    let text = |name: header::HeaderName| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (authorization, content_type) = (text(header::AUTHORIZATION), text(header::CONTENT_TYPE));
    if shared.token.as_ref().is_some_and(|token| authorization != format!("Bearer {token}")) {
        return Err(Status::unauthorized().into());
    }
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if let Some(answer) = discovery::answer(shared, &path) {
        return Ok(answer);
    }
    let Some(path) = ResourcePath::parse(&path) else { return Ok(not_found_page()) };
    let found = {
        let cluster = shared.cluster();
        cluster.store.find(&path.group, &path.version, &path.plural).map(|table| (table, cluster.store.resource(table)))
    };
    let Some((table, resource)) = found else { return Ok(not_found_page()) };
    let verb = path.verb(request.method(), &query).filter(|verb| path.fits(&resource, *verb));
    let verb = verb.ok_or_else(Status::method_not_allowed)?;
    shared.count(verb, &resource);
    let streaming_list = verb == Verb::Watch && query.flag("sendInitialEvents");
    let effects = shared.faults().take(verb, &resource, Traits { streaming_list, continues: !query.get("continue").is_empty() });
    for effect in &effects {
        match effect {
            Effect::Delay(time) => tokio::time::sleep(*time).await,
            Effect::HangUp => return Err(Refused::HangUp),
            Effect::Answer { code, retry_after } => return Ok(fault_response(*code, *retry_after)),
            _ => {}
        }
    }
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Status::new(413, "RequestEntityTooLarge", format!("limit is {MAX_BODY}")).into());
        }
        Err(_) => return Err(Refused::HangUp),
    };
    let call = Call { verb, table, resource, path: &path, query: &query, content_type, body, effects };
    Ok(call.dispatch(shared)?)
}

impl Call<'_> {
    fn dispatch(&self, shared: &Arc<Shared>) -> Result<Response<Body>, Status> {
        let ResourcePath { namespace, name, subresource, .. } = self.path;
        let key = ObjectKey::new(namespace, name);
        let part = if subresource == "status" { Part::Status } else { Part::Object };
        if self.verb == Verb::Watch {
            let body = watch::start(shared, self.table, namespace, self.query, &self.effects)?;
            return Ok(json_response(StatusCode::OK, body));
        }
        let mut cluster = shared.cluster();
        let (code, body) = match self.verb {
            Verb::Get => (StatusCode::OK, Body::text(cluster.store.get(self.table, &key)?.to_bytes(&self.resource))),
            Verb::List => {
                let page = Page::read(&cluster.store, self.table, namespace, self.query, &self.effects)?;
                (StatusCode::OK, page.into_body(&self.resource))
            }
            Verb::Create => {
                let created = cluster.create(self.table, namespace, self.object()?)?;
                (StatusCode::CREATED, Body::text(created.to_bytes(&self.resource)))
            }
            Verb::Update => {
                let updated = cluster.update(self.table, &key, self.object()?, part)?;
                (StatusCode::OK, Body::text(updated.to_bytes(&self.resource)))
            }
            Verb::Patch => {
                let patch = Patch::parse(&self.content_type, &self.body)?;
                let (patched, created) = cluster.patch(self.table, &key, &patch, part)?;
                let code = if created { StatusCode::CREATED } else { StatusCode::OK };
                (code, Body::text(patched.to_bytes(&self.resource)))
            }
            Verb::Delete => {
                let options = if self.body.is_empty() { Value::Null } else { self.object()? };
                let body = match cluster.delete(self.table, &key, &options)? {
                    Deleted::Gone { uid } => {
                        let mut details = json!({"name": name, "kind": self.resource.plural, "uid": uid});
                        if !self.resource.group.is_empty() {
                            details["group"] = json!(self.resource.group);
                        }
                        let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
                        Body::text(done.to_string())
                    }
                    Deleted::Pending(object) => Body::text(object.to_bytes(&self.resource)),
                };
                (StatusCode::OK, body)
            }
            Verb::DeleteCollection => {
                let selector = Selector::parse(&self.resource, self.query.get("labelSelector"), self.query.get("fieldSelector"))?;
                let page = Page::read(&cluster.store, self.table, namespace, self.query, &[])?;
                let objects = &cluster.store.table(self.table).objects;
                let selected = Table::range(objects, namespace, "").filter(|(_, object)| selector.matches(object));
                let keys: Vec<ObjectKey> = selected.map(|(key, _)| key.clone()).collect();
                for key in keys {
                    cluster.delete(self.table, &key, &Value::Null)?;
                }
                (StatusCode::OK, page.into_body(&self.resource))
            }
            Verb::Watch => return Err(Status::method_not_allowed()),
        };
        drop(cluster);
        shared.active();
        Ok(json_response(code, body))
    }

    /// The request's body as an object.
    fn object(&self) -> Result<Value, Status> {
        let content_type = self.content_type.split(';').next().unwrap_or_default().trim();
        if !matches!(content_type, "" | "application/json") {
            return Err(Status::unsupported_media_type(content_type));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let Resource { kind, version, .. } = &*self.resource;
            Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: json: {error}"))
        })
    }
}

pub(super) fn json_response(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

pub(super) fn plain_response(code: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = json_response(code, Body::text(text));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// What a group, a version or a path that is not served gets: not a Status, but Go's own page.
fn not_found_page() -> Response<Body> {
    plain_response(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn status_response(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_response(code, Body::text(format!("{}\n", status.to_json())));
    if let Some(seconds) = status.details["retryAfterSeconds"].as_u64() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn fault_response(code: u16, retry_after: Option<u32>) -> Response<Body> {
    let mut response = match code {
        // Priority and fairness answers in plain text.
        429 => plain_response(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n"),
        503 => status_response(&Status::new(503, "ServiceUnavailable", "the server is currently unable to handle the request")),
        500 => status_response(&Status::new(500, "InternalError", "Internal error occurred: ordered by a test")),
        other => status_response(&Status::new(other, "", "ordered by a test")),
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
