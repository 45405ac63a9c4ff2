//! Standing by: this node was given back to kube-proxy, and this process, which a DaemonSet would only start again, lives on.
//!
//! Our rules go, and come back in one case: when there is no kube-proxy any more and no rule of its own that serves. Then nobody serves this
//! node, and whoever is called at night finds a sheave that runs and does nothing. Rules of a kube-proxy that has ended still forward,
//! and it may be on its way back; those are told of and left alone (docs/decisions/standing-by.md).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Signals;
use super::adoption::blocking;
use super::localnet;
use super::report::{Reporter, with_causes};
use super::servers::{Listening, OpenServers};
use crate::config::{Servers, Settings};
use crate::dataplane::PlaneError;
use crate::dataplane::nftables::{self, StandBySign};
use crate::health::ProxyHealth;
use crate::log_filter::LogFilter;
use crate::metrics::Metrics;
use crate::migration::check::STANDS_BY;
use crate::migration::presence::{self, Listeners};
use crate::migration::{MigrationError, State};
use crate::netlink::nft::KernelNft;
use crate::retry::Retry;

/// How often it is looked whether kube-proxy still runs. Nothing tells.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often where it does not, and its rules, which may be many, are read.
const BESIDE_RULES: Duration = Duration::from_secs(10);
/// Nothing must be there at so many looks in a row: a kube-proxy that changes its mode removes everything before it writes.
const LOOKS: u32 = 2;

/// Whose problem it is in `/healthz`.
const PROBLEM: &str = "standing by";

/// Why it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Somebody asked for our end.
    Asked,
    /// There is no kube-proxy, and no rule of its own that serves.
    NobodyServes,
}

/// Who serves this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serving {
    /// A kube-proxy that runs.
    KubeProxy,
    /// Rules of one that has ended.
    ItsRules,
    /// Another `sheave run`, which somebody has started since.
    Another,
    Nobody,
}

/// Lets others know that we stand by. `None` where the kernel cannot keep a table for one process, or another one stands by.
pub(super) fn sign() -> Option<StandBySign> {
    match StandBySign::take() {
        Ok(sign) => Some(sign),
        Err(owned @ PlaneError::Owned { .. }) => {
            tracing::warn!("another `sheave run` stands by on this node, too: {owned}");
            None
        }
        Err(error) => {
            tracing::debug!(error = with_causes(&error), "others cannot see that this process stands by");
            None
        }
    }
}

/// Removes our rules, which nobody maintains any more, and waits until we are asked to end or nobody serves this node. The request
/// stays: whoever starts us again may be the kubelet.
pub(super) async fn stand_by(settings: &Settings, log: &LogFilter, sign: Option<StandBySign>, signals: &mut Signals) -> Over {
    let Signals { terminate, interrupt } = signals;
    let cancel = CancellationToken::new();
    let servers = open(settings, log, &cancel);
    let standing = async {
        until_removed(|| {
            let mut door = KernelNft::open()?;
            // Before the rules that guard it.
            localnet::give_back(&mut door)?;
            nftables::cleanup(&mut door)?;
            Ok(())
        })
        .await;
        tracing::info!("standing by: {STANDS_BY}");
        until_nobody_serves().await;
    };
    let over = tokio::select! {
        _ = terminate.recv() => Over::Asked,
        _ = interrupt.recv() => Over::Asked,
        () = standing => Over::NobodyServes,
    };
    cancel.cancel();
    if let Some(servers) = servers {
        servers.close().await;
    }
    // Last: from here on another process may serve.
    drop(sign);
    over
}

/// `/healthz` and the metrics, wherever kube-proxy does not want to be.
fn open(settings: &Settings, log: &LogFilter, cancel: &CancellationToken) -> Option<OpenServers> {
    let free = |address: &SocketAddr| !presence::is_kube_proxys(address.port());
    let Servers { healthz, metrics, bind_address_hard_fail: _ } = settings.options.servers;
    let servers = Servers { healthz: healthz.filter(free), metrics: metrics.filter(free), bind_address_hard_fail: false };
    let health = Arc::new(ProxyHealth::new(settings.options.stale_after, false));
    health.problem(PROBLEM, Some(STANDS_BY.to_owned()));
    let (_, configz) = watch::channel(settings.configz.clone());
    let listening = Listening {
        servers,
        configz,
        plane: "nftables",
        metrics: Arc::new(Metrics::new()),
        health,
        reporter: Reporter::default(),
        log: log.clone(),
    };
    listening.open(cancel).inspect_err(|error| tracing::warn!(%error, "nobody answers while this process stands by")).ok()
}

async fn until_nobody_serves() {
    let (mut nobody, mut told) = (0, false);
    while nobody < LOOKS {
        let serving = blocking(|| who_serves(&mut KernelNft::open()?)).await;
        let wait = match serving {
            Ok(Serving::Nobody) => {
                nobody += 1;
                LOOK_AGAIN
            }
            Ok(Serving::ItsRules) => {
                nobody = 0;
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        "kube-proxy has ended, and the rules that it left serve this node with nobody to maintain them: start it again, \
                         or return to sheave: `sheave cleanup` on the node, then restart sheave with --adopt"
                    );
                }
                BESIDE_RULES
            }
            // What cannot be asked may serve.
            Ok(Serving::KubeProxy | Serving::Another) | Err(_) => {
                (nobody, told) = (0, false);
                LOOK_AGAIN
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Who serves this node, as far as the kernel tells.
///
/// # Errors
/// See [`MigrationError`].
pub(super) fn who_serves(door: &mut KernelNft) -> Result<Serving, MigrationError> {
    if !presence::can_tell() || !presence::signs(Listeners::Count).is_empty() {
        return Ok(Serving::KubeProxy);
    }
    let state = State::look(door)?;
    Ok(match () {
        () if state.may_serve() => Serving::ItsRules,
        () if nftables::is_held(door)? => Serving::Another,
        () => Serving::Nobody,
    })
}

/// Tries again until it works: rules that stay decide, before kube-proxy's, and send to pods that are gone.
async fn until_removed(mut remove: impl FnMut() -> anyhow::Result<()>) {
    let mut retry = Retry::new(Duration::from_millis(100), Duration::from_secs(30));
    let mut told = false;
    while let Err(error) = remove() {
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(error = with_causes(error.as_ref()), "our rules are not removed yet; trying again");
        }
        tokio::time::sleep(retry.next()).await;
    }
    tracing::info!("our rules are removed");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::netlink::testns::in_namespace;

    #[test]
    fn rules_of_a_kube_proxy_that_has_ended_serve_and_nothing_of_it_is_nobody() {
        in_namespace(|| {
            let mut door = KernelNft::open().unwrap();
            assert_eq!(who_serves(&mut door).unwrap(), Serving::Nobody);
            let hold = nftables::NatHold::take().unwrap();
            assert_eq!(who_serves(&mut door).unwrap(), Serving::Another);
            drop(hold);
            let nft = |text: &str| assert!(Command::new("nft").arg(text).status().is_ok_and(|status| status.success()), "{text}");
            nft("add table ip kube-proxy; add set ip kube-proxy cluster-ips { type ipv4_addr; }");
            assert_eq!(who_serves(&mut door).unwrap(), Serving::Nobody, "its rules have not one ClusterIP");
            nft("add element ip kube-proxy cluster-ips { 10.96.0.1 }");
            assert_eq!(who_serves(&mut door).unwrap(), Serving::ItsRules);
        });
    }

    #[test]
    fn what_kube_proxy_leaves_when_it_cleans_up_serves_nobody() {
        in_namespace(|| {
            let left = "table ip mangle { chain KUBE-PROXY-CANARY { }; }
                table ip filter { chain KUBE-PROXY-CANARY { }; chain KUBE-PROXY-FIREWALL { }; }
                table ip nat { chain KUBE-PROXY-CANARY { }; chain KUBE-MARK-MASQ { meta mark set meta mark or 0x4000; }; }";
            assert!(Command::new("nft").arg(left).status().is_ok_and(|status| status.success()));
            let mut door = KernelNft::open().unwrap();
            assert!(!State::look(&mut door).unwrap().is_empty(), "chains of its names are here");
            assert_eq!(who_serves(&mut door).unwrap(), Serving::Nobody);
            let service = "add chain ip nat KUBE-SERVICES; add rule ip nat KUBE-SERVICES ip daddr 10.96.0.1 tcp dport 443 drop";
            assert!(Command::new("nft").arg(service).status().is_ok_and(|status| status.success()));
            assert_eq!(who_serves(&mut door).unwrap(), Serving::ItsRules);
        });
    }

    #[tokio::test]
    async fn a_removal_that_fails_is_tried_until_it_works() {
        let mut attempts = 0;
        until_removed(|| {
            attempts += 1;
            anyhow::ensure!(attempts == 3, "the kernel is busy");
            Ok(())
        })
        .await;
        assert_eq!(attempts, 3);
    }
}
