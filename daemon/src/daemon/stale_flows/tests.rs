use std::time::Duration;

use super::seeker::FlowTable;
use super::*;
use crate::health::STALE_AFTER;
use crate::netlink::conntrack::{Deleted, DumpInfo, Selection, Tuple, Zone};

/// A table in memory that fails as often as it is told to.
#[derive(Debug, Default)]
struct Fake {
    flows: Vec<Flow>,
    failing_dumps: u32,
    failing_deletions: u32,
    dumps: u32,
}

impl FlowTable for Arc<Mutex<Fake>> {
    fn dump(&mut self, selection: Selection, each: &mut dyn FnMut(&Flow)) -> Result<DumpInfo, DoorError> {
        let mut fake = self.lock().unwrap();
        fake.dumps += 1;
        if fake.failing_dumps > 0 {
            fake.failing_dumps -= 1;
            return Err(DoorError::Interrupted { call: "dump conntrack", subject: String::new() });
        }
        fake.flows.iter().filter(|flow| flow.original.source.is_ipv6() == selection.ipv6).for_each(each);
        Ok(DumpInfo::default())
    }

    fn delete(&mut self, flows: &[Flow]) -> Result<Deleted, DoorError> {
        let mut fake = self.lock().unwrap();
        if !flows.is_empty() && fake.failing_deletions > 0 {
            fake.failing_deletions -= 1;
            return Err(DoorError::NoAnswer { call: "delete flow", subject: String::new() });
        }
        let before = fake.flows.len();
        fake.flows.retain(|flow| !flows.contains(flow));
        Ok(Deleted { deleted: (before - fake.flows.len()) as u64, gone: 0 })
    }
}

type Table = Arc<Mutex<Fake>>;

fn with(flows: &[Flow]) -> (Table, Seeker<Table>) {
    told_to(Arc::new(ProxyHealth::new(STALE_AFTER, false)), flows)
}

fn told_to(health: Arc<ProxyHealth>, flows: &[Flow]) -> (Table, Seeker<Table>) {
    let table = Arc::new(Mutex::new(Fake { flows: flows.to_vec(), ..Fake::default() }));
    (table.clone(), Seeker::new(table, health))
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// From a client to a frontend, answered by a backend.
fn flow(client: &str, frontend: &str, backend: &str) -> Flow {
    let original = Tuple { source: at(client), destination: at(frontend) };
    let reply = Tuple { source: at(backend), destination: at(client) };
    Flow { protocol: 17, original, reply, zone: Zone::Default, id: None, status: STATUS_SEEN_REPLY }
}

fn suspects(frontend: &str, alive: &[&str]) -> Suspects {
    let address = at(frontend);
    let frontend = FrontendAddress::Ip { ip: address.ip(), protocol: Protocol::Udp, port: address.port() };
    let alive = alive.iter().map(|text| at(text)).collect();
    Suspects { frontends: HashMap::from([(frontend, alive)]), ..Suspects::default() }
}

const CLIENT: &str = "10.0.0.1:4000";
const FRONTEND: &str = "10.96.0.10:53";

/// Lets time pass from one thing to do to the next, until there is none.
fn run(seeker: &mut Seeker<Table>, mut now: Instant) -> Duration {
    let start = now;
    while let Some(due) = seeker.look(now) {
        now = now.max(due);
        assert!(now - start < Duration::from_secs(600), "it never ends");
    }
    now - start
}

#[test]
fn a_look_that_fails_is_repeated_by_itself() {
    let (table, mut seeker) = with(&[flow(CLIENT, FRONTEND, "10.244.1.5:53")]);
    (table.lock().unwrap().failing_dumps, table.lock().unwrap().failing_deletions) = (3, 2);
    seeker.take_in(suspects(FRONTEND, &["10.244.1.6:53"]));
    run(&mut seeker, Instant::now());
    assert!(table.lock().unwrap().flows.is_empty());
    assert_eq!(table.lock().unwrap().dumps, 6);
}

#[test]
fn healthz_tells_of_looks_that_fail_until_one_works() {
    let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
    let (table, mut seeker) = told_to(health.clone(), &[]);
    table.lock().unwrap().failing_dumps = 1;
    seeker.take_in(suspects(FRONTEND, &[]));
    let due = seeker.look(Instant::now()).unwrap();
    let problems = health.look().problems;
    assert!(problems.len() == 1 && problems[0].starts_with("stale flows: "), "{problems:?}");
    run(&mut seeker, due);
    assert_eq!(health.look().problems, Vec::<String>::new());
}

#[test]
fn work_that_comes_during_an_outage_is_merged_and_hurries_nothing() {
    let stays = flow("10.0.0.1:4001", FRONTEND, "10.244.1.6:53");
    let (table, mut seeker) =
        with(&[flow(CLIENT, FRONTEND, "10.244.1.5:53"), stays, flow(CLIENT, "10.96.0.11:53", "10.244.1.7:53")]);
    table.lock().unwrap().failing_dumps = 1;
    let now = Instant::now();
    seeker.take_in(suspects(FRONTEND, &["10.244.1.5:53"]));
    let due = seeker.look(now).unwrap();
    // By now it is another backend's, and a second frontend has lost its own.
    seeker.take_in(suspects(FRONTEND, &["10.244.1.6:53"]));
    seeker.take_in(suspects("10.96.0.11:53", &[]));
    assert_eq!(seeker.look(now), Some(due));
    assert_eq!(table.lock().unwrap().dumps, 1);
    run(&mut seeker, due);
    assert_eq!(table.lock().unwrap().flows, [stays]);
    assert_eq!(table.lock().unwrap().dumps, 2);
}

#[test]
fn one_family_that_fails_does_not_keep_the_other_waiting() {
    let (table, mut seeker) = with(&[flow("[fd00::1]:4000", "[fd00:96::a]:53", "[fd00:244::5]:53")]);
    // The first dump is IPv4's.
    table.lock().unwrap().failing_dumps = 1;
    seeker.take_in(suspects(FRONTEND, &[]));
    seeker.take_in(suspects("[fd00:96::a]:53", &[]));
    assert!(seeker.look(Instant::now()).is_some());
    assert!(table.lock().unwrap().flows.is_empty());
}

#[test]
fn an_answer_under_way_that_made_an_entry_of_the_opposite_direction_is_found_out() {
    // Somebody at the frontend's address has answered before the Service was there.
    let untranslated = flow(CLIENT, FRONTEND, FRONTEND);
    let answer = flow(FRONTEND, CLIENT, CLIENT);
    for late in 0..5 {
        let (table, mut seeker) = with(&[untranslated]);
        seeker.take_in(suspects(FRONTEND, &["10.244.1.6:53"]));
        let mut due = seeker.look(Instant::now());
        for _ in 0..late {
            due = seeker.look(due.unwrap());
        }
        // Of others, on the same ports: nobody's client was cut here.
        let others =
            [flow("10.96.0.10:53", "10.0.0.2:4000", "10.0.0.2:4000"), flow("10.0.0.1:4000", "10.0.0.9:53", "10.0.0.9:53")];
        // As masquerading makes it: not in the way of the client.
        let translated = flow(FRONTEND, CLIENT, "10.0.0.1:4444");
        table.lock().unwrap().flows = [&others[..], &[translated, answer]].concat();
        run(&mut seeker, due.unwrap());
        assert_eq!(table.lock().unwrap().flows, [&others[..], &[translated]].concat(), "after {late} looks");
    }
}

#[test]
fn nothing_is_looked_for_after_flows_that_had_been_translated() {
    let (table, mut seeker) = with(&[flow(CLIENT, FRONTEND, "10.244.1.5:53")]);
    seeker.take_in(suspects(FRONTEND, &["10.244.1.6:53"]));
    assert_eq!(seeker.look(Instant::now()), None);
    assert!(table.lock().unwrap().flows.is_empty());
}

#[test]
fn looks_for_answers_survive_an_outage_and_end() {
    let (table, mut seeker) = with(&[flow(CLIENT, FRONTEND, FRONTEND)]);
    seeker.take_in(suspects(FRONTEND, &[]));
    let due = seeker.look(Instant::now()).unwrap();
    (table.lock().unwrap().flows, table.lock().unwrap().failing_dumps) = (vec![flow(FRONTEND, CLIENT, CLIENT)], 2);
    run(&mut seeker, due);
    assert!(table.lock().unwrap().flows.is_empty());
}

#[test]
fn the_mailbox_wakes_at_the_time_given_and_for_what_comes_in() {
    let mailbox = Mailbox::default();
    assert!(mailbox.take(Some(Instant::now())).unwrap().is_empty());
    mailbox.waiting().suspects.merge(suspects(FRONTEND, &[]));
    assert!(!mailbox.take(None).unwrap().is_empty());
}

#[test]
fn who_looks_ends_with_the_last_who_could_ask_and_after_what_was_asked() {
    let (table, mut seeker) = with(&[flow(CLIENT, FRONTEND, "10.244.1.5:53")]);
    let flows = StaleFlows::idle();
    let mailbox = flows.sender.mailbox.clone();
    let thread = std::thread::spawn(move || mailbox.serve(&mut seeker));
    let another = flows.clone();
    drop(flows);
    another.look_for(suspects(FRONTEND, &[]));
    drop(another);
    thread.join().unwrap();
    assert!(table.lock().unwrap().flows.is_empty());
}

/// Their Service went while nobody was there to see it: nothing but the range of their addresses tells of it.
#[test]
fn translated_flows_to_a_vacant_cluster_ip_are_stale_and_nobody_elses() {
    let translated = |client: &str, frontend: &str| {
        let flow = flow(client, frontend, "10.244.1.5:53");
        Flow { status: flow.status | STATUS_DST_NAT, ..flow }
    };
    let vacant = translated(CLIENT, "10.96.0.77:53");
    let others = [
        translated("10.0.0.1:4001", "10.96.0.99:53"),
        translated("10.0.0.1:4002", "192.0.2.1:53"),
        flow("10.0.0.1:4003", "10.96.0.77:53", "10.96.0.77:53"),
        translated("10.0.0.1:4004", FRONTEND),
    ];
    let (table, mut seeker) = with(&[&[vacant][..], &others].concat());
    let vacancies =
        Vacancies { cidrs: vec!["10.96.0.0/16".parse().unwrap()], foreign: HashSet::from([at("10.96.0.99:53").ip()]) };
    // An outage: until a look has gone through, they are looked for.
    table.lock().unwrap().failing_dumps = 1;
    let vacancies = BTreeMap::from([(Family::V4, vacancies)]);
    seeker.take_in(Suspects { vacancies, ..suspects(FRONTEND, &["10.244.1.5:53"]) });
    run(&mut seeker, Instant::now());
    assert_eq!(table.lock().unwrap().flows, others);
    // And once only: what comes to be there later is judged by what happens then.
    table.lock().unwrap().flows.push(vacant);
    seeker.take_in(suspects("10.96.0.11:53", &[]));
    run(&mut seeker, Instant::now());
    assert_eq!(table.lock().unwrap().flows.len(), others.len() + 1);
}
