//! Giving the node back to kube-proxy: its rules first, then ours go.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::presence::{self, Listeners};
use super::witness::{Programmed, Witness};
use super::{Frontend, MigrationError, State, address, frontends};
use crate::dataplane::PlaneError;
use crate::dataplane::nftables::{self, TABLE};
use crate::netlink::nft::{Batch, DoorError, ForeignTable, KernelNft, NftDoor as _, TableFamily};

/// The table by which a `sheave run` that is alive is asked to stand down.
pub const REQUEST_TABLE: &str = "sheave-back";
/// How often it is looked whether kube-proxy has come. Nothing tells: it may program any of four subsystems.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A `sheave run` that is asked with less time than that could not be awaited.
const STANDS_DOWN_WITHIN: Duration = Duration::from_secs(2);
/// kube-proxy changes its rules within its minSyncPeriod (1 s). One that has lost the API server tries to reach it again with pauses
/// that grow to 30 s, each with a jitter of up to as much again, for each kind of object by itself (client-go's reflector:
/// `wait.NewExponentialBackoffManager(800*time.Millisecond, 30*time.Second, 2*time.Minute, 2.0, 1.0, ..)`): at most 60 s.
const SETTLED: Duration = Duration::from_secs(65);
/// Why what it says proves nothing.
const FAILING: &str = "requests of kube-proxy's to the API server fail";
/// Addresses that an answer names at most.
const NAMED: usize = 5;

/// Asks whatever `sheave run` is alive to stand down, and those that start beside a kube-proxy not to serve.
fn request(door: &mut KernelNft) -> Result<(), MigrationError> {
    let mut batch = Batch::new();
    batch.add_table(REQUEST_TABLE, None);
    door.commit(batch)?;
    Ok(())
}

/// Whether it was asked.
///
/// # Errors
/// See [`DoorError`].
pub fn is_requested(door: &mut KernelNft) -> Result<bool, DoorError> {
    door.table_exists(REQUEST_TABLE)
}

/// Forgets that it was asked.
///
/// # Errors
/// See [`MigrationError`].
pub fn withdraw(door: &mut KernelNft) -> Result<(), MigrationError> {
    if is_requested(door)? {
        let mut batch = Batch::new();
        batch.delete_table(REQUEST_TABLE);
        door.commit(batch)?;
    }
    Ok(())
}

/// What still keeps our rules in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A `sheave run` is alive, and would restore them at once; it is asked to stand down.
    SheaveRuns,
    /// It has done so, or ended.
    StandsDown,
    /// No kube-proxy runs.
    NoKubeProxy,
    /// It runs and has no rules yet.
    NoRules,
    /// It says that it has not programmed all that it knows.
    NotProgrammed,
    /// Its rules lack what ours have.
    Missing(Lack),
    /// The same, where nobody maintains ours any more; and nothing says that it is by right.
    Unproven(Lack, String),
    /// They lack it by right: kube-proxy says that all it knows is programmed, and nobody has maintained ours meanwhile. Nothing is
    /// waited for.
    Stale(Lack),
}

/// What kube-proxy's rules lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// They do not know these ClusterIPs.
    ClusterIps(BTreeSet<IpAddr>),
    /// They have no endpoint for these frontends, which ours have some for.
    Endpoints(BTreeSet<Frontend>),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Our rules are gone, and kube-proxy's serve.
    GivenBack,
    /// There was nothing of ours.
    NothingHere,
    /// The `sheave run` that was asked saw no kube-proxy, and goes on serving.
    Declined,
    /// The time is over, and nothing was removed.
    TooLate(Waiting),
}

/// Waits until kube-proxy's rules can take over, and removes ours. `before` is called first of all, once they are about to go: it
/// takes back what they guard.
///
/// A request outlives its fulfilment: the `sheave run` that it was for may be started again by others.
///
/// # Errors
/// See [`MigrationError`], and those of the removal and of `before`.
pub fn give_back(
    door: &mut KernelNft,
    limit: Duration,
    mut before: impl FnMut(&mut KernelNft) -> anyhow::Result<()>,
    mut told: impl FnMut(&Waiting),
) -> anyhow::Result<Outcome> {
    let mut remove = |door: &mut KernelNft| -> anyhow::Result<Removal> {
        before(door)?;
        Ok(remove(door)?)
    };
    let started = Instant::now();
    let mut last = None;
    let mut asked = false;
    let mut settling = Settling::default();
    let mut witness = Witness::default();
    loop {
        if !door.table_exists(TABLE)? && !nftables::is_held(door)? {
            return Ok(if asked { Outcome::GivenBack } else { Outcome::NothingHere });
        }
        let Look { theirs, held, waiting } = look(door)?;
        let waiting = if held { waiting } else { unattended(waiting, theirs, &mut settling, &mut witness) };
        let waiting = match waiting {
            // The one that was asked is on its way to remove them itself.
            None if asked && last == Some(Waiting::SheaveRuns) => Waiting::StandsDown,
            None => match remove(door)? {
                Removal::Done => return Ok(Outcome::GivenBack),
                Removal::Overtaken => continue,
            },
            // Nobody follows the API for us any more, and kube-proxy does: Services that only we know are gone.
            Some(stale @ Waiting::Stale(_)) => {
                told(&stale);
                match remove(door)? {
                    Removal::Done => return Ok(Outcome::GivenBack),
                    Removal::Overtaken => continue,
                }
            }
            Some(waiting) => waiting,
        };
        if waiting == Waiting::SheaveRuns {
            if asked && !is_requested(door)? {
                return Ok(Outcome::Declined);
            }
            // One that is asked at the last moment would stand down for nobody.
            if !asked && limit.saturating_sub(started.elapsed()) >= STANDS_DOWN_WITHIN {
                request(door)?;
                asked = true;
            }
        }
        if started.elapsed() >= limit {
            withdraw(door)?;
            return Ok(Outcome::TooLate(waiting));
        }
        if last.as_ref() != Some(&waiting) {
            told(&waiting);
        }
        last = Some(waiting);
        std::thread::sleep(LOOK_AGAIN.min(limit.saturating_sub(started.elapsed())));
    }
}

/// What came of a removal.
enum Removal {
    /// Ours are gone.
    Done,
    /// Somebody else removed some of them meanwhile: look again.
    Overtaken,
}

fn remove(door: &mut KernelNft) -> Result<Removal, PlaneError> {
    match nftables::cleanup(door) {
        Ok(_) => Ok(Removal::Done),
        Err(PlaneError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(Removal::Overtaken),
        Err(error) => Err(error),
    }
}

/// What kube-proxy's rules know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    cluster_ips: BTreeSet<IpAddr>,
    /// Those with an endpoint.
    frontends: BTreeSet<Frontend>,
}

/// What was seen last, and since when that is the same.
#[derive(Debug, Default)]
struct Settling {
    last: Option<(Known, u64, Instant)>,
    /// What was last different was that more requests had failed.
    failing: bool,
}

impl Settling {
    /// Whether kube-proxy's rules have been these for long enough, and it has failed to reach the API server no more often.
    fn settled(&mut self, theirs: Known, failed_requests: u64, now: Instant) -> bool {
        match &self.last {
            Some((last, failed, since)) if (last, *failed) == (&theirs, failed_requests) => now.duration_since(*since) >= SETTLED,
            before => {
                self.failing = before.as_ref().is_some_and(|(_, failed, _)| *failed < failed_requests);
                self.last = Some((theirs, failed_requests, now));
                false
            }
        }
    }
}

/// What has to be waited for where no `sheave run` is alive: rules may be compared, and still nobody knows whose are right. Ours may be
/// the last that work, so they stay until kube-proxy itself says that its own are all there is.
fn unattended(waiting: Option<Waiting>, theirs: Known, settling: &mut Settling, witness: &mut Witness) -> Option<Waiting> {
    let now = Instant::now();
    match waiting {
        // What it says of itself is more than what its rules have, and less than what they lack.
        None => (witness.asked(now) == Programmed::NotYet).then_some(Waiting::NotProgrammed),
        Some(Waiting::Missing(lack)) => Some(match witness.asked(now) {
            Programmed::Yes { failed_requests } if settling.settled(theirs, failed_requests, now) => Waiting::Stale(lack),
            Programmed::Yes { .. } if settling.failing => Waiting::Unproven(lack, FAILING.to_owned()),
            Programmed::Yes { .. } => Waiting::Missing(lack),
            Programmed::NotYet => Waiting::Unproven(lack, Waiting::NotProgrammed.to_string()),
            Programmed::Unknown(why) => Waiting::Unproven(lack, why),
        }),
        other => other,
    }
}

/// What there is of both.
struct Look {
    /// What kube-proxy's rules know.
    theirs: Known,
    /// A `sheave run` is alive.
    held: bool,
    /// What has to be waited for; `None` when ours can go.
    waiting: Option<Waiting>,
}

fn look(door: &mut KernelNft) -> Result<Look, MigrationError> {
    let state = State::look(door)?;
    let theirs = Known { cluster_ips: state.cluster_ips(), frontends: state.frontends() };
    let held = nftables::is_held(door)?;
    let waiting = if !held && presence::signs(Listeners::Count).is_empty() {
        // One that is alive looks for itself when it is asked: its servers are on the ports by which kube-proxy would be seen.
        Some(Waiting::NoKubeProxy)
    } else if theirs.cluster_ips.is_empty() {
        Some(Waiting::NoRules)
    } else {
        match lack(&own(door)?, &theirs) {
            Some(lack) => Some(Waiting::Missing(lack)),
            None => held.then_some(Waiting::SheaveRuns),
        }
    };
    Ok(Look { theirs, held, waiting })
}

/// What keeps these rules from taking over from those. ClusterIPs are not enough: a table may know them all, and not one endpoint. That
/// they have as many as ours is not asked: they change all the time, and one that is reached makes a frontend work.
fn lack(ours: &Known, theirs: &Known) -> Option<Lack> {
    let cluster_ips: BTreeSet<IpAddr> = ours.cluster_ips.difference(&theirs.cluster_ips).copied().collect();
    if !cluster_ips.is_empty() {
        return Some(Lack::ClusterIps(cluster_ips));
    }
    let frontends: BTreeSet<Frontend> = ours.frontends.difference(&theirs.frontends).copied().collect();
    (!frontends.is_empty()).then_some(Lack::Endpoints(frontends))
}

/// What our rules know, from the kernel: whoever wrote them may be gone.
fn own(door: &mut KernelNft) -> Result<Known, MigrationError> {
    Ok(Known { cluster_ips: own_cluster_ips(door)?, frontends: frontends::of_sheave(door)? })
}

fn own_cluster_ips(door: &mut KernelNft) -> Result<BTreeSet<IpAddr>, MigrationError> {
    let table = ForeignTable::new(TableFamily::INET, TABLE);
    let mut found = BTreeSet::new();
    for set in door.set_names_in(&table)?.into_iter().filter(|name| name.starts_with("cluster-ips-")) {
        found.extend(door.keys_in(&table, &set)?.iter().filter_map(|key| address(key)));
    }
    Ok(found)
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SheaveRuns => f.write_str("`sheave run` serves this node, and is asked to stand down"),
            Self::StandsDown => f.write_str("`sheave run` has stood down or ended"),
            Self::NoKubeProxy => f.write_str(
                "no kube-proxy runs on this node: no process of that name, nobody who listens on its ports 10256 and 10249",
            ),
            Self::NoRules => f.write_str("kube-proxy has not written its rules"),
            Self::NotProgrammed => f.write_str("kube-proxy has not programmed yet what the API server says"),
            Self::Missing(lack) => write!(f, "kube-proxy's rules {lack}"),
            Self::Unproven(lack, why) => write!(
                f,
                "kube-proxy's rules {lack}; nothing says that this is as the API server wants it ({why}), and no `sheave run` is \
                 alive to follow it; if those Services are gone, `sheave cleanup` removes sheave's rules"
            ),
            Self::Stale(Lack::ClusterIps(addresses)) => write!(
                f,
                "nothing more: kube-proxy has programmed all that it knows, and {} ClusterIPs are in those alone that a stopped sheave left: {}",
                addresses.len(),
                Named(addresses)
            ),
            Self::Stale(Lack::Endpoints(frontends)) => write!(
                f,
                "nothing more: kube-proxy has programmed all that it knows, and {} frontends have endpoints in those alone that a stopped sheave \
                 left: {}",
                frontends.len(),
                Named(frontends)
            ),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterIps(addresses) => {
                write!(f, "lack {} ClusterIPs that sheave's have: {}", addresses.len(), Named(addresses))
            }
            Self::Endpoints(frontends) => {
                write!(f, "have no endpoint for {} frontends that sheave's have some for: {}", frontends.len(), Named(frontends))
            }
        }
    }
}

/// Some of them, and how many more.
struct Named<'a, T>(&'a BTreeSet<T>);

impl<T: fmt::Display> fmt::Display for Named<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.0.iter().take(NAMED).map(ToString::to_string).collect();
        f.write_str(&named.join(", "))?;
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_change_are_not_settled_nor_those_of_one_that_does_not_reach_the_api_server() {
        let one = || Known { cluster_ips: BTreeSet::from([IpAddr::from([10, 96, 0, 1])]), ..Known::default() };
        let start = Instant::now();
        let mut settling = Settling::default();
        assert!(!settling.settled(Known::default(), 0, start) && !settling.settled(one(), 0, start + 2 * SETTLED));
        assert!(!settling.settled(one(), 0, start + 3 * SETTLED - LOOK_AGAIN));
        assert!(settling.settled(one(), 0, start + 3 * SETTLED));
        assert!(!settling.failing);
        assert!(!settling.settled(one(), 1, start + 3 * SETTLED) && settling.failing, "a request has failed");
        assert!(settling.settled(one(), 1, start + 4 * SETTLED));
    }

    #[test]
    fn rules_lack_clusterips_first_and_endpoints_then() {
        let ip = IpAddr::from([10, 96, 0, 1]);
        let frontend = Frontend::Address { ip, protocol: 6, port: 443 };
        let know = |ips: &[IpAddr], frontends: &[Frontend]| Known {
            cluster_ips: ips.iter().copied().collect(),
            frontends: frontends.iter().copied().collect(),
        };
        let ours = know(&[ip], &[frontend]);
        assert_eq!(lack(&ours, &know(&[], &[])), Some(Lack::ClusterIps(BTreeSet::from([ip]))));
        assert_eq!(lack(&ours, &know(&[ip], &[])), Some(Lack::Endpoints(BTreeSet::from([frontend]))));
        assert_eq!(lack(&ours, &ours), None);
        assert_eq!(lack(&know(&[ip], &[]), &ours), None, "without an endpoint there is nothing to lack");
    }
}
