//! Three nodes on a LAN, with real sockets and a real kernel to probe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sheave_lab::{Host, Lab};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::loadbalancer::membership::{Cause, DEFAULT_PORT, Fault, Hold, KEY_BYTES, NetworkInterface};

/// More than anything here may take on a machine that does much else; what time it takes is no matter of this test.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon on a node, as a thread with a runtime of its own.
struct Daemon {
    handle: Handle,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    fn start(host: &Host, roster: Vec<(Arc<str>, SocketAddr)>) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        let cancel = CancellationToken::new();
        let (host, cancelled) = (host.clone(), cancel.clone());
        let thread = std::thread::spawn(move || {
            let run = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let key = Key::new(&[3; KEY_BYTES]).unwrap();
                    let address = (host.ipv4(), DEFAULT_PORT).into();
                    let (driver, handle) = Driver::listen(host.name(), address, vec![key], Options::default()).unwrap();
                    sender.send(handle.clone()).unwrap();
                    handle.set_roster(roster).await;
                    driver.run(cancelled).await;
                });
            };
            host.run(run).unwrap();
        });
        Self { handle: receiver.recv_timeout(PATIENCE).unwrap(), cancel, thread: Some(thread) }
    }

    fn stop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn sees(view: &View, name: &str, wanted: impl Fn(&Member) -> bool) -> bool {
    view.members.iter().any(|member| &*member.name == name && wanted(member))
}

async fn until(view: &mut watch::Receiver<View>, what: &str, wanted: impl FnMut(&View) -> bool) {
    let outcome = timeout(PATIENCE, view.wait_for(wanted)).await;
    assert!(outcome.is_ok(), "never seen: {what}");
}

#[test]
fn three_nodes_with_real_sockets() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: no network namespaces without root");
        return;
    }
    let lab = Lab::new().unwrap();
    let third = lab.add_node("third", "192.168.0.4", None).unwrap();
    let hosts: [&Host; 3] = [lab.node(), lab.remote(), &third];
    let names = hosts.map(|host| host.name().to_owned());
    let roster: Vec<(Arc<str>, SocketAddr)> =
        hosts.iter().map(|host| (host.name().into(), (host.ipv4(), DEFAULT_PORT).into())).collect();
    let mut daemons = hosts.map(|host| Daemon::start(host, roster.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut views = daemons.each_ref().map(|daemon| daemon.handle.view());
    let alive = |member: &Member| member.state == State::Alive;
    let survivors = |views: &mut [watch::Receiver<View>; 3], what: &str, wanted: &dyn Fn(&Member) -> bool| {
        for view in &mut views[..2] {
            runtime.block_on(until(view, what, |view| sees(view, &names[2], wanted)));
        }
    };

    for (own, view) in views.iter_mut().enumerate() {
        let others = (0..3).filter(|&other| other != own);
        for other in others {
            runtime.block_on(until(view, "everybody", |view| sees(view, &names[other], alive)));
        }
    }

    let vip = "192.168.0.100".parse().unwrap();
    let interface =
        NetworkInterface { name: "eth0".into(), hardware: None, carrier: true, subnets: vec!["192.168.0.0/24".parse().unwrap()] };
    let facts = Facts { interfaces: vec![interface], holds: vec![Hold { vip, protected: false }] };
    runtime.block_on(daemons[2].handle.set_facts(facts.clone())).unwrap();
    survivors(&mut views, "what it tells", &|member| member.facts.as_deref() == Some(&facts));

    // (b) its daemon is dead: the port refuses, and within the grace it is back.
    daemons[2].stop();
    survivors(&mut views, "a port that refuses", &|member| {
        matches!(member.state, State::DaemonDown { fault: Fault::Refuses, .. })
    });
    daemons[2] = Daemon::start(hosts[2], roster.clone());
    views[2] = daemons[2].handle.view();
    survivors(&mut views, "its return", &alive);

    // (c) something holds the port and answers nothing, as a process that was stopped.
    daemons[2].stop();
    let socket = hosts[2].run(|| std::net::UdpSocket::bind((hosts[2].ipv4(), DEFAULT_PORT)).unwrap()).unwrap();
    survivors(&mut views, "a daemon that stalls", &|member| {
        matches!(member.state, State::DaemonDown { fault: Fault::Stalled, .. })
    });
    survivors(&mut views, "the end of its grace", &|member| {
        matches!(member.state, State::Gone { cause: Cause::DaemonDown(Fault::Stalled), .. })
    });
    drop(socket);
    daemons[2] = Daemon::start(hosts[2], roster);
    views[2] = daemons[2].handle.view();
    survivors(&mut views, "its second return", &alive);

    // (a) its cable is cut.
    lab.cut_off(hosts[2]).unwrap();
    let cut = Instant::now();
    survivors(&mut views, "a node that is gone", &|member| matches!(member.state, State::Gone { cause: Cause::NodeGone, .. }));
    println!("all survivors knew after {:?}", cut.elapsed());
    for (view, name) in views[..2].iter().zip([&names[1], &names[0]]) {
        assert!(sees(&view.borrow(), name, alive), "{name} was accused");
    }
    lab.reconnect(hosts[2]).unwrap();
    survivors(&mut views, "the healed cable", &alive);
    for daemon in &mut daemons {
        daemon.stop();
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let error = Driver::listen("a", address, vec![Key::new(&[3; KEY_BYTES]).unwrap()], Options::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen for other members on {address}/udp"));
    let error = Driver::listen("a", "127.0.0.1:0".parse().unwrap(), Vec::new(), Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "there is no key to seal what members say");
}
