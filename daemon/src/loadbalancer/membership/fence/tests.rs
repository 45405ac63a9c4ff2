//! The table of the module's head, cell by cell, and what two sides come to.

use super::*;
use crate::loadbalancer::membership::Fault;

fn quorum(heard: usize, known: usize, now: Instant) -> Quorum {
    Quorum { heard, known, lost_since: (heard * 2 < known).then_some(now) }
}

fn member(name: &str, state: State) -> Member {
    Member { name: name.into(), state, facts: None }
}

#[test]
fn losing_one_of_two_changes_nothing_and_losing_both_withdraws() {
    let now = Instant::now();
    let later = now + PATIENCE;
    for (heard, known, api, expected) in [
        (1, 3, Api::Reachable, Verdict::Hold),
        (2, 3, Api::LostSince(now), Verdict::Hold),
        (1, 2, Api::LostSince(now), Verdict::Hold),
        (1, 1, Api::LostSince(now), Verdict::Hold),
        (2, 4, Api::LostSince(now), Verdict::Hold),
        (1, 3, Api::LostSince(now), Verdict::Withdraw),
        (4, 9, Api::LostSince(now), Verdict::Withdraw),
    ] {
        assert_eq!(verdict(quorum(heard, known, now), api, later), expected, "{heard} of {known}, {api:?}");
    }
    let early = verdict(quorum(1, 3, now), Api::LostSince(now + Duration::from_secs(1)), later);
    assert_eq!(early, Verdict::HoldUntil(later + Duration::from_secs(1)));
}

#[test]
fn a_minority_takes_over_from_the_dead_only() {
    let now = Instant::now();
    let silent = now;
    let renewed = LeaseSeen { renewed: Some(now + Duration::from_millis(600)) };
    let old = LeaseSeen { renewed: Some(now - Duration::from_secs(3)) };
    let later = now + CLAIMS_VISIBLE;
    let lost = Api::LostSince(now);
    for (heard, api, lease, at, expected) in [
        (2, Api::Reachable, old, now, Succession::AtOnce),
        (2, lost, old, now, Succession::AtOnce),
        (1, Api::Reachable, old, now, Succession::After(later)),
        (1, Api::Reachable, old, later, Succession::AtOnce),
        (1, Api::Reachable, renewed, later, Succession::No),
        (1, lost, old, later, Succession::No),
    ] {
        assert_eq!(succession(quorum(heard, 3, now), api, silent, lease, at), expected, "{heard} of 3, {api:?}, {lease:?}");
    }
    assert_eq!(succession(quorum(1, 2, now), lost, silent, old, now), Succession::AtOnce, "one of two survives the other");
}

#[test]
fn of_two_that_claim_one_vip_exactly_one_yields() {
    let claim = |node: &str, heard| Claim { node: node.into(), heard };
    for (one, other) in [(claim("a", 1), claim("b", 2)), (claim("a", 2), claim("b", 2)), (claim("a", 3), claim("b", 2))] {
        assert_ne!(one.yields_to(&other), other.yields_to(&one), "{one:?} {other:?}");
    }
    assert!(claim("a", 1).yields_to(&claim("b", 2)) && claim("b", 2).yields_to(&claim("a", 2)));
    assert!(!claim("a", 1).yields_to(&claim("a", 1)), "not to itself");
}

/// One side of a partition.
#[derive(Clone, Copy, Debug)]
struct Side {
    heard: usize,
    api: bool,
    name: &'static str,
}

/// What is left of two that announce, a minute after the partition: the holder's side had the VIP, the other one took it over if it
/// may. Whether the holder's side still announces, and whether the other one does.
fn settled(holder: Side, other: Side, known: usize, one_lan: bool) -> (bool, bool) {
    let parted = Instant::now();
    let now = parted + Duration::from_secs(60);
    let api = |side: Side| if side.api { Api::Reachable } else { Api::LostSince(parted) };
    let count = |side: Side| quorum(side.heard, known, parted);
    // A holder that reaches the API renews its Lease, which the other side sees if it does.
    let lease = LeaseSeen { renewed: holder.api.then_some(now) };
    let mut holds = verdict(count(holder), api(holder), now) != Verdict::Withdraw;
    let taken = succession(count(other), api(other), parted, lease, now) == Succession::AtOnce;
    let mut takes = taken && verdict(count(other), api(other), now) != Verdict::Withdraw;
    if holds && takes && holder.api && other.api {
        let claim = |side: Side| Claim { node: side.name.into(), heard: side.heard };
        (holds, takes) = (!claim(holder).yields_to(&claim(other)), !claim(other).yields_to(&claim(holder)));
    } else if holds && takes && one_lan {
        holds = !yields_on_lan(count(holder), holder.name, other.name);
        takes = !yields_on_lan(count(other), other.name, holder.name);
    }
    (holds, takes)
}

#[test]
fn after_any_partition_one_side_announces_on_one_lan() {
    for known in 2..8 {
        for heard in 1..known {
            for (here, there) in [(true, true), (true, false), (false, true), (false, false)] {
                for names in [("a", "b"), ("b", "a")] {
                    let holder = Side { heard, api: here, name: names.0 };
                    let other = Side { heard: known - heard, api: there, name: names.1 };
                    let (holds, takes) = settled(holder, other, known, true);
                    assert!(holds != takes, "{holder:?} {other:?}: {holds} {takes}");
                    // On two LANs nobody sees both; but never nobody announces where there is a client.
                    let (holds, takes) = settled(holder, other, known, false);
                    assert!(holds || takes, "{holder:?} {other:?}");
                }
            }
        }
    }
}

#[test]
fn who_left_is_not_missed_and_a_dead_daemon_is_no_lost_node() {
    let now = Instant::now();
    let gone = |cause| State::Gone { cause, since: now };
    let members = [
        member("alive", State::Alive),
        member("restarting", State::DaemonDown { fault: Fault::Refuses, since: now }),
        member("left", gone(Cause::Left)),
        member("stuck", gone(Cause::DaemonDown(Fault::Stalled))),
        member("never", State::Unheard),
        member("dead", gone(Cause::NodeGone)),
    ];
    let mut roll = Roll::default();
    assert_eq!(roll.count(&members, Api::Reachable, now), Quorum { heard: 3, known: 4, lost_since: None });
    let dead = [member("b", gone(Cause::NodeGone)), member("c", gone(Cause::NodeGone))];
    let lost = roll.count(&dead, Api::Reachable, now);
    let later = roll.count(&dead, Api::Reachable, now + PATIENCE);
    assert_eq!((lost.lost_since, later.lost_since), (Some(now), Some(now)), "since it was lost, not since it was counted");
    assert_eq!(roll.count(&members, Api::Reachable, now).lost_since, None);
}

#[test]
fn nodes_that_were_switched_off_are_forgotten_while_the_api_is_there() {
    let now = Instant::now();
    let lost = Api::LostSince(now);
    let dead = ["b", "c"].map(|name| member(name, State::Gone { cause: Cause::NodeGone, since: now }));
    let mut roll = Roll::default();
    assert_eq!(roll.count(&dead, lost, now + MISSED).known, 3, "nobody could ask the API");
    assert_eq!(roll.count(&dead, Api::Reachable, now + MISSED - Duration::from_secs(1)).known, 3);
    assert_eq!(roll.count(&dead, Api::Reachable, now + MISSED).known, 1);
    assert_eq!(roll.count(&dead, lost, now + 2 * MISSED).known, 1, "the API's next hiccup withdraws nothing");
    let alive = ["b", "c"].map(|name| member(name, State::Alive));
    assert_eq!(roll.count(&alive, lost, now + 2 * MISSED).known, 3);
    let again = ["b", "c"].map(|name| member(name, State::Gone { cause: Cause::NodeGone, since: now + 2 * MISSED }));
    assert_eq!(roll.count(&again, lost, now + 2 * MISSED).known, 3);
}

#[test]
fn a_lease_is_written_every_five_seconds_at_rest_and_at_once_when_something_happens() {
    let now = Instant::now();
    let mut lease = LeaseClock::default();
    assert_eq!(lease.due(false, now), None, "no VIP, no write");
    lease.changed();
    assert_eq!(lease.due(false, now), None);
    assert_eq!(lease.due(true, now), Some(now));
    lease.written(now);
    assert_eq!(lease.due(true, now), Some(now + RENEWAL));
    lease.changed();
    assert_eq!(lease.due(true, now), Some(now + LEAST_PAUSE));
    assert_eq!(lease.due(false, now), Some(now + LEAST_PAUSE), "that it gave up the last one");
    lease.written(now);
    assert_eq!(lease.due(false, now), None);
}
