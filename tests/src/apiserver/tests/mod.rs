//! The double against the recordings of a real API server, against kube's own client, and in all its faults.

mod clients;
mod faults;
mod recording;
mod replay;
mod semantics;

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;

use super::{ApiServer, Config};

/// Longer than any of this takes on a loaded machine, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// An HTTP client of an API server, without opinions on what it answers.
#[derive(Clone)]
struct Client(kube::Client);

/// The lines of a stream as they come.
struct Lines {
    body: Body,
    buffer: Vec<u8>,
}

impl Client {
    fn new(url: &str, token: Option<&str>) -> Self {
        let mut config = kube::Config::new(url.parse().unwrap());
        config.accept_invalid_certs = true;
        // What the server says is the matter here, not what a patient client makes of it.
        config.default_retry = false;
        config.auth_info.token = token.map(|token| token.to_owned().into());
        Self(kube::Client::try_from(config).unwrap())
    }

    fn of(server: &ApiServer) -> Self {
        Self::new(&server.url(), None)
    }

    async fn send(&self, method: &str, path: &str, content_type: &str, body: &str) -> Result<Response<Body>, kube::Error> {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        self.0.send(request.body(Body::from(body.as_bytes().to_vec())).unwrap()).await
    }

    async fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.send(method, path, content_type, &text).await.unwrap();
        let code = response.status().as_u16();
        let text = text_of(response).await;
        (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.json("GET", path, &Value::Null).await
    }

    async fn watch(&self, path: &str) -> Lines {
        let response = self.send("GET", path, "", "").await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        Lines::new(response)
    }
}

async fn text_of(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

impl Lines {
    fn new(response: Response<Body>) -> Self {
        Self { body: response.into_body(), buffer: Vec::new() }
    }

    /// `None` at a proper end.
    async fn next(&mut self) -> Result<Option<Value>, kube::Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).unwrap()));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("the stream says nothing");
            match frame {
                None => {
                    assert!(self.buffer.is_empty(), "half a line at the end: {}", String::from_utf8_lossy(&self.buffer));
                    return Ok(None);
                }
                Some(frame) => self.buffer.extend_from_slice(&frame?.into_data().unwrap_or_default()),
            }
        }
    }

    /// `ADDED web`, `BOOKMARK`, ...
    async fn next_event(&mut self) -> Result<Option<String>, kube::Error> {
        let event = self.next().await?;
        Ok(event.map(|event| {
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            format!("{} {name}", event["type"].as_str().unwrap()).trim_end().to_owned()
        }))
    }

    /// All that is left until a proper end.
    async fn rest(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(event) = self.next_event().await.unwrap() {
            events.push(event);
        }
        events
    }
}

fn service(name: &str) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
}

fn start() -> (ApiServer, Client) {
    let server = ApiServer::start(Config::default()).unwrap();
    let client = Client::of(&server);
    (server, client)
}
