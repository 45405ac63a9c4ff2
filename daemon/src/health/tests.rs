use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::captured_log::Log;
use crate::daemon::Reporter;
use crate::http_server::{Answer as _, Request};
use crate::metrics::Metrics;
use crate::model::{ServiceKey, samples};
use crate::table::{HealthCheck, NodePortAddresses, NodeState, Published, ServiceTable};

fn node(deleting: bool, taints: &[&str]) -> Node {
    Node { deleting, taints: taints.iter().map(|taint| Arc::from(*taint)).collect(), ..samples::node("test-node", []) }
}

/// Asks, and gives the status and the body without its times.
async fn probe(server: &HealthServer, path: &str) -> (u16, Value) {
    let peer = (Ipv4Addr::LOCALHOST, 4711).into();
    let reply = server.answer(&Request { method: &Method::GET, path, body: &[], peer: Some(peer) });
    let headers = reply.headers().clone();
    let status = reply.status();
    let mut body: Value = serde_json::from_slice(&reply.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    for time in ["currentTime", "lastUpdated"] {
        body[time].as_str().unwrap().parse::<Timestamp>().unwrap();
    }
    assert_eq!(body["lastUpdated"] == body["currentTime"], status == StatusCode::OK, "{body}");
    body.as_object_mut().unwrap().retain(|name, _| !["lastUpdated", "currentTime"].contains(&name.as_str()));
    for family in ["IPv4", "IPv6"] {
        let times = body["status"][family].as_object_mut().unwrap().remove("lastUpdated").unwrap();
        times.as_str().unwrap().parse::<Timestamp>().unwrap();
    }
    (status.as_u16(), body)
}

fn both(healthy: bool) -> Value {
    json!({"IPv4": {"healthy": healthy}, "IPv6": {"healthy": healthy}})
}

fn healthz(healthy: bool, eligible: bool) -> Value {
    json!({"nodeEligible": eligible, "healthy": healthy, "status": both(healthy)})
}

fn livez(healthy: bool) -> Value {
    json!({"healthy": healthy, "status": both(healthy)})
}

#[tokio::test]
async fn healthz_waits_for_the_first_sync_and_the_node_and_livez_for_nothing() {
    let health = Arc::new(ProxyHealth::new(STALE_AFTER, true));
    let server = HealthServer::new(health.clone(), Arc::default());
    assert_eq!(probe(&server, "/healthz").await, (503, healthz(false, false)));
    assert_eq!(probe(&server, "/livez").await, (200, livez(true)));

    health.updated(Timestamp::now(), 1);
    assert_eq!(probe(&server, "/healthz").await, (503, healthz(true, false)), "healthy, but the Node has not been seen");
    health.node(&node(false, &[]));
    assert_eq!(probe(&server, "/healthz").await, (200, healthz(true, true)));
    assert_eq!(probe(&server, "/livez").await, (200, livez(true)));
}

#[tokio::test]
async fn a_node_that_will_go_gets_no_traffic_and_no_restart() {
    let health = Arc::new(ProxyHealth::new(STALE_AFTER, true));
    let metrics = Arc::new(Metrics::new());
    let server = HealthServer::new(health.clone(), metrics.clone());
    health.updated(Timestamp::now(), 1);
    for (leaving, reason) in [
        (node(true, &[]), "the Node is being deleted"),
        (node(false, &["x", "ToBeDeletedByClusterAutoscaler"]), "the Node has the taint ToBeDeletedByClusterAutoscaler"),
    ] {
        health.node(&leaving);
        assert_eq!(probe(&server, "/healthz").await, (503, healthz(true, false)));
        assert_eq!(probe(&server, "/livez").await, (200, livez(true)));
        assert_eq!(health.look().unready(), Some(reason));
        health.node(&node(false, &["node.kubernetes.io/unschedulable"]));
        assert_eq!(probe(&server, "/healthz").await, (200, healthz(true, true)));
    }
    let text = metrics.text();
    for line in [
        "kubeproxy_proxy_healthz_total{code=\"200\"} 2",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 2",
        "kubeproxy_proxy_livez_total{code=\"200\"} 2",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} is missing");
    }
}

/// The last object counts, as in kube-proxy: `OnNodeDelete` of its NodeManager writes a line, and no more.
#[tokio::test]
async fn a_node_that_is_gone_is_judged_by_what_it_was_last() {
    let health = Arc::new(ProxyHealth::new(STALE_AFTER, true));
    let server = HealthServer::new(health.clone(), Arc::default());
    health.updated(Timestamp::now(), 1);
    for (last, status) in
        [(node(false, &[]), 200), (node(true, &[]), 503), (node(false, &["ToBeDeletedByClusterAutoscaler"]), 503)]
    {
        health.node(&last);
        health.node_absent();
        assert_eq!(probe(&server, "/healthz").await, (status, healthz(true, status == 200)));
        assert_eq!(probe(&server, "/livez").await, (200, livez(true)));
    }
}

#[tokio::test]
async fn a_change_that_waits_for_too_long_is_unhealthy_until_it_is_in_the_kernel() {
    let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
    let server = HealthServer::new(health.clone(), Arc::default());
    health.updated(Timestamp::now(), 1);
    let long_ago = Instant::now().checked_sub(STALE_AFTER).unwrap();
    health.queued(long_ago);
    // The oldest counts.
    health.queued(Instant::now());
    assert_eq!(probe(&server, "/healthz").await, (503, healthz(false, true)));
    assert_eq!(probe(&server, "/livez").await, (503, livez(false)));
    health.updated(Timestamp::now(), 2);
    health.queued(Instant::now());
    assert_eq!(probe(&server, "/livez").await, (200, livez(true)));
}

#[test]
fn a_node_without_ipv6_says_nothing_of_it() {
    assert_eq!(ProxyHealth::new(STALE_AFTER, false).without_ipv6().look().families, [Family::V4]);
}

#[test]
fn the_age_of_a_change_is_told_to_the_second() {
    let health = ProxyHealth::new(STALE_AFTER, false);
    let begin = Instant::now();
    health.updated(Timestamp::now(), 1);
    health.queued(begin);
    assert!(health.look_at(begin + STALE_AFTER - Duration::from_millis(1)).is_healthy());
    assert!(!health.look_at(begin + STALE_AFTER).is_healthy());
}

#[tokio::test]
async fn what_is_wrong_besides_is_told_and_decides_nothing() {
    let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
    let server = HealthServer::new(health.clone(), Arc::default());
    health.updated(Timestamp::now(), 1);
    health.problem("metrics", Some("listen on 127.0.0.1:10249: address in use".to_owned()));
    let (status, body) = probe(&server, "/healthz").await;
    assert_eq!(status, 200);
    assert_eq!(body["problems"], json!(["metrics: listen on 127.0.0.1:10249: address in use"]));
    health.problem("metrics", None);
    assert_eq!(probe(&server, "/healthz").await, (200, healthz(true, true)));
}

// === healthCheckNodePort ===

/// Published state, and the servers that follow it on the loopback address.
struct Checks {
    table: ServiceTable,
    published: Arc<Published>,
    health: Arc<ProxyHealth>,
    metrics: Arc<Metrics>,
    cancel: CancellationToken,
}

impl Checks {
    fn start() -> Self {
        let checks = Self {
            table: ServiceTable::default(),
            published: Arc::default(),
            health: Arc::new(ProxyHealth::new(STALE_AFTER, true)),
            metrics: Arc::default(),
            cancel: CancellationToken::new(),
        };
        let (published, health, metrics) = (checks.published.clone(), checks.health.clone(), checks.metrics.clone());
        tokio::spawn(ServiceChecks::new(published, health, metrics, Reporter::default()).run(checks.cancel.clone()));
        checks
    }

    /// Of one Service with two endpoints, which answers at this port.
    async fn of_web() -> (Self, u16) {
        let mut checks = Self::start();
        let port = port_of(&free_port());
        checks.at(&[Ipv4Addr::LOCALHOST]);
        checks.set("web", Some((port, 2)));
        checks.commit();
        eventually(port, Some((200, 2))).await;
        (checks, port)
    }

    /// NodePorts, and with them the checks, are served at these IPv4 addresses.
    fn at(&mut self, addresses: &[Ipv4Addr]) {
        let addresses = addresses.iter().copied().map(Into::into).collect();
        let node_ports_v4 = NodePortAddresses { match_all: false, addresses };
        self.table.set_node(NodeState { node_ports_v4, ..NodeState::default() });
        self.commit();
    }

    fn set(&mut self, name: &str, check: Option<(u16, u32)>) {
        let check = check.map(|(port, local)| HealthCheck {
            port: port.try_into().unwrap(),
            uid: "".into(),
            local_v4: Some(local),
            local_v6: None,
        });
        self.table.set_health_check(&ServiceKey::new("ns", name), check);
    }

    /// Publishes, and brings it into the kernel as it were.
    fn commit(&mut self) {
        let committed = self.table.commit();
        self.published.publish(&committed, &self.table);
        self.health.updated(Timestamp::now(), self.table.generation());
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A port that nobody has. Held until it is wanted.
fn free_port() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// Head and body of an answer; `None` if nobody listens.
async fn text(port: u16) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.ok()?;
    stream.write_all(b"GET /whatever HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// Status, weight and body of an answer; `None` if nobody listens.
async fn ask(port: u16) -> Option<(u16, Option<u32>, Value)> {
    let (head, body) = text(port).await?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let weight =
        head.to_lowercase().lines().find_map(|line| line.strip_prefix("x-load-balancing-endpoint-weight: ")?.parse().ok());
    Some((status, weight, serde_json::from_str(&body).ok()?))
}

/// Asks until the answer is this.
async fn eventually(port: u16, wanted: Option<(u16, u32)>) {
    let wanted = |answer: &Option<(u16, Option<u32>, Value)>| match (answer, wanted) {
        (None, None) => true,
        (Some((status, weight, body)), Some((code, local))) => {
            *status == code && *weight == Some(local) && body["localEndpoints"] == local
        }
        _ => false,
    };
    let seen = async {
        while !wanted(&ask(port).await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the server does not follow");
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn endpoints_come_and_go_and_so_does_the_service() {
    let (mut checks, port) = Checks::of_web().await;
    let service = "\t\"service\": {\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"web\"\n\t},\n";
    let expected = format!("{{\n{service}\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}}");
    assert_eq!(text(port).await.unwrap().1, expected, "as kube-proxy prints it");
    checks.set("web", Some((port, 0)));
    checks.commit();
    eventually(port, Some((503, 0))).await;
    checks.set("web", Some((port, 1)));
    checks.commit();
    eventually(port, Some((200, 1))).await;
    checks.set("web", None);
    checks.commit();
    eventually(port, None).await;
}

#[tokio::test]
async fn a_proxy_that_is_behind_serves_nobody_well() {
    let (checks, port) = Checks::of_web().await;
    // A Node that is about to go is none of its business.
    checks.health.node(&node(true, &[]));
    eventually(port, Some((200, 2))).await;
    checks.health.queued(Instant::now().checked_sub(STALE_AFTER).unwrap());
    eventually(port, Some((503, 2))).await;
    assert_eq!(ask(port).await.unwrap().2["serviceProxyHealthy"], false);
}

/// A node that says yes must be able to keep the promise.
#[tokio::test]
async fn nothing_is_promised_before_the_kernel_has_it() {
    let mut checks = Checks::start();
    let (known, port) = (port_of(&free_port()), port_of(&free_port()));
    checks.at(&[Ipv4Addr::LOCALHOST]);
    checks.set("known", Some((known, 1)));
    checks.commit();
    eventually(known, Some((200, 1))).await;
    // Published, and refused by the kernel: the node's state makes it a generation of its own.
    checks.table.set_node(NodeState { masquerade_all: true, ..(**checks.table.node()).clone() });
    checks.set("web", Some((port, 2)));
    let committed = checks.table.commit();
    checks.published.publish(&committed, &checks.table);
    for _ in 0..50 {
        assert_eq!(ask(port).await, None);
        assert!(ask(known).await.is_some());
    }
    checks.health.updated(Timestamp::now(), checks.table.generation());
    eventually(port, Some((200, 2))).await;
}

#[tokio::test]
async fn a_port_passes_from_one_service_to_another() {
    let mut checks = Checks::start();
    let (port, other) = (port_of(&free_port()), port_of(&free_port()));
    checks.at(&[Ipv4Addr::LOCALHOST]);
    checks.set("a", Some((port, 1)));
    checks.commit();
    eventually(port, Some((200, 1))).await;
    checks.set("b", Some((port, 3)));
    checks.set("a", Some((other, 1)));
    checks.commit();
    eventually(port, Some((200, 3))).await;
    eventually(other, Some((200, 1))).await;
    assert!(!checks.metrics.text().contains("sheave_listen_failures_total{"), "nobody stood in anybody's way");
}

#[tokio::test]
async fn a_busy_port_is_told_and_taken_when_it_is_free() {
    let (log, _guard) = Log::capture();
    let mut checks = Checks::start();
    let holder = free_port();
    let port = port_of(&holder);
    checks.at(&[Ipv4Addr::LOCALHOST]);
    checks.set("web", Some((port, 1)));
    checks.commit();
    let told = async {
        while checks.health.look().problems.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("nobody tells of a busy port");
    let problem = checks.health.look().problems.remove(0);
    assert!(problem.starts_with(&format!("healthCheckNodePort of ns/web at 127.0.0.1:{port}: listen on ")), "{problem}");
    drop(holder);
    eventually(port, Some((200, 1))).await;
    assert_eq!(checks.health.look().problems, Vec::<String>::new());
    let lines = log.lines();
    let [failed, answered] = &lines[..] else { panic!("one line when it is busy, and one when it no longer is: {lines:?}") };
    assert!(failed.starts_with("WARN healthCheckNodePort is not answered, trying again until it can be: listen on "), "{failed}");
    let expected = format!("INFO healthCheckNodePort is answered on 127.0.0.1:{port} at last object=ns/web");
    assert_eq!(*answered, expected);
}

#[tokio::test]
async fn servers_follow_the_addresses_of_node_ports() {
    let mut checks = Checks::start();
    let port = port_of(&free_port());
    checks.at(&[Ipv4Addr::new(127, 0, 0, 9)]);
    checks.set("web", Some((port, 1)));
    checks.commit();
    let other = async || TcpStream::connect((Ipv4Addr::new(127, 0, 0, 9), port)).await.is_ok();
    let there = async {
        while !other().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), there).await.expect("the server does not listen");
    assert_eq!(ask(port).await, None);
    checks.at(&[Ipv4Addr::LOCALHOST]);
    eventually(port, Some((200, 1))).await;
    assert!(!other().await);
}
