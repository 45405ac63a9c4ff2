//! What the command line says, and how it ends.

use crate::fixture::Cluster;
use anyhow::{Context as _, ensure};
use sheave_lab::{Finished, Namespace};
use sheave_tests::{scenario::Scenario, scenarios, world::executable};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("command_line":
        without_privilege_one_line_says_so needs ["nftables", "tool:unshare"];
        wrong_usage_ends_with_2;
        help_and_version_end_with_0;
        the_demo_comes_to_its_end needs ["nftables"];
        who_cannot_be_asked_is_told_from_who_may_not_ask needs ["nftables", "tool:setpriv"];
    )
    .to_vec()
}

/// In a user namespace of its own a process has every capability in itself and none over the network it is in; but where no user is
/// mapped into that, it loses them all when it is executed.
fn without_privilege_one_line_says_so() -> anyhow::Result<()> {
    let manifests = tempfile::tempdir()?;
    let program = executable()?;
    let source = format!("manifests={}", manifests.path().display());
    let run = [&program.to_string_lossy(), "run", "--node-name", "n", "--source", &source];
    for (namespace, cause) in [
        (&["--user"][..], "this process lacks CAP_NET_ADMIN"),
        (&["--user", "--map-root-user"], "this process has CAP_NET_ADMIN in its user namespace only"),
    ] {
        let done = Namespace::new("plain")?.exec("unshare", &[namespace, &run].concat())?;
        ends_with(&done, 3)?;
        let lines: Vec<_> = done.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        ensure!(lines.len() == 1 && lines[0].starts_with("sheave: "), "not one line: {}", done.stderr);
        ensure!(lines[0].contains(cause), "it does not say what is lacking: {}", lines[0]);
    }
    Ok(())
}

/// In namespaces that it makes itself.
fn the_demo_comes_to_its_end() -> anyhow::Result<()> {
    let program = executable()?;
    let done = Namespace::new("plain")?.exec(&program.to_string_lossy(), &["demo", "--connections", "2"])?;
    ends_with(&done, 0)?;
    ensure!(done.stdout.contains("Nothing of this machine was touched"), "{}", done.stdout);
    Ok(())
}

fn wrong_usage_ends_with_2() -> anyhow::Result<()> {
    for arguments in [
        &[][..],
        &["walk"],
        &["run", "--no-such-flag"],
        &["run", "--source", "etcd"],
        &["run", "--source", "manifests="],
        &["run", "--plane", "carrier-pigeon"],
        &["run", "--source", "manifests=/tmp", "--cluster-cidr", "10.0.0.0/33"],
        &["run", "--source", "manifests=/tmp", "--nodeport-addresses", "primary,10.0.0.0/8"],
        &["run", "--source", "manifests=/tmp", "--nodeport-addresses", "somewhere"],
        &["run", "--source", "manifests=/tmp", "--detect-local-mode", "BridgeInterface"],
        &["run", "--source", "manifests=/tmp", "--detect-local-mode", "InterfaceNamePrefix"],
        &["run", "--source", "manifests=/tmp", "--detect-local-mode", "Guess"],
        &["run", "--source", "manifests=/tmp", "--feature-gates", "AllowServiceExternalIPs=perhaps"],
        &["run", "--source", "manifests=/tmp", "--node-name", " "],
        &["run", "--source", "manifests=/tmp", "--node-name", "A B!"],
        &["run", "--config", "/nonexistent/sheave.yaml"],
        &["run", "--config", "/dev/zero"],
        &["run", "--kubeconfig", "/nonexistent/kubeconfig"],
        &["run", "--kubeconfig", "/dev/zero"],
        &["config", "check", "/dev/zero"],
        &["run", "--api-server", "carrier-pigeon"],
        &["run", "--source", "manifests=/tmp", "--healthz-bind-address=127.0.0.1:7", "--metrics-bind-address=127.0.0.1:7"],
        &["run", "--source", "manifests=/tmp", "--log", "a=b=c"],
        &["get"],
        &["get", "vips", "-o", "xml"],
        &["get", "vips", "-n", "A B"],
        &["migrate"],
        &["migrate", "check", "-o", "yaml"],
        &["migrate", "back", "--timeout", "soon"],
        &["migrate", "back", "--timeout", "-5s"],
    ] {
        let done = sheave(arguments)?;
        ends_with(&done, 2)?;
        ensure!(!done.stderr.is_empty() && done.stdout.is_empty(), "{arguments:?}: {done:?}");
    }
    Ok(())
}

fn help_and_version_end_with_0() -> anyhow::Result<()> {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["cleanup", "--help"],
        &["migrate", "--help"],
        &["get", "vips", "--help"],
    ] {
        let done = sheave(arguments)?;
        ends_with(&done, 0)?;
        ensure!(done.stdout.contains("sheave") && done.stderr.is_empty(), "{arguments:?}: {done:?}");
    }
    Ok(())
}

fn who_cannot_be_asked_is_told_from_who_may_not_ask() -> anyhow::Result<()> {
    let mut cluster = Cluster::start()?;
    let socket = cluster.admin_socket();
    let ask = ["get", "vips", "--admin-socket", &socket.to_string_lossy()];
    let told = cluster.sheave(&ask)?;
    ends_with(&told, 0)?;
    ensure!(told.stdout.is_empty() && told.stderr.starts_with("no VIPs: this daemon announces no VIPs"), "{told:?}");
    let program = executable()?;
    let program = program.to_string_lossy();
    // A user whom the file system does not know.
    let nobody = [&["--reuid=65534", "--regid=65534", "--clear-groups", &*program], &ask[..]].concat();
    let denied = Namespace::new("plain")?.exec("setpriv", &nobody)?;
    ends_with(&denied, 3)?;
    ensure!(denied.stderr.contains("is for root alone; try sudo") && denied.stdout.is_empty(), "{denied:?}");

    cluster.kill()?;
    ensure!(socket.exists(), "who is killed leaves its socket");
    let dead = cluster.sheave(&ask)?;
    ends_with(&dead, 3)?;
    ensure!(dead.stderr.starts_with("sheave: no sheave runs on this node"), "{dead:?}");
    cluster.restart()?;
    ends_with(&cluster.sheave(&ask)?, 0).context("in place of what the dead daemon left")?;
    cluster.terminate()?;
    ensure!(!socket.exists(), "who ends takes its socket along");
    ends_with(&cluster.sheave(&ask)?, 3)
}

fn sheave(arguments: &[&str]) -> anyhow::Result<Finished> {
    Ok(Namespace::new("plain")?.exec(&executable()?.to_string_lossy(), arguments)?)
}

fn ends_with(done: &Finished, code: i32) -> anyhow::Result<()> {
    ensure!(done.status.code() == Some(code), "ended with {}, not {code}: {}{}", done.status, done.stdout, done.stderr);
    Ok(())
}
