use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::rc::Rc;

use super::*;
use crate::netlink::links::{Link, LinkAddress};

const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 99]);

/// Sockets in memory, and the wire behind them.
#[derive(Clone, Debug, Default)]
struct Wire(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    listening: BTreeMap<(u32, Family), Vec<IpAddr>>,
    waiting: BTreeMap<(u32, Family), VecDeque<Vec<u8>>>,
    sent: Vec<(u32, Vec<u8>)>,
    refuses: bool,
    broken: bool,
}

#[derive(Debug)]
struct Door {
    wire: Wire,
    key: (u32, Family),
}

fn refused(key: (u32, Family)) -> PacketError {
    PacketError::new("test", key.0, std::io::Error::from_raw_os_error(libc::EPERM))
}

impl Doors for Wire {
    type Door = Door;

    fn open(&self, interface: u32, family: Family) -> Result<Door, PacketError> {
        let key = (interface, family);
        if self.0.borrow().refuses {
            return Err(refused(key));
        }
        self.0.borrow_mut().listening.insert(key, Vec::new());
        Ok(Door { wire: self.clone(), key })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.wire.0.borrow_mut().listening.remove(&self.key);
    }
}

impl PacketDoor for Door {
    fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>, PacketError> {
        let mut state = self.wire.0.borrow_mut();
        if state.broken {
            return Err(refused(self.key));
        }
        let Some(frame) = state.waiting.get_mut(&self.key).and_then(VecDeque::pop_front) else { return Ok(None) };
        buffer[..frame.len()].copy_from_slice(&frame);
        Ok(Some(&buffer[..frame.len()]))
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), PacketError> {
        self.wire.0.borrow_mut().sent.push((self.key.0, frame.to_vec()));
        Ok(())
    }

    fn listen(&mut self, addresses: &[IpAddr]) -> Result<(), PacketError> {
        self.wire.0.borrow_mut().listening.insert(self.key, addresses.to_vec());
        Ok(())
    }
}

struct Node {
    engine: Engine<Wire>,
    wire: Wire,
    events: mpsc::Receiver<Event>,
    links: Vec<Link>,
    now: Instant,
}

impl Node {
    /// Two interfaces, eth2 and eth3, both with a link-local address.
    fn new() -> Self {
        let (sender, events) = mpsc::channel(100);
        let wire = Wire::default();
        let engine = Engine::new(wire.clone(), Exclusions::default(), None, sender);
        let mut node = Self { engine, wire, events, links: vec![link(2), link(3)], now: Instant::now() };
        node.links_changed();
        node
    }

    fn links_changed(&mut self) {
        let links: Links = self.links.iter().cloned().collect();
        self.engine.interfaces(&links, &(0..10).collect(), self.now);
    }

    fn set(&mut self, vips: &[(&str, &[&str])]) {
        let vips = vips.iter().map(|(address, interfaces)| Vip {
            address: address.parse().unwrap(),
            interfaces: interfaces.iter().copied().map(Into::into).collect(),
        });
        self.engine.set(vips.collect(), self.now, self.now);
    }

    /// What is announced after so many milliseconds: interface, address, MAC.
    fn announced_after(&mut self, milliseconds: u64) -> Vec<(u32, IpAddr, Mac)> {
        self.now += Duration::from_millis(milliseconds);
        self.engine.try_again(self.now);
        while self.engine.deadline().is_some_and(|at| at <= self.now) {
            self.engine.announce_due(self.now);
        }
        let sent = std::mem::take(&mut self.wire.0.borrow_mut().sent);
        let mut told: Vec<_> = sent
            .into_iter()
            .map(|(index, frame)| match arp::Packet::parse(&frame) {
                Ok((_, packet)) => (index, packet.sender_ip.into(), packet.sender_mac),
                Err(_) => {
                    let (_, message) = ndp::Message::parse(&frame).unwrap();
                    (index, message.target.into(), message.link_layer.unwrap())
                }
            })
            .collect();
        told.sort_unstable();
        told
    }

    /// What is sent when this comes in.
    fn hears(&mut self, index: u32, frames: &[&[u8]]) -> usize {
        let key = (index, Family::V4);
        self.wire.0.borrow_mut().waiting.entry(key).or_default().extend(frames.iter().map(|frame| frame.to_vec()));
        self.engine.serve(key, self.now);
        std::mem::take(&mut self.wire.0.borrow_mut().sent).len()
    }

    fn told(&mut self) -> Vec<Event> {
        self.engine.tell();
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

fn mac(index: u32) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])
}

fn link(index: u32) -> Link {
    Link {
        index,
        name: format!("eth{index}").into(),
        mac: Some(mac(index)),
        up: true,
        carrier: true,
        broadcast: true,
        arp: true,
        addresses: vec![LinkAddress { net: format!("fe80::{index}/64").parse().unwrap(), tentative: false }],
        ..Link::default()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn request(target: &str) -> Vec<u8> {
    let packet = arp::Packet {
        operation: arp::Operation::Request,
        sender_mac: THEIRS,
        sender_ip: Ipv4Addr::new(10, 0, 0, 9),
        target_mac: Mac([0; 6]),
        target_ip: target.parse().unwrap(),
    };
    packet.to(Mac::BROADCAST).to_vec()
}

#[test]
fn an_address_is_announced_where_it_may_be() {
    let mut node = Node::new();
    node.set(&[("10.0.0.240", &[]), ("2001:db8::f0", &["eth3", "eth9"]), ("10.0.0.241", &["eth9"])]);
    let (v4, v6) = (ip("10.0.0.240"), ip("2001:db8::f0"));
    let expected = [(2, v4, mac(2)), (2, v4, mac(2)), (3, v4, mac(3)), (3, v4, mac(3)), (3, v6, mac(3))];
    assert_eq!(node.announced_after(0), expected, "ARP twice: as request and as reply");
    let listening: Vec<_> = node.wire.0.borrow().listening.clone().into_iter().collect();
    assert_eq!(listening, [((2, Family::V4), vec![v4]), ((3, Family::V4), vec![v4]), ((3, Family::V6), vec![v6])]);
    let mut told = node.told();
    told.sort_by_key(|event| format!("{event:?}"));
    let announced = |address, interfaces: &[&str]| Event::Announced {
        address,
        interfaces: interfaces.iter().copied().map(Into::into).collect(),
        after: Duration::ZERO,
    };
    assert_eq!(told, [announced(v4, &["eth2", "eth3"]), announced(v6, &["eth3"]), Event::Silent(ip("10.0.0.241"))]);
    assert_eq!((node.announced_after(1099).len(), node.announced_after(1).len(), node.told().len()), (0, 5, 0));
}

#[test]
fn what_stays_is_not_announced_anew_and_what_goes_is_answered_no_more() {
    let mut node = Node::new();
    node.set(&[("10.0.0.240", &["eth2"])]);
    for _ in 0..5 {
        assert_eq!(node.announced_after(1100).len(), 2);
    }
    node.set(&[("10.0.0.240", &["eth2"]), ("10.0.0.241", &["eth2"])]);
    assert_eq!(node.announced_after(0), [(2, ip("10.0.0.241"), mac(2)); 2]);
    assert_eq!(node.hears(2, &[&request("10.0.0.240"), &request("10.0.0.241"), &request("10.0.0.242")]), 2);
    node.set(&[("10.0.0.241", &["eth2"])]);
    assert_eq!(node.hears(2, &[&request("10.0.0.240"), &request("10.0.0.241")]), 1);
    // Its counters stay; they are those of the address.
    let status = node.engine.status();
    let gone = status.iter().find(|(address, ..)| *address == ip("10.0.0.240")).map(|(address, names, counters)| {
        let stats = counters.stats(*address, names.clone());
        (stats.interfaces.len(), stats.requests, stats.responses, stats.gratuitous)
    });
    assert_eq!(gone, Some((0, 1, 1, 10)));
    node.set(&[]);
    assert!(node.wire.0.borrow().listening.is_empty(), "no address, no socket");
    assert_eq!(node.engine.deadline(), None);
}

#[test]
fn a_new_mac_and_a_carrier_that_was_lost_are_announced() {
    let mut node = Node::new();
    node.set(&[("10.0.0.240", &["eth2"])]);
    node.announced_after(0);
    node.links[0].mac = Some(mac(77));
    node.links_changed();
    assert_eq!(node.announced_after(0), [(2, ip("10.0.0.240"), mac(77)); 2]);
    // An answer, too, has the MAC of now.
    node.wire.0.borrow_mut().waiting.entry((2, Family::V4)).or_default().push_back(request("10.0.0.240"));
    node.engine.serve((2, Family::V4), node.now);
    assert_eq!(node.announced_after(0), [(2, ip("10.0.0.240"), mac(77))]);
    // Lost and back between two looks.
    node.links[0].carrier_changes = 2;
    node.links_changed();
    assert_eq!(node.announced_after(0).len(), 2);
    assert_eq!(node.told().len(), 1, "added once");
    // Lost for longer.
    node.links[0].carrier = false;
    node.links_changed();
    assert_eq!((node.announced_after(2000).len(), node.told()), (0, vec![Event::Silent(ip("10.0.0.240"))]));
    node.links[0].carrier = true;
    node.links_changed();
    assert_eq!(node.announced_after(0).len(), 2);
    // What happens on other interfaces is no news.
    for _ in 0..4 {
        node.announced_after(1100);
    }
    node.links[1].up = false;
    node.links.push(link(4));
    node.links_changed();
    assert_eq!(node.announced_after(0), []);
}

#[test]
fn a_socket_that_cannot_be_opened_or_fails_is_tried_again() {
    let mut node = Node::new();
    node.wire.0.borrow_mut().refuses = true;
    node.set(&[("10.0.0.240", &["eth2"])]);
    assert_eq!(node.told(), [Event::Silent(ip("10.0.0.240"))]);
    assert!(node.engine.trouble().is_some_and(|trouble| trouble.contains("interface 2")), "{:?}", node.engine.trouble());
    node.wire.0.borrow_mut().refuses = false;
    assert!(node.engine.deadline().is_some_and(|at| at <= node.now + AGAIN_AFTER));
    assert_eq!(node.announced_after(100).len(), 2);
    assert_eq!(node.engine.trouble(), None);
    assert_eq!(node.told().len(), 1);

    node.wire.0.borrow_mut().broken = true;
    node.engine.serve((2, Family::V4), node.now);
    assert!(node.engine.ports().is_empty() && node.engine.trouble().is_some());
    node.wire.0.borrow_mut().broken = false;
    node.announced_after(200);
    assert_eq!((node.hears(2, &[&request("10.0.0.240")]), node.engine.trouble()), (1, None));
}

#[test]
fn a_storm_takes_its_share_and_no_more() {
    let mut node = Node::new();
    node.set(&[("10.0.0.240", &["eth2"])]);
    node.announced_after(0);
    let question = request("10.0.0.240");
    assert_eq!(node.hears(2, &vec![&*question; 1000]), AT_ONCE);
    assert_eq!(node.hears(2, &[]), AT_ONCE);
}

#[test]
fn somebody_elses_claim_is_an_alarm() {
    let mut node = Node::new();
    node.set(&[("10.0.0.240", &["eth2"])]);
    node.announced_after(0);
    node.told();
    let claims = arp::gratuitous(Ipv4Addr::new(10, 0, 0, 240), THEIRS);
    assert_eq!(node.hears(2, &[&claims[0], &claims[1]]), 0, "nothing is sent against it");
    let claim = Claim { address: ip("10.0.0.240"), mac: THEIRS, interface: "eth2".into() };
    assert_eq!(node.told(), [Event::Conflict(Alarm { claim, times: 1 })]);
    // The node's own other interface on the same LAN is nobody else.
    let own = arp::gratuitous(Ipv4Addr::new(10, 0, 0, 240), mac(3));
    assert_eq!((node.hears(2, &[&own[0]]), node.told()), (0, vec![]));
}
