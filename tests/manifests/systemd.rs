//! The unit for nodes without a container runtime.

use std::fs;
use std::process::Command;

use crate::manifests;

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let unit = fs::read_to_string(manifests("systemd/sheave.service")).unwrap();
    let program = "/usr/local/bin/sheave ";
    assert!(unit.contains(program));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sheave.service");
    // A program that is there, as this is about the unit.
    fs::write(&path, unit.replace(program, "/bin/true ")).unwrap();
    let Ok(verified) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output() else {
        println!("no systemd-analyze here: the unit was not verified");
        return;
    };
    let complaints = String::from_utf8(verified.stderr).unwrap();
    let ours = complaints.lines().filter(|line| line.contains("sheave.service"));
    // What an older systemd does not know it ignores, and says so.
    let newer = ["RestartSteps", "RestartMaxDelaySec"];
    let ours: Vec<_> = ours.filter(|line| !newer.iter().any(|key| line.contains("Unknown key") && line.contains(key))).collect();
    assert!(ours.is_empty(), "{}", ours.join("\n"));
}

/// What a kube-proxy in iptables mode left by way of iptables-legacy can be removed, and nothing else is writable.
#[test]
fn the_unit_may_do_what_adoption_asks_for() {
    let unit = fs::read_to_string(manifests("systemd/sheave.service")).unwrap();
    let set = |key: &str| unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect::<Vec<_>>();
    assert!(set("ExecStart")[0].contains("--adopt"));
    assert_eq!(set("CapabilityBoundingSet"), ["CAP_NET_ADMIN CAP_NET_RAW"]);
    // Without packet sockets no VIP is answered for.
    assert_eq!(set("RestrictAddressFamilies"), ["AF_INET AF_INET6 AF_NETLINK AF_PACKET AF_UNIX"]);
    assert_eq!((set("ProtectSystem"), set("ReadWritePaths")), (vec!["strict"], vec!["-/run/xtables.lock"]));
    // After a boot nobody may have made it yet.
    assert_eq!(set("ExecStartPre"), ["-+/usr/bin/touch /run/xtables.lock"]);
}
