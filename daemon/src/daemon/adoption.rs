//! What `sheave run` does about kube-proxy: refuses beside it, warns of what it left, or takes over from it.
//!
//! ```text
//! runs?  ─ no `--adopt` ─► refuse, name it         left over? ─ no `--adopt` ─► warn
//! `--adopt`: serve ─► first complete commit ─► wait for its end ─► remove what is its own
//! ```
//! Its end is waited for because it would write its rules again; meanwhile they do no harm, since ours come first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{oneshot, watch};

use super::report::{Reporter, with_causes};
use super::{DaemonError, handover};
use crate::config::Options;
use crate::dataplane::nftables::{LAYOUT, TABLE};
use crate::health::ProxyHealth;
use crate::migration::check::{self, Finding, Kind};
use crate::migration::presence::{self, Listeners, Sign};
use crate::migration::removal::{self, Removal};
use crate::migration::{Item, MigrationError, State, pods_in_words, sentence};
use crate::netlink::nft::{KernelNft, NftDoor as _};
use crate::retry::Retry;

/// How often it is looked whether kube-proxy still runs. Nothing tells.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// It must be gone for so many looks in a row: one that is only restarted comes back to its rules.
const LOOKS: u32 = 5;
/// How far these are apart: together more than the 10 s that the kubelet waits before it restarts a container.
const BETWEEN: Duration = Duration::from_secs(3);
/// How often it is looked where nothing is to be done: on a node that boots, kube-proxy's rules may come after ours.
const IDLE: Duration = Duration::from_secs(30);
/// IPVS connections that still run end within minutes or never.
const DRAIN: Duration = Duration::from_secs(10);

/// Removed so often, and there again: somebody writes it.
const HAS_A_WRITER: u32 = 2;
/// After so many looks in a row that found nothing, 10 minutes, what comes back is a new matter. A kube-proxy out of sight writes sooner:
/// its iptables and ipvs modes look for their canary chain every 30 s (`syncPeriod`).
const FORGOTTEN: u32 = 20;

/// Whose problem it is in `/healthz`.
const PROBLEM: &str = "kube-proxy";

/// kube-proxy as it is at our start.
#[derive(Debug, Default)]
struct Found {
    state: State,
    signs: Vec<Sign>,
    /// What nobody but a person can do about what is there, where it is taken over.
    manual: Vec<Finding>,
}

/// A takeover that has been decided on.
#[derive(Debug)]
pub(super) struct Adoption {
    /// Looks in a row at which kube-proxy must be gone.
    looks: u32,
    /// What somebody on kube-proxy's ports means, from what was found last.
    listeners: Listeners,
    /// It ran at our start.
    awaiting: bool,
    /// What went.
    removed: Removed,
}

/// What was removed, as [`Item`] has it, and how often. What is there again once may be the last word of a kube-proxy that was about to
/// end. If it comes back a second time, somebody writes it who cannot be seen: a kube-proxy in a container whose ports we hold. It would
/// write without end what we remove without end.
#[derive(Debug, Default)]
struct Removed {
    times: BTreeMap<(&'static str, String), u32>,
    /// Looks in a row since that found nothing.
    quiet: u32,
}

/// Looks whether kube-proxy is here, before anything of ours is. What has begun goes on: `begun` by this process, or by one whose rules
/// are still there. They decide, so somebody has to maintain them.
///
/// # Errors
/// [`DaemonError::KubeProxyRuns`], if it runs and was not meant to be taken over from; [`DaemonError::ForwardsByKubeProxy`], if traffic
/// would stop.
pub(super) async fn prepare(options: &Options, begun: bool) -> Result<Option<Adoption>, DaemonError> {
    let (adopt, pods) = (options.adopt, options.cluster_cidrs.clone());
    let Found { state, signs, manual } = blocking(move || find(adopt, &pods)).await.unwrap_or_else(|error| {
        // Services are more important than what may be left of kube-proxy.
        tracing::warn!(error = with_causes(&error), "it cannot be told whether kube-proxy has rules on this node");
        Found { signs: presence::signs(Listeners::Ignore), ..Found::default() }
    });
    let running = presence::sentence(&signs);
    let begun = begun || blocking(|| ours_are_here(&mut KernelNft::open()?)).await.unwrap_or(false);
    let chains = state.forwards_by_kube_proxy(&options.cluster_cidrs);
    if !begun && !chains.is_empty() {
        return Err(DaemonError::ForwardsByKubeProxy { chains: chains.join(", "), pods: pods_in_words(&options.cluster_cidrs) });
    }
    if !adopt && !signs.is_empty() {
        if !begun {
            return Err(DaemonError::KubeProxyRuns { signs: running });
        }
        tracing::warn!(
            "kube-proxy runs ({running}), and our rules decide already: sheave goes on serving; stop kube-proxy, or give this node \
             back with `sheave migrate back`"
        );
    }
    let found = sentence(&state.items());
    // `sheave migrate check` would have said it. What drops forwarded packets is told by whoever looks at it again and again.
    for finding in manual.iter().filter(|finding| finding.kind != Kind::ForwardPolicyDrop) {
        tracing::warn!("{}", finding.text);
    }
    if adopt {
        if !signs.is_empty() {
            tracing::info!("kube-proxy runs ({running}): our rules come before its own, and its own go when it has ended");
        }
        let awaiting = !signs.is_empty();
        let listeners = listeners(&state);
        return Ok(Some(Adoption { looks: LOOKS, listeners, awaiting, removed: Removed::default() }));
    }
    if !found.is_empty() {
        tracing::warn!(
            "kube-proxy has left rules on this node: {found}; ours come first, and its own stay: `sheave run --adopt` removes them"
        );
    }
    for table in &state.untouchable {
        tracing::warn!("{table}");
    }
    Ok(None)
}

/// Whether a `sheave run` before this one has left rules as we write them.
fn ours_are_here(door: &mut KernelNft) -> Result<bool, MigrationError> {
    Ok(door.chains(TABLE)?.iter().any(|chain| chain.name == LAYOUT))
}

fn find(adopt: bool, pods: &[IpNet]) -> Result<Found, MigrationError> {
    let mut door = KernelNft::open()?;
    let state = State::look(&mut door)?;
    // It reads everybody's rules, of which there may be many. What cannot be said is less than what is known.
    let manual = match adopt && !state.is_empty() {
        true => check::manual(&mut door, &state, pods).unwrap_or_default(),
        false => Vec::new(),
    };
    Ok(Found { signs: presence::signs(listeners(&state)), state, manual })
}

fn listeners(state: &State) -> Listeners {
    if state.is_empty() { Listeners::Ignore } else { Listeners::Count }
}

impl Adoption {
    /// Whether kube-proxy ran at our start, and its end is waited for.
    pub(super) fn is_awaiting(&self) -> bool {
        self.awaiting
    }

    /// Removes what is kube-proxy's, once our first complete commit is told and kube-proxy has ended, and whenever it comes to that
    /// again. A failure is told once and tried again. `options`: in force, which say where pods are.
    pub(super) async fn run(
        mut self,
        first_commit: oneshot::Receiver<()>,
        options: watch::Receiver<Arc<Options>>,
        health: Arc<ProxyHealth>,
        reporter: Reporter,
    ) {
        if first_commit.await.is_err() {
            return; // the loop has ended
        }
        let mut retry = Retry::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut told = Told::default();
        loop {
            let listeners = self.listeners;
            let looked = blocking(move || look(listeners)).await;
            let forgotten = self.removed.looked(matches!(looked, Ok(Look::Nothing)));
            let wait = match looked {
                Ok(Look::Nothing) => {
                    (self.looks, self.listeners) = (LOOKS, Listeners::Ignore);
                    if told.no_longer(Told::WRITTEN) {
                        self.removed = Removed::default();
                        health.problem(PROBLEM, None);
                    }
                    if forgotten {
                        told.no_longer(Told::BACK);
                    }
                    IDLE
                }
                Ok(Look::Running(signs)) => {
                    (self.looks, self.listeners) = (LOOKS, Listeners::Count);
                    // One that is seen explains what comes back.
                    self.removed = Removed::default();
                    told.no_longer(Told::BACK);
                    if told.no_longer(Told::WRITTEN) {
                        health.problem(PROBLEM, None);
                    }
                    told.once(Told::RUNNING, || {
                        tracing::warn!("kube-proxy still runs ({}): its rules go when it has ended", presence::sentence(&signs));
                    });
                    LOOK_AGAIN
                }
                Ok(Look::LeftOver(found)) if self.removed.times(&found) >= HAS_A_WRITER => {
                    told.once(Told::WRITTEN, || {
                        let found = sentence(&found);
                        reporter.kube_proxy_out_of_sight(&found);
                        health
                            .problem(PROBLEM, Some(format!("kube-proxy runs out of sight, and writes its rules again: {found}")));
                    });
                    IDLE
                }
                Ok(Look::LeftOver(found)) if self.looks > 1 => {
                    if self.removed.times(&found) > 0 {
                        told.once(Told::BACK, || {
                            tracing::warn!(
                                "kube-proxy's rules were removed and are there again ({}): they are removed once more; if they come \
                                 back again, a kube-proxy that cannot be seen from here writes them",
                                sentence(&found)
                            );
                        });
                    }
                    (self.looks, self.listeners) = (self.looks - 1, Listeners::Count);
                    BETWEEN
                }
                // `sheave migrate back` is about to need them.
                Ok(Look::LeftOver(_)) if handover::is_requested() => IDLE,
                Ok(Look::LeftOver(_)) => match remove(&options).await {
                    Ok(removal) => {
                        told.no_longer(Told::FORWARDS);
                        self.removed.add(&removal.for_good);
                        match (told.of(&removal), &removal.failed) {
                            (_, Some(error)) => told.failed(error, &mut retry),
                            (0, None) => {
                                self.looks = LOOKS;
                                IDLE
                            }
                            _ => DRAIN,
                        }
                    }
                    Err(error @ MigrationError::ForwardsByKubeProxy { .. }) => {
                        told.once(Told::FORWARDS, || tracing::warn!("not removed: {error}"));
                        IDLE
                    }
                    Err(error) => told.failed(&error, &mut retry),
                },
                Err(error) => told.failed(&error, &mut retry),
            };
            tokio::time::sleep(wait).await;
        }
    }
}

/// What is kube-proxy's, as the options are that are in force now.
async fn remove(options: &watch::Receiver<Arc<Options>>) -> Result<Removal, MigrationError> {
    let pods = options.borrow().cluster_cidrs.clone();
    blocking(move || removal::remove(&mut KernelNft::open()?, &pods)).await
}

/// What there is of kube-proxy now.
enum Look {
    Nothing,
    Running(Vec<Sign>),
    LeftOver(Vec<Item>),
}

/// Every second for as long as kube-proxy is known to run: its rules, which may be many, are read only when it does not.
fn look(listeners: Listeners) -> Result<Look, MigrationError> {
    let signs = presence::signs(listeners);
    if !signs.is_empty() {
        return Ok(Look::Running(signs));
    }
    let state = State::look(&mut KernelNft::open()?)?;
    if state.is_empty() && state.untouchable.is_empty() {
        return Ok(Look::Nothing);
    }
    // Its rules may have come after the last look, and make of a listener what it is.
    let signs = presence::signs(Listeners::Count);
    Ok(if signs.is_empty() { Look::LeftOver(state.items()) } else { Look::Running(signs) })
}

impl Removed {
    /// Whether a look, which found nothing or something, was the one after which all is forgotten.
    fn looked(&mut self, nothing: bool) -> bool {
        self.quiet = if nothing { self.quiet.saturating_add(1) } else { 0 };
        let forgotten = self.quiet >= FORGOTTEN;
        if forgotten {
            *self = Self::default();
        }
        forgotten
    }

    fn add(&mut self, items: &[Item]) {
        for item in items {
            *self.times.entry((item.kind, item.name.clone())).or_default() += 1;
        }
    }

    /// How often the most often removed of these were.
    fn times(&self, found: &[Item]) -> u32 {
        found.iter().filter_map(|item| self.times.get(&(item.kind, item.name.clone()))).copied().max().unwrap_or(0)
    }
}

/// What has been said already.
#[derive(Default)]
struct Told(u8);

impl Told {
    const RUNNING: u8 = 1;
    const FAILED: u8 = 2;
    const LEFT: u8 = 4;
    const DRAINING: u8 = 8;
    const WRITTEN: u8 = 16;
    const FORWARDS: u8 = 32;
    const BACK: u8 = 64;

    fn once(&mut self, what: u8, say: impl FnOnce()) {
        if self.0 & what == 0 {
            say();
        }
        self.0 |= what;
    }

    /// Whether it had been said. It may be said again.
    fn no_longer(&mut self, what: u8) -> bool {
        let said = self.0 & what != 0;
        self.0 &= !what;
        said
    }

    /// Says what went and what stays, and how many connections are still carried.
    fn of(&mut self, removal: &Removal) -> u64 {
        let Removal { removed, for_good: _, left, draining, failed: _ } = removal;
        if !removed.is_empty() {
            tracing::info!("kube-proxy's rules are removed: {}", sentence(removed));
        }
        // One that failed may not have come so far.
        if !left.is_empty() {
            self.once(Self::LEFT, || left.iter().for_each(|left| tracing::warn!("not removed: {left}")));
        }
        if *draining > 0 {
            self.once(Self::DRAINING, || {
                tracing::info!(
                    "IPVS carries {draining} connections for kube-proxy's virtual servers, which go when these have ended"
                );
            });
        }
        *draining
    }

    fn failed(&mut self, error: &MigrationError, retry: &mut Retry) -> Duration {
        let wait = retry.next();
        self.once(Self::FAILED, || {
            let error = with_causes(error);
            tracing::warn!(error, "kube-proxy's rules are not removed yet; trying again");
        });
        wait
    }
}

/// Netlink answers at once, and rtnetlink's client wants a runtime of its own there: a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MigrationError> + Send + 'static,
) -> Result<T, MigrationError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| {
        Err(MigrationError::Process { what: "looking for kube-proxy", source: std::io::Error::other(error) })
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::config::SourceOptions;
    use crate::netlink::testns::in_namespace;

    fn run(program: &str, line: &str) -> bool {
        Command::new(program).args(line.split(' ')).status().is_ok_and(|status| status.success())
    }

    /// A node that boots: at our start kube-proxy had no rules, and its listeners meant nothing.
    #[test]
    fn rules_that_came_later_are_left_over_only_if_nobody_listens() {
        in_namespace(|| {
            assert!(matches!(look(Listeners::Ignore), Ok(Look::Nothing)));
            assert!(run("nft", "add table ip kube-proxy") && run("ip", "link set lo up"));
            assert!(matches!(look(Listeners::Ignore), Ok(Look::LeftOver(_))));
            // Perl is on every Debian (perl-base is essential).
            let listen = r#"my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:10256", Listen => 1) or die $@; $| = 1; print "\n"; <STDIN>"#;
            let mut kube_proxy = Command::new("perl")
                .args(["-MIO::Socket::INET", "-e", listen])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("somebody else who listens");
            let mut ready = [0];
            std::io::Read::read_exact(kube_proxy.stdout.as_mut().expect("a pipe"), &mut ready).expect("it listens");
            assert!(matches!(look(Listeners::Ignore), Ok(Look::Running(_))));
            kube_proxy.kill().expect("it runs");
            kube_proxy.wait().expect("it ends");
        });
    }

    #[test]
    fn what_a_person_has_to_do_is_looked_for_only_where_something_is_taken_over() {
        in_namespace(|| {
            let manual = |adopt| find(adopt, &[]).unwrap().manual.len();
            assert!(run("nft", "add table inet firewall"));
            assert!(run("nft", "add chain inet firewall forward { type filter hook forward priority 0; policy drop; }"));
            assert_eq!((manual(true), manual(false)), (0, 0), "nothing is kube-proxy's");
            assert!(run("nft", "add table ip kube-proxy"));
            assert_eq!((manual(true), manual(false)), (1, 0));
        });
    }

    /// A person who has corrected `clusterCIDR` waits for no restart.
    #[test]
    fn where_pods_are_is_read_at_each_go() {
        in_namespace(|| {
            let filter = "add table ip kube-proxy; add table ip filter; add chain ip filter KUBE-FORWARD; \
                          add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
                          add rule ip filter FORWARD jump KUBE-FORWARD; \
                          add rule ip filter FORWARD ip saddr 10.42.0.0/16 accept; \
                          add rule ip filter FORWARD ip daddr 10.42.0.0/16 accept";
            assert!(run("nft", filter));
            let with = |pods: &str| {
                let options = Options::new("n".into(), SourceOptions::Manifests("none".into()));
                Arc::new(Options { cluster_cidrs: vec![pods.parse().unwrap()], ..options })
            };
            let (in_force, options) = watch::channel(with("10.244.0.0/16"));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let refused = runtime.block_on(remove(&options)).unwrap_err();
            assert!(matches!(&refused, MigrationError::ForwardsByKubeProxy { pods, .. } if pods.contains("10.244.0.0/16")));
            in_force.send_replace(with("10.42.0.0/16"));
            assert_eq!(runtime.block_on(remove(&options)).unwrap().removed.len(), 2);
        });
    }

    #[test]
    fn what_was_removed_and_comes_back_a_second_time_has_a_writer() {
        let item = |kind, name: &str| Item { kind, name: name.to_owned(), detail: String::new() };
        let mut removed = Removed::default();
        let table = [item("nftables", "table ip kube-proxy")];
        assert_eq!(removed.times(&table), 0, "what kube-proxy left before us");
        removed.add(&table);
        assert_eq!(removed.times(&[item("ipset", "KUBE-LOOP-BACK")]), 0, "what others' rules keep");
        assert!((1..HAS_A_WRITER).contains(&removed.times(&table)), "its last word, maybe");
        removed.add(&table);
        assert_eq!(removed.times(&[item("ipset", "KUBE-LOOP-BACK"), table[0].clone()]), HAS_A_WRITER);
        // Somebody who tries kube-proxy again after a while is no writer out of sight.
        let mut quiet = |looks| (0..looks).any(|_| removed.looked(true));
        assert!(!quiet(FORGOTTEN - 1));
        assert!(!removed.looked(false) && removed.times(&table) == HAS_A_WRITER);
        let mut quiet = |looks| (0..looks).any(|_| removed.looked(true));
        assert!(!quiet(FORGOTTEN - 1) && quiet(1));
        assert_eq!(removed.times(&table), 0);
    }
}
