//! Every exchange of `tests/recordings`, in order, against the double, or a real API server.
//!
//! With `SHEAVE_TEST_APISERVER=URL` (and `SHEAVE_TEST_TOKEN`) the second test runs against that server, in a namespace of its own,
//! which it removes. What differs by nature is compared by kind instead of value: uids, times, resourceVersions (which must be
//! consistent: the same one recorded is the same one now), allocated addresses and ports, continue tokens. managedFields are not.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::recording::{Exchange, parse};
use super::{Client, Lines, service, text_of};
use crate::apiserver::{ApiServer, Config, Effect, Fault, Refusal, Verb};

const TOKEN: &str = "the-right-one";

macro_rules! recording {
    ($name:literal) => {
        parse(include_str!(concat!("../../../recordings/", $name, ".http")))
    };
}

struct Replay {
    client: Client,
    stranger: Client,
    /// Where the recorded namespace `default` is played; recorded requests of all namespaces are then of this one.
    namespace: Option<String>,
    /// Recorded to present: versions and uids of objects, each one's only value.
    versions: HashMap<String, String>,
    uids: HashMap<String, String>,
    /// Recorded to present: versions of lists, the latest ones.
    lists: HashMap<String, String>,
    tokens: HashMap<String, String>,
}

impl Replay {
    fn new(url: &str, token: &str, namespace: Option<&str>) -> Self {
        Self {
            client: Client::new(url, Some(token)),
            stranger: Client::new(url, Some("a-wrong-one")),
            namespace: namespace.map(str::to_owned),
            versions: HashMap::new(),
            uids: HashMap::new(),
            lists: HashMap::new(),
            tokens: HashMap::new(),
        }
    }

    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    fn services(&self) -> String {
        format!("/api/v1/namespaces/{}/services", self.namespace())
    }

    /// The recorded names that are cluster-wide must not meet somebody else's.
    fn localised(&self, text: &str) -> String {
        self.namespace.as_ref().map_or_else(|| text.to_owned(), |namespace| text.replace("node-a", &format!("{namespace}-node")))
    }

    async fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        let (code, answer) = self.client.json(method, path, body).await;
        assert!((200..300).contains(&code), "{method} {path}: {answer}");
        answer
    }

    async fn send(&self, exchange: &Exchange, path: &str) -> http::Response<kube::client::Body> {
        let mut body = self.localised(&exchange.body);
        if !body.is_empty() {
            let mut value: Value = serde_json::from_str(&body).unwrap();
            let metadata = &mut value["metadata"];
            if let Some(known) = metadata["resourceVersion"].as_str().and_then(|recorded| self.versions.get(recorded)) {
                metadata["resourceVersion"] = known.as_str().into();
            }
            if let Some(known) = metadata["uid"].as_str().and_then(|recorded| self.uids.get(recorded)) {
                metadata["uid"] = known.as_str().into();
            }
            if metadata["namespace"] == "default" {
                metadata["namespace"] = self.namespace().into();
            }
            body = value.to_string();
        }
        let client = if exchange.wrong_token { &self.stranger } else { &self.client };
        client.send(&exchange.method, path, &exchange.content_type, &body).await.unwrap()
    }

    /// A recorded path with the present's namespace, versions and tokens.
    fn path(&self, recorded: &str) -> String {
        let (path, query) = recorded.split_once('?').unwrap_or((recorded, ""));
        let query = self.localised(query);
        let mut path = path.replace("/namespaces/default/", &format!("/namespaces/{}/", self.namespace()));
        if self.namespace.is_some() {
            for plural in ["services", "endpointslices"] {
                path = path.replace(&format!("/v1/{plural}"), &format!("/v1/namespaces/{}/{plural}", self.namespace()));
            }
        }
        let present = |part: &str| match part.split_once('=') {
            Some(("resourceVersion", version)) => {
                format!(
                    "resourceVersion={}",
                    self.lists.get(version).or_else(|| self.versions.get(version)).map_or(version, |v| v)
                )
            }
            Some(("continue", token)) => format!("continue={}", self.tokens[token].replace(':', "%3A").replace('/', "%2F")),
            _ => part.to_owned(),
        };
        let query: Vec<String> = query.split('&').filter(|part| !part.is_empty()).map(present).collect();
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }

    async fn replay(&mut self, exchange: &Exchange) {
        let what = format!("{} {}", exchange.method, exchange.path);
        let response = self.send(exchange, &self.path(&exchange.path)).await;
        let answer_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        let status = response.status().as_u16();
        let text = text_of(response).await;
        assert_eq!((status, answer_type.as_str()), (exchange.status, exchange.answer_type.as_str()), "{what}: {text}");
        let recorded = exchange.lines.concat();
        match serde_json::from_str(&recorded) {
            Ok(recorded) => self.compare(&what, &recorded, &serde_json::from_str(&text).unwrap()),
            Err(_) => assert_eq!(text.trim_end(), recorded, "{what}"),
        }
    }

    async fn replay_all(&mut self, exchanges: &[Exchange]) {
        for exchange in exchanges {
            self.replay(exchange).await;
        }
    }

    /// A watch during which `changes` happen. Bookmarks come when they come: what is compared of them is their form, and that
    /// there is one at the end where one was recorded.
    async fn replay_watch(&mut self, exchange: &Exchange, changes: Vec<(&str, String, Value)>) {
        let timed = exchange
            .path
            .split('&')
            .map(|part| if part.starts_with("timeoutSeconds=") && changes.is_empty() { "timeoutSeconds=1" } else { part });
        let path = self.path(&timed.collect::<Vec<_>>().join("&"));
        let response = self.send(exchange, &path).await;
        assert_eq!(response.status().as_u16(), exchange.status, "{path}");
        assert_eq!(response.headers()["content-type"].to_str().unwrap(), exchange.answer_type, "{path}");
        let quiet = changes.is_empty();
        for (method, path, body) in changes {
            self.must(method, &path, &body).await;
        }
        let plain = |event: &Value| event["type"] == "BOOKMARK" && event["object"]["metadata"]["annotations"].is_null();
        let recorded: Vec<Value> = exchange.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut lines = Lines::new(response);
        for expected in recorded.iter().filter(|event| !plain(event)) {
            let actual = loop {
                let event = lines.next().await.unwrap().unwrap_or_else(|| panic!("{path} ended before {expected}"));
                if !plain(&event) {
                    break event;
                }
            };
            self.compare(&path, expected, &actual);
        }
        if let Some(expected) = recorded.last().filter(|event| plain(event)) {
            let actual = lines.next().await.unwrap().unwrap();
            self.compare(&path, expected, &actual);
        }
        while let Some(event) = if quiet { lines.next().await.unwrap() } else { None } {
            assert!(plain(&event) && path.contains("allowWatchBookmarks"), "{path} goes on with {event}");
        }
    }

    fn compare(&mut self, what: &str, recorded: &Value, actual: &Value) {
        match (recorded, actual) {
            (Value::Object(old), Value::Object(new)) => {
                let keys = |map: &serde_json::Map<String, Value>| -> Vec<String> {
                    map.keys().filter(|key| *key != "managedFields").cloned().collect()
                };
                let (mut expected, mut found) = (keys(old), keys(new));
                expected.sort();
                found.sort();
                assert_eq!(expected, found, "{what}: {recorded}\n{actual}");
                for key in expected {
                    let what = format!("{what}: {key}");
                    let is_object = old.contains_key("uid");
                    self.compare_member(&what, &key, &old[&key], &new[&key], is_object);
                }
            }
            (Value::Array(old), Value::Array(new)) => {
                assert_eq!(old.len(), new.len(), "{what}: {recorded}\n{actual}");
                for (old, new) in old.iter().zip(new) {
                    self.compare(what, old, new);
                }
            }
            (Value::String(old), Value::String(new)) => assert_eq!(&self.localised(old), new, "{what}"),
            _ => assert_eq!(recorded, actual, "{what}"),
        }
    }

    fn compare_member(&mut self, what: &str, key: &str, recorded: &Value, actual: &Value, is_object: bool) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match key {
            "uid" => {
                let known = self.uids.entry(text(recorded)).or_insert_with(|| text(actual));
                assert_eq!((known.as_str(), known.len()), (text(actual).as_str(), 36), "{what}");
            }
            "resourceVersion" if is_object => {
                let known = self.versions.entry(text(recorded)).or_insert_with(|| text(actual));
                assert_eq!(known, &text(actual), "{what}: two versions where one was recorded");
            }
            "resourceVersion" => {
                assert!(text(actual).parse::<u64>().is_ok(), "{what}: {actual}");
                self.lists.insert(text(recorded), text(actual));
            }
            "continue" => drop(self.tokens.insert(text(recorded), text(actual))),
            "creationTimestamp" | "lastTransitionTime" => {
                assert!(text(actual).len() == 20 && text(actual).parse::<jiff::Timestamp>().is_ok(), "{what}: {actual}");
            }
            "clusterIP" | "clusterIPs" | "cidrs" => assert_eq!(shape(recorded), shape(actual), "{what}"),
            "nodePort" => assert!(actual.as_u64().is_some_and(|port| (30_000..=32_767).contains(&port)), "{what}: {actual}"),
            // The Service `kubernetes` leads to the API server's own port.
            "targetPort" if *recorded == json!(16_443) => assert!(actual.is_u64(), "{what}: {actual}"),
            "namespace" => assert_eq!(text(recorded).replace("default", self.namespace()), text(actual), "{what}"),
            _ => self.compare(what, recorded, actual),
        }
    }

    /// The whole story in the order in which it was recorded.
    async fn run(&mut self, double: Option<&ApiServer>) {
        let (services, namespace) = (self.services(), self.namespace().to_owned());
        self.replay_all(&recording!("01-create")).await;
        for n in 0..5 {
            let mut one = service(&format!("s{n}"));
            one["metadata"]["namespace"] = namespace.as_str().into();
            self.must("POST", &services, &one).await;
        }
        self.replay_all(&recording!("02-list-selectors")).await;
        self.replay_all(&recording!("03-list-paged")).await;
        self.replay_all(&recording!("04-list-rv0")).await;

        let w1 = format!("{services}/w1");
        let mut new = service("w1");
        new["metadata"]["namespace"] = namespace.as_str().into();
        let label = |name: &str, value: Value| json!({"metadata": {"labels": {name: value}}});
        let proxy_name = "service.kubernetes.io/service-proxy-name";
        let changes = vec![
            ("POST", services.clone(), new),
            ("PATCH", w1.clone(), label("a", "b".into())),
            ("PATCH", w1.clone(), label(proxy_name, "other".into())),
            ("PATCH", w1.clone(), label(proxy_name, Value::Null)),
            ("DELETE", w1, Value::Null),
        ];
        self.replay_watch(&recording!("05-watch")[0], changes).await;
        self.replay_watch(&recording!("06-streaming-list")[0], Vec::new()).await;

        let slice = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/web-a");
        let conditions = json!({"ready": false, "serving": true, "terminating": true});
        let endpoint = json!({"addresses": ["10.0.0.1"], "conditions": conditions, "nodeName": self.localised("node-a")});
        let endpoints = json!({"endpoints": [endpoint]});
        self.replay_watch(&recording!("07-watch-endpointslices")[0], vec![("PATCH", slice, endpoints)]).await;
        self.replay_all(&recording!("08-status")).await;

        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": 5, "renewTime": "2026-01-01T00:00:00.000000Z"}});
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        let lease = self.must("POST", &path, &lease).await;
        let text = |name: &str| lease["metadata"][name].as_str().unwrap().to_owned();
        self.versions.insert("243".to_owned(), text("resourceVersion"));
        self.uids.insert("51ce7fee-20c4-4a11-adec-352d98596d09".to_owned(), text("uid"));
        self.replay_all(&recording!("09-lease")).await;
        self.replay_all(&recording!("10-expired")).await;
        self.replay_watch(&recording!("11-watch-from-old-version")[0], Vec::new()).await;
        self.replay_all(&recording!("12-errors")).await;
        self.replay_all(&recording!("13-node")).await;

        // A refusal cannot be ordered from a real server.
        if let Some(double) = double {
            let fault = Fault::new(Effect::RefuseStreamingLists(Refusal::ErrorEvent)).on(Verb::Watch, "services").times(1);
            double.inject(fault);
            self.replay_watch(&recording!("14-streaming-list-refused")[0], Vec::new()).await;
        }
    }
}

/// What an address is, not which.
fn shape(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(text) if text.parse::<IpAddr>().is_ok() => "an address".into(),
        Value::String(text) if text.parse::<ipnet::IpNet>().is_ok() => "a network".into(),
        other => other.clone(),
    }
}

fn double() -> ApiServer {
    let bookmark_interval = Duration::from_millis(100);
    ApiServer::start(Config { token: Some(TOKEN.to_owned()), bookmark_interval, ..Config::default() }).unwrap()
}

#[tokio::test]
async fn the_double_answers_every_recorded_exchange_as_the_real_server_did() {
    let server = double();
    Replay::new(&server.url(), TOKEN, None).run(Some(&server)).await;
}

/// Against the server of `SHEAVE_TEST_APISERVER`, or a double where there is none: the suite itself must not rot.
#[tokio::test]
async fn the_recordings_hold_in_a_namespace_of_ones_own() {
    let own = std::env::var("SHEAVE_TEST_APISERVER").is_err().then(double);
    let url = own.as_ref().map_or_else(|| std::env::var("SHEAVE_TEST_APISERVER").unwrap(), ApiServer::url);
    let token = if own.is_some() { TOKEN.to_owned() } else { std::env::var("SHEAVE_TEST_TOKEN").unwrap_or_default() };
    let namespace = format!("sheave-test-{}", std::process::id());
    let mut replay = Replay::new(&url, &token, Some(&namespace));
    let made = replay.must("POST", "/api/v1/namespaces", &json!({"metadata": {"name": namespace}})).await;
    // The recordings were made in a namespace that had the Service `kubernetes` in it, and version 2 was before it.
    replay.lists.insert("2".to_owned(), made["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
    let port = json!({"name": "https", "port": 443, "targetPort": 16_443});
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let kubernetes = json!({"metadata": {"name": "kubernetes", "labels": labels}, "spec": {"ports": [port]}});
    replay.must("POST", &replay.services(), &kubernetes).await;
    let client = replay.client.clone();
    let node = replay.localised("/api/v1/nodes/node-a");
    let outcome = tokio::spawn(async move { replay.run(own.as_ref()).await }).await;
    // Whatever happened, the cluster is left as it was. A double that ended with its test has nothing to clean up.
    for path in [node, format!("/api/v1/namespaces/{namespace}")] {
        let _ = client.send("DELETE", &path, "", "").await;
    }
    outcome.unwrap();
}
