//! Who watches whom.

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_64;

/// A member on the wire: a hash of its node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct MemberId(pub(super) u64);

impl MemberId {
    pub(super) fn of(name: &str) -> Self {
        Self(xxh3_64(name.as_bytes()))
    }
}

/// The next `count` members after `of` on the ring of `members`, which is sorted. Names of one rack are scattered by the hash, so the
/// watchers of a member do not go with it.
pub(super) fn watchers(members: &[MemberId], of: MemberId, count: usize) -> impl Iterator<Item = MemberId> {
    let after = members.partition_point(|member| member.cmp(&of) != Ordering::Greater);
    let ring = members[after..].iter().chain(&members[..after]).copied();
    ring.filter(move |&member| member != of).take(count)
}
