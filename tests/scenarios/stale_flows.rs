//! A UDP client that keeps its 5-tuple: to the kernel one connection, as long as it talks, to a backend that may be long gone
//! (kube-proxy's section 5.1).

use crate::fixture::{Cluster, Endpoint, Service, dual, node};
use anyhow::{Context as _, ensure};
use sheave::netlink::conntrack::{Conntrack, Flow, Selection};
use sheave_lab::{Host, Port, Protocol, TcpFlow, UdpFlow, UdpReport};
use sheave_tests::{scenario::Scenario, scenarios};
use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("stale_flows":
        a_flow_leaves_a_backend_that_is_gone needs ["nftables"];
        no_backends_are_a_refusal_and_new_ones_are_found needs ["nftables"];
        a_flow_to_a_deleted_service_ends needs ["nftables"];
        a_flow_that_was_there_before_the_service_is_served needs ["nftables"];
        an_answer_that_was_under_way_keeps_nobody needs ["nftables", "tool:conntrack"];
        a_changed_target_port_moves_the_flow needs ["nftables"];
        a_changed_target_port_on_another_pod_moves_the_flow needs ["nftables"];
        flows_to_others_on_the_same_port_are_left_alone needs ["nftables"];
        a_terminating_backend_that_serves_keeps_its_flow needs ["nftables"];
        tcp_is_never_cut needs ["nftables"];
        changes_while_nobody_is_there_are_caught_up_with needs ["nftables"];
        a_service_that_went_while_nobody_was_there_keeps_no_flow needs ["nftables"];
        a_service_that_went_while_nobody_was_there_keeps_no_flow_at_any_address needs ["nftables"];
        a_full_table_delays_no_sync needs ["nftables"], within 90 s;
    )
    .to_vec()
}

const CLUSTER_IP: &str = "172.30.0.53";
const NODE_PORT: u16 = 30_053;
const VIP: &str = "192.0.2.53";
const LOCAL: &str = "10.180.0.1";
const REMOTE: &str = "10.180.2.1";
/// Datagrams per second of a flow: fast enough that no entry could expire between two.
const PACE: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(20);

fn dns() -> Service {
    let service = Service::new("dns", CLUSTER_IP).only(Protocol::Udp, 53, 53).only(Protocol::Tcp, 53, 53);
    service.node_port(NODE_PORT).vip(VIP)
}

fn on(backends: &[&str]) -> Service {
    dns().with_endpoints(backends.iter().map(|address| Endpoint::at(address)))
}

/// From everywhere to every kind of frontend, in both families.
fn flows(cluster: &Cluster) -> anyhow::Result<Vec<(String, UdpFlow)>> {
    let ways = [
        (&cluster.pod, CLUSTER_IP, 53),
        (cluster.node(), CLUSTER_IP, 53),
        (cluster.client(), CLUSTER_IP, 53),
        (cluster.client(), VIP, 53),
        (cluster.client(), "192.168.0.2", NODE_PORT),
    ];
    let start = |host: &Host, address: String, port: u16| {
        let to = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
        let flow = UdpFlow::start(host, &to, PACE)?;
        Ok((format!("{} -> {to}", host.name()), flow))
    };
    ways.into_iter().flat_map(|(host, v4, port)| dual(v4).map(|address| start(host, address, port))).collect()
}

/// Waits until each flow is answered by this server, and then by no other.
fn all_answered_by(flows: &[(String, UdpFlow)], by: &str) -> anyhow::Result<()> {
    flows.iter().try_for_each(|flow| answered_by(flow, by))
}

fn answered_by((name, flow): &(String, UdpFlow), by: &str) -> anyhow::Result<()> {
    let count = |report: &UdpReport| report.by.get(by).copied().unwrap_or(0);
    let before = count(&flow.report());
    // Answers of others may be under way still, until this one has answered.
    let grown = flow.await_report(PATIENCE, |report| count(report) > before);
    let then = grown.with_context(|| format!("{name} is not answered by {by}: {}", brief(&flow.report())))?;
    let others = |report: &UdpReport| report.answered - count(report);
    let now = flow.await_answers(20, PATIENCE)?;
    ensure!(others(&now) == others(&then), "{name} is answered by others than {by}: {}, then {}", brief(&then), brief(&now));
    Ok(())
}

/// Waits until nothing comes back of what each flow sends.
fn none_answered(flows: &[(String, UdpFlow)]) -> anyhow::Result<()> {
    for (name, flow) in flows {
        let deadline = flow.report().sent + 20 * u64::from(PACE);
        loop {
            let before = flow.report();
            let after = flow.await_sent(before.sent + 20, PATIENCE)?;
            if after.answered == before.answered {
                break;
            }
            ensure!(after.sent < deadline, "{name} is still answered: {:?}", brief(&after));
        }
    }
    Ok(())
}

/// A report without the long list.
fn brief(report: &UdpReport) -> String {
    format!("sent {}, answered {}, refused {}, by {:?}", report.sent, report.answered, report.refused, report.by)
}

/// What connection tracking of the node knows of UDP, in both families.
fn tracked(cluster: &Cluster) -> anyhow::Result<Vec<Flow>> {
    cluster.node().run(|| {
        let mut conntrack = Conntrack::open()?;
        let mut flows = Vec::new();
        for ipv6 in [false, true] {
            conntrack.dump(Selection { ipv6, protocol: 17 }, |flow| flows.push(*flow))?;
        }
        Ok(flows)
    })?
}

fn a_flow_leaves_a_backend_that_is_gone() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&on(&[LOCAL])])?;
    let flows = flows(&cluster)?;
    all_answered_by(&flows, "local")?;
    // First as in a rollout, the new one before the old one goes; then from one to the other at once.
    cluster.services(&[&on(&[LOCAL, REMOTE])])?;
    all_answered_by(&flows, "local")?;
    cluster.services(&[&on(&[REMOTE])])?;
    all_answered_by(&flows, "remote")?;
    cluster.services(&[&on(&[LOCAL])])?;
    all_answered_by(&flows, "local")
}

/// kube-proxy forgets these flows up to 1.36 (kubernetes#139628): they are sent to nobody, for hours.
fn no_backends_are_a_refusal_and_new_ones_are_found() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&on(&[LOCAL])])?;
    let flows = flows(&cluster)?;
    all_answered_by(&flows, "local")?;
    let refused: Vec<u64> = flows.iter().map(|(_, flow)| flow.report().refused).collect();
    cluster.services(&[&on(&[])])?;
    none_answered(&flows)?;
    for ((name, flow), before) in flows.iter().zip(refused) {
        let report = flow.await_sent(flow.report().sent + 10, PATIENCE)?;
        ensure!(report.refused > before, "{name} is told: {}", brief(&report));
    }
    let backend =
        |flow: &Flow| [53].contains(&flow.reply.source.port()) && flow.reply.source.ip().to_string().starts_with("10.180.");
    let left: Vec<Flow> = tracked(&cluster)?.into_iter().filter(backend).collect();
    ensure!(left.is_empty(), "entries to backends of a Service without any: {left:?}");
    cluster.services(&[&on(&[REMOTE])])?;
    all_answered_by(&flows, "remote")
}

/// And these, too (kubernetes#141371): the next pod with the address would get what was not meant for it.
fn a_flow_to_a_deleted_service_ends() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&on(&[LOCAL])])?;
    let flows = flows(&cluster)?;
    all_answered_by(&flows, "local")?;
    cluster.services(&[])?;
    none_answered(&flows)?;
    // Nor is a flow kept from those whose addresses these are, where ClusterIPs are outside of any ServiceCIDR.
    cluster.services(&[&on(&[LOCAL])])?;
    all_answered_by(&flows, "local")?;
    cluster.elsewhere(&[CLUSTER_IP, VIP])?;
    cluster.node().serve(&[Port::udp(NODE_PORT)])?;
    cluster.objects("cluster.yaml", [node()])?;
    cluster.services(&[])?;
    for flow in &flows {
        let name = if flow.0.ends_with(&format!(":{NODE_PORT}")) { "test-node" } else { "elsewhere" };
        answered_by(flow, name)?;
    }
    Ok(())
}

/// Their first datagrams went untranslated towards an address that nobody has: there is a connection already, of the wrong kind.
fn a_flow_that_was_there_before_the_service_is_served() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.objects("cluster.yaml", [node()])?;
    let flows = flows(&cluster)?;
    for (name, flow) in &flows {
        let report = flow.await_sent(10, PATIENCE)?;
        ensure!(report.answered == 0, "{name} has an answer before there is a Service: {}", brief(&report));
    }
    ensure!(!tracked(&cluster)?.is_empty(), "the flows are known, and known as untranslated");
    cluster.services(&[&on(&[LOCAL])])?;
    all_answered_by(&flows, "local")
}

/// Somebody at the address has answered before there was a Service, and an answer of theirs is under way when the entry is deleted:
/// it makes one of the opposite direction, here made by hand, in which what the client sends is a reply and is not translated.
fn an_answer_that_was_under_way_keeps_nobody() -> anyhow::Result<()> {
    const CLIENT_PORT: u16 = 40_053;
    let cluster = Cluster::start()?;
    let elsewhere = cluster.elsewhere(&[CLUSTER_IP])?;
    cluster.objects("cluster.yaml", [node()])?;
    let to = SocketAddr::new(CLUSTER_IP.parse()?, 53);
    let socket = cluster.pod.run(|| UdpSocket::bind(("0.0.0.0", CLIENT_PORT)))??;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut answer = [0; 2048];
    let mut ask = |socket: &UdpSocket| -> anyhow::Result<bool> {
        socket.send_to(b"question", to)?;
        Ok(socket.recv_from(&mut answer).is_ok())
    };
    let asked = (0..100).find_map(|_| ask(&socket).map(|answered| answered.then_some(())).transpose());
    asked.context("nobody answers before there is a Service")??;
    cluster.services(&[&on(&[LOCAL])])?;
    cluster.await_log("stale UDP flows deleted", PATIENCE)?;
    elsewhere.stop_serving();
    let (client, port) = (cluster.pod.ipv4(), CLIENT_PORT);
    let reversed = format!(
        "-I -p udp -s {CLUSTER_IP} -d {client} --sport 53 --dport {port} -r {client} -q {CLUSTER_IP} --reply-port-src {port} \
         --reply-port-dst 53 -t 600"
    );
    let made = cluster.node().exec("conntrack", &reversed.split_whitespace().collect::<Vec<_>>())?;
    ensure!(made.status.success(), "{made:?}");
    cluster.await_log("answers under way had made", PATIENCE)?;
    let asked = (0..100).find_map(|_| ask(&socket).map(|answered| answered.then_some(())).transpose());
    asked.context("the Service does not answer")??;
    Ok(())
}

fn a_changed_target_port_moves_the_flow() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&on(&[LOCAL])])?;
    let flows = flows(&cluster)?;
    all_answered_by(&flows, "local")?;
    let moved = Service::new("dns", CLUSTER_IP).only(Protocol::Udp, 53, 5353).node_port(NODE_PORT).vip(VIP);
    cluster.services(&[&moved.endpoint(Endpoint::at(LOCAL))])?;
    all_answered_by(&flows, "local")?;
    let old = |flow: &Flow| flow.reply.source.port() == 53;
    let left: Vec<Flow> = tracked(&cluster)?.into_iter().filter(old).collect();
    ensure!(left.is_empty(), "entries to the old port: {left:?}");
    Ok(())
}

/// The pod that answers then answers on the new port only.
fn a_changed_target_port_on_another_pod_moves_the_flow() -> anyhow::Result<()> {
    const SECOND: &str = "10.180.0.12";
    let cluster = Cluster::start()?;
    cluster.local.stop_serving();
    let at = |target| Service::new("dns", CLUSTER_IP).only(Protocol::Udp, 53, target).node_port(NODE_PORT).vip(VIP);
    cluster.local_pod("second", SECOND)?;
    cluster.services(&[&at(80).endpoint(Endpoint::at(SECOND))])?;
    let flows = flows(&cluster)?;
    all_answered_by(&flows, "second")?;
    cluster.local.serve(&[Port::udp(5353)])?;
    cluster.services(&[&at(5353).endpoint(Endpoint::at(LOCAL))])?;
    all_answered_by(&flows, "local")
}

fn flows_to_others_on_the_same_port_are_left_alone() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&on(&[LOCAL])])?;
    // A host of the LAN with a server at the number of the NodePort, and one at the Service's port.
    let stranger = cluster.lan_host("stranger", "192.168.0.77", None)?;
    stranger.serve(&[Port::udp(NODE_PORT), Port::udp(53)])?;
    let ways = [format!("192.168.0.77:{NODE_PORT}"), "192.168.0.77:53".to_owned(), format!("[{}]:{NODE_PORT}", stranger.ipv6())];
    let flows: Vec<UdpFlow> = ways.iter().map(|to| UdpFlow::start(&cluster.pod, to, PACE)).collect::<Result<_, _>>()?;
    for flow in &flows {
        flow.await_answers(10, PATIENCE)?;
    }
    let to_stranger = |flow: &Flow| {
        let ip = flow.original.destination.ip();
        ip == stranger.ipv4() || ip == stranger.ipv6()
    };
    let entries = || -> anyhow::Result<Vec<(SocketAddr, Option<u32>)>> {
        let flows = tracked(&cluster)?.into_iter().filter(to_stranger);
        let mut entries: Vec<_> = flows.map(|flow| (flow.original.destination, flow.id)).collect();
        entries.sort_unstable();
        Ok(entries)
    };
    let before = entries()?;
    ensure!(before.len() == 3, "{before:?}");
    let served = UdpFlow::start(cluster.client(), &format!("192.168.0.2:{NODE_PORT}"), PACE)?;
    served.await_answers(10, PATIENCE)?;
    for backends in [&[REMOTE][..], &[], &[LOCAL]] {
        cluster.services(&[&on(backends)])?;
    }
    // The Service's own flow shows that entries were looked through.
    let goal = served.report().answered;
    served.await_answers(goal + 10, PATIENCE)?;
    assert_eq!(entries()?, before, "the same entries by their ids");
    for flow in flows {
        let report = flow.stop();
        ensure!(report.is_whole(), "{}", brief(&report));
    }
    Ok(())
}

fn a_terminating_backend_that_serves_keeps_its_flow() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&on(&[LOCAL])])?;
    let flows = flows(&cluster)?;
    all_answered_by(&flows, "local")?;
    cluster.services(&[&dns().endpoint(Endpoint::at(LOCAL).terminating()).endpoint(Endpoint::at(REMOTE))])?;
    all_answered_by(&flows, "local")?;
    for (name, flow) in &flows {
        ensure!(flow.report().by.len() == 1, "{name} stayed: {}", brief(&flow.report()));
    }
    let newcomer = UdpFlow::start(&cluster.pod, &format!("{CLUSTER_IP}:53"), PACE)?;
    newcomer.await_answers(10, PATIENCE)?;
    ensure!(newcomer.stop().by.keys().eq(["remote"]), "new flows go elsewhere");
    cluster.services(&[&dns().endpoint(Endpoint::at(LOCAL).dying()).endpoint(Endpoint::at(REMOTE))])?;
    all_answered_by(&flows, "remote")
}

fn tcp_is_never_cut() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&on(&[LOCAL])])?;
    let ways = [(&cluster.pod, format!("{CLUSTER_IP}:53")), (cluster.client(), format!("192.168.0.2:{NODE_PORT}"))];
    let tcp: Vec<TcpFlow> = ways.iter().map(|(host, to)| TcpFlow::start(host, to, 100_000)).collect::<Result<_, _>>()?;
    for services in [vec![on(&[REMOTE])], vec![on(&[])], vec![]] {
        cluster.services(&services.iter().collect::<Vec<_>>())?;
        for flow in &tcp {
            flow.await_progress(20_000, PATIENCE)?;
        }
    }
    for flow in tcp {
        let report = flow.stop();
        ensure!(report.is_whole() && report.by == "local", "{report:?}");
    }
    Ok(())
}

fn changes_while_nobody_is_there_are_caught_up_with() -> anyhow::Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.services(&[&on(&[LOCAL])])?;
    let flows = flows(&cluster)?;
    all_answered_by(&flows, "local")?;
    cluster.terminate()?;
    cluster.objects_later("world.yaml", on(&[REMOTE]).documents())?;
    all_answered_by(&flows, "local")?;
    cluster.restart()?;
    all_answered_by(&flows, "remote")
}

/// Of what was pending when the daemon ended, nothing is remembered. What remains in the kernel is found by the rules that it left.
fn a_service_that_went_while_nobody_was_there_keeps_no_flow_at_any_address() -> anyhow::Result<()> {
    let mut cluster = Cluster::start()?;
    let stays = Service::new("stays", "172.30.0.54").only(Protocol::Udp, 53, 53).node_port(30_054).endpoint(Endpoint::at(REMOTE));
    cluster.services(&[&on(&[LOCAL]), &stays])?;
    let gone = flows(&cluster)?;
    all_answered_by(&gone, "local")?;
    let kept = UdpFlow::start(cluster.client(), "192.168.0.2:30054", PACE)?;
    kept.await_answers(10, PATIENCE)?;
    cluster.kill()?;
    cluster.objects_later("world.yaml", stays.documents())?;
    all_answered_by(&gone, "local")?;
    cluster.restart()?;
    none_answered(&gone)?;
    kept.await_answers(10, PATIENCE)?;
    ensure!(kept.stop().by.keys().eq(["remote"]), "a flow of a Service that is there was not left alone");
    Ok(())
}

/// The same with ClusterIPs alone, which are known by their range as well.
fn a_service_that_went_while_nobody_was_there_keeps_no_flow() -> anyhow::Result<()> {
    let mut cluster = Cluster::start()?;
    let stays = Service::new("stays", "172.30.0.54").only(Protocol::Udp, 53, 53).endpoint(Endpoint::at(REMOTE));
    cluster.services(&[&on(&[LOCAL]), &stays])?;
    let mut flows = flows(&cluster)?;
    flows.retain(|(name, _)| name.contains(CLUSTER_IP) || name.contains("fd00:172:30::"));
    ensure!(flows.len() == 6, "three ways in two families: {:?}", flows.iter().map(|(name, _)| name).collect::<Vec<_>>());
    all_answered_by(&flows, "local")?;
    let other = UdpFlow::start(&cluster.pod, "172.30.0.54:53", PACE)?;
    other.await_answers(10, PATIENCE)?;
    cluster.kill()?;
    cluster.objects_later("world.yaml", stays.documents())?;
    all_answered_by(&flows, "local")?;
    cluster.restart()?;
    none_answered(&flows)?;
    other.await_answers(10, PATIENCE)?;
    ensure!(other.stop().by.keys().eq(["remote"]), "a flow of a Service that is there was not left alone");
    Ok(())
}

fn a_full_table_delays_no_sync() -> anyhow::Result<()> {
    /// Different flows; the default limit of small machines is 262,144 for all namespaces together.
    const ENTRIES: usize = 100_000;
    let cluster = Cluster::start()?;
    cluster.services(&[&on(&[LOCAL])])?;
    let flows = flows(&cluster)?;
    all_answered_by(&flows, "local")?;
    // To a host of the outside that is not there: nobody answers.
    cluster.node().run(|| -> anyhow::Result<()> {
        for half in 0..2 {
            let socket = UdpSocket::bind("192.168.0.2:0")?;
            for port in 0..ENTRIES / 2 {
                let to = SocketAddr::new("203.0.113.200".parse()?, u16::try_from(1024 + port)?);
                // ENOBUFS, and errors that routers send back.
                let _ = socket.send_to(&[half], to);
            }
        }
        Ok(())
    })??;
    let known = tracked(&cluster)?.len();
    ensure!(known >= ENTRIES, "only {known} entries");
    for _ in 0..cluster.count_log("synced") {
        cluster.await_log("synced", PATIENCE)?; // those of before
    }
    // The commit does not wait for the look through the table.
    cluster.services(&[&on(&[REMOTE])])?;
    cluster.await_log("synced", PATIENCE)?;
    cluster.await_log("stale UDP flows deleted", PATIENCE)?;
    all_answered_by(&flows, "remote")?;
    for backends in [&[LOCAL][..], &[REMOTE], &[LOCAL]] {
        cluster.services(&[&on(backends)])?;
    }
    all_answered_by(&flows, "local")?;
    let left = tracked(&cluster)?.len();
    ensure!(left >= ENTRIES - 10_000, "entries of others were deleted: {left} are left of {known}");
    Ok(())
}
