//! `:10256`.

use super::ask::{Answer, get};
use crate::{
    disruption::traffic,
    fixture::{Cluster, DETECT_PODS, node},
    kube::served::{ARRIVAL, ApiCluster, eventually},
};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sheave_lab::Host;
use sheave_tests::{
    apiserver::{Effect, Fault, Verb},
    world::NODE_NAME,
};
use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    time::Duration,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn probe(from: &Host, to: IpAddr, path: &str) -> anyhow::Result<Answer> {
    get(from, (to, 10256), path)?.with_context(|| format!("nobody listens at {to}"))
}

/// Status, `healthy` and `nodeEligible`.
fn verdict(world: &Cluster, path: &str) -> anyhow::Result<(u16, Value, Value)> {
    let answer = probe(world.node(), LOOPBACK, path)?;
    let body = answer.json()?;
    Ok((answer.status, body["healthy"].clone(), body["nodeEligible"].clone()))
}

/// Waits for the first answer, and for this one.
fn becomes(world: &Cluster, path: &str, wanted: &(u16, Value, Value)) -> anyhow::Result<()> {
    let mut last = None;
    eventually(&format!("{wanted:?} from {path}"), || {
        let Some(answer) = get(world.node(), (LOOPBACK, 10256), path)? else { return Ok(false) };
        let body = answer.json()?;
        let seen = (answer.status, body["healthy"].clone(), body["nodeEligible"].clone());
        let good = seen == *wanted;
        last = Some(seen);
        Ok(good)
    })
    .with_context(|| format!("last: {last:?}"))
}

/// What is told to be out of order. A namespace of the lab may not set the size of the connection table: that is always among it.
fn problems(body: &Value) -> Vec<&str> {
    let all = body["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
    all.filter(|problem| !problem.starts_with("kernel setting net.netfilter.nf_conntrack_max: ")).collect()
}

fn yes() -> (u16, Value, Value) {
    (200, json!(true), json!(true))
}

fn alive() -> (u16, Value, Value) {
    (200, json!(true), Value::Null)
}

pub(super) fn bodies_headers_and_codes() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let node = IpAddr::from(cluster.node().ipv4());
    for (from, to) in [(&**cluster.node(), LOOPBACK), (&**cluster.node(), node), (cluster.client(), node), (&cluster.pod, node)] {
        for (path, eligible) in [("/healthz", Some(true)), ("/livez", None)] {
            let answer = probe(from, to, path)?;
            ensure!(answer.status == 200, "{answer:?}");
            ensure!(answer.header("content-type") == Some("application/json"), "{answer:?}");
            ensure!(answer.header("x-content-type-options") == Some("nosniff"), "{answer:?}");
            let body = answer.json()?;
            ensure!(body["healthy"] == true && body["nodeEligible"].as_bool() == eligible, "{body}");
            let time = |value: &Value| value.as_str().unwrap_or_default().parse::<jiff::Timestamp>();
            ensure!(time(&body["currentTime"])? == time(&body["lastUpdated"])?, "{body}");
            for family in ["IPv4", "IPv6"] {
                let status = &body["status"][family];
                ensure!(status["healthy"] == true && time(&status["lastUpdated"])? <= time(&body["currentTime"])?, "{body}");
            }
            // In this order: somebody parses it with a regular expression.
            let order = ["\"lastUpdated\"", "\"currentTime\"", "\"nodeEligible\"", "\"healthy\"", "\"status\""];
            let places: Vec<_> = order.iter().filter_map(|name| answer.body.find(name)).collect();
            ensure!(places.is_sorted(), "{}", answer.body);
        }
        ensure!(probe(from, to, "/")?.status == 404);
    }
    Ok(())
}

/// kube-proxy says 200 from its first moment.
pub(super) fn nothing_is_healthy_before_the_first_sync() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    for verb in [Verb::List, Verb::Watch] {
        served.api.inject(Fault::new(Effect::Delay(Duration::from_secs(600))).on(verb, "endpointslices"));
    }
    let url = served.api.url();
    served.start_on_api(&url, &DETECT_PODS)?;
    becomes(&served, "/healthz", &(503, json!(false), json!(true)))?;
    ensure!(verdict(&served, "/livez")? == alive(), "a restart would mend nothing");
    let answer = probe(served.node(), LOOPBACK, "/healthz")?;
    ensure!(answer.json()?["lastUpdated"] == "0001-01-01T00:00:00Z", "{answer:?}");
    let ready = get(served.node(), (LOOPBACK, 10249), "/readyz")?.context("nobody listens")?;
    ensure!(ready.status == 503 && ready.body == "nothing has been programmed yet\n", "{ready:?}");

    served.api.clear_faults();
    served.api.cut_connections();
    becomes(&served, "/healthz", &yes())?;
    let ready = get(served.node(), (LOOPBACK, 10249), "/readyz")?.context("nobody listens")?;
    ensure!(ready.status == 200 && ready.body == "ok", "{ready:?}");
    Ok(())
}

pub(super) fn a_node_that_will_go_is_told_by_healthz_alone() -> anyhow::Result<()> {
    let served = ApiCluster::start()?;
    becomes(&served, "/healthz", &yes())?;
    let refused = |status| anyhow::anyhow!("{status:?}");
    let taints = |list: Value| served.api.patch("nodes", "", NODE_NAME, json!({"spec": {"taints": list}})).map_err(refused);
    let leaving = (503, json!(true), json!(false));

    taints(json!([{"key": "ToBeDeletedByClusterAutoscaler", "value": "1795224228", "effect": "NoSchedule"}]))?;
    becomes(&served, "/healthz", &leaving)?;
    ensure!(verdict(&served, "/livez")? == alive());
    taints(json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]))?;
    becomes(&served, "/healthz", &yes())?;

    // A finalizer keeps it there with its deletionTimestamp.
    served.api.patch("nodes", "", NODE_NAME, json!({"metadata": {"finalizers": ["example.org/wait"]}})).map_err(refused)?;
    served.api.delete("nodes", "", NODE_NAME).map_err(refused)?;
    becomes(&served, "/healthz", &leaving)?;
    ensure!(verdict(&served, "/livez")? == alive());
    served.api.patch("nodes", "", NODE_NAME, json!({"metadata": {"finalizers": null}})).map_err(refused)?;
    served.apply([node()])?;
    becomes(&served, "/healthz", &yes())
}

/// A misspelt name, or a node that registers late: Services are served, and whoever looks is told why not all is as it should be.
pub(super) fn a_node_that_is_not_there_is_told_until_it_is() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    served.api.delete("nodes", "", NODE_NAME).map_err(|status| anyhow::anyhow!("{status:?}"))?;
    let url = served.api.url();
    served.start_on_api(&url, &DETECT_PODS)?;
    served.await_answer("172.30.0.41:80", &traffic::BACKENDS)?;
    let line = served.await_log("the API server has no Node", ARRIVAL)?;
    ensure!(line.contains("\"test-node\", which --node-name, --hostname-override or NODE_NAME gives"), "{line}");
    let told = || -> anyhow::Result<bool> {
        let body = probe(served.node(), LOOPBACK, "/healthz")?.json()?;
        let mut problems = body["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(problems.any(|problem| problem.starts_with("node: the API server has no Node \"test-node\"")))
    };
    eventually("a problem in /healthz", told)?;
    ensure!(verdict(&served, "/healthz")? == (503, json!(true), json!(false)));
    served.apply([node()])?;
    served.await_log("the Node \"test-node\" is there", ARRIVAL)?;
    becomes(&served, "/healthz", &yes())?;
    ensure!(!told()? && served.count_log("has no Node") == 1);
    Ok(())
}

/// What is in force stays in force, so traffic may come; who looks is told all the same.
pub(super) fn an_outage_of_the_api_server_is_told_and_costs_no_health() -> anyhow::Result<()> {
    let served = ApiCluster::start()?;
    becomes(&served, "/healthz", &yes())?;
    served.api.refuse_connections()?;
    served.api.cut_connections();
    let body = || probe(served.node(), LOOPBACK, "/healthz")?.json();
    let told = |body: &Value| {
        problems(body).iter().filter(|problem| problem.starts_with("watch of ") && problem.contains("cannot be reached")).count()
    };
    eventually("five failing watches", || Ok(told(&body()?) == 5)).with_context(|| format!("{:?}", body()))?;
    ensure!(verdict(&served, "/healthz")? == yes() && verdict(&served, "/livez")? == alive());
    let metrics = || anyhow::Ok(get(served.node(), (LOOPBACK, 10249), "/metrics")?.context("nobody listens")?.body);
    let text = metrics()?;
    ensure!(text.contains("\nsheave_watch_up{stream=\"services\"} 0\n"), "{text}");
    ensure!(text.contains("\nrest_client_requests_total{code=\"<error>\",host=\"127.0.0.1:"), "{text}");

    served.api.accept_connections()?;
    eventually("no problem", || Ok(problems(&body()?).is_empty())).with_context(|| format!("{:?}", body()))?;
    let text = metrics()?;
    ensure!(text.contains("\nsheave_watch_up{stream=\"services\"} 1\n"), "{text}");
    Ok(())
}

/// Both ports are somebody else's for a while.
pub(super) fn a_busy_port_costs_no_packet_and_is_taken_when_it_is_free() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    let holders = served
        .node()
        .run(|| ["0.0.0.0:10256", "127.0.0.1:10249"].into_iter().map(TcpListener::bind).collect::<Result<Vec<_>, _>>())??;
    let url = served.api.url();
    served.start_on_api(&url, &DETECT_PODS)?;
    served.await_answer("172.30.0.41:80", &["local", "remote"])?;
    // Settings as well: see `problems`.
    let failures = ["FailedToStartProxierHealthcheck", "FailedToStartMetricServer", "FailedToSetKernelSettings"];
    for reason in failures.into_iter().chain(["Starting"]) {
        let on_node = |event: &Value| event["reason"] == reason && event["regarding"]["kind"] == "Node";
        eventually(&format!("an Event {reason}"), || Ok(events(&served).iter().any(on_node)))
            .with_context(|| format!("{:#?}", events(&served)))?;
        let event = events(&served).into_iter().find(|event| on_node(event)).context("it was there")?;
        // `kubectl describe node` looks for the name as uid.
        ensure!(event["regarding"]["name"] == NODE_NAME && event["regarding"]["uid"] == NODE_NAME, "{event}");
        let kind = if reason == "Starting" { "Normal" } else { "Warning" };
        ensure!(event["type"] == kind && event["metadata"]["namespace"] == "default", "{event}");
    }
    let [health, metrics] = <[TcpListener; 2]>::try_from(holders).map_err(|_| anyhow::anyhow!("two were made"))?;
    drop(health);
    becomes(&served, "/healthz", &yes())?;
    let body = probe(served.node(), LOOPBACK, "/healthz")?.json()?;
    let problems_now = problems(&body);
    ensure!(problems_now.len() == 1 && problems_now[0].starts_with("metrics: listen on 127.0.0.1:10249: "), "{body}");
    drop(metrics);
    eventually("an answer at the metrics port", || Ok(get(served.node(), (LOOPBACK, 10249), "/healthz")?.is_some()))?;
    let text = get(served.node(), (LOOPBACK, 10249), "/metrics")?.context("nobody listens")?.body;
    let posted = |line: &str| line.starts_with("rest_client_requests_total{code=\"201\"") && line.contains("method=\"POST\"");
    ensure!(text.lines().any(posted), "an Event is a request, too: {text}");
    ensure!(text.contains("\nsheave_kernel_settings_missed 1\n"), "{text}");
    eventually("no problem", || Ok(problems(&probe(served.node(), LOOPBACK, "/healthz")?.json()?).is_empty()))
}

fn events(served: &ApiCluster) -> Vec<Value> {
    served.api.list("events.events.k8s.io")
}

pub(super) fn a_busy_port_is_the_end_where_that_was_asked_for() -> anyhow::Result<()> {
    let cluster = Cluster::new(crate::fixture::Pods::Routed)?;
    let _holder = cluster.node().run(|| TcpListener::bind("127.0.0.1:10249"))??;
    let source = format!("manifests={}", cluster.manifests().display());
    let done = cluster.sheave(&["run", "--source", &source, "--node-name", NODE_NAME, "--bind-address-hard-fail"])?;
    ensure!(done.status.code() == Some(1), "{done:?}");
    ensure!(done.stderr.contains("sheave: listen on 127.0.0.1:10249: "), "{}", done.stderr);
    ensure!(done.stderr.contains("the daemon ends") && !done.stderr.contains("again"), "{}", done.stderr);
    // Every line of a log in JSON is an object, the last one as well.
    let json = ["--bind-address-hard-fail", "--log-format", "json"];
    let done = cluster.sheave(&[&["run", "--source", &source, "--node-name", NODE_NAME], &json[..]].concat())?;
    ensure!(done.status.code() == Some(1), "{done:?}");
    let lines: Vec<Value> =
        done.stderr.lines().map(serde_json::from_str).collect::<Result<_, _>>().context(done.stderr.clone())?;
    let last = lines.last().context("it says something")?;
    ensure!(last["level"] == "ERROR" && last["message"].as_str().is_some_and(|text| text.starts_with("listen on ")), "{last}");
    Ok(())
}
