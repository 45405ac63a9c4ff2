//! Every fault does what it says, as often as it says, to whom it says.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Client, Lines, PATIENCE, service, start};
use crate::apiserver::{ApiServer, Config, Cut, Effect, Fault, Refusal, Verb};

const SERVICES: &str = "/api/v1/services";
const WATCH: &str = "/api/v1/services?watch=true&allowWatchBookmarks=true";
const STREAMING: &str = "/api/v1/services?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1";

async fn code(client: &Client, path: &str) -> u16 {
    client.get(path).await.0
}

/// A watch from now on.
async fn live(server: &ApiServer, client: &Client) -> Lines {
    client.watch(&format!("{WATCH}&resourceVersion={}", server.revision())).await
}

#[tokio::test]
async fn answers_are_refused_as_often_as_ordered_and_only_those_ordered() {
    let (server, client) = start();
    server.inject(Fault::new(Effect::Answer { code: 429, retry_after: Some(7) }).on(Verb::List, "services").times(1));
    server.inject(Fault::new(Effect::Answer { code: 503, retry_after: None }).on_resource("nodes").times(2));
    server.inject(Fault::new(Effect::Answer { code: 500, retry_after: None }).on(Verb::Get, "leases.coordination.k8s.io"));

    let busy = client.send("GET", SERVICES, "", "").await.unwrap();
    assert_eq!((busy.status().as_u16(), busy.headers()["retry-after"].to_str().unwrap()), (429, "7"));
    assert_eq!(code(&client, SERVICES).await, 200);
    for expected in [503, 503, 200] {
        assert_eq!(code(&client, "/api/v1/nodes").await, expected);
    }
    let (code, status) = client.get("/apis/coordination.k8s.io/v1/namespaces/default/leases/x").await;
    assert_eq!((code, &status["kind"], &status["reason"]), (500, &json!("Status"), &json!("InternalError")));
    server.clear_faults();
    assert_eq!(client.get("/apis/coordination.k8s.io/v1/namespaces/default/leases/x").await.0, 404);
    assert_eq!((server.requests(Verb::List, "services"), server.requests(Verb::List, "nodes")), (2, 3));
    assert_eq!(server.requests(Verb::Get, "leases"), 2);
}

#[tokio::test]
async fn an_answer_may_come_late_or_never() {
    let (server, client) = start();
    server.inject(Fault::new(Effect::Delay(Duration::from_millis(150))).on(Verb::List, "services").times(1));
    let began = Instant::now();
    assert_eq!(code(&client, SERVICES).await, 200);
    assert!(began.elapsed() >= Duration::from_millis(150));
    // A client may try again on a connection that broke under it, so that it is told more than once.
    server.inject(Fault::new(Effect::HangUp).on(Verb::List, "services"));
    assert!(client.send("GET", SERVICES, "", "").await.is_err());
    server.clear_faults();
    assert_eq!(code(&client, SERVICES).await, 200);
}

#[tokio::test]
async fn streams_are_cut_now_clean_or_abrupt() {
    let (server, client) = start();
    for how in [Cut::Clean, Cut::Abrupt] {
        let mut services = live(&server, &client).await;
        let mut nodes = client.watch(&format!("/api/v1/nodes?watch=true&resourceVersion={}", server.revision())).await;
        server.apply(&service(&format!("a-{how:?}").to_lowercase())).unwrap();
        assert!(services.next_event().await.unwrap().unwrap().starts_with("ADDED a-"));
        server.cut_streams(Some("services"), how);
        match how {
            Cut::Clean => assert_eq!(services.next_event().await.unwrap(), None),
            Cut::Abrupt => assert!(services.next_event().await.is_err()),
        }
        server
            .wait_for("the end of the watch", PATIENCE, |server| (server.open_watches("services") == 0).then_some(()))
            .await
            .unwrap();
        assert_eq!(server.open_watches("nodes"), 1, "not ordered for nodes");
        server.cut_streams(None, how);
        assert!(nodes.next_event().await.is_err() || how == Cut::Clean);
        server
            .wait_for("the end of all watches", PATIENCE, |server| (server.open_watches("nodes") == 0).then_some(()))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_stream_is_cut_after_so_many_events_even_in_the_middle_of_its_initial_ones() {
    let (server, client) = start();
    for name in ["a", "b", "c", "d"] {
        server.apply(&service(name)).unwrap();
    }
    server.inject(Fault::new(Effect::CutAfter { events: 2, how: Cut::Clean }).on(Verb::Watch, "services").times(1));
    assert_eq!(client.watch(STREAMING).await.rest().await, ["ADDED a", "ADDED b"]);
    server.inject(Fault::new(Effect::CutAfter { events: 1, how: Cut::Abrupt }).on(Verb::Watch, "services").times(1));
    let mut lines = live(&server, &client).await;
    server.apply(&service("e")).unwrap();
    server.apply(&service("f")).unwrap();
    assert_eq!(lines.next_event().await.unwrap().unwrap(), "ADDED e");
    assert!(lines.next_event().await.is_err());
    assert_eq!(client.watch(STREAMING).await.rest().await.len(), 8, "the fault has spent itself");
}

#[tokio::test]
async fn connections_are_refused_by_the_kernel_and_accepted_again() {
    let (server, client) = start();
    let mut survivor = live(&server, &client).await;
    for _ in 0..2 {
        server.refuse_connections().unwrap();
        let refused = tokio::net::TcpStream::connect(server.address()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        server.accept_connections().unwrap();
        assert_eq!(code(&Client::of(&server), SERVICES).await, 200, "listens again on {}", server.address());
    }
    server.apply(&service("a")).unwrap();
    assert_eq!(survivor.next_event().await.unwrap().unwrap(), "ADDED a", "open connections live on");
    server.cut_connections();
    assert!(survivor.next_event().await.is_err());
    assert_eq!(code(&client, SERVICES).await, 200);
}

/// The readiness of a listener that is shut down outlives the time until it listens again.
#[tokio::test]
async fn refused_and_accepted_again_at_once_it_still_answers() {
    let (server, _client) = start();
    for round in 0..500 {
        server.refuse_connections().unwrap();
        server.accept_connections().unwrap();
        let answer = async { code(&Client::of(&server), SERVICES).await };
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
        assert_eq!(answer.ok(), Some(200), "round {round}");
    }
}

#[tokio::test]
async fn a_stale_list_shows_the_past_and_its_version() {
    let (server, client) = start();
    server.apply(&service("old")).unwrap();
    let version = server.revision();
    server.apply(&service("new")).unwrap();
    server.delete("services", "default", "old").unwrap();
    server.inject(Fault::new(Effect::Stale { version }).on_resource("services").times(2));
    let (_, list) = client.get(SERVICES).await;
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["kubernetes", "old"]);
    assert_eq!(list["metadata"]["resourceVersion"], version.to_string());
    let events = client.watch(STREAMING).await.rest().await;
    assert_eq!(events[..5], ["ADDED kubernetes", "ADDED old", "BOOKMARK", "ADDED new", "DELETED old"], "and then catches up");
    assert_eq!(client.get(SERVICES).await.1["items"].as_array().unwrap().len(), 2, "kubernetes and new");
}

#[tokio::test]
async fn bookmarks_fail_to_come() {
    let config = Config { bookmark_interval: Duration::from_millis(20), ..Config::default() };
    let server = ApiServer::start(config).unwrap();
    let client = Client::of(&server);
    let bookmarks = |events: &[String]| events.iter().filter(|event| *event == "BOOKMARK").count();
    assert!(bookmarks(&client.watch(STREAMING).await.rest().await) > 2);
    server.inject(Fault::new(Effect::DropBookmarks).times(1));
    assert_eq!(bookmarks(&client.watch(STREAMING).await.rest().await), 1, "that of the initial events");
    server.inject(Fault::new(Effect::DropBookmarks).times(1));
    server.inject(Fault::new(Effect::DropInitialEventsEnd).times(1));
    assert_eq!(client.watch(STREAMING).await.rest().await, ["ADDED kubernetes"]);
}

#[tokio::test]
async fn streaming_lists_are_refused_in_each_way() {
    let (server, client) = start();
    for (refusal, expected) in [(Refusal::ErrorEvent, 200), (Refusal::Invalid, 422), (Refusal::BadRequest, 400)] {
        server.inject(Fault::new(Effect::RefuseStreamingLists(refusal)));
        let (code, answer) = client.get(STREAMING).await;
        assert_eq!(code, expected, "{answer}");
        let status = if code == 200 { &answer["object"] } else { &answer };
        assert_eq!(status["kind"], "Status", "{answer}");
        assert_eq!(client.get(SERVICES).await.0, 200, "an ordinary list is answered");
        server.clear_faults();
    }
}

#[tokio::test]
async fn compacted_history_is_gone_for_lists_watches_and_tokens() {
    let (server, client) = start();
    for name in ["a", "b", "c"] {
        server.apply(&service(name)).unwrap();
    }
    let old = server.revision();
    let (_, page) = client.get("/api/v1/services?limit=2").await;
    let token = page["metadata"]["continue"].as_str().unwrap().replace(':', "%3A").replace('/', "%2F");
    let mut running = live(&server, &client).await;
    let mut quiet = client.watch(&format!("/api/v1/nodes?watch=true&resourceVersion={}", server.revision())).await;
    server.apply(&service("d")).unwrap();
    assert_eq!(running.next_event().await.unwrap().unwrap(), "ADDED d");
    server.compact();

    let (code, status) = client.get(&format!("{SERVICES}?resourceVersion={old}&resourceVersionMatch=Exact")).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    let (code, event) = client.get(&format!("{WATCH}&resourceVersion={old}")).await;
    assert_eq!((code, &event["type"], &event["object"]["code"]), (200, &json!("ERROR"), &json!(410)));
    let (code, status) = client.get(&format!("{SERVICES}?limit=2&continue={token}")).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    // The token of the refusal goes on at the present state.
    let token = status["metadata"]["continue"].as_str().unwrap().replace(':', "%3A").replace('/', "%2F");
    let (_, page) = client.get(&format!("{SERVICES}?continue={token}")).await;
    let names: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["c", "d", "kubernetes"]);

    server.apply(&service("e")).unwrap();
    server.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})).unwrap();
    assert_eq!(running.next_event().await.unwrap().unwrap(), "ADDED e", "a running watch goes on");
    assert_eq!(quiet.next_event().await.unwrap().unwrap(), "ADDED n", "and so does one that had nothing to read for long");
}

#[tokio::test]
async fn tokens_and_watches_expire_on_order() {
    let (server, client) = start();
    for name in ["a", "b"] {
        server.apply(&service(name)).unwrap();
    }
    server.inject(Fault::new(Effect::ExpireContinue).on(Verb::List, "services").times(1));
    server.inject(Fault::new(Effect::ExpireWatch).on(Verb::Watch, "services").times(1));
    let (_, page) = client.get("/api/v1/services?limit=1").await;
    let token = page["metadata"]["continue"].as_str().unwrap().replace(':', "%3A").replace('/', "%2F");
    assert_eq!(code(&client, &format!("{SERVICES}?limit=1&continue={token}")).await, 410);
    assert_eq!(code(&client, &format!("{SERVICES}?limit=1&continue={token}")).await, 200);
    let event = live(&server, &client).await.next().await.unwrap().unwrap();
    assert_eq!((&event["type"], &event["object"]["reason"]), (&json!("ERROR"), &json!("Expired")));
}
