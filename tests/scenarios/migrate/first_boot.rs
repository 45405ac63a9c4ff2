//! A node that has just booted: no rules, and so no way to the API server's ClusterIP.

use crate::{
    disruption::traffic,
    fixture::{Cluster, DETECT_PODS, Endpoint, Service, node, service_cidr},
};
use anyhow::{Context as _, ensure};
use sheave_lab::{Outcome, Protocol, Request};
use sheave_tests::{
    apiserver::{ApiServer, Config},
    scenario::Scenario,
    scenarios,
};
use std::{net::TcpListener, time::Duration};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("migrate":
        first_boot_needs_no_service_network needs ["nftables", "tool:nft"];
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
    let kubernetes =
        Service::new("kubernetes", "172.30.0.1").only(Protocol::Tcp, 443, 6443).endpoint(Endpoint::at("192.168.0.50"));
    let objects = [node(), service_cidr()].into_iter().chain(kubernetes.documents()).chain(traffic::web().documents());
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
