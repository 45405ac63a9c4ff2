//! Against the kernel: a node and a client in namespaces of their own, joined by a veth pair, and the client's own neighbour tables.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;
use std::sync::mpsc as channel;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

use super::*;
use crate::loadbalancer::announcer::Prober;
use crate::loadbalancer::announcer::arp;
use crate::loadbalancer::announcer::conflict::Claim;
use crate::loadbalancer::announcer::probe::Timing;
use crate::loadbalancer::announcer::socket::{PacketDoor as _, PacketSocket};
use crate::netlink::attr::{Fields, u16_at};
use crate::netlink::mac::Mac;
use crate::netlink::message::Messages;
use crate::netlink::socket::{DATAGRAM, NetfilterSocket, wait_for};
use crate::netlink::testns::in_namespace;

const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 9]);
const VIP: &str = "10.9.0.240";
const VIP6: &str = "fd09::f0";
/// Longer than anything here takes on a busy machine; only a failure waits for it.
const LONG: Duration = Duration::from_secs(20);

type Job = Box<dyn FnOnce() + Send>;

/// A thread in the client's namespace, which does what it is given.
struct Client(channel::Sender<Job>);

impl Client {
    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = channel::channel();
        self.0.send(Box::new(move || drop(sender.send(job())))).unwrap();
        receiver.recv().expect("it did not panic")
    }
}

fn ip(commands: &str) {
    for command in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let output = Command::new("ip").args(command.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "ip {command}: {output:?}");
    }
}

/// A node with `lan0` and no address on it, and a client at the other end, with 10.9.0.9/24 and fd09::9/64.
fn on_a_lan(test: impl FnOnce(&Client) + Send) {
    in_namespace(|| {
        let (jobs, received) = channel::channel::<Job>();
        let (tid_sender, tid) = channel::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                tid_sender.send(gettid()).unwrap();
                while let Ok(job) = received.recv() {
                    job();
                }
            });
            let client = Client(jobs);
            make_lan(&client, tid.recv().unwrap().as_raw());
            test(&client);
        });
    });
}

fn make_lan(client: &Client, tid: i32) {
    ip(&format!("link add lan0 address {NODE} type veth peer name lan9 address {CLIENT}\nlink set lan9 netns {tid}"));
    client.run(|| {
        ip("link set lo up
            link set lan9 up
            address add 10.9.0.9/24 dev lan9
            address add fd09::9/64 dev lan9 nodad");
    });
    ip("link set lan0 up");
}

fn started() -> (Announcer, mpsc::Receiver<Event>) {
    Announcer::start(Options::default()).unwrap()
}

fn vips(addresses: &[&str]) -> Vec<Vip> {
    addresses.iter().map(|address| Vip { address: address.parse().unwrap(), interfaces: Vec::new() }).collect()
}

/// Waits for an event of which this is true.
fn wait_for_event(events: &mut mpsc::Receiver<Event>, wanted: impl Fn(&Event) -> bool) -> Event {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        loop {
            let event = tokio::time::timeout(LONG, events.recv()).await.expect("an event").expect("it runs");
            if wanted(&event) {
                return event;
            }
        }
    })
}

fn is_announced(event: &Event, wanted: &str) -> bool {
    matches!(event, Event::Announced { address, .. } if address.to_string() == wanted)
}

fn stats(announcer: &Announcer, address: &str) -> VipStats {
    announcer.stats().into_iter().find(|vip| vip.address.to_string() == address).unwrap()
}

/// The neighbour table of the namespace in which it was opened, as it changes (`RTNLGRP_NEIGH`).
struct Neighbours(NetfilterSocket);

/// `NUD_REACHABLE`
const REACHABLE: u16 = 2;

impl Neighbours {
    fn open() -> Self {
        let socket = NetfilterSocket::open_route().unwrap();
        socket.join(3).unwrap();
        Self(socket)
    }

    /// Waits until the kernel knows this MAC for the address, in this state or, if none is given, in any.
    fn wait(&self, address: IpAddr, mac: Mac, state: Option<u16>) {
        let mut datagram = vec![0; DATAGRAM];
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let end = Instant::now() + LONG;
        while Instant::now() < end {
            while let Some(datagram) = self.0.receive(&mut datagram).unwrap() {
                for message in Messages::new(datagram) {
                    // `struct ndmsg`, NDA_DST, NDA_LLADDR.
                    let fields: Fields<'_, 3> = Fields::parse(message.payload.get(12..).unwrap_or_default());
                    let known = u16_at(message.payload, 8);
                    if fields.bytes(1) == Some(&octets) && fields.bytes(2) == Some(&mac.0) && (state.is_none() || known == state)
                    {
                        return;
                    }
                }
            }
            wait_for(self.0.as_fd(), Duration::from_secs(1)).unwrap();
        }
        panic!("{address} is not known to be at {mac}: {:?}", Command::new("ip").args(["neighbour"]).output());
    }
}

/// The client's kernel asks for the address.
fn ask(address: &'static str) {
    let local = if address.contains(':') { "[fd09::9]:0" } else { "10.9.0.9:0" };
    UdpSocket::bind(local).unwrap().send_to(b"?", (address, 9)).unwrap();
}

#[test]
fn the_kernel_of_a_client_finds_an_address_and_follows_a_new_mac() {
    on_a_lan(|client| {
        let (announcer, mut events) = started();
        announcer.set(vips(&[VIP]));
        wait_for_event(&mut events, |event| is_announced(event, VIP));
        client.run(|| {
            let neighbours = Neighbours::open();
            ask(VIP);
            neighbours.wait(VIP.parse().unwrap(), NODE, Some(REACHABLE));
        });
        // One more address: when it is announced, what came before has been counted.
        announcer.set(vips(&[VIP, "10.9.0.241"]));
        wait_for_event(&mut events, |event| is_announced(event, "10.9.0.241"));
        let vip = stats(&announcer, VIP);
        assert_eq!((vip.requests, vip.responses, vip.interfaces), (1, 1, vec!["lan0".into()]));
        assert!(vip.gratuitous >= 2);

        let moved = Mac([2, 0, 0, 0, 0, 0x77]);
        let (opened_sender, opened) = channel::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                client.run(move || {
                    let neighbours = Neighbours::open();
                    opened_sender.send(()).unwrap();
                    // No question: what is announced is believed, if not at first then later.
                    neighbours.wait(VIP.parse().unwrap(), moved, None);
                });
            });
            opened.recv().unwrap();
            ip(&format!("link set lan0 address {moved}"));
        });
        assert_eq!(stats(&announcer, VIP).requests, 1);
        client.run(move || {
            let neighbours = Neighbours::open();
            ip(&format!("neighbour flush {VIP} dev lan9"));
            ask(VIP);
            neighbours.wait(VIP.parse().unwrap(), moved, Some(REACHABLE));
        });

        // Ours no more: the question stays without an answer, and is not even counted.
        announcer.set(vips(&[]));
        drop(announcer);
    });
}

/// Tries to take an address for this host, until duplicate address detection refuses it; and gives it back.
fn is_refused(address: &str) {
    let mut monitor = LinkMonitor::open().unwrap();
    ip(&format!("address add {address}/64 dev lan9"));
    let vip: IpAddr = address.parse().unwrap();
    let end = Instant::now() + LONG;
    loop {
        monitor.look().unwrap();
        let lan = monitor.links().named("lan9").unwrap();
        // It was told of before `ip` had ended, so that one which is not here any more was refused.
        let Some(own) = lan.addresses.iter().find(|own| own.net.addr() == vip) else { break };
        assert!(own.tentative, "it was taken");
        assert!(Instant::now() < end, "its duplicate address detection does not end");
        wait_for(monitor.as_fd(), Duration::from_secs(1)).unwrap();
    }
    ip(&format!("address del {address}/64 dev lan9"));
}

#[test]
fn over_ipv6_groups_one_node_and_duplicate_detection_are_answered() {
    on_a_lan(|client| {
        let (announcer, mut events) = started();
        announcer.set(vips(&[VIP6]));
        wait_for_event(&mut events, |event| is_announced(event, VIP6));
        client.run(|| {
            let neighbours = Neighbours::open();
            ask(VIP6);
            neighbours.wait(VIP6.parse().unwrap(), NODE, Some(REACHABLE));
            // Asked once more, at that MAC alone.
            ip(&format!("-6 neighbour change {VIP6} lladdr {NODE} dev lan9 nud probe"));
            neighbours.wait(VIP6.parse().unwrap(), NODE, Some(REACHABLE));
        });
        let asked = stats(&announcer, VIP6).requests;
        assert!(asked >= 2, "{asked}");

        // The group is let in by the card, and reported to switches that look into MLD.
        let groups = || {
            let shown = Command::new("ip").args(["maddress", "show", "dev", "lan0"]).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            ["33:33:ff:00:00:f0", "ff02::1:ff00:f0"].map(|group| shown.contains(group))
        };
        assert_eq!(groups(), [true, true]);

        // A host that is about to take it learns that it is somebody's.
        // An announcement tells it, too; but those end.
        for _ in 0..20 {
            client.run(|| is_refused(VIP6));
            if stats(&announcer, VIP6).requests > asked {
                break;
            }
        }
        assert!(stats(&announcer, VIP6).requests > asked, "duplicate address detection was never answered");
        announcer.set(vips(&["fd09::a1"]));
        wait_for_event(&mut events, |event| is_announced(event, "fd09::a1"));
        assert_eq!(groups(), [false, false]);
    });
}

#[test]
fn an_interface_that_goes_and_comes_is_followed() {
    on_a_lan(|client| {
        let (announcer, mut events) = started();
        announcer.set(vips(&[VIP, VIP6]));
        wait_for_event(&mut events, |event| is_announced(event, VIP));
        wait_for_event(&mut events, |event| is_announced(event, VIP6));
        // No carrier: silence. Back: announced, although nobody asked.
        client.run(|| ip("link set lan9 down"));
        wait_for_event(&mut events, |event| *event == Event::Silent(VIP.parse().unwrap()));
        assert_eq!(stats(&announcer, VIP).interfaces, [] as [CompactString; 0]);
        let (opened_sender, opened) = channel::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                client.run(move || {
                    ip("link set lan9 up
                        address replace fd09::9/64 dev lan9 nodad");
                    let neighbours = Neighbours::open();
                    opened_sender.send(()).unwrap();
                    ask(VIP6);
                    neighbours.wait(VIP6.parse().unwrap(), NODE, Some(REACHABLE));
                });
            });
            opened.recv().unwrap();
        });
        // Deleted, and made anew under the same name.
        let tid = client.run(|| gettid().as_raw());
        ip("link del lan0");
        make_lan(client, tid);
        client.run(|| {
            let neighbours = Neighbours::open();
            ask(VIP);
            // By an answer, or by an announcement.
            neighbours.wait(VIP.parse().unwrap(), NODE, None);
        });
        assert_eq!(announcer.troubles(), [] as [String; 0]);
        assert_eq!(announcer.links().borrow().named("lan0").map(|link| link.carrier), Some(true));
    });
}

#[test]
fn a_claim_is_an_alarm_and_a_probe_finds_who_has_an_address() {
    on_a_lan(|client| {
        let (announcer, mut events) = started();
        announcer.set(vips(&[VIP, VIP6]));
        wait_for_event(&mut events, |event| is_announced(event, VIP));
        wait_for_event(&mut events, |event| is_announced(event, VIP6));
        let found = client.run(|| {
            // Questions are cheap and a busy machine is slow: the answer ends it.
            let patient = Prober::default().with_timing(Timing { questions: 20, interval: Duration::from_millis(100) });
            let ask = |prober: &Prober, addresses: [&str; 2]| {
                let mut claims = prober.ask_here(&addresses.map(|address| address.parse().unwrap())).unwrap();
                claims.sort_unstable_by_key(|claim| claim.address);
                claims.into_iter().map(|claim| (claim.address.to_string(), claim.mac)).collect::<Vec<_>>()
            };
            let found = ask(&patient, [VIP, VIP6]);
            let free = ask(&Prober::default(), ["10.9.0.241", "fd09::f1"]);
            patient.set_fellows([NODE].into());
            let fellow = ask(&patient.with_timing(Timing::default()), [VIP, VIP6]);
            let links = LinkMonitor::open().unwrap().links().clone();
            let mut door = PacketSocket::open(links.named("lan9").unwrap().index, Family::V4).unwrap();
            for frame in arp::gratuitous(VIP.parse().unwrap(), CLIENT) {
                door.send(&frame).unwrap();
            }
            (found, free, fellow)
        });
        let both = [VIP, VIP6].map(|vip| (vip.to_owned(), NODE)).to_vec();
        assert_eq!(found, (both, vec![], vec![]));
        let Event::Conflict(alarm) = wait_for_event(&mut events, |event| matches!(event, Event::Conflict(_))) else { panic!() };
        assert_eq!(alarm.claim, Claim { address: VIP.parse().unwrap(), mac: CLIENT, interface: "lan0".into() });
    });
}

#[test]
fn a_thousand_scattered_addresses_are_all_answered() {
    on_a_lan(|client| {
        let (announcer, mut events) = started();
        let v4 = |number: u32| Ipv4Addr::from_bits(0x0a09_0000 + number * 60);
        let v6 = |number: u16| Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, number, number.wrapping_mul(977));
        let vip = |address| Vip { address, interfaces: vec!["lan0".into()] };
        let all: Vec<Vip> = (1..1000).map(|number| vip(v4(number).into())).chain((1..1000).map(|n| vip(v6(n).into()))).collect();
        announcer.set(all);
        for last in [IpAddr::from(v4(999)), v6(999).into()] {
            // Firsts go in the order of addresses.
            wait_for_event(&mut events, |event| is_announced(event, &last.to_string()));
        }
        let missing = client.run(move || {
            let prober = Prober::default().with_timing(Timing { questions: 20, interval: Duration::from_millis(100) });
            let mut missing: BTreeSet<IpAddr> = (1..1000).map(|n| v4(n).into()).chain((1..1000).map(|n| v6(n).into())).collect();
            let asked: Vec<IpAddr> = missing.iter().copied().collect();
            prober.ask_here(&asked).unwrap().iter().for_each(|claim| _ = missing.remove(&claim.address));
            missing.into_iter().collect::<Vec<_>>()
        });
        assert_eq!(missing, [] as [IpAddr; 0]);
        assert_eq!(announcer.troubles(), [] as [String; 0]);
    });
}

/// Twice 10,000 questions, as fast as they can be sent: each is answered, or known to be lost, and afterwards all is as before.
#[test]
fn a_storm_is_answered_as_far_as_there_is_room_and_what_is_lost_is_counted() {
    const FRAMES: u64 = 20_000;
    on_a_lan(|client| {
        let (announcer, mut events) = started();
        announcer.set(vips(&[VIP]));
        wait_for_event(&mut events, |event| is_announced(event, VIP));
        client.run(|| {
            let links = LinkMonitor::open().unwrap().links().clone();
            let mut door = PacketSocket::open(links.named("lan9").unwrap().index, Family::V4).unwrap();
            let question = arp::probe(VIP.parse().unwrap(), CLIENT);
            // The queue of the interface may be full for a moment.
            (0..FRAMES).for_each(|_| while door.send(&question).is_err() {});
        });
        let ask = || client.run(|| Prober::default().ask_here(&[VIP.parse().unwrap()]).unwrap());
        let (mut lost, end) = (0, Instant::now() + LONG);
        loop {
            lost += announcer.take_lost();
            let VipStats { requests, responses, .. } = stats(&announcer, VIP);
            // All that was heard was answered, and nothing went without a trace.
            if requests == responses && requests + lost >= FRAMES {
                break;
            }
            assert!(Instant::now() < end, "{requests} questions were heard, {responses} answered and {lost} lost");
            // It makes the announcer take note of what was lost before.
            ask();
        }
        assert_eq!(ask().first().map(|claim| claim.mac), Some(NODE));
    });
}

#[test]
fn after_an_outage_everything_known_before_or_now_is_looked_at() {
    in_namespace(|| {
        ip("link add lan0 type veth peer name lan9");
        let mut follower = Follower::new(LinkMonitor::open().unwrap());
        let before = follower.monitor.take().unwrap().links().clone();
        let now = Instant::now();
        (follower.known, follower.retry_at) = (before.clone(), Some(now + AGAIN_AFTER));
        assert!(follower.look(now).is_none(), "not yet");
        ip("link del lan0
            link add lan1 type veth peer name lan8");
        let (links, changed) = follower.look(now + AGAIN_AFTER).unwrap();
        let both = [before.named("lan0"), links.named("lan1")].map(|link| link.unwrap().index);
        assert!(both.iter().all(|index| changed.contains(index)), "{changed:?}");
        assert_eq!(links.named("lan0"), None);
        assert_eq!(follower.retry_at, None);
    });
}

#[test]
fn a_bond_and_its_vlan_announce_and_its_member_does_not() {
    on_a_lan(|client| {
        let made =
            Command::new("ip").args(["link", "add", "bond0", "type", "bond", "mode", "active-backup", "miimon", "10"]).output();
        if !made.unwrap().status.success() {
            eprintln!("skipped: this kernel has no bonds");
            return;
        }
        let (announcer, mut events) = started();
        ip("link set lan0 down
            link set lan0 master bond0
            link set bond0 up
            link add link bond0 name bond0.100 type vlan id 100
            link set bond0.100 up");
        client.run(|| {
            ip("link add link lan9 name lan9.100 type vlan id 100
                link set lan9.100 up
                address add 10.100.0.9/24 dev lan9.100");
        });
        let mut links = announcer.links();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let ready = links.wait_for(|links| {
            ["bond0", "bond0.100"].iter().all(|name| links.named(name).is_some_and(|link| link.up && link.carrier))
        });
        let mac = runtime.block_on(async {
            let links = tokio::time::timeout(LONG, ready).await.expect("a carrier").expect("it runs");
            let vlan = links.named("bond0.100").unwrap();
            assert_eq!((vlan.vlan, vlan.parent), (Some(100), links.named("bond0").map(|bond| bond.index)));
            vlan.mac.unwrap()
        });
        announcer.set(vips(&[VIP, "10.100.0.240"]));
        wait_for_event(&mut events, |event| is_announced(event, VIP));
        wait_for_event(&mut events, |event| is_announced(event, "10.100.0.240"));
        assert_eq!(stats(&announcer, VIP).interfaces, ["bond0", "bond0.100"], "the VLAN needs no address");
        client.run(move || {
            let neighbours = Neighbours::open();
            UdpSocket::bind("10.100.0.9:0").unwrap().send_to(b"?", "10.100.0.240:9").unwrap();
            neighbours.wait("10.100.0.240".parse().unwrap(), mac, Some(REACHABLE));
            ask(VIP);
            neighbours.wait(VIP.parse().unwrap(), mac, Some(REACHABLE));
        });
    });
}
