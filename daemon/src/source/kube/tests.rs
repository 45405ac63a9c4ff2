//! The watches against a server that does exactly what a test tells it, over real sockets on loopback.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::timeout;

use super::*;
use crate::captured_log::Log;
use crate::source::{Kind, Object};

/// What the server does with one request.
struct Answer {
    head: String,
    /// Chunks of the body, each sent by itself.
    chunks: Vec<String>,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    /// The body ends as it should.
    Clean,
    /// The connection is cut.
    Cut,
    /// Nothing more comes, and the connection stays.
    Hold,
}

/// Answers in the order of the script; when that is at its end, it holds every connection without a word.
struct Server {
    url: String,
    script: Arc<Mutex<VecDeque<(&'static str, Answer)>>>,
    requests: Receiver<String>,
}

impl Server {
    async fn start(script: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.expect("binds"), script)
    }

    fn start_on(listener: TcpListener, script: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let (asked, requests) = mpsc::channel(1_000);
        let shared = script.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, shared.clone(), asked.clone()));
            }
        });
        Self { url, script, requests }
    }

    /// The port of a server that has one answer, whatever it is asked.
    async fn start_on_port_that_says(words: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let _ = connection.write_all(words).await;
            }
        });
        port
    }

    /// The next request's target.
    async fn request(&mut self) -> String {
        timeout(Duration::from_secs(10), self.requests.recv()).await.expect("a request comes").expect("the server runs")
    }
}

async fn serve(mut connection: TcpStream, script: Arc<Mutex<VecDeque<(&'static str, Answer)>>>, asked: Sender<String>) {
    let mut held = Vec::new();
    while let Some(request) = read_request(&mut connection).await {
        // The first answer in the script that is for this request.
        let answer = {
            let mut script = script.lock().expect("not poisoned");
            let place = script.iter().position(|(wanted, _)| request.contains(wanted));
            place.and_then(|place| script.remove(place)).map(|(_, answer)| answer)
        };
        asked.send(request).await.expect("the test reads");
        let Some(Answer { head, chunks, end }) = answer else {
            held.push(connection);
            return std::future::pending().await;
        };
        let head = format!("HTTP/1.1 {head}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut sent = connection.write_all(head.as_bytes()).await.is_ok();
        for chunk in chunks {
            let chunk = format!("{:x}\r\n{chunk}\r\n", chunk.len());
            sent = sent && connection.write_all(chunk.as_bytes()).await.is_ok();
            tokio::task::yield_now().await;
        }
        match end {
            End::Clean if sent => sent = connection.write_all(b"0\r\n\r\n").await.is_ok(),
            End::Hold => return std::future::pending().await,
            End::Cut | End::Clean => return,
        }
        if !sent {
            return;
        }
    }
}

/// `METHOD target` of the next request, its body read and thrown away.
async fn read_request(connection: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("a head is text");
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").and_then(|length| length.parse().ok()));
    let mut body = vec![0; length.unwrap_or(0)];
    connection.read_exact(&mut body).await.ok()?;
    let line = head.lines().next()?;
    line.strip_suffix(" HTTP/1.1").map(|line| format!("{line} {}", String::from_utf8_lossy(&body)).trim_end().to_owned())
}

fn answer(status: &str, body: &Value) -> Answer {
    Answer { head: status.to_owned(), chunks: vec![body.to_string()], end: End::Clean }
}

fn stream(events: impl IntoIterator<Item = Value>, end: End) -> Answer {
    let chunks = events.into_iter().map(|event| format!("{event}\n")).collect();
    Answer { head: "200 OK".into(), chunks, end }
}

fn service(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string()}, "spec": {"clusterIP": "10.0.0.1"}})
}

#[expect(clippy::needless_pass_by_value, reason = "called with json! in place")]
fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(version: u32) -> Value {
    event(
        "BOOKMARK",
        json!({"kind": "Service", "metadata": {"resourceVersion": version.to_string()}, "spec": {}, "status": {"loadBalancer": {}}}),
    )
}

fn end_of_list(version: u32) -> Value {
    event(
        "BOOKMARK",
        json!({"metadata": {"resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}),
    )
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code})
}

fn page(items: &[Value], version: u32, next: &str) -> Value {
    json!({"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string(), "continue": next}, "items": items})
}

fn options(urls: &[&str]) -> KubeOptions {
    let ms = Duration::from_millis;
    let timing = Timing {
        backoff: ms(2),
        longest_backoff: ms(10),
        longest_unlisted: ms(10),
        answer: ms(2_000),
        whole_list: ms(2_000),
        streaming_list: ms(2_000),
        silence: ms(300),
        absent: ms(20),
        uninstalled: ms(20),
        watch: Duration::from_secs(300),
    };
    KubeOptions {
        api_servers: urls.iter().map(|url| (*url).to_owned()).collect(),
        node_name: "node-a".into(),
        timing,
        ..KubeOptions::default()
    }
}

/// A running watch of one kind, and what it tells.
struct Watch {
    changes: Receiver<Change>,
    health: Arc<Health>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    async fn of(kind: Kind, urls: &[&str]) -> Self {
        Self::with(kind, options(urls)).await
    }

    async fn with(kind: Kind, options: KubeOptions) -> Self {
        Self::among(Watches::ServiceProxy, kind, options).await
    }

    async fn among(watches: Watches, kind: Kind, options: KubeOptions) -> Self {
        let servers = Arc::new(connect(&options).await.expect("connects"));
        let mut resources = watches.resources(&options).into_iter();
        let resource = resources.find(|resource| resource.kind == kind).expect("the kind is watched");
        let (sender, changes) = mpsc::channel(4);
        let health = Arc::new(Health::default());
        let task = tokio::spawn(Watcher::new(resource, servers, health.clone(), sender, options.timing).run());
        Self { changes, health, task }
    }

    async fn next(&mut self) -> String {
        let change =
            timeout(Duration::from_secs(10), self.changes.recv()).await.expect("a change comes").expect("the watch runs");
        match change {
            Change::Listing(_) => "listing".into(),
            Change::Listed(_) => "listed".into(),
            Change::Mark(mark) => format!("@{}", mark.point),
            Change::Together(changes) => panic!("no watch tells {changes:?} at once"),
            Change::Deleted(_, key) => format!("-{key}"),
            Change::Applied(Object::Service(service) | Object::ForeignService(service)) => format!("+{}", service.key.name()),
            Change::Applied(Object::EndpointSlice(slice)) => format!("+{}", slice.key.name()),
            Change::Applied(Object::Node(node)) => format!("+{}", node.name),
            Change::Applied(Object::ServiceCidr(cidr)) => format!("+{}", cidr.name),
            Change::Applied(Object::AddressPool(pool)) => format!("+{}", pool.key),
            Change::Applied(other) => panic!("no watch of these tests tells {other:?}"),
        }
    }

    /// The next changes are these, in this order.
    async fn tells(&mut self, expected: &str) {
        for (place, expected_one) in expected.split(' ').enumerate() {
            assert_eq!(self.next().await, expected_one, "change {place} of {expected:?}");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const STREAMING: &str = "sendInitialEvents";
const ANY: &str = "";
/// The question how far the store has counted.
const VERSION: &str = "limit=1";

#[tokio::test]
async fn a_streaming_list_becomes_a_watch_that_resumes() {
    let mut server = Server::start([
        (
            STREAMING,
            stream(
                [
                    event("ADDED", service("a", 5)),
                    event("ADDED", service("b", 3)),
                    end_of_list(9),
                    event("MODIFIED", service("a", 10)),
                    bookmark(12),
                ],
                End::Clean,
            ),
        ),
        ("resourceVersion=12", stream([event("DELETED", service("b", 13)), event("ADDED", service("c", 14))], End::Clean)),
        ("resourceVersion=14", stream([bookmark(20)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    watch.tells("listing +a +b listed @9 +a @12 -default/b +c @20").await;
    let first = server.request().await;
    assert!(first.contains("resourceVersionMatch=NotOlderThan") && !first.contains("resourceVersion="), "{first}");
    let second = server.request().await;
    assert!(second.contains("allowWatchBookmarks=true") && !second.contains(STREAMING), "{second}");
    assert_eq!(watch.health.streams()[0].lists, 1);
}

#[tokio::test]
async fn streaming_refused_by_an_error_event_is_remembered() {
    // As recorded of kube-apiserver v1.36.2 with an older etcd.
    let refusal = status(
        500,
        "InternalError",
        "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled",
    );
    let mut server = Server::start([
        (STREAMING, stream([event("ERROR", refusal)], End::Clean)),
        ("resourceVersion=0", answer("200 OK", &page(&[service("a", 5)], 9, ""))),
        ("resourceVersion=9", stream([event("ERROR", status(410, "Expired", "too old resource version: 9 (100)"))], End::Clean)),
        ("limit=", answer("200 OK", &page(&[service("b", 101)], 102, ""))),
        ("resourceVersion=102", stream([bookmark(103)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    watch.tells("listing listing +a listed @9 listing +b listed @102 @103").await;
    for expected in [STREAMING, "limit=500&resourceVersion=0", "watch=true", "limit=500"] {
        let request = server.request().await;
        assert!(request.contains(expected), "{request} is not {expected}");
    }
    assert!(!server.request().await.contains(STREAMING));
}

#[tokio::test]
async fn streaming_refused_by_status_falls_back_at_once_and_without_alarm() {
    for (head, reason) in
        [("422 Unprocessable Entity", "Invalid"), ("400 Bad Request", "BadRequest"), ("403 Forbidden", "Forbidden")]
    {
        let (log, _guard) = Log::capture();
        let server = Server::start([
            (STREAMING, answer(head, &status(head[..3].parse().unwrap(), reason, "sendInitialEvents is forbidden"))),
            ("resourceVersion=0", answer("200 OK", &page(&[service("a", 5)], 9, ""))),
            ("resourceVersion=9", stream([bookmark(10)], End::Hold)),
        ])
        .await;
        let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
        watch.tells("listing +a listed @9 @10").await;
        let lines: Vec<_> = log.lines().into_iter().filter(|line| !line.contains("credentials")).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("INFO") && lines[0].contains("does not stream lists"), "{lines:?}");
    }
}

#[tokio::test]
async fn streaming_that_never_ends_its_list_is_given_up() {
    let server = Server::start([
        (STREAMING, stream([event("ADDED", service("a", 5))], End::Clean)),
        (STREAMING, stream([event("ADDED", service("a", 5))], End::Clean)),
        ("resourceVersion=0", answer("200 OK", &page(&[service("a", 5)], 9, ""))),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    watch.tells("listing +a listing +a listing +a listed @9").await;
}

#[tokio::test]
async fn pages_are_followed_and_begun_anew_when_they_expire() {
    let mut server = Server::start([
        (STREAMING, answer("400 Bad Request", &status(400, "BadRequest", "no"))),
        ("resourceVersion=0", answer("200 OK", &page(&[service("a", 1), service("b", 2)], 9, "to+ken"))),
        ("continue=to%2Bken", answer("200 OK", &page(&[service("c", 3)], 9, "more"))),
        ("continue=more", answer("410 Gone", &status(410, "Expired", "The provided continue parameter is too old"))),
        ("/api/v1/services", answer("200 OK", &page(&[service("a", 1), service("d", 11)], 12, ""))),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    watch.tells("listing +a +b +c listing +a +d listed @12").await;
    let mut requests = Vec::new();
    for _ in 0..5 {
        requests.push(server.request().await);
    }
    assert!(
        !requests[4].contains("limit") && !requests[4].contains("resourceVersion"),
        "the list is asked for in one piece: {}",
        requests[4]
    );
}

#[tokio::test]
async fn an_expired_watch_lists_again_and_keeps_what_was() {
    for expired in [
        stream([event("ERROR", status(410, "Expired", "too old"))], End::Clean),
        answer("410 Gone", &status(410, "Gone", "too old")),
        answer("504 Gateway Timeout", &status(504, "Timeout", "Too large resource version: 9, current: 3")),
    ] {
        let server = Server::start([
            (STREAMING, stream([event("ADDED", service("a", 5)), end_of_list(9)], End::Clean)),
            ("resourceVersion=9", expired),
            (STREAMING, stream([event("ADDED", service("b", 50)), end_of_list(60)], End::Hold)),
        ])
        .await;
        let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
        // No deletion in between: it is the end of the new list that sweeps.
        watch.tells("listing +a listed @9 listing +b listed @60").await;
    }
}

#[tokio::test]
async fn a_cut_stream_resumes_and_a_torn_line_is_not_applied() {
    let (log, _guard) = Log::capture();
    let torn = format!("{}\n{}", event("ADDED", service("b", 10)), &event("ADDED", service("torn", 11)).to_string()[..40]);
    let mut server = Server::start([
        (STREAMING, stream([event("ADDED", service("a", 5)), end_of_list(9)], End::Cut)),
        ("resourceVersion=9", Answer { head: "200 OK".into(), chunks: vec![torn], end: End::Cut }),
        ("resourceVersion=10", stream([bookmark(30)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    watch.tells("listing +a listed @9 +b @30").await;
    assert!(server.request().await.contains(STREAMING));
    assert!(
        log.lines().iter().all(|line| !line.starts_with("WARN")),
        "a watch that resumes at once is no outage: {:?}",
        log.lines()
    );
}

#[tokio::test]
async fn a_list_cut_in_the_middle_is_begun_anew() {
    let half = page(&[service("a", 1), service("b", 2)], 9, "").to_string();
    let server = Server::start([
        (STREAMING, stream([event("ADDED", service("a", 5))], End::Cut)),
        (STREAMING, answer("400 Bad Request", &status(400, "BadRequest", "no"))),
        ("resourceVersion=0", Answer { head: "200 OK".into(), chunks: vec![half[..half.len() - 60].to_owned()], end: End::Cut }),
        (STREAMING, answer("400 Bad Request", &status(400, "BadRequest", "no"))),
        ("resourceVersion=0", answer("200 OK", &page(&[service("b", 2)], 9, ""))),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "@9") {
        told.push(watch.next().await);
    }
    assert_eq!(told.iter().filter(|told| *told == "listed").count(), 1, "{told:?}");
    assert_eq!(told[told.len() - 4..], ["listing", "+b", "listed", "@9"], "{told:?}");
}

#[tokio::test]
async fn an_outage_is_one_line_and_its_end_another() {
    let (log, _guard) = Log::capture();
    let failing = || answer("503 Service Unavailable", &json!({}));
    let server = Server::start([
        (STREAMING, stream([end_of_list(9)], End::Cut)),
        (ANY, failing()),
        (ANY, failing()),
        (ANY, failing()),
        (ANY, stream([event("ERROR", status(500, "InternalError", "etcdserver: leader changed"))], End::Clean)),
        (ANY, failing()),
        (VERSION, answer("200 OK", &page(&[], 9, ""))),
        ("resourceVersion=9", stream([bookmark(10)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    watch.tells("listing listed @9 @10").await;
    // The end is reported after the change was handed on: by the time of the next request of anything, it has been.
    while watch.health.streams()[0].state != StreamState::Live {
        tokio::task::yield_now().await;
    }
    let lines: Vec<_> = log.lines().into_iter().filter(|line| !line.contains("credentials")).collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let expected = format!("WARN watch of services failed at {}: API server refuses services: 503", server.url);
    assert!(lines[0].starts_with(&expected), "{lines:?}");
    assert!(lines[1].starts_with("INFO API server answers again after"), "{lines:?}");
    assert_eq!(watch.health.streams()[0].failures, 5);
}

/// At boot, with the API server away for long: pauses that have grown would keep the node without rules when it is back.
#[tokio::test]
async fn a_server_that_comes_late_is_not_kept_waiting() {
    /// After so many pauses that double the next one would be beyond any patience.
    const LOST: usize = 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let mut options = options(&[&url]);
    options.timing.longest_backoff = Duration::from_secs(3_600);
    let mut watch = Watch::with(Kind::Service, options).await;
    for _ in 0..LOST {
        let asked = timeout(Duration::from_secs(10), listener.accept()).await.expect("it is soon asked again");
        drop(asked.expect("accepts"));
    }
    let _server = Server::start_on(listener, [(STREAMING, stream([end_of_list(9)], End::Hold))]);
    watch.tells("listing listed @9").await;
    assert!(watch.health.streams()[0].failures >= LOST as u64);
}

#[tokio::test]
async fn refusals_are_retried_each_with_its_own_line() {
    let (log, _guard) = Log::capture();
    let server = Server::start([
        (ANY, answer("401 Unauthorized", &status(401, "Unauthorized", "Unauthorized"))),
        (ANY, answer("429 Too Many Requests\r\nRetry-After: 0", &json!({}))),
        (ANY, answer("403 Forbidden", &status(403, "Forbidden", "cannot watch"))),
        (ANY, answer("403 Forbidden", &status(403, "Forbidden", "cannot list"))),
        (ANY, answer("401 Unauthorized", &status(401, "Unauthorized", "Unauthorized"))),
        (STREAMING, stream([end_of_list(9)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    // The listing that came to nothing was that of the pages.
    watch.tells("listing listing listed @9").await;
    let warnings: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let server = Server::start([
        (ANY, answer("429 Too Many Requests\r\nRetry-After: 1", &json!({}))),
        (ANY, stream([end_of_list(9)], End::Hold)),
    ])
    .await;
    let start = std::time::Instant::now();
    Watch::of(Kind::Service, &[&server.url]).await.tells("listing listed @9").await;
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn service_cidrs_may_be_missing_and_come_later() {
    let missing = || Answer { head: "404 Not Found".into(), chunks: vec!["404 page not found\n".into()], end: End::Clean };
    let cidr =
        event("ADDED", json!({"metadata": {"name": "kubernetes", "resourceVersion": "3"}, "spec": {"cidrs": ["10.96.0.0/16"]}}));
    let server = Server::start([(ANY, missing()), (ANY, missing()), (ANY, stream([cidr, end_of_list(9)], End::Hold))]).await;
    let mut watch = Watch::of(Kind::ServiceCidr, &[&server.url]).await;
    watch.tells("listing listed listing listed listing +kubernetes listed @9").await;
}

fn pool(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "namespace": "metallb-system", "resourceVersion": version.to_string()}, "spec": {"addresses": ["10.0.0.0/24"]}})
}

fn not_installed() -> Answer {
    Answer { head: "404 Not Found".into(), chunks: vec!["404 page not found\n".into()], end: End::Clean }
}

#[tokio::test]
async fn pools_may_not_be_installed_and_come_later() {
    let (log, _guard) = Log::capture();
    let come = stream([event("ADDED", pool("a", 3)), end_of_list(9)], End::Hold);
    let server = Server::start([(ANY, not_installed()), (ANY, not_installed()), (ANY, not_installed()), (ANY, come)]).await;
    let mut watch = Watch::among(Watches::Announcer, Kind::AddressPool, options(&[&server.url])).await;
    watch.tells("listing listed listing +metallb-system/a listed @9").await;
    let told: Vec<_> = log.lines().into_iter().filter(|line| line.contains("has no ipaddresspools")).collect();
    assert!(told.len() == 1 && told[0].starts_with("INFO"), "{told:?}");
}

/// A server that starts says of every custom resource that it is not there, until it has read the definitions.
#[tokio::test]
async fn pools_that_were_there_are_not_believed_to_be_gone_at_the_first_word() {
    let (log, _guard) = Log::capture();
    let listed = |version| stream([event("ADDED", pool("a", 3)), end_of_list(version)], End::Clean);
    let server = Server::start([
        (STREAMING, listed(9)),
        ("resourceVersion=9", not_installed()),
        (STREAMING, listed(10)),
        ("resourceVersion=10", not_installed()),
        (STREAMING, not_installed()),
        (STREAMING, stream([event("ADDED", pool("b", 12)), end_of_list(13)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::among(Watches::Controller, Kind::AddressPool, options(&[&server.url])).await;
    let once = "listing +metallb-system/a listed @9 listing +metallb-system/a listed @10";
    watch.tells(&format!("{once} listing listed listing +metallb-system/b listed @13")).await;
    let told = log.lines().into_iter().filter(|line| line.contains("has no ipaddresspools any more"));
    let told: Vec<_> = told.map(|line| line.split_once(' ').map(|(level, _)| level.to_owned())).collect();
    assert_eq!(told, ["WARN", "WARN", "INFO"].map(|level| Some(level.to_owned())));
}

/// `helm uninstall metallb` deletes the definitions.
#[tokio::test]
async fn pools_of_an_announcer_stay_when_their_definition_is_gone() {
    let (log, _guard) = Log::capture();
    let server = Server::start([
        (STREAMING, stream([event("ADDED", pool("a", 3)), end_of_list(9)], End::Clean)),
        ("resourceVersion=9", not_installed()),
        (STREAMING, not_installed()),
        (STREAMING, not_installed()),
        (STREAMING, stream([event("ADDED", pool("b", 12)), end_of_list(13)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::among(Watches::Announcer, Kind::AddressPool, options(&[&server.url])).await;
    watch.tells("listing +metallb-system/a listed @9 listing +metallb-system/b listed @13").await;
    let told = log.lines().into_iter().filter(|line| line.contains("has no ipaddresspools any more")).count();
    assert_eq!(told, 1);
}

#[tokio::test]
async fn what_makes_no_sense_is_named_and_the_stream_goes_on() {
    let (log, _guard) = Log::capture();
    let nameless = json!({"metadata": {"namespace": "default", "resourceVersion": "20"}});
    let mut chunks: Vec<_> = [
        end_of_list(9),
        event("SURPRISE", service("x", 10)),
        event("ADDED", nameless),
        event("DELETED", json!({})),
        json!([1, 2]),
        event("ADDED", json!("text")),
        event("BOOKMARK", json!({})),
    ]
    .iter()
    .map(|event| format!("{event}\n"))
    .collect();
    chunks.push("this is not JSON\n".into());
    chunks.push(format!("{}\n", event("ADDED", service("fine", 21))));
    let server = Server::start([(ANY, Answer { head: "200 OK".into(), chunks, end: End::Hold })]).await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    watch.tells("listing listed @9 +fine").await;
    let log = log.lines().join("\n");
    for expected in [r#"unknown type "SURPRISE""#, "Service without a name: object has no usable name", "is not readable"] {
        assert!(log.contains(expected), "{expected} in {log}");
    }
}

#[tokio::test]
async fn garbage_in_a_list_never_completes_it() {
    let server = Server::start([
        (STREAMING, Answer { head: "200 OK".into(), chunks: vec![format!("garbage\n{}\n", end_of_list(9))], end: End::Hold }),
        (STREAMING, stream([event("ADDED", service("a", 5)), end_of_list(9)], End::Hold)),
    ])
    .await;
    Watch::of(Kind::Service, &[&server.url]).await.tells("listing listing +a listed @9").await;
}

#[tokio::test]
async fn a_slice_that_loses_its_service_is_gone() {
    let slice = |labels: Value, version: &str| json!({"metadata": {"name": "s", "namespace": "default", "resourceVersion": version, "labels": labels}, "addressType": "IPv4"});
    let server = Server::start([(
        ANY,
        stream(
            [
                event("ADDED", slice(json!({"kubernetes.io/service-name": "web"}), "1")),
                end_of_list(2),
                event("MODIFIED", slice(json!({}), "3")),
            ],
            End::Hold,
        ),
    )])
    .await;
    Watch::of(Kind::EndpointSlice, &[&server.url]).await.tells("listing +s listed @2 -default/s").await;
}

/// An API server may hold thousands that are others' business.
#[tokio::test]
async fn of_slices_without_a_service_the_first_is_warned_of() {
    let (log, _guard) = Log::capture();
    let slice =
        |name: &str| json!({"metadata": {"name": name, "namespace": "default", "resourceVersion": "1"}, "addressType": "IPv4"});
    let events = ["a", "b", "c"].map(|name| event("ADDED", slice(name))).into_iter().chain([end_of_list(2)]);
    let server = Server::start([(ANY, stream(events, End::Hold))]).await;
    Watch::of(Kind::EndpointSlice, &[&server.url]).await.tells("listing -default/a -default/b -default/c listed @2").await;
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(
        lines,
        [
            "WARN EndpointSlice default/a: metadata.labels[kubernetes.io/service-name]: not given: the slice belongs to no Service and is left out (further ones: level debug)"
        ]
    );
}

/// Slices of several clusters (KEP-1645) are meant so.
#[tokio::test]
async fn slices_of_several_clusters_do_not_use_up_the_warning() {
    let (log, _guard) = Log::capture();
    let slice = |name: &str, label: &str| {
        let metadata = json!({"name": name, "namespace": "default", "resourceVersion": "1", "labels": {label: "web"}});
        event("ADDED", json!({"metadata": metadata, "addressType": "IPv4"}))
    };
    let events = [slice("a", "multicluster.kubernetes.io/service-name"), slice("b", "app"), end_of_list(2)];
    let server = Server::start([(ANY, stream(events, End::Hold))]).await;
    Watch::of(Kind::EndpointSlice, &[&server.url]).await.tells("listing -default/a -default/b listed @2").await;
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("WARN")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("WARN EndpointSlice default/b: "), "{lines:?}");
}

fn refused(what: &'static str) -> Failure {
    Failure::Refused { what, code: 403, reason: "Forbidden".into(), message: String::new(), retry_after: None }
}

fn unreachable(reason: &str) -> Failure {
    Failure::Unreachable { server: "https://a".into(), reason: reason.into(), too_slow: false }
}

fn told(log: &Log, level: &str) -> usize {
    log.lines().iter().filter(|line| line.starts_with(level)).count()
}

/// A missing right is mended days later; the API server may be away in between, more than once.
#[test]
fn a_stream_that_stays_refused_does_not_silence_later_outages() {
    let (log, _guard) = Log::capture();
    let health = Health::default();
    health.live("services");
    health.failed("endpointslices", "https://a", &refused("endpointslices"));
    assert_eq!(told(&log, "WARN"), 1);
    for outage in 1..=3 {
        for stream in ["services", "endpointslices", "services"] {
            health.failed(stream, "https://a", &unreachable("connection refused"));
        }
        assert_eq!(told(&log, "WARN"), 1 + outage, "{:#?}", log.lines());
        health.live("services");
        // It is back, and refuses as before.
        health.failed("endpointslices", "https://a", &refused("endpointslices"));
        assert_eq!(told(&log, "INFO"), outage, "{:#?}", log.lines());
    }
    let end = log.lines().into_iter().rfind(|line| line.starts_with("INFO")).expect("said");
    assert!(end.ends_with("still failing: endpointslices"), "{end}");
    health.live("endpointslices");
    assert_eq!(told(&log, "WARN"), 4);
    let end = log.lines().pop().expect("said");
    assert!(end.starts_with("INFO") && end.ends_with("every watch has resumed"), "{end}");
}

#[test]
fn a_new_cause_at_the_same_server_is_said_and_one_that_comes_again_is_not() {
    let (log, _guard) = Log::capture();
    let health = Health::default();
    let untrusted = "invalid peer certificate: UnknownIssuer";
    for cause in ["connection refused", "connection refused", untrusted, "connection refused", untrusted] {
        health.failed("services", "https://a", &unreachable(cause));
    }
    assert_eq!(told(&log, "WARN"), 2, "{:#?}", log.lines());
    for second in 0..30 {
        health.failed("services", "https://a", &unreachable(&format!("certificate expired: verification time {second}")));
    }
    assert_eq!(told(&log, "WARN"), 3, "{:#?}", log.lines());
    // Words that are others each time.
    for length in 0..30 {
        health.failed("services", "https://a", &unreachable(&"x".repeat(length)));
    }
    assert!(told(&log, "WARN") <= 8, "{:#?}", log.lines());
}

#[tokio::test]
async fn a_silent_server_is_left_and_asked_again() {
    let server = Server::start([
        (STREAMING, stream([end_of_list(9)], End::Hold)),
        ("resourceVersion=9", stream([bookmark(10)], End::Hold)),
    ])
    .await;
    Watch::of(Kind::Service, &[&server.url]).await.tells("listing listed @9 @10").await;
}

#[tokio::test]
async fn a_server_restored_from_a_backup_is_listed_anew() {
    let (log, _guard) = Log::capture();
    let mut server = Server::start([
        (STREAMING, stream([event("ADDED", service("gone", 5)), event("ADDED", service("kept", 6)), end_of_list(900)], End::Cut)),
        // As a watch cache at version 30 does with a watch from 900: it is accepted, and nothing comes.
        ("&resourceVersion=900", stream([], End::Hold)),
        (STREAMING, answer("504 Gateway Timeout", &status(504, "Timeout", "Too large resource version: 900, current: 30"))),
        (STREAMING, stream([event("ADDED", service("kept", 6)), end_of_list(30)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    watch.tells("listing +gone +kept listed @900 listing +kept listed @30").await;
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(server.request().await);
    }
    assert!(asked[2].contains(STREAMING) && asked[2].contains("resourceVersion=900"), "never back in time unasked: {}", asked[2]);
    assert!(asked[3].contains(STREAMING) && !asked[3].contains("resourceVersion="), "from the store: {}", asked[3]);
    let told: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("gone back from version 900 of services to 30"), "{told:?}");
}

/// It was away for it: then nobody waits for its silence, which here would last longer than the test.
#[tokio::test]
async fn a_server_that_comes_back_from_a_backup_is_asked_how_far_it_has_counted() {
    let away = || (ANY, answer("503 Service Unavailable", &json!({})));
    let mut server = Server::start([
        (STREAMING, stream([event("ADDED", service("gone", 5)), end_of_list(900)], End::Clean)),
        away(),
        away(),
        (VERSION, answer("200 OK", &page(&[], 30, ""))),
        (STREAMING, stream([event("ADDED", service("kept", 6)), end_of_list(30)], End::Clean)),
        // The ordinary end of a watch is no reason to ask.
        ("&resourceVersion=30", stream([bookmark(31)], End::Clean)),
        ("&resourceVersion=31", stream([bookmark(32)], End::Clean)),
        away(),
        // The same server, gone for a moment.
        (VERSION, answer("200 OK", &page(&[service("kept", 6)], 32, "more"))),
        ("&resourceVersion=32", stream([bookmark(33)], End::Clean)),
        away(),
        // Who may not ask goes on all the same.
        (VERSION, answer("403 Forbidden", &status(403, "Forbidden", "no"))),
        ("&resourceVersion=33", stream([bookmark(34)], End::Clean)),
        ("&resourceVersion=34", stream([bookmark(35)], End::Hold)),
    ])
    .await;
    let patient = Timing { silence: Duration::from_secs(3_600), ..options(&[]).timing };
    let mut watch = Watch::with(Kind::Service, KubeOptions { timing: patient, ..options(&[&server.url]) }).await;
    watch.tells("listing +gone listed @900 listing +kept listed @30 @31 @32 @33 @34 @35").await;
    let mut asked = Vec::new();
    for _ in 0..13 {
        asked.push(server.request().await);
    }
    assert!(
        asked[3].contains(VERSION) && !asked[3].contains("resourceVersion") && !asked[3].contains("labelSelector"),
        "{}",
        asked[3]
    );
    assert!(asked[4].contains(STREAMING) && !asked[4].contains("resourceVersion="), "from the store: {}", asked[4]);
}

/// One that has only just started refuses everything for some seconds: that is no answer to the question.
#[tokio::test]
async fn a_server_that_refuses_at_first_is_asked_again_how_far_it_has_counted() {
    let forbidden = || answer("403 Forbidden", &status(403, "Forbidden", "not yet"));
    let mut server = Server::start([
        (STREAMING, stream([event("ADDED", service("gone", 5)), end_of_list(900)], End::Clean)),
        (ANY, answer("503 Service Unavailable", &json!({}))),
        (VERSION, forbidden()),
        ("&resourceVersion=900", forbidden()),
        (VERSION, answer("429 Too Many Requests\r\nRetry-After: 0", &json!({}))),
        (VERSION, answer("200 OK", &page(&[], 30, ""))),
        (STREAMING, stream([event("ADDED", service("kept", 6)), end_of_list(30)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    let mut asked = Vec::new();
    for _ in 0..7 {
        asked.push(server.request().await);
    }
    for (place, expected) in
        [STREAMING, "&resourceVersion=900", VERSION, "&resourceVersion=900", VERSION, VERSION, STREAMING].into_iter().enumerate()
    {
        assert!(asked[place].contains(expected), "request {place} of {asked:#?}");
    }
    watch.tells("listing +gone listed @900 listing +kept listed @30").await;
}

#[tokio::test]
async fn what_is_no_api_server_is_told_as_that() {
    let (log, _guard) = Log::capture();
    let page = "<!DOCTYPE html>\n<html><body>Sign in</body></html>";
    let html = || Answer { head: "200 OK".into(), chunks: vec!["\n".into(), page.into()], end: End::Clean };
    let server = Server::start([
        (ANY, html()),
        (STREAMING, answer("400 Bad Request", &status(400, "BadRequest", "sendInitialEvents is forbidden"))),
        (ANY, html()),
        (STREAMING, stream([end_of_list(9)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    while watch.next().await != "listed" {}
    let told: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("WARN")).collect();
    let expected = r#"answers with something that is not JSON ("<!DOCTYPE html>"): is this an API server?"#;
    assert!(told.len() == 1 && told[0].contains(expected), "{told:?}");
}

/// A proxy before the API server that has forgotten who we are: no request fails, and nothing comes any more.
#[tokio::test]
async fn a_watch_that_a_login_page_answers_has_failed() {
    let sign_in = "<!DOCTYPE html>\n<html><body>Sign in</body></html>";
    let mut proxy = Server::start([
        (STREAMING, stream([event("ADDED", service("a", 5)), end_of_list(9)], End::Cut)),
        (ANY, Answer { head: "200 OK".into(), chunks: vec![sign_in.into()], end: End::Clean }),
    ])
    .await;
    let next = Server::start([
        (VERSION, answer("200 OK", &page(&[], 9, ""))),
        ("&resourceVersion=9", stream([bookmark(10)], End::Hold)),
    ])
    .await;
    let mut watch = Watch::of(Kind::Service, &[&proxy.url, &next.url]).await;
    watch.tells("listing +a listed @9 @10").await;
    assert_eq!(watch.health.streams()[0].failures, 1, "and it was seen");
    for expected in [STREAMING, "&resourceVersion=9"] {
        assert!(proxy.request().await.contains(expected));
    }
    assert!(proxy.requests.try_recv().is_err(), "it is not asked a second time");
}

#[tokio::test]
async fn the_next_server_takes_over() {
    let dead = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let dead_url = format!("http://{}", dead.local_addr().expect("bound"));
    drop(dead);
    let server = Server::start([(STREAMING, stream([event("ADDED", service("a", 5)), end_of_list(9)], End::Hold))]).await;
    Watch::of(Kind::Service, &[&dead_url, &server.url]).await.tells("listing +a listed @9").await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let place = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = place.local_addr().expect("bound");
    drop(place);
    let mut watch = Watch::of(Kind::Service, &[&format!("http://{address}")]).await;
    while watch.health.streams()[0].failures < 3 {
        tokio::task::yield_now().await;
    }
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("may be reused");
    socket.bind(address).expect("the port is still free");
    let _server = Server::start_on(socket.listen(16).expect("listens"), [(STREAMING, stream([end_of_list(9)], End::Hold))]);
    watch.tells("listing listed @9").await;
}

#[tokio::test]
async fn a_source_watches_five_kinds_and_ends_when_told() {
    let server = Server::start([]).await;
    let listed = |path| (path, stream([end_of_list(9)], End::Hold));
    server.script.lock().expect("not poisoned").extend([
        listed("/api/v1/nodes?fieldSelector=metadata.name%3Dnode-a&"),
        listed("/apis/networking.k8s.io/v1/servicecidrs?"),
        listed("labelSelector=service.kubernetes.io%2Fservice-proxy-name"),
        listed("fieldSelector=spec.clusterIP%21%3DNone&labelSelector=%21service.kubernetes.io%2Fservice-proxy-name"),
        listed("/apis/discovery.k8s.io/v1/endpointslices?labelSelector=%21service.kubernetes.io%2Fheadless&"),
    ]);
    let options = options(&[&server.url]);
    let source = KubeSource::new(Arc::new(connect(&options).await.expect("connects")), options);
    let health = source.health();
    let (sender, mut changes) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(source.run(sender, cancel.clone()));
    let mut streams = Vec::new();
    while streams.len() < 5 {
        match timeout(Duration::from_secs(10), changes.recv()).await.expect("changes come").expect("the source runs") {
            Change::Mark(mark) => streams.push(mark.stream),
            Change::Listing(_) | Change::Listed(_) => {}
            other => panic!("nothing else is there: {other:?}"),
        }
    }
    streams.sort_unstable();
    assert_eq!(streams, ["endpointslices", "foreign-services", "nodes", "servicecidrs", "services"]);
    assert_eq!(health.streams().len(), 5);
    cancel.cancel();
    timeout(Duration::from_secs(5), task).await.expect("ends").expect("without a panic");
}

#[tokio::test]
async fn a_watch_ends_when_nobody_listens() {
    let server = Server::start([(ANY, stream([end_of_list(9), bookmark(10)], End::Hold))]).await;
    let mut watch = Watch::of(Kind::Service, &[&server.url]).await;
    watch.changes.close();
    timeout(Duration::from_secs(5), &mut watch.task).await.expect("ends").expect("without a panic");
}

#[tokio::test]
async fn credentials_are_in_no_message() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config");
    let base = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\nclusters: [{name: k, cluster: {server: \"https://user:hunter2@127.0.0.1:1\"}}]\n";
    for users in [
        "users: [{name: u, user: {token: hunter2}}]\n",
        "users: [{name: u, user: {token: hunter2}\n",
        "users: hunter2\n",
        "users: [{name: u, user: {client-certificate-data: hunter2}}]\n",
    ] {
        std::fs::write(&path, format!("{base}{users}")).expect("writes");
        let options = KubeOptions { kubeconfig: Some(path.clone()), ..KubeOptions::default() };
        let shown = match connect(&options).await {
            Ok(servers) => format!("{:?}", KubeSource::new(Arc::new(servers), options)),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused_and_say_why() {
    for url in ["", "127.0.0.1:6443", "ftp://a", "https://", "http://a b", "https://10.0.0.1:64430000", "https://[fd00::1]:99999"]
    {
        let error = connect(&options(&[url])).await.expect_err(url);
        assert!(matches!(error, ConnectError::Url { .. }), "{error}");
    }
    let options = KubeOptions { kubeconfig: Some("/nonexistent/kubeconfig".into()), ..KubeOptions::default() };
    let error = connect(&options).await.expect_err("no such file").to_string();
    assert_eq!(error, "kubeconfig /nonexistent/kubeconfig: No such file or directory (os error 2)");
}

/// Nobody would ever write into the pipe, and a device gives bytes for ever.
#[tokio::test]
async fn a_kubeconfig_that_is_no_file_or_too_large_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (pipe, large) = (dir.path().join("pipe"), dir.path().join("large"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    std::fs::File::create(&large).and_then(|file| file.set_len(5 << 20)).expect("a file");
    for (path, expected) in [
        (pipe, "it is a pipe, not a regular file"),
        ("/dev/zero".into(), "it is a device, not a regular file"),
        (large, "larger than any kubeconfig (4 MiB)"),
    ] {
        let options = KubeOptions { kubeconfig: Some(path.clone()), ..KubeOptions::default() };
        let error = connect(&options).await.expect_err(expected).to_string();
        assert_eq!(error, format!("kubeconfig {}: {expected}", path.display()));
    }
}

#[tokio::test]
async fn a_file_of_a_kubeconfig_that_is_no_file_or_too_large_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let path = dir.path().join("config");
    for (cluster, user, field) in [
        ("certificate-authority: FILE", "{}", "clusters[].cluster.certificate-authority"),
        ("x: y", "{client-certificate: FILE, client-key-data: ''}", "users[].user.client-certificate"),
        ("x: y", "{client-certificate-data: '', client-key: FILE}", "users[].user.client-key"),
        ("x: y", "{tokenFile: FILE}", "users[].user.tokenFile"),
    ] {
        let pipe = dir.path().join("pipe");
        for (file, expected) in [
            (pipe.to_str().expect("text"), "it is a pipe, not a regular file"),
            ("/dev/zero", "it is a device, not a regular file"),
        ] {
            let text = format!(
                "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
                 clusters: [{{name: k, cluster: {{server: \"https://a\", {cluster}}}}}]\nusers: [{{name: u, user: {user}}}]\n"
            );
            std::fs::write(&path, text.replace("FILE", file)).expect("writes");
            let options = KubeOptions { kubeconfig: Some(path.clone()), ..KubeOptions::default() };
            let error = connect(&options).await.expect_err(field).to_string();
            assert_eq!(error, format!("kubeconfig {}: {field} {file}: {expected}", path.display()));
        }
    }
}

#[tokio::test]
async fn the_path_of_a_server_is_shown_and_its_password_is_not() {
    for (url, shown) in [
        ("https://a:secret@10.0.0.1:6443/k8s/clusters/c/?x=y", "https://10.0.0.1:6443/k8s/clusters/c"),
        ("http://[fd00::1]", "http://[fd00::1]"),
    ] {
        let servers = connect(&options(&[url])).await.expect("connects");
        assert_eq!(servers.current().1.url, shown);
    }
}

#[tokio::test]
async fn a_kubeconfig_that_makes_no_sense_is_named_with_its_field() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config");
    let cluster = "clusters: [{name: k, cluster: {server: \"https://127.0.0.1:1\"}}]";
    let context = "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]";
    for (text, expected) in [
        (format!("contexts: []\n{cluster}"), "current-context is not set"),
        (format!("current-context: c\ncontexts: []\n{cluster}"), "current-context: there is no context \"c\""),
        (format!("{context}\nclusters: []"), "contexts[].context.cluster: there is no cluster \"k\""),
        (format!("{context}\nclusters: [{{name: k, cluster: {{}}}}]"), "clusters[].cluster.server is not set"),
        (
            format!("{context}\nclusters: [{{name: k, cluster: {{server: \"https://a\", certificate-authority: /no/ca}}}}]"),
            "clusters[].cluster.certificate-authority /no/ca: No such file or directory (os error 2)",
        ),
        (
            format!("{context}\nclusters: [{{name: k, cluster: {{server: \"https://10.0.0.1:99999\"}}}}]"),
            "clusters[].cluster.server: no host, or a port that there is not",
        ),
        ("contexts: 7\n".to_owned(), "not YAML, or not a kubeconfig, at line 1, column 11"),
    ] {
        std::fs::write(&path, &text).expect("writes");
        let options = KubeOptions { kubeconfig: Some(path.clone()), ..KubeOptions::default() };
        let error = connect(&options).await.expect_err(&text).to_string();
        assert_eq!(error, format!("kubeconfig {}: {expected}", path.display()), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_one_line_with_the_reason_and_what_to_do() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
    let no_tls = Server::start_on_port_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    // A fatal alert: unexpected_message (RFC 8446 6).
    let tls = Server::start_on_port_that_says(&[21, 3, 3, 0, 2, 2, 10]).await;
    let cases = [
        (format!("http://127.0.0.1:{}", port(&closed)), "cannot be reached: connection refused;"),
        (format!("http://127.0.0.1:{}", port(&silent)), "has been silent for 0 s;"),
        ("http://no-such-host.invalid:1".to_owned(), "cannot be reached: host name cannot be resolved: "),
        (
            format!("https://127.0.0.1:{no_tls}"),
            "cannot be reached: it does not speak TLS at this port, as https:// wants it to;",
        ),
        (
            format!("http://127.0.0.1:{tls}"),
            "cannot be reached: it does not speak HTTP at this port, perhaps TLS, which is https://;",
        ),
    ];
    drop(closed);
    for (url, reason) in cases {
        let (log, _guard) = Log::capture();
        let mut options = options(&[&url]);
        options.timing.answer = Duration::from_millis(if reason.contains("silent") { 50 } else { 10_000 });
        let watch = Watch::with(Kind::Service, options).await;
        while watch.health.streams()[0].failures < 3 {
            tokio::task::yield_now().await;
        }
        let lines: Vec<_> = log.lines().into_iter().filter(|line| !line.contains("credentials")).collect();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].starts_with(&format!("WARN API server {url} {reason}")), "{lines:?}");
        assert!(lines[0].contains("check --api-server or the kubeconfig") && !lines[0].contains("ServiceError"), "{lines:?}");
    }
}

/// Each has its own reason, and one of them may be what has to be mended.
#[tokio::test]
async fn of_several_servers_that_are_down_each_is_named_once() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let refusing = format!("http://127.0.0.1:{}", closed.local_addr().expect("bound").port());
    drop(closed);
    let failing = Server::start((0..10).map(|_| (ANY, answer("503 Service Unavailable", &json!({}))))).await;
    let (log, _guard) = Log::capture();
    let urls = [&*refusing, &failing.url, "http://no-such-host.invalid:1"];
    let watch = Watch::with(Kind::Service, options(&urls)).await;
    while watch.health.streams()[0].failures < 7 {
        tokio::task::yield_now().await;
    }
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for (line, (url, reason)) in lines.iter().zip(urls.into_iter().zip(["connection refused", "503", "cannot be resolved"])) {
        assert!(line.contains(url) && line.contains(reason), "{url} {reason} in {line}");
    }
}

/// A resolver that does not answer takes longer than a connection may: it was told as a connection that took too long.
#[tokio::test]
async fn a_connection_that_took_too_long_for_its_name_is_told_as_that() {
    let slow = || kube::Error::Service(Box::new(std::io::Error::new(std::io::ErrorKind::TimedOut, "deadline has elapsed")));
    for (url, expected) in [
        ("http://no-such-host.invalid:1", "http://no-such-host.invalid:1 cannot be reached: host name cannot be resolved: "),
        ("http://127.0.0.1:1", "http://127.0.0.1:1 cannot be reached: no connection in time"),
        ("http://localhost:1", "http://localhost:1 cannot be reached: no connection in time"),
    ] {
        let servers = connect(&options(&[url])).await.expect("connects");
        let (_, server) = servers.current();
        let told = server.explain(Failure::of_client(&server.url, &slow())).await.to_string();
        assert!(told.starts_with(&format!("API server {expected}")), "{told}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_look_at() {
    let plain = |head: &str, text: &str| Answer { head: head.into(), chunks: vec![text.into()], end: End::Clean };
    for (refuse, expected) in [
        (
            (|_| answer("401 Unauthorized", &status(401, "Unauthorized", "Unauthorized")))
                as fn(&dyn Fn(&str, &str) -> Answer) -> Answer,
            ["401 Unauthorized", "check the credentials: "],
        ),
        (|_| answer("403 Forbidden", &status(403, "Forbidden", "cannot list")), ["403 Forbidden: cannot list", "check RBAC: "]),
        (
            |plain| plain("404 Not Found", "404 page not found\n"),
            ["404 Not Found: 404 page not found", "check --api-server or the kubeconfig: "],
        ),
        (
            |plain| plain("400 Bad Request", "Client sent an HTTP request to an HTTPS server.\n"),
            ["400 Bad Request: Client sent an HTTP request to an HTTPS server.", "begins with https://"],
        ),
        (|plain| plain("404 Not Found", "<html>\n<h1>Not Found</h1>"), ["404 Not Found; ", "check --api-server"]),
    ] {
        let server = Server::start((0..8).map(|_| (ANY, refuse(&plain)))).await;
        let (log, _guard) = Log::capture();
        let watch = Watch::of(Kind::Service, &[&server.url]).await;
        while watch.health.streams()[0].failures < 2 {
            tokio::task::yield_now().await;
        }
        let lines: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("WARN")).collect();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(expected.iter().all(|expected| lines[0].contains(expected)), "{expected:?} in {lines:?}");
    }
}

#[tokio::test]
async fn a_streaming_list_whose_end_never_comes_is_listed_in_pages() {
    let server = Server::start([
        (STREAMING, stream([event("ADDED", service("a", 5)), bookmark(7), bookmark(8)], End::Hold)),
        ("resourceVersion=0", answer("200 OK", &page(&[service("a", 5)], 9, ""))),
        ("resourceVersion=9", stream([bookmark(10)], End::Hold)),
    ])
    .await;
    let mut options = options(&[&server.url]);
    options.timing.streaming_list = Duration::from_millis(100);
    options.timing.silence = Duration::from_secs(60);
    let (log, _guard) = Log::capture();
    let mut watch = Watch::with(Kind::Service, options).await;
    watch.tells("listing +a listing +a listed @9 @10").await;
    assert!(log.lines().iter().any(|line| line.contains("does not stream lists")), "{:?}", log.lines());
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_left_for_the_next() {
    let silent = Server::start([]).await;
    let server = Server::start([(STREAMING, stream([end_of_list(9)], End::Hold))]).await;
    let mut options = options(&[&silent.url, &server.url]);
    options.timing.answer = Duration::from_millis(100);
    options.timing.silence = Duration::from_secs(600);
    Watch::with(Kind::Service, options).await.tells("listing listed @9").await;
}

#[test]
fn a_first_answer_is_awaited_for_less_than_a_watch_may_be_silent() {
    let timing = Timing::default();
    assert!(timing.answer <= Duration::from_secs(15) && timing.answer < timing.silence);
    assert!(timing.streaming_list < timing.silence, "or it would never be what ends a list");
}

#[tokio::test]
async fn addresses_of_the_servers_are_known() {
    let servers = connect(&options(&["https://192.0.2.1:6443", "https://[2001:db8::1]:6443/", "http://localhost:1"]))
        .await
        .expect("connects");
    let addresses = servers.api_server_addresses().await;
    for expected in ["192.0.2.1", "2001:db8::1"] {
        assert!(addresses.contains(&expected.parse().unwrap()), "{expected} in {addresses:?}");
    }
    assert!(addresses.iter().any(std::net::IpAddr::is_loopback), "{addresses:?}");
}

#[tokio::test]
async fn events_are_posted_and_repetitions_counted() {
    let script = [("POST", "201 Created"), ("PATCH", "200 OK"), ("POST", "201 Created"), ("PATCH", "200 OK")];
    let mut server = Server::start(script.map(|(method, status)| (method, answer(status, &json!({}))))).await;
    // The client wants its own object back.
    let echo = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "web.1", "namespace": "default"}, "eventTime": null});
    for (_, answer) in server.script.lock().expect("not poisoned").iter_mut() {
        answer.chunks = vec![echo.to_string()];
    }
    let servers = Arc::new(connect(&options(&[&server.url])).await.expect("connects"));
    let sink = EventSink::spawn(servers, "node-a", CancellationToken::new());
    let remark = Remark {
        subject: EventSubject {
            api_version: "v1",
            kind: "Service",
            key: crate::model::ObjectKey::new("default", "web"),
            uid: Some("u-1".into()),
        },
        severity: Severity::Warning,
        reason: "InvalidField",
        action: "Ignored",
        note: "é".repeat(2_000),
    };
    sink.say(remark.clone());
    sink.say(remark.clone());
    let other = Remark { note: "spec.type: of another kind".into(), ..remark.clone() };
    sink.say(other.clone());
    sink.say(other);
    let first = server.request().await;
    assert!(first.starts_with("POST /apis/events.k8s.io/v1/namespaces/default/events"), "{first}");
    for expected in [r#""reason":"InvalidField""#, r#""type":"Warning""#, r#""uid":"u-1""#, r#""reportingInstance":"node-a""#] {
        assert!(first.contains(expected), "{expected} in {first}");
    }
    let second = server.request().await;
    assert!(
        second.starts_with("PATCH /apis/events.k8s.io/v1/namespaces/default/events/web.") && second.contains(r#""count":2"#),
        "{second}"
    );
    let third = server.request().await;
    assert!(third.starts_with("POST ") && third.contains("of another kind"), "another note is another Event: {third}");
    let fourth = server.request().await;
    assert!(fourth.starts_with("PATCH ") && fourth.contains("of another kind") && fourth.contains(r#""count":2"#), "{fourth}");
}

/// Remembers requests: method and status code, 0 without one.
#[derive(Default)]
struct Heard(Mutex<Vec<(String, u16)>>);

impl Meter for Heard {
    fn asked(&self, request: &Asked<'_>) {
        assert!(request.host.starts_with("127.0.0.1:"), "{request:?}");
        self.0.lock().expect("not poisoned").push((request.method.to_owned(), request.code.unwrap_or(0)));
    }
}

#[tokio::test]
async fn every_request_is_told_one_that_nobody_waits_for_as_well() {
    let mut server = Server::start([("a=1", answer("200 OK", &json!({}))), ("a=2", answer("404 Not Found", &json!({})))]).await;
    let servers = connect(&options(&[&server.url])).await.expect("connects");
    let heard = Arc::new(Heard::default());
    servers.metered_by(heard.clone());
    let ask = |method: &str, uri: &str| {
        let request = http::Request::builder().method(method).uri(uri).body(kube::client::Body::empty()).expect("a request");
        let client = servers.client();
        async move { client.send(request).await }
    };
    ask("GET", "/x?a=1").await.expect("an answer");
    ask("POST", "/x?a=2").await.expect("an answer");
    for expected in ["GET /x?a=1", "POST /x?a=2"] {
        assert!(server.request().await.starts_with(expected));
    }
    // Nothing is listening: the port is one's own, and closed.
    let closed = connect(&options(&["http://127.0.0.1:1"])).await.expect("connects");
    closed.metered_by(heard.clone());
    let request = http::Request::get("/x").body(kube::client::Body::empty()).expect("a request");
    closed.client().send(request).await.expect_err("refused");
    let expected = [("GET", 200), ("POST", 404), ("GET", 0)].map(|(method, code)| (method.to_owned(), code));
    assert_eq!(*heard.0.lock().expect("not poisoned"), expected);
}

#[tokio::test]
async fn events_without_a_server_cost_nothing() {
    let servers = Arc::new(connect(&options(&["http://127.0.0.1:1"])).await.expect("connects"));
    let sink = EventSink::spawn(servers, "node-a", CancellationToken::new());
    let subject = EventSubject { api_version: "v1", kind: "Node", key: crate::model::ObjectKey::new("", "node-a"), uid: None };
    for _ in 0..10_000 {
        sink.say(Remark {
            subject: subject.clone(),
            severity: Severity::Normal,
            reason: "Started",
            action: "Started",
            note: String::new(),
        });
    }
}
