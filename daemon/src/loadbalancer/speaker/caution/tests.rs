use super::*;
use crate::loadbalancer::membership::{Facts, Hold, NetworkInterface};
use crate::loadbalancer::speaker::record::Rival;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 240));
const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn member(name: &str, state: State) -> Member {
    let interface = NetworkInterface { name: "eth0".into(), hardware: Some(MAC.0), carrier: true, subnets: Vec::new() };
    let facts = Facts { interfaces: vec![interface], holds: vec![Hold { vip: VIP, protected: false }] };
    Member { name: name.into(), state, facts: Some(facts.into()) }
}

fn view(members: &[Member]) -> View {
    View { members: members.into(), settled: true, remembered: None }
}

fn gone(since: Instant) -> State {
    State::Gone { cause: Cause::NodeGone, since }
}

fn lease(node: &str, heard: usize, renewed: Option<Instant>) -> Leases {
    let claim = Some(Claim { node: node.into(), heard });
    [(node.into(), Rival { seen: LeaseSeen { renewed }, claim })].into()
}

fn after(start: Instant, milliseconds: u64) -> Instant {
    start + Duration::from_millis(milliseconds)
}

#[test]
fn whoever_lives_and_hears_more_has_everything() {
    let start = Instant::now();
    let two_gone = [member("b", gone(start)), member("c", gone(start))];
    let weigh = |members: &[Member], api, leases: &Leases| {
        Caution::new("a".into()).weigh(&view(members), api, leases, after(start, 3_000)).0
    };
    let renewed = Some(after(start, 500));
    let yielding = |node: &str| Bearing::Yielding(node.into());
    assert_eq!(weigh(&two_gone, Api::Reachable, &Leases::new()), Bearing::Free);
    assert_eq!(weigh(&two_gone, Api::Reachable, &lease("b", 2, renewed)), yielding("b"));
    assert_eq!(weigh(&two_gone, Api::Reachable, &lease("b", 2, Some(start))), Bearing::Free, "not since it fell silent");
    assert_eq!(weigh(&two_gone, Api::Reachable, &lease("b", 2, None)), Bearing::Free);
    let one_gone = [member("b", State::Alive), member("c", gone(start))];
    assert_eq!(weigh(&one_gone, Api::Reachable, &lease("c", 1, renewed)), Bearing::Free, "that one gives way");
    // Where the port of the membership is blocked, nobody was ever heard, and of equals the first by name stays.
    let unheard = [member("b", State::Unheard)];
    assert_eq!(weigh(&unheard, Api::Reachable, &lease("b", 1, renewed)), Bearing::Free);
    let other = Caution::new("c".into()).weigh(&view(&unheard), Api::Reachable, &lease("b", 1, renewed), start).0;
    assert_eq!(other, yielding("b"));
    let early = View { settled: false, ..view(&unheard) };
    assert_eq!(Caution::new("c".into()).weigh(&early, Api::Reachable, &lease("b", 1, renewed), start).0, Bearing::Free);
}

#[test]
fn who_has_lost_api_and_members_withdraws_after_a_while() {
    let start = Instant::now();
    let members = view(&[member("b", gone(start)), member("c", gone(start))]);
    let mut caution = Caution::new("a".into());
    let lost = Api::LostSince(start);
    let (bearing, until) = caution.weigh(&members, lost, &Leases::new(), start);
    assert_eq!((bearing, until), (Bearing::Free, Some(start + fence::PATIENCE)));
    let (bearing, _) = caution.weigh(&members, lost, &Leases::new(), start + fence::PATIENCE);
    assert_eq!(bearing, Bearing::Withdrawn);
    let heard = view(&[member("b", State::Alive), member("c", gone(start))]);
    assert_eq!(caution.weigh(&heard, lost, &Leases::new(), start + fence::PATIENCE).0, Bearing::Free);
}

#[test]
fn a_minority_looks_at_the_lease_before_it_takes_over() {
    let start = Instant::now();
    let members = [member("b", gone(start)), member("c", gone(start))];
    let mut caution = Caution::new("a".into());
    caution.weigh(&view(&members), Api::Reachable, &Leases::new(), start);
    let later = start + fence::CLAIMS_VISIBLE;
    let succession = |leases: &Leases, at| caution.succession(&members[0], Api::Reachable, leases, at);
    assert_eq!(succession(&Leases::new(), start), Succession::After(later));
    assert_eq!(succession(&Leases::new(), later), Succession::After(later + LOOK_AGAIN), "nobody has looked");
    assert_eq!(succession(&[("b".into(), Rival::default())].into(), later), Succession::AtOnce);
    assert_eq!(succession(&lease("b", 2, Some(after(start, 700))), later), Succession::No);
    assert_eq!(Caution::suspects(&view(&members)).len(), 2);
    let left = member("b", State::Gone { cause: Cause::Left, since: start });
    assert_eq!(caution.succession(&left, Api::Reachable, &Leases::new(), start), Succession::AtOnce);
}

#[test]
fn of_those_never_heard_it_is_asked_whether_they_live() {
    let now = Instant::now();
    let members = [member("b", State::Unheard), member("c", State::Alive)];
    let first = |api, leases: &Leases| Caution::first_taking(&members, api, leases, now);
    assert_eq!(first(Api::Reachable, &Leases::new()), Succession::After(now + LOOK_AGAIN));
    assert_eq!(first(Api::Reachable, &[("b".into(), Rival::default())].into()), Succession::AtOnce);
    assert_eq!(first(Api::LostSince(now), &Leases::new()), Succession::AtOnce);
}

#[test]
fn a_member_that_is_not_heard_and_claims_on_the_lan_is_given_way_to() {
    let start = Instant::now();
    let members = [member("b", gone(start)), member("c", gone(start))];
    let mut caution = Caution::new("a".into());
    caution.weigh(&view(&members), Api::Reachable, &Leases::new(), start);
    assert_eq!(caution.claimed(VIP, Mac([2, 0, 0, 0, 0, 8]), &members), Claimant::Stranger);
    assert_eq!(caution.ceded(VIP), None);
    assert_eq!(caution.claimed(VIP, MAC, &members), Claimant::Member("b".into()));
    assert_eq!(caution.ceded(VIP).map(|to| &**to), Some("b"));
    // It stays so until that one is heard, or somebody else is.
    caution.weigh(&view(&members), Api::Reachable, &Leases::new(), after(start, 100));
    assert!(caution.ceded(VIP).is_some());
    caution.weigh(
        &view(&[member("b", gone(start)), member("c", State::Alive)]),
        Api::Reachable,
        &Leases::new(),
        after(start, 200),
    );
    assert_eq!(caution.ceded(VIP), None);
    // Heard, or in the majority: nothing is given up.
    assert_eq!(caution.claimed(VIP, MAC, &members), Claimant::Member("b".into()));
    assert_eq!(caution.ceded(VIP), None);
}

/// Two members that hear each other and announce one VIP, whatever each knows of the API: exactly one of them gives way.
#[test]
fn of_two_that_hear_each_other_exactly_one_gives_way() {
    let start = Instant::now();
    let lost = Api::LostSince(start);
    for apis in [[Api::Reachable; 2], [lost, Api::Reachable], [Api::Reachable, lost], [lost; 2]] {
        let names = ["a", "b"];
        let mut cautions = names.map(|name| Caution::new(name.into()));
        let mut holds = [true; 2];
        for step in 0..100 {
            let now = after(start, step * 100);
            for own in 0..2 {
                let rival = member(names[1 - own], State::Alive);
                let rival = if holds[1 - own] { rival } else { Member { facts: Some(Arc::default()), ..rival } };
                let caution = &mut cautions[own];
                let ours = holds[own];
                caution.disputed(|vip| vip == VIP && ours, std::slice::from_ref(&rival), apis[own], now);
                caution.weigh(&view(&[rival]), apis[own], &Leases::new(), now);
                holds[own] = holds[own] && caution.ceded(VIP).is_none();
            }
        }
        assert_eq!(holds.iter().filter(|holds| **holds).count(), 1, "{apis:?}: {holds:?}");
        assert!(cautions.iter().all(|caution| !caution.has_disputes()), "{apis:?}");
    }
}
