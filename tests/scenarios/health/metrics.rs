//! `:10249`.

use super::ask::{Answer, get, request};
use crate::{
    fixture::{Cluster, Endpoint, Service},
    kube::served::eventually,
};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use sheave_lab::{Host, Protocol};
use sheave_tests::world::{LOG_FILTER, NODE_NAME};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

const METRICS: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

fn ask(from: &Host, path: &str) -> anyhow::Result<Answer> {
    get(from, METRICS, path)?.context("nobody listens")
}

/// One sample, by its series.
fn sample(cluster: &Cluster, series: &str) -> anyhow::Result<f64> {
    let text = ask(cluster.node(), "/metrics")?.body;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.with_context(|| format!("no {series} in {text}"))
}

pub(super) fn the_metrics_port_answers_on_the_node_alone() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let node = cluster.node();
    for (path, kind, body) in [
        ("/proxyMode", "text/plain; charset=utf-8", Some("nftables")),
        ("/healthz", "text/plain; charset=utf-8", Some("ok")),
        ("/readyz", "text/plain; charset=utf-8", Some("ok")),
        ("/configz", "application/json", None),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", None),
        ("/debug/flags/v", "text/plain; charset=utf-8", Some(&*format!("{LOG_FILTER}\n"))),
    ] {
        let answer = ask(node, path)?;
        ensure!(answer.status == 200 && answer.header("content-type") == Some(kind), "{path}: {answer:?}");
        ensure!(body.is_none_or(|body| answer.body == body), "{path}: {answer:?}");
    }
    let configz = ask(node, "/configz")?.json()?;
    let configuration = &configz["kubeproxy.config.k8s.io"];
    ensure!(configuration["kind"] == "KubeProxyConfiguration" && configuration["clusterCIDR"] != Value::Null, "{configz}");
    // What the command line says, too.
    ensure!(configuration["hostnameOverride"] == NODE_NAME, "{configz}");
    ensure!(configz["config.sheave.dev"]["manifests"].as_str().is_some_and(|path| !path.is_empty()), "{configz}");
    ensure!(ask(node, "/")?.status == 404);

    let outside = (IpAddr::from(node.ipv4()), 10249);
    ensure!(get(cluster.client(), outside, "/metrics")?.is_none(), "the world reads our metrics");

    // The log level, live.
    let put = |body| request(node, METRICS, "PUT", "/debug/flags/v", body)?.context("nobody listens");
    ensure!(put("4")?.body == "successfully set the log filter to debug\n");
    cluster.await_log("log filter changed", Duration::from_secs(10))?;
    ensure!(put("loud")?.status == 400);
    ensure!(ask(node, "/debug/flags/v")?.body == "debug\n");
    ensure!(put("info")?.status == 200);
    Ok(())
}

pub(super) fn metrics_follow_what_happens() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let service = |endpoint| Service::new("web", "172.30.0.41").only(Protocol::Tcp, 80, 80).internal_local().endpoint(endpoint);
    // Local only, and nothing is here: clients meet silence, and an alert may count that.
    cluster.services(&[&service(Endpoint::remote("10.180.2.1"))])?;
    for (series, value) in [
        ("sheave_service_ports{ip_family=\"IPv4\"}", 1.0),
        ("sheave_service_ports{ip_family=\"IPv6\"}", 1.0),
        ("sheave_kernel_current", 1.0),
        ("kubeproxy_sync_proxy_rules_service_changes_pending", 0.0),
        ("kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"internal\",ip_family=\"IPv4\"}", 1.0),
        ("kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\",ip_family=\"IPv4\"}", 0.0),
        ("kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"}", 0.0),
        ("kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"}", 0.0),
    ] {
        ensure!(sample(&cluster, series)? == value, "{series}: {} instead of {value}", sample(&cluster, series)?);
    }
    let done = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}";
    let queued = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"}";
    let before = sample(&cluster, done)?;
    let partial = "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}";
    let changes = sample(&cluster, partial)?;

    // The endpoint controller says since when the world has been like this; of IPv6 it says nothing.
    let mut documents = service(Endpoint::local("10.180.0.1")).documents();
    let slice = documents.iter_mut().find(|object| object["addressType"] == "IPv4").context("a slice of IPv4")?;
    slice["metadata"]["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"] =
        jiff::Timestamp::now().to_string().into();
    cluster.objects("world.yaml", documents)?;
    for (series, value) in [
        ("kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"internal\",ip_family=\"IPv4\"}", 0.0),
        ("kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"}", 1.0),
        ("kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv6\"}", 0.0),
    ] {
        ensure!(sample(&cluster, series)? == value, "{series}: {} instead of {value}", sample(&cluster, series)?);
    }
    ensure!(sample(&cluster, done)? >= before && sample(&cluster, queued)? <= sample(&cluster, done)?);
    ensure!(sample(&cluster, partial)? > changes);
    eventually("an element in the map of endpoints", || {
        Ok(sample(&cluster, "sheave_set_elements{set=\"service-ips-4\"}").is_ok_and(|count| count == 1.0))
    })?;

    cluster.flush()?;
    eventually("a repair", || Ok(sample(&cluster, "sheave_repairs_total{damage=\"structure\"}")? >= 1.0))
}
