//! What `sheave run` does about kube-proxy: refuses beside it, warns of what it left, or takes over from it.
//!
//! ```text
//! runs?  ─ no `--adopt` ─► refuse, name it         left over? ─ no `--adopt` ─► warn
//! `--adopt`: serve ─► first complete commit ─► wait for its end ─► remove what is its own
//! ```
//! Its end is waited for because it would write its rules again; meanwhile they do no harm, since ours come first.

use std::time::Duration;

use tokio::sync::oneshot;

use super::DaemonError;
use super::report::with_causes;
use super::retry::Retry;
use crate::dataplane::nftables::{LAYOUT, TABLE};
use crate::migration::check::{Finding, Kind, Report, Severity};
use crate::migration::presence::{self, Listeners, Sign};
use crate::migration::removal::{self, Removal};
use crate::migration::{MigrationError, State, sentence};
use crate::netlink::nft::{KernelNft, NftDoor as _};

/// How often it is looked whether kube-proxy still runs. Nothing tells.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// It must be gone for so many looks in a row: one that is only restarted comes back to its rules.
const LOOKS: u32 = 3;
/// IPVS connections that still run end within minutes or never.
const DRAIN: Duration = Duration::from_secs(10);

/// kube-proxy as it is at our start.
#[derive(Debug)]
struct Found {
    state: State,
    signs: Vec<Sign>,
}

/// A takeover that has been decided on.
#[derive(Debug)]
pub(super) struct Adoption {
    /// Looks in a row at which kube-proxy must be gone.
    looks: u32,
    /// What somebody on kube-proxy's ports means, from what was found at the start.
    listeners: Listeners,
}

/// Looks whether kube-proxy is here, before anything of ours is. What has begun goes on: `begun` by this process, or by one whose rules
/// are still there. They decide, so somebody has to maintain them.
///
/// # Errors
/// [`DaemonError::KubeProxyRuns`], if it runs and was not meant to be taken over from.
pub(super) async fn prepare(adopt: bool, begun: bool) -> Result<Option<Adoption>, DaemonError> {
    let Found { state, signs } = blocking(find).await.unwrap_or_else(|error| {
        // Services are more important than what may be left of kube-proxy.
        tracing::warn!(error = with_causes(&error), "it cannot be told whether kube-proxy has rules on this node");
        Found { state: State::default(), signs: presence::signs(Listeners::Ignore) }
    });
    let running = presence::sentence(&signs);
    if !adopt && !signs.is_empty() {
        if !begun && !blocking(|| ours_are_here(&mut KernelNft::open()?)).await.unwrap_or(false) {
            return Err(DaemonError::KubeProxyRuns { signs: running });
        }
        tracing::warn!(
            "kube-proxy runs ({running}), and our rules decide already: sheave goes on serving; stop kube-proxy, or give this node \
             back with `sheave migrate back`"
        );
    }
    let found = sentence(&state.items());
    if adopt {
        if !signs.is_empty() {
            tracing::info!("kube-proxy runs ({running}): our rules come before its own, and its own go when it has ended");
        }
        if !found.is_empty() {
            // What nobody but a person can do, and `sheave migrate check` would have said.
            let findings = blocking(|| Ok(Report::look(&mut KernelNft::open()?)?.findings)).await.unwrap_or_default();
            let manual = |finding: &&Finding| finding.severity == Severity::Manual && finding.kind != Kind::KubeProxyRuns;
            findings.iter().filter(manual).for_each(|finding| tracing::warn!("{}", finding.text));
        }
        let looks = if signs.is_empty() { 1 } else { LOOKS };
        return Ok(Some(Adoption { looks, listeners: listeners(&state) }));
    }
    if !found.is_empty() {
        tracing::warn!(
            "kube-proxy has left rules on this node: {found}; ours come first, and its own stay: `sheave run --adopt` removes them"
        );
    }
    for unread in &state.unread {
        tracing::warn!("{unread}");
    }
    Ok(None)
}

/// Whether a `sheave run` before this one has left rules as we write them.
fn ours_are_here(door: &mut KernelNft) -> Result<bool, MigrationError> {
    Ok(door.chains(TABLE)?.iter().any(|chain| chain.name == LAYOUT))
}

fn find() -> Result<Found, MigrationError> {
    let state = State::look(&mut KernelNft::open()?)?;
    Ok(Found { signs: presence::signs(listeners(&state)), state })
}

fn listeners(state: &State) -> Listeners {
    if state.is_empty() { Listeners::Ignore } else { Listeners::Count }
}

impl Adoption {
    /// Removes what is kube-proxy's, once our first complete commit is told and kube-proxy has ended. A failure is told once and
    /// tried again.
    pub(super) async fn run(mut self, first_commit: oneshot::Receiver<()>) {
        if first_commit.await.is_err() {
            return; // the loop has ended
        }
        let mut retry = Retry::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut told = Told::default();
        loop {
            let listeners = self.listeners;
            let wait = match blocking(move || look(listeners)).await {
                Ok(Look::Nothing) => return tracing::debug!("nothing of kube-proxy's is on this node"),
                Ok(Look::Running(signs)) => {
                    self.looks = LOOKS;
                    told.once(Told::RUNNING, || {
                        tracing::warn!("kube-proxy still runs ({}): its rules go when it has ended", presence::sentence(&signs));
                    });
                    LOOK_AGAIN
                }
                Ok(Look::LeftOver) if self.looks > 1 => {
                    self.looks -= 1;
                    LOOK_AGAIN
                }
                Ok(Look::LeftOver) => match blocking(remove).await {
                    Ok(removal) => match told.of(&removal) {
                        0 => return,
                        _ => DRAIN,
                    },
                    Err(error) => told.failed(&error, &mut retry),
                },
                Err(error) => told.failed(&error, &mut retry),
            };
            tokio::time::sleep(wait).await;
        }
    }
}

/// What there is of kube-proxy now.
enum Look {
    Nothing,
    Running(Vec<Sign>),
    LeftOver,
}

/// Every second for as long as kube-proxy runs: its rules, which may be many, are read only when it does not.
fn look(listeners: Listeners) -> Result<Look, MigrationError> {
    let signs = presence::signs(listeners);
    if !signs.is_empty() {
        return Ok(Look::Running(signs));
    }
    let state = State::look(&mut KernelNft::open()?)?;
    Ok(if state.is_empty() && state.unread.is_empty() { Look::Nothing } else { Look::LeftOver })
}

fn remove() -> Result<Removal, MigrationError> {
    removal::remove(&mut KernelNft::open()?)
}

/// What has been said already.
#[derive(Default)]
struct Told(u8);

impl Told {
    const RUNNING: u8 = 1;
    const FAILED: u8 = 2;
    const LEFT: u8 = 4;
    const DRAINING: u8 = 8;

    fn once(&mut self, what: u8, say: impl FnOnce()) {
        if self.0 & what == 0 {
            say();
        }
        self.0 |= what;
    }

    /// Says what went and what stays, and how many connections are still carried.
    fn of(&mut self, removal: &Removal) -> u64 {
        let Removal { removed, left, draining } = removal;
        if !removed.is_empty() {
            tracing::info!("kube-proxy's rules are removed: {}", sentence(removed));
        }
        self.once(Self::LEFT, || left.iter().for_each(|left| tracing::warn!("not removed: {left}")));
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
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MigrationError> + Send + 'static,
) -> Result<T, MigrationError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| {
        Err(MigrationError::Process { what: "looking for kube-proxy", source: std::io::Error::other(error) })
    })
}
