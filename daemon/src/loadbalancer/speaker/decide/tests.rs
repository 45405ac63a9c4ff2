use serde_json::json;

use super::*;
use crate::loadbalancer::membership::{Cause, Facts, Fault, Hold, Member, NetworkInterface};
use crate::loadbalancer::speaker::field::nameless;
use crate::model::load_balancer::{AddressPool, Advertisement, EXCLUDE_LABEL, Hosting, PeerNode};
use crate::model::{Interner, Labels, ObjectKey};
use crate::source::decode::{self, Decoded};
use crate::source::{Kind, Object};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 240));
const HOLD: Hold = Hold { vip: VIP, protected: false };

/// A node with one interface, a pool that an advertisement is for, and one Service with an address of it. Nobody else, at first.
struct Scene {
    rules: Rules,
    services: BTreeMap<ServiceKey, Arc<ServiceState>>,
    node: Arc<PeerNode>,
    interfaces: Vec<NetworkInterface>,
    holds: Vec<Hold>,
    presence: Presence,
    others: Vec<Entrant>,
    class: Option<&'static str>,
    settled: bool,
    bearing: Bearing,
    ceded: Option<&'static str>,
    first_taking: Succession,
    programmed: u64,
    before: Decisions,
}

fn object(kind: Kind, object: &serde_json::Value) -> Object {
    match decode::from_json(kind, object.to_string().as_bytes(), &mut Interner::default()) {
        Ok(Decoded::Object(object)) => object,
        other => panic!("{other:?}"),
    }
}

fn pool(addresses: &[&str]) -> Arc<AddressPool> {
    let spec = json!({ "addresses": addresses });
    match object(Kind::AddressPool, &json!({ "metadata": { "name": "lan", "namespace": "lb" }, "spec": spec })) {
        Object::AddressPool(pool) => pool.into(),
        other => panic!("{other:?}"),
    }
}

fn advertisement(spec: &serde_json::Value) -> Arc<Advertisement> {
    match object(Kind::Advertisement, &json!({ "metadata": { "name": "all", "namespace": "lb" }, "spec": spec })) {
        Object::Advertisement(advertisement) => advertisement.into(),
        other => panic!("{other:?}"),
    }
}

fn on(nodes: &[&str]) -> Hosting {
    Hosting { any: !nodes.is_empty(), nodes: nodes.iter().map(|node| Arc::from(*node)).collect() }
}

fn tenancy() -> Tenancy {
    Tenancy {
        uid: "uid".into(),
        labels: Labels::default(),
        class: None,
        vips: vec![VIP],
        local: false,
        hosting_v4: on(&["b"]),
        hosting_v6: Hosting::default(),
    }
}

fn key(name: &str) -> ServiceKey {
    ObjectKey::new("default", name)
}

fn published(name: &str, generation: u64, tenancy: Tenancy) -> (ServiceKey, Arc<ServiceState>) {
    let tenancy = Some(Arc::new(tenancy));
    let state = ServiceState { key: key(name), generation, ports: Vec::new(), notices: Vec::new(), health_check: None, tenancy };
    (key(name), Arc::new(state))
}

impl Scene {
    fn new() -> Self {
        let pools = vec![pool(&["192.168.0.240-192.168.0.250"])];
        let interface = NetworkInterface {
            name: "eth0".into(),
            hardware: None,
            carrier: true,
            subnets: vec!["192.168.0.1/24".parse().unwrap()],
        };
        Self {
            rules: Rules { pools, advertisements: vec![advertisement(&json!({}))], ..Rules::default() },
            services: [published("web", 1, tenancy())].into(),
            node: nameless(&"a".into()),
            interfaces: vec![interface],
            holds: Vec::new(),
            presence: Presence::Present,
            others: Vec::new(),
            class: None,
            settled: true,
            bearing: Bearing::Free,
            ceded: None,
            first_taking: Succession::AtOnce,
            programmed: 1,
            before: Decisions::new(),
        }
    }

    fn with(tenancy: Tenancy) -> Self {
        Self { services: [published("web", 1, tenancy)].into(), ..Self::new() }
    }

    /// Beside others, in this state, each with whether it says that it holds the VIP.
    fn beside(self, others: &[(&str, State, bool)]) -> Self {
        let facts =
            |holds: bool| Facts { interfaces: self.interfaces.clone(), holds: if holds { vec![HOLD] } else { Vec::new() } };
        let member = |&(name, state, holds): &(&str, State, bool)| Member {
            name: name.into(),
            state,
            facts: (state != State::Unheard).then(|| Arc::new(facts(holds))),
        };
        let entrant = |member: Member| Entrant::other(nameless(&member.name), &member, Succession::AtOnce);
        let others = others.iter().map(member).map(entrant).collect();
        Self { others, ..self }
    }

    /// It announces the VIP now.
    fn holding(self) -> Self {
        Self { holds: vec![HOLD], ..self }
    }

    fn decide(&self) -> Decisions {
        let facts = Facts { interfaces: self.interfaces.clone(), holds: self.holds.clone() };
        let own = Entrant::own(self.node.clone(), self.presence, facts);
        let field: Vec<Entrant> = std::iter::once(own).chain(self.others.iter().cloned()).collect();
        decide(&Situation {
            class: self.class,
            options: Options::default(),
            rules: &self.rules,
            services: &self.services,
            field: &field,
            settled: self.settled,
            bearing: &self.bearing,
            ceded: &|_| self.ceded.map(Arc::from),
            first_taking: self.first_taking,
            programmed: self.programmed,
            before: &self.before,
        })
    }

    fn outcome(&self) -> Option<Result<Interfaces, Quiet>> {
        self.decide().remove(&VIP).map(|decision| decision.outcome)
    }
}

fn unable(why: Exclusion) -> Quiet {
    Quiet::Unable(vec![("a".into(), why)], 0)
}

#[test]
fn a_vip_of_a_pool_is_announced_on_the_interfaces_of_its_advertisements() {
    let scene = Scene::new();
    assert_eq!(scene.outcome(), Some(Ok(Interfaces::All)));
    assert_eq!(vips(&scene.decide()), [Vip { address: VIP, interfaces: Vec::new() }]);
    let rules = Rules { advertisements: vec![advertisement(&json!({ "interfaces": ["eth1", "eth0"] }))], ..scene.rules.clone() };
    let named = Scene { rules, ..scene };
    assert_eq!(vips(&named.decide()), [Vip { address: VIP, interfaces: vec!["eth0".into(), "eth1".into()] }]);
}

#[test]
fn what_is_in_no_pool_or_of_another_class_is_nothing_of_ours() {
    let elsewhere = Tenancy { vips: vec!["192.168.0.9".parse().unwrap()], ..tenancy() };
    assert_eq!(Scene::with(elsewhere).decide(), Decisions::new());
    let of_a_class = Tenancy { class: Some("lb.example.org/l2".into()), ..tenancy() };
    assert_eq!(Scene::with(of_a_class.clone()).decide(), Decisions::new());
    assert_eq!(Scene { class: Some("lb.example.org/l2"), ..Scene::new() }.decide(), Decisions::new());
    assert!(matches!(Scene { class: Some("lb.example.org/l2"), ..Scene::with(of_a_class) }.outcome(), Some(Ok(_))));
}

#[test]
fn silence_has_its_reason() {
    let nowhere = Tenancy { hosting_v4: on(&[]), ..tenancy() };
    let only_there = Tenancy { local: true, ..tenancy() };
    let rules = |spec: serde_json::Value| Rules { advertisements: vec![advertisement(&spec)], ..Scene::new().rules };
    let excluded = json!({ "metadata": { "name": "a", "labels": { EXCLUDE_LABEL: "" } } });
    let Object::Peer(excluded) = object(Kind::Peer, &excluded) else { panic!("no Node") };
    let unplugged = NetworkInterface { carrier: false, ..Scene::new().interfaces.remove(0) };
    for (scene, quiet) in [
        (Scene::with(nowhere), Quiet::Nobody(Silence::NoEndpoints)),
        (Scene::with(only_there), unable(Exclusion::NoEndpoint)),
        (
            Scene { rules: rules(json!({ "serviceSelectors": [{ "matchLabels": { "app": "x" } }] })), ..Scene::new() },
            Quiet::Nobody(Silence::NoAdvertisement),
        ),
        (Scene { rules: rules(json!({ "interfaces": ["eth9"] })), ..Scene::new() }, unable(Exclusion::NoInterface)),
        (Scene { node: Arc::new(*excluded), ..Scene::new() }, unable(Exclusion::ExcludeLabel)),
        (Scene { interfaces: vec![unplugged], ..Scene::new() }, unable(Exclusion::NoCarrier)),
        (Scene { programmed: 0, ..Scene::new() }, Quiet::Unprogrammed),
    ] {
        assert_eq!(scene.outcome(), Some(Err(quiet)));
        assert_eq!(vips(&scene.decide()), []);
    }
}

#[test]
fn what_is_announced_does_not_wait_for_the_kernel() {
    let changed = [published("web", 2, tenancy())].into();
    assert_eq!(Scene { services: changed, ..Scene::new() }.holding().outcome(), Some(Ok(Interfaces::All)));
}

#[test]
fn all_services_of_an_address_count_and_an_address_counts_once() {
    let twice = Tenancy { vips: vec![VIP, VIP], ..tenancy() };
    let without = Tenancy { hosting_v4: on(&[]), ..tenancy() };
    let scene = Scene { services: [published("web", 1, twice), published("api", 1, without)].into(), ..Scene::new() };
    let decision = scene.decide().remove(&VIP).expect("decided");
    assert_eq!(decision.outcome, Ok(Interfaces::All));
    assert_eq!(decision.tenants.keys().collect::<Vec<_>>(), [&key("api"), &key("web")]);
}

/// The order of nodes for this VIP is e, d, b, c, a.
const FIRST: &str = "b";

fn gone(cause: Cause) -> State {
    State::Gone { cause, since: Instant::now() }
}

#[test]
fn the_first_of_those_that_live_announces() {
    let elsewhere = |node: &str| Some(Err(Quiet::Elsewhere(node.into())));
    let here = Some(Ok(Interfaces::All));
    let silent = State::DaemonDown { fault: Fault::Refuses, since: Instant::now() };
    for (others, expected) in [
        (&[(FIRST, State::Alive, false)][..], elsewhere("b")),
        (&[(FIRST, State::Alive, false), ("d", State::Alive, false)], elsewhere("d")),
        (&[(FIRST, State::Unheard, false)], here.clone()),
        (&[(FIRST, State::Leaving, true)], here.clone()),
        (&[(FIRST, gone(Cause::NodeGone), true)], here.clone()),
        // Its kernel forwards: it keeps what it has, and gets nothing.
        (&[(FIRST, silent, true)], elsewhere("b")),
        (&[(FIRST, silent, false)], here),
    ] {
        assert_eq!(Scene::new().beside(others).outcome(), expected, "{others:?}");
    }
}

#[test]
fn a_vip_that_moves_is_answered_here_until_it_is_there() {
    let moving = |taken| Scene::new().beside(&[(FIRST, State::Alive, taken)]).holding();
    let decision = moving(false).decide().remove(&VIP).expect("decided");
    assert_eq!((decision.outcome.is_ok(), decision.is_ours("a")), (true, false));
    assert_eq!(moving(true).outcome(), Some(Err(Quiet::Elsewhere(FIRST.into()))));
    // On the same interfaces as before, whatever the new advertisements say of this node.
    let before = Decision { outcome: Ok(Interfaces::Only(vec!["eth1".into()])), ..decision };
    let named = Scene { before: [(VIP, before)].into(), ..moving(false) };
    assert_eq!(named.outcome(), Some(Ok(Interfaces::Only(vec!["eth1".into()]))));
}

#[test]
fn a_daemon_that_ends_gives_everything_away_and_waits_for_nobody_else() {
    let ending = |scene: Scene| Scene { presence: Presence::Leaving, ..scene.holding() };
    assert_eq!(ending(Scene::new().beside(&[("c", State::Alive, false)])).outcome(), Some(Ok(Interfaces::All)));
    let taken = ending(Scene::new().beside(&[("c", State::Alive, true)]));
    assert_eq!(taken.outcome(), Some(Err(Quiet::Elsewhere("c".into()))));
    assert_eq!(ending(Scene::new()).outcome(), Some(Err(unable(Exclusion::Leaving))));
}

#[test]
fn what_moved_by_a_fault_stays_for_a_while() {
    let protected = Hold { protected: true, ..HOLD };
    let scene = Scene { holds: vec![protected], ..Scene::new().beside(&[(FIRST, State::Alive, false)]) };
    assert!(scene.decide()[&VIP].is_ours("a"));
}

#[test]
fn nothing_is_taken_before_the_others_are_known_and_what_is_held_stays() {
    let scene = || Scene { settled: false, ..Scene::new().beside(&[(FIRST, State::Unheard, false)]) };
    assert_eq!(scene().outcome(), Some(Err(Quiet::Unsettled)));
    assert_eq!(scene().holding().outcome(), Some(Ok(Interfaces::All)));
}

#[test]
fn caution_comes_before_everything() {
    let at = Instant::now();
    let waiting = Scene { first_taking: Succession::After(at), ..Scene::new() };
    assert_eq!(waiting.outcome(), Some(Err(Quiet::Waiting(at))));
    assert_eq!(next_try(&waiting.decide()), Some(at));
    let mut of_the_gone = Scene::new().beside(&[(FIRST, gone(Cause::NodeGone), true)]);
    for (succession, quiet) in [(Succession::After(at), Quiet::Waiting(at)), (Succession::No, Quiet::CutOff)] {
        of_the_gone.others[0].succession = succession;
        assert_eq!(of_the_gone.outcome(), Some(Err(quiet)));
    }
    let beside = || Scene::new().beside(&[(FIRST, gone(Cause::NodeGone), false)]).holding();
    for (scene, quiet) in [
        (Scene { bearing: Bearing::Withdrawn, ..beside() }, Quiet::Withdrawn),
        (Scene { bearing: Bearing::Yielding("c".into()), ..beside() }, Quiet::Yielded("c".into())),
        (Scene { ceded: Some("c"), ..beside() }, Quiet::Yielded("c".into())),
    ] {
        assert_eq!(scene.outcome(), Some(Err(quiet)), "what is held, too");
    }
}

#[test]
fn what_nobody_else_could_announce_nobody_else_has() {
    for bearing in [Bearing::Withdrawn, Bearing::Yielding(FIRST.into())] {
        let only_here = Tenancy { local: true, hosting_v4: on(&["a"]), ..tenancy() };
        let scene = Scene { bearing, ..Scene::with(only_here).beside(&[(FIRST, gone(Cause::NodeGone), false)]) };
        assert_eq!(scene.holding().outcome(), Some(Ok(Interfaces::All)));
    }
}

#[test]
fn what_a_fault_brought_here_is_told_from_what_was_chosen() {
    for (others, arrival) in [
        (&[][..], Arrival::Elected),
        (&[(FIRST, State::Alive, true)], Arrival::Elected),
        (&[(FIRST, gone(Cause::NodeGone), true)], Arrival::Inherited),
        (&[(FIRST, gone(Cause::Left), true)], Arrival::Inherited),
        (&[(FIRST, State::Leaving, true)], Arrival::Inherited),
        (&[(FIRST, gone(Cause::NodeGone), false)], Arrival::Elected),
        // Who has it now says more than who had it once.
        (&[(FIRST, gone(Cause::NodeGone), true), ("c", State::Alive, true)], Arrival::Elected),
    ] {
        assert_eq!(Scene::new().beside(others).decide()[&VIP].arrival, arrival, "{others:?}");
    }
    let mut unplugged = Scene::new().beside(&[(FIRST, State::Alive, true)]);
    let facts = unplugged.others[0].facts.clone().expect("it told");
    let interfaces = facts.interfaces.iter().map(|own| NetworkInterface { carrier: false, ..own.clone() }).collect();
    unplugged.others[0].facts = Some(Facts { interfaces, ..(*facts).clone() }.into());
    let decision = unplugged.decide().remove(&VIP).expect("decided");
    assert_eq!((decision.arrival, decision.is_ours("a")), (Arrival::Inherited, true));

    // It says that it announces no longer, and then why; or both at once.
    let plugged = Scene::new().beside(&[(FIRST, State::Alive, false)]).decide();
    assert!(!plugged[&VIP].is_ours("a"));
    let facts = unplugged.others[0].facts.clone().expect("it told");
    unplugged.others[0].facts = Some(Facts { holds: Vec::new(), ..(*facts).clone() }.into());
    unplugged.before = plugged;
    for _ in 0..2 {
        let decided = unplugged.decide();
        assert_eq!((decided[&VIP].arrival, decided[&VIP].is_ours("a")), (Arrival::Inherited, true), "however often it is asked");
        unplugged.before = decided;
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Of one node, what everybody knows of it.
    #[derive(Clone, Copy, Debug)]
    struct Known {
        leaving: bool,
        carrier: bool,
        holds: Option<bool>,
        hosts: bool,
    }

    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn known() -> impl Strategy<Value = Known> {
        let holds = prop::option::weighted(0.3, any::<bool>());
        (prop::bool::weighted(0.2), prop::bool::weighted(0.8), holds, any::<bool>())
            .prop_map(|(leaving, carrier, holds, hosts)| Known { leaving, carrier, holds, hosts })
    }

    /// As the node at this place decides.
    fn decided(own: usize, all: &[Known], local: bool) -> Decision {
        let hosting: Vec<&str> = NAMES.iter().zip(all).filter(|(_, known)| known.hosts).map(|(name, _)| *name).collect();
        let scene = Scene::with(Tenancy { local, hosting_v4: on(&hosting), ..tenancy() });
        let facts = |known: &Known| Facts {
            interfaces: vec![NetworkInterface { carrier: known.carrier, ..scene.interfaces[0].clone() }],
            holds: known.holds.map(|protected| Hold { vip: VIP, protected }).into_iter().collect(),
        };
        let others = NAMES.iter().zip(all).enumerate().filter(|(place, _)| *place != own).map(|(_, (name, known))| {
            let state = if known.leaving { State::Leaving } else { State::Alive };
            let member = Member { name: (*name).into(), state, facts: Some(facts(known).into()) };
            Entrant::other(nameless(&member.name), &member, Succession::AtOnce)
        });
        let others = others.collect();
        let Facts { interfaces, holds } = facts(&all[own]);
        let presence = if all[own].leaving { Presence::Leaving } else { Presence::Present };
        let node = nameless(&NAMES[own].into());
        let scene = Scene { node, interfaces, holds, presence, others, ..scene };
        scene.decide().remove(&VIP).expect("it is in the pool")
    }

    proptest! {
        /// Two nodes with the same facts never both win, and all of them elect the same one.
        #[test]
        fn the_same_facts_make_one_winner(all in prop::collection::vec(known(), 1..=5), local in any::<bool>()) {
            let decisions: Vec<Decision> = (0..all.len()).map(|own| decided(own, &all, local)).collect();
            let winners = NAMES.iter().zip(&decisions).filter(|(name, decision)| decision.is_ours(name)).count();
            prop_assert!(winners <= 1, "{winners}: {decisions:?}");
            for decision in &decisions {
                prop_assert_eq!(&decision.elected, &decisions[0].elected);
            }
            // Whoever announces without having been elected holds it, and waits for one that was and does not.
            for ((name, known), decision) in NAMES.iter().zip(&all).zip(&decisions) {
                if decision.outcome.is_ok() && !decision.is_ours(name) {
                    prop_assert!(known.holds.is_some());
                    let elected = decision.elected.as_ref().map(|winner| winner.node.clone());
                    let winner = NAMES.iter().position(|name| elected.as_deref() == Ok(*name));
                    prop_assert!(winner.is_some_and(|winner| all[winner].holds.is_none()));
                }
            }
        }
    }
}
