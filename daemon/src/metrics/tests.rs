use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::health::{ProxyHealth, STALE_AFTER};
use crate::http_server::{Answer as _, Reply, Request};
use crate::log_filter::LogFilter;

/// kube-proxy v1.36.2's, those of all modes and of the nftables mode: name, type, labels.
const KUBE_PROXY: [(&str, &str, &[&str]); 27] = [
    ("sync_proxy_rules_duration_seconds", "histogram", &["ip_family"]),
    ("sync_full_proxy_rules_duration_seconds", "histogram", &["ip_family"]),
    ("sync_partial_proxy_rules_duration_seconds", "histogram", &["ip_family"]),
    ("sync_proxy_rules_last_timestamp_seconds", "gauge", &["ip_family"]),
    ("sync_proxy_rules_last_queued_timestamp_seconds", "gauge", &["ip_family"]),
    ("network_programming_duration_seconds", "histogram", &["ip_family"]),
    ("sync_proxy_rules_endpoint_changes_pending", "gauge", &[]),
    ("sync_proxy_rules_endpoint_changes_total", "counter", &[]),
    ("sync_proxy_rules_service_changes_pending", "gauge", &[]),
    ("sync_proxy_rules_service_changes_total", "counter", &[]),
    ("sync_proxy_rules_no_local_endpoints_total", "gauge", &["ip_family", "traffic_policy"]),
    ("proxy_healthz_total", "counter", &["code"]),
    ("proxy_livez_total", "counter", &["code"]),
    ("sync_proxy_rules_nftables_sync_failures_total", "counter", &["ip_family"]),
    ("sync_proxy_rules_nftables_cleanup_failures_total", "counter", &["ip_family"]),
    ("conntrack_reconciler_sync_duration_seconds", "histogram", &["ip_family"]),
    ("conntrack_reconciler_deleted_entries_total", "counter", &["ip_family"]),
    // Of every Go program that talks to an API server, and looked at beside the others.
    ("/rest_client_requests_total", "counter", &["code", "host", "method"]),
    ("/rest_client_request_duration_seconds", "histogram", &["host", "verb"]),
    ("/kubernetes_feature_enabled", "gauge", &["name", "stage"]),
    ("/process_cpu_seconds_total", "counter", &[]),
    ("/process_max_fds", "gauge", &[]),
    ("/process_open_fds", "gauge", &[]),
    ("/process_resident_memory_bytes", "gauge", &[]),
    ("/process_start_time_seconds", "gauge", &[]),
    ("/process_virtual_memory_bytes", "gauge", &[]),
    ("/process_virtual_memory_max_bytes", "gauge", &[]),
];

/// Those of kube-proxy v1.36.2 that are not told; the page says of each why not.
const ABSENT: [&str; 26] = [
    "sync_proxy_rules_iptables_restore_failures_total",
    "sync_proxy_rules_iptables_partial_restore_failures_total",
    "sync_proxy_rules_iptables_total",
    "sync_proxy_rules_iptables_last",
    "iptables_ct_state_invalid_dropped_packets_total",
    "iptables_localhost_nodeports_accepted_packets_total",
    "go_*",
    "kubernetes_build_info",
    "kubernetes_healthcheck",
    "kubernetes_healthchecks_total",
    "process_network_receive_bytes_total",
    "process_network_transmit_bytes_total",
    "rest_client_dns_resolution_duration_seconds",
    "rest_client_exec_plugin_call_total",
    "rest_client_exec_plugin_certificate_rotation_age",
    "rest_client_exec_plugin_ttl_seconds",
    "rest_client_rate_limiter_duration_seconds",
    "rest_client_request_retries_total",
    "rest_client_request_size_bytes",
    "rest_client_response_size_bytes",
    "rest_client_transport_cache_entries",
    "rest_client_transport_create_calls_total",
    "registered_metrics_total",
    "hidden_metrics_total",
    "disabled_metrics_total",
    "/metrics/slis",
];

/// A metric of an exposition: its type, and the labels of its samples.
#[derive(Debug, Default, PartialEq)]
struct Told {
    kind: String,
    labels: Vec<String>,
    bounds: Vec<String>,
}

/// Reads an exposition as a scraper does: samples belong to the `# TYPE` before them.
fn read(text: &str) -> BTreeMap<String, Told> {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    let mut present = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut present);
            kind.clone_into(&mut told.entry(present.clone()).or_default().kind);
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let metric = told.get_mut(&present).unwrap();
            let suffixes: &[&str] = if metric.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| *name == format!("{present}{suffix}")), "{line} after the type of {present}");
            for (label, value) in labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('=')) {
                let list = if label == "le" { &mut metric.bounds } else { &mut metric.labels };
                let entry = if label == "le" { value.trim_matches('"') } else { label };
                if !list.iter().any(|known| known == entry) {
                    list.push(entry.to_owned());
                }
            }
            metric.labels.sort();
        }
    }
    told
}

/// All of them, each with a sample.
fn exposed() -> BTreeMap<String, Told> {
    let metrics = Metrics::new();
    metrics.probes.healthz.of(["200"]).inc();
    metrics.probes.livez.of(["503"]).inc();
    metrics.asked(&Asked { method: "GET", host: "192.0.2.1:6443", code: Some(200), took: Duration::from_millis(30) });
    read(&metrics.text())
}

#[test]
fn every_metric_of_kube_proxy_by_name_type_and_labels() {
    let told = exposed();
    for (name, kind, labels) in KUBE_PROXY {
        let name = name.strip_prefix('/').map_or_else(|| format!("kubeproxy_{name}"), str::to_owned);
        let metric = told.get(&name).unwrap_or_else(|| panic!("{name} is missing from {:?}", told.keys()));
        assert_eq!((metric.kind.as_str(), &metric.labels[..]), (kind, &labels.map_strings()[..]), "{name}");
    }
    let ours: Vec<_> = told.keys().filter(|name| name.starts_with("kubeproxy_")).collect();
    assert_eq!(ours.len(), KUBE_PROXY.iter().filter(|(name, ..)| !name.starts_with('/')).count(), "{ours:?}");
}

#[test]
fn what_is_not_told_is_on_the_page_with_its_reason() {
    let (page, told) = (Metrics::new().reference(), exposed());
    for name in ABSENT {
        assert!(page.contains(&format!("`{name}`")), "{name} is neither told nor accounted for");
        assert!(!told.contains_key(name) && !told.contains_key(&format!("kubeproxy_{name}")), "{name} is told");
    }
}

trait MapStrings {
    fn map_strings(&self) -> Vec<String>;
}

impl MapStrings for &[&str] {
    fn map_strings(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn buckets_are_those_of_kube_proxy() {
    let told = exposed();
    let bounds = |name: &str| told[name].bounds.clone();
    let sync: Vec<String> = (0..15).map(|n| (0.001 * f64::from(1 << n)).to_string()).chain(["+Inf".to_owned()]).collect();
    for name in [
        "kubeproxy_sync_proxy_rules_duration_seconds",
        "kubeproxy_sync_full_proxy_rules_duration_seconds",
        "kubeproxy_sync_partial_proxy_rules_duration_seconds",
        "kubeproxy_conntrack_reconciler_sync_duration_seconds",
    ] {
        assert_eq!(bounds(name), sync, "{name}");
    }
    let seconds = (1..60).chain((60..120).step_by(5)).chain((120..=300).step_by(30));
    let programming: Vec<String> =
        ["0.25", "0.5"].map(str::to_owned).into_iter().chain(seconds.map(|s| s.to_string())).chain(["+Inf".to_owned()]).collect();
    assert_eq!(bounds("kubeproxy_network_programming_duration_seconds"), programming);
    let requests = ["0.005", "0.025", "0.1", "0.25", "0.5", "1", "2", "4", "8", "15", "30", "60", "+Inf"];
    assert_eq!(bounds("rest_client_request_duration_seconds"), requests);
}

#[test]
fn the_page_says_what_the_program_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = Metrics::new().reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/metrics.md is out of date: UPDATE_DOCS=1 cargo test -p sheave metrics");
    // What is described is what is told.
    let told = exposed();
    for name in told.keys() {
        assert!(page.contains(&format!("| `{name}` | {} |", told[name].kind)), "{name} is not described");
    }
}

fn admin() -> (Admin, Arc<ProxyHealth>) {
    let (log, layer) = LogFilter::new("info").unwrap();
    // Without a subscriber the filter cannot be changed.
    std::mem::forget(tracing_subscriber::registry().with(layer));
    let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
    let parts = AdminParts {
        metrics: Arc::default(),
        health: health.clone(),
        plane: "nftables",
        configz: tokio::sync::watch::Sender::new(json!({"kubeproxy.config.k8s.io": {"mode": "nftables"}})).subscribe(),
        log,
    };
    (Admin::new(parts), health)
}

async fn ask(admin: &Admin, method: Method, path: &str, body: &str, peer: &str) -> (StatusCode, String, String) {
    let request = Request { method: &method, path, body: body.as_bytes(), peer: Some(peer.parse().unwrap()) };
    let reply: Reply = admin.answer(&request);
    let kind = reply.headers()["content-type"].to_str().unwrap().to_owned();
    (reply.status(), kind, String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

const HERE: &str = "127.0.0.1:4711";

#[tokio::test]
async fn paths_of_the_metrics_port() {
    let (admin, health) = admin();
    let get = async |path| ask(&admin, Method::GET, path, "", HERE).await;
    let plain = "text/plain; charset=utf-8".to_owned();
    assert_eq!(get("/proxyMode").await, (StatusCode::OK, plain.clone(), "nftables".to_owned()));
    assert_eq!(get("/healthz").await, (StatusCode::OK, plain.clone(), "ok".to_owned()));
    let configz = r#"{"kubeproxy.config.k8s.io":{"mode":"nftables"}}"#;
    assert_eq!(get("/configz").await, (StatusCode::OK, "application/json".to_owned(), configz.to_owned()));
    let (status, kind, body) = get("/metrics").await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
    assert!(body.contains("\nsheave_build_info{version="), "{body}");
    assert_eq!(get("/").await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&admin, Method::POST, "/metrics", "", HERE).await.0, StatusCode::METHOD_NOT_ALLOWED);

    assert_eq!(
        get("/readyz").await,
        (StatusCode::SERVICE_UNAVAILABLE, plain.clone(), "nothing has been programmed yet\n".to_owned())
    );
    health.updated(Timestamp::now(), 1);
    assert_eq!(get("/readyz").await, (StatusCode::OK, plain, "ok".to_owned()));
}

#[tokio::test]
async fn the_log_level_is_changed_from_the_node_alone() {
    let (admin, _) = admin();
    let flags = async |method, body, peer| ask(&admin, method, "/debug/flags/v", body, peer).await;
    assert_eq!(flags(Method::PUT, "debug", "10.180.0.1:4711").await.0, StatusCode::FORBIDDEN);
    assert_eq!(flags(Method::GET, "", HERE).await.2, "info\n");
    assert_eq!(flags(Method::PUT, "5", HERE).await.2, "successfully set the log filter to debug\n");
    assert_eq!(flags(Method::PUT, "warn", "[::ffff:127.0.0.1]:4711").await.0, StatusCode::OK);
    assert_eq!(flags(Method::GET, "", HERE).await.2, "warn\n");
    assert_eq!(flags(Method::PUT, "loud", HERE).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(flags(Method::DELETE, "", HERE).await.0, StatusCode::NOT_ACCEPTABLE);
}
