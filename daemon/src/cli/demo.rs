//! `sheave demo`: the whole way of a packet, from YAML to the pod that answers, in namespaces that vanish afterwards.

mod stage;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use sheave_lab::{Host, Outcome, Protocol, Request};

use self::stage::Stage;
use super::Failure;

/// Flags of `sheave demo`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Connections per line of the tables
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
}

/// Addresses as `manifests/examples/web.yaml` has them.
const CLUSTER_IP: &str = "172.30.0.10:80";
const CLUSTER_IP_V6: &str = "[fd00:172:30::10]:80";
const NODE_PORT: &str = "192.168.0.2:30080";
const VIP: &str = "198.51.100.10:80";
/// The pod that becomes unready.
const UNREADY: &str = "pod-b";

pub(super) fn demo(arguments: &Arguments) -> Result<(), Failure> {
    sheave_lab::enter_sandbox().context("making network namespaces for the demo").map_err(Failure::Unreachable)?;
    story(usize::from(arguments.connections)).map_err(Failure::No)
}

#[expect(clippy::print_stdout, reason = "the demo is what it prints")]
fn story(connections: usize) -> Result<()> {
    println!("Building a node, three pods, another node and a client outside, as network namespaces ...");
    let mut stage = Stage::build()?;
    let synced = stage.start_daemon()?;
    println!("sheave run --source manifests=examples/ : three Services read, in the kernel {} after the start.\n", human(synced));

    println!("default/web, with backends pod-a and pod-b on this node and pod-c on the other; {connections} connections each:\n");
    table(&stage, connections, &[])?;

    println!("\nNow {UNREADY} becomes unready: its EndpointSlices say so, and one set element changes per address.");
    let synced = stage.set_ready(UNREADY, false)?;
    println!(
        "In the kernel {} after the file was written. Established connections stay; new ones go elsewhere:\n",
        human(synced)
    );
    table(&stage, connections, &[UNREADY])?;

    println!("\nThe two other Services have no rules, as they should:\n");
    println!("  default/web-pods   headless       DNS answers with the pods' own addresses; straight to one of them:");
    println!("                                    pod -> 10.180.0.1:8080   {}", stage.pod.tcp("10.180.0.1:8080")?);
    println!("  default/docs       ExternalName   an alias in DNS for docs.example.org; no packet is ever addressed to it");
    println!("  frontends in the kernel: {}, all of them default/web's", stage.frontends()?);

    println!("\nSIGTERM to the daemon leaves the rules in place:");
    stage.stop_daemon()?;
    println!("  pod -> {CLUSTER_IP}    {}", stage.pod.tcp(CLUSTER_IP)?);
    println!("and `sheave cleanup` takes them out:");
    println!("  {}", stage.cleanup()?);
    println!("  pod -> {CLUSTER_IP}    {}", stage.pod.ask(&request(CLUSTER_IP)?.timeout(Duration::from_millis(300)))?);
    println!("\nThe namespaces go with this process. Nothing of this machine was touched.");
    Ok(())
}

/// One line per way to the Service: who answered how often, and whom the pods saw.
#[expect(clippy::print_stdout, reason = "the demo is what it prints")]
fn table(stage: &Stage, connections: usize, silent: &[&str]) -> Result<()> {
    println!("  {:<8} {:<33} {:>6} {:>6} {:>6} {:>7}   the pods see", "from", "to", "pod-a", "pod-b", "pod-c", "failed");
    for (from, host) in [("pod", &stage.pod), ("node", stage.node()), ("outside", stage.client())] {
        for (kind, to) in ways(from) {
            let tally = host.sample(&request(to)?, connections)?;
            let count = |pod| tally.answered.get(pod).copied().unwrap_or(0);
            println!(
                "  {from:<8} {:<33} {:>6} {:>6} {:>6} {:>7}   {}",
                format!("{kind:<9} {to}"),
                count("pod-a"),
                count("pod-b"),
                count("pod-c"),
                tally.failed.len(),
                seen(host, to)?,
            );
            ensure!(
                tally.failed.is_empty(),
                "{} of {connections} connections failed, the first one: {}",
                tally.failed.len(),
                tally.failed[0]
            );
            for pod in silent {
                ensure!(count(pod) == 0, "{pod} is unready and answered all the same");
            }
        }
    }
    Ok(())
}

/// A client outside has no business with a ClusterIP.
fn ways(from: &str) -> &'static [(&'static str, &'static str)] {
    let all = &[("ClusterIP", CLUSTER_IP), ("ClusterIP", CLUSTER_IP_V6), ("NodePort", NODE_PORT), ("VIP", VIP)];
    if from == "outside" { &all[2..] } else { all }
}

fn seen(host: &Host, to: &str) -> Result<String> {
    Ok(match host.ask(&request(to)?)? {
        Outcome::Answered(answer) if answer.source_kept() => format!("{} (the client itself)", answer.source_seen.ip()),
        Outcome::Answered(answer) => format!("{} (masqueraded)", answer.source_seen.ip()),
        other => other.to_string(),
    })
}

fn request(to: &str) -> Result<Request> {
    Ok(Request::new(Protocol::Tcp, to)?)
}

fn human(duration: Duration) -> String {
    match duration.as_millis() {
        0..10 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        10..1000 => format!("{} ms", duration.as_millis()),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}
