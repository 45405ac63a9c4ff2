//! The daemon as the manifests deploy it: with what the image holds, what the container may do, and what the ClusterRole allows.

use crate::{
    disruption::traffic,
    fixture::{Cluster, DETECT_PODS, Endpoint, Pods, Service, dual},
    kube::served::{ApiCluster, eventually},
};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sheave_lab::Protocol;
use sheave_tests::{
    apiserver::{Effect, Fault, Refusal, Verb},
    confinement::Confinement,
    scenario::Scenario,
    scenarios,
    world::{NODE_NAME, executable},
};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("deployment":
        the_image_serves_with_net_admin_alone needs ["nftables", "tool:readelf"];
        a_pod_announces_with_net_raw_beside_net_admin needs ["nftables", "tool:readelf", "tool:arping"];
        the_pod_of_kubeadm_runs_as_it_is_and_its_probes_succeed needs ["nftables", "tool:readelf"];
        the_program_knows_every_argument_and_configuration;
        the_cluster_role_allows_what_is_asked_for_and_no_more needs ["nftables"];
        a_node_that_announces_asks_for_what_its_roles_allow_and_no_more needs ["nftables"];
        a_node_that_is_not_to_announce_asks_nothing_of_metallb needs ["nftables"];
    )
    .to_vec()
}

/// As kubeadm writes it beside kube-proxy's configuration, but for the certificate: the server here has none.
const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
clusters:
- cluster: {server: SERVER}
  name: default
contexts:
- context: {cluster: default, namespace: default, user: default}
  name: default
current-context: default
users:
- name: default
  user: {tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token}
";
/// As kubeadm writes it, with the addresses of the lab's pods.
const KUBEADM: &str = include_str!("../fixtures/kubeadm-config.conf");

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn the_image_serves_with_net_admin_alone() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    let image = image()?;
    // The authorities are for an API server with a public certificate. This one needs none: it speaks plain HTTP.
    fs::remove_dir_all(image.path().join("etc/ssl"))?;
    served.confine(Confinement::new(image.path())?);
    let url = served.api.url();
    served.start_on_api(&url, &DETECT_PODS)?;
    served.await_answer(&format!("{}:80", traffic::CLUSTER_IP), &traffic::BACKENDS)?;
    let process = PathBuf::from("/proc").join(served.daemon_id().context("the daemon runs")?.to_string());
    let status = fs::read_to_string(process.join("status"))?;
    // CAP_NET_ADMIN is number 12.
    for line in ["CapPrm:\t0000000000001000", "CapEff:\t0000000000001000", "CapBnd:\t0000000000001000", "NoNewPrivs:\t1"] {
        ensure!(status.contains(line), "it was not confined, {line} is missing:\n{status}");
    }
    let mounts = fs::read_to_string(process.join("mounts"))?;
    ensure!(mounts.lines().all(|mount| mount.split(' ').nth(3).is_some_and(|options| options.starts_with("ro"))), "{mounts}");

    // A change, and damage to repair: loading the table is not all there is to do.
    let api = Service::new("api", "172.30.0.60").only(Protocol::Tcp, 80, 80).endpoint(Endpoint::at("10.180.0.1"));
    served.services([&api])?;
    served.await_answer("172.30.0.60:80", &["local"])?;
    served.flush()?;
    served.await_answer("172.30.0.60:80", &["local"])?;
    // EPERM is what netlink says to whom it does not trust. EROFS and EACCES may be there: settings below /proc/sys are not made.
    ensure!(served.count_log("not permitted") == 0, "the kernel refused something");
    Ok(())
}

/// Nothing that a pod of the DaemonSet lacks is needed to answer for a VIP.
fn a_pod_announces_with_net_raw_beside_net_admin() -> anyhow::Result<()> {
    let vip = "192.168.0.240";
    let mut cluster = Cluster::new(Pods::Routed)?;
    let image = image()?;
    let confinement = Confinement::new(image.path())?.with_net_raw().with_volume(cluster.manifests())?;
    cluster.confine(confinement);
    cluster.start(&[&DETECT_PODS[..], &["--controller"]].concat())?;
    let process = PathBuf::from("/proc").join(cluster.daemon_id().context("the daemon runs")?.to_string());
    let status = fs::read_to_string(process.join("status"))?;
    for line in ["CapPrm:\t0000000000003000", "CapBnd:\t0000000000003000"] {
        ensure!(status.contains(line), "it was not confined, {line} is missing:\n{status}");
    }
    cluster.objects("lan.yaml", pool_and_advertisement(vip))?;
    let web = Service::new("web", "172.30.0.43").port(80).spec("type", "LoadBalancer").endpoint(Endpoint::local("10.180.0.1"));
    cluster.services(&[&web])?;
    let neighbour = cluster.lan_host("neighbour", "192.168.0.9", None)?;
    eventually("an answer to ARP", || {
        Ok(neighbour.exec("arping", &["-c", "1", "-w", "2", "-i", "eth0", vip])?.status.success())
    })?;
    ensure!(cluster.count_log("not permitted") == 0, "the kernel refused something");
    Ok(())
}

/// What the Dockerfile makes.
fn image() -> anyhow::Result<TempDir> {
    let image = tempfile::tempdir()?;
    succeeds(Command::new(manifests().join("docker/files.sh")).arg(executable()?).arg(image.path()))?;
    Ok(image)
}

fn the_pod_of_kubeadm_runs_as_it_is_and_its_probes_succeed() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    let image = image()?;
    let account = image.path().join("var/run/secrets/kubernetes.io/serviceaccount");
    let config = image.path().join("var/lib/kube-proxy");
    fs::create_dir_all(&account)?;
    fs::create_dir_all(&config)?;
    fs::write(account.join("token"), "a token")?;
    fs::write(config.join("config.conf"), KUBEADM)?;
    fs::write(config.join("kubeconfig.conf"), KUBECONFIG.replace("SERVER", &served.api.url()))?;
    served.confine(Confinement::new(image.path())?.with_net_raw());

    let rendered: Vec<Value> =
        serde_saphyr::from_multiple(&fs::read_to_string(manifests().join("kustomize/rendered/kubeadm.yaml"))?)?;
    let daemon_set = rendered.iter().find(|object| object["kind"] == "DaemonSet").context("the overlay has a DaemonSet")?;
    let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
    let arguments: Vec<String> = serde_json::from_value(container["args"].clone())?;
    let (command, arguments) = arguments.split_first().context("it has arguments")?;
    ensure!(command == "run");
    // The kubelet puts in the environment's variables.
    served.start_as(arguments.iter().map(|argument| argument.replace("$(NODE_NAME)", NODE_NAME)))?;
    served.await_answer(&format!("{}:80", traffic::CLUSTER_IP), &traffic::BACKENDS)?;

    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        let named = |port: &&Value| port["name"] == get["port"];
        let port = container["ports"].as_array().and_then(|ports| ports.iter().find(named)).context("a port of that name")?;
        let port = u16::try_from(port["containerPort"].as_u64().context("a number")?)?;
        let path = get["path"].as_str().context("a path")?;
        eventually(probe, || Ok(status(&served, port, path).is_ok_and(|status| status == 200)))?;
    }
    Ok(())
}

/// What an HTTP server answers on the node's own address, as the kubelet asks it.
fn status(served: &ApiCluster, port: u16, path: &str) -> anyhow::Result<u16> {
    let mut answer = String::new();
    served.node().run(|| -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(("192.168.0.2", port))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)?;
        Ok(())
    })??;
    Ok(answer.split(' ').nth(1).context("a status line")?.parse()?)
}

fn the_program_knows_every_argument_and_configuration() -> anyhow::Result<()> {
    for entry in fs::read_dir(manifests().join("kustomize/rendered"))? {
        let path = entry?.path();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&path)?)?;
        for object in &objects {
            let pod = &object["spec"]["template"]["spec"];
            let containers = ["initContainers", "containers"].into_iter().filter_map(|kind| pod[kind].as_array()).flatten();
            for arguments in containers.filter_map(|container| container["args"].as_array()) {
                let arguments = arguments.iter().filter_map(Value::as_str);
                // What comes before `--help` is read first, and must be known.
                succeeds(Command::new(executable()?).args(arguments).arg("--help"))
                    .with_context(|| path.display().to_string())?;
            }
            if let Some(configuration) = object["data"]["config.yaml"].as_str() {
                let file = tempfile::NamedTempFile::new()?;
                fs::write(&file, configuration)?;
                succeeds(Command::new(executable()?).args(["config", "check"]).arg(file.path()))
                    .with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(())
}

fn succeeds(command: &mut Command) -> anyhow::Result<()> {
    let done = command.output()?;
    ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

fn the_cluster_role_allows_what_is_asked_for_and_no_more() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    // A server that streams no lists: then they are asked for as well.
    served.api.inject(Fault::new(Effect::RefuseStreamingLists(Refusal::Invalid)));
    let url = served.api.url();
    served.start_on_api(&url, &DETECT_PODS)?;
    served.await_watches()?;
    // The VIP of another, twice: the second time is counted in the first one's Event.
    let peaceful = Service::new("thief", "172.30.0.60").only(Protocol::Tcp, 80, 80).endpoint(Endpoint::at("10.180.0.1"));
    let thief = peaceful.clone().vip(traffic::VIP);
    for (words, service) in [("belongs to", &thief), ("no longer", &peaceful), ("belongs to", &thief)] {
        served.services([service])?;
        served.await_log(words, Duration::from_secs(20))?;
    }
    eventually("an Event, twice", || Ok(served.api.requests(Verb::Patch, "events.events.k8s.io") > 0))?;

    let asked: BTreeSet<_> =
        served.api.asked_for().into_iter().map(|(verb, resource)| (format!("{verb:?}").to_lowercase(), resource)).collect();
    ensure!(asked == allowed("clusterrole.yaml")?, "asked for: {asked:#?}");
    Ok(())
}

/// A pool of one address of each family, and an L2Advertisement for it.
fn pool_and_advertisement(vip: &str) -> [Value; 2] {
    let [v4, v6] = dual(vip);
    let addresses = json!({ "addresses": [format!("{v4}/32"), format!("{v6}/128")] });
    [("IPAddressPool", addresses), ("L2Advertisement", json!({}))].map(|(kind, spec)| {
        let metadata = json!({ "namespace": "metallb-system", "name": "lan" });
        json!({ "apiVersion": "metallb.io/v1beta1", "kind": kind, "metadata": metadata, "spec": spec })
    })
}

/// These, and a Service that has one of its addresses.
fn with_a_pool(served: &ApiCluster) -> anyhow::Result<Service> {
    served.api.install_metallb();
    served.apply(pool_and_advertisement("192.168.0.240"))?;
    let web = Service::new("announced", "172.30.0.61").only(Protocol::Tcp, 80, 80).vip("192.168.0.240");
    let web = web.endpoint(Endpoint::at("10.180.0.1"));
    served.services([&web])?;
    Ok(web)
}

fn a_node_that_announces_asks_for_what_its_roles_allow_and_no_more() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    served.api.inject(Fault::new(Effect::RefuseStreamingLists(Refusal::Invalid)));
    let web = with_a_pool(&served)?;
    let url = served.api.url();
    served.start_on_api(&url, &DETECT_PODS)?;
    let statuses = |served: &ApiCluster| served.api.list("servicel2statuses");
    eventually("a ServiceL2Status", || Ok(statuses(&served).iter().any(|object| object["status"]["node"] == NODE_NAME)))?;
    eventually("a renewed Lease", || Ok(served.api.requests(Verb::Update, "leases") > 0))?;
    eventually("a watch for the key", || Ok(served.api.requests(Verb::Watch, "secrets") > 0))?;
    served.services([&web.clone().with_endpoints([])])?;
    eventually("no ServiceL2Status", || Ok(statuses(&served).is_empty()))?;
    // It comes here once more: the same Event.
    served.services([&web])?;
    eventually("an Event, twice", || Ok(served.api.requests(Verb::Patch, "events.events.k8s.io") > 0))?;

    let granted: BTreeSet<_> = allowed("clusterrole.yaml")?.union(&allowed("announcer.yaml")?).cloned().collect();
    let asked: BTreeSet<_> =
        served.api.asked_for().into_iter().map(|(verb, resource)| (format!("{verb:?}").to_lowercase(), resource)).collect();
    ensure!(asked == granted, "asked for, and not granted, or the other way round: {:#?}", asked.symmetric_difference(&granted));
    Ok(())
}

fn a_node_that_is_not_to_announce_asks_nothing_of_metallb() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    with_a_pool(&served)?;
    let url = served.api.url();
    served.start_on_api(&url, &[&DETECT_PODS[..], &["--no-announcing"]].concat())?;
    // It serves the VIP all the same.
    served.await_answer("192.168.0.240:80", &["local"])?;
    let asked = served.api.asked_for();
    ensure!(asked.iter().all(|(_, resource)| !resource.contains("metallb") && resource != "secrets"), "asked for: {asked:?}");
    Ok(())
}

/// Every verb and resource of the roles in a file, a resource named in full, subresources by their resource: so the double counts.
fn allowed(file: &str) -> anyhow::Result<BTreeSet<(String, String)>> {
    let text = fs::read_to_string(manifests().join("kustomize/base").join(file))?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let words = |list: &Value| -> anyhow::Result<Vec<String>> { Ok(serde_json::from_value(list.clone())?) };
    let mut allowed = BTreeSet::new();
    for rule in objects.iter().filter_map(|role| role["rules"].as_array()).flatten() {
        for group in words(&rule["apiGroups"])? {
            for resource in words(&rule["resources"])? {
                let resource = resource.trim_end_matches("/status");
                let name = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
                allowed.extend(words(&rule["verbs"])?.into_iter().map(|verb| (verb, name.clone())));
            }
        }
    }
    Ok(allowed)
}
