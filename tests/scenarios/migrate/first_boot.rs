//! A node that has just booted: no rules, and so no way to the API server's ClusterIP.

use crate::{
    disruption::traffic,
    fixture::{Cluster, DETECT_PODS, node, service_cidr},
};
use anyhow::{Context as _, ensure};
use serde_json::json;
use sheave_lab::{Outcome, Protocol, Request};
use sheave_tests::{
    apiserver::{ApiServer, Config},
    scenario::Scenario,
    scenarios,
    world::executable,
};
use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("migrate":
        first_boot_needs_no_service_network needs ["nftables", "tool:nft"];
        an_api_server_that_needs_a_service_proxy_is_warned_of needs ["nftables"];
    )
    .to_vec()
}

const CLUSTER_IP: &str = "172.30.0.1:443";

/// The API server is on another machine. Its ClusterIP answers nobody until our rules are there, and they come from it.
fn first_boot_needs_no_service_network() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    let master = cluster.lan_host("master", "192.168.0.50", None)?;
    let listener = master.run(|| TcpListener::bind((master.ipv4(), 6443)))?.context("a port for the API server")?;
    let cidrs = ["172.30.0.0/16", "fd00:172:30::/48"].map(str::parse);
    let service_cidrs = cidrs.into_iter().collect::<Result<_, _>>()?;
    let api = ApiServer::start(Config { listener: Some(listener), service_cidrs, ..Config::default() })?;
    // What a real API server says of itself; the Service it has made already.
    let kubernetes = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "namespace": "default", "name": "kubernetes", "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "endpoints": [{ "addresses": ["192.168.0.50"], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "protocol": "TCP", "port": 6443 }],
    });
    let objects = [node(), service_cidr(), kubernetes].into_iter().chain(traffic::web().documents());
    for mut object in objects {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("uid");
        }
        api.apply(&object).map_err(|status| anyhow::anyhow!("the API server refused {object}: {status:?}"))?;
    }
    let asks = |cluster: &Cluster, to: &str| -> anyhow::Result<Outcome> {
        Ok(cluster.pod.ask(&Request::new(Protocol::Tcp, to)?.timeout(Duration::from_millis(300)))?)
    };
    ensure!(asks(&cluster, "172.30.0.41:80")?.by().is_none() && cluster.nft("list tables")?.is_empty(), "the node is not empty");
    let reaches = |address: &str| -> anyhow::Result<bool> {
        let address: std::net::SocketAddr = address.parse()?;
        Ok(cluster.node().run(|| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok())?)
    };
    ensure!(!reaches(CLUSTER_IP)?, "the ClusterIP of the API server answers without rules");

    cluster.start_on_api("http://192.168.0.50:6443", &DETECT_PODS)?;
    cluster.await_log("synced", Duration::from_secs(20))?;
    ensure!(asks(&cluster, "172.30.0.41:80")?.by().is_some());
    ensure!(cluster.node().run(|| std::net::TcpStream::connect(CLUSTER_IP).is_ok())?, "the API server's ClusterIP");
    drop(api);
    Ok(())
}

/// A pod's environment names the API server's ClusterIP and nothing else.
fn an_api_server_that_needs_a_service_proxy_is_warned_of() -> anyhow::Result<()> {
    let cluster = traffic::cluster()?;
    // The sandbox's own /run.
    let account = std::path::Path::new("/run/secrets/kubernetes.io/serviceaccount");
    std::fs::create_dir_all(account)?;
    let key = rcgen::KeyPair::generate()?;
    let authority = rcgen::CertificateParams::default().self_signed(&key)?.pem();
    for (file, text) in [("token", "secret"), ("namespace", "kube-system"), ("ca.crt", &authority)] {
        std::fs::write(account.join(file), text)?;
    }
    let mut command = Command::new(executable()?);
    command.args(["run", "--node-name", "test-node"]).stdin(Stdio::null()).stderr(Stdio::piped());
    command.env("KUBERNETES_SERVICE_HOST", "172.30.0.1").env("KUBERNETES_SERVICE_PORT", "443").env_remove("KUBECONFIG");
    let mut daemon = cluster.node().spawn(command)?;
    let log = BufReader::new(daemon.child().stderr.take().context("its standard error is a pipe")?);
    for line in log.lines() {
        let line = line?;
        if line.contains("the API server is known by") {
            ensure!(
                ["WARN", "ClusterIP", "172.30.0.1", "--api-server", "--kubeconfig"].iter().all(|words| line.contains(words)),
                "{line}"
            );
            return Ok(());
        }
    }
    anyhow::bail!("it ended without a warning")
}
