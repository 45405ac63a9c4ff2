//! Standing down when `sheave migrate back` asks: our rules go while this process lives, and are not restored.
//!
//! A DaemonSet restarts whoever ends, and a Helm hook that runs before the deletion of a release finds us alive. So the request is a
//! table in the kernel: it outlives a crash, and a process that starts and finds it, with kube-proxy or its rules there, does not begin to
//! serve.
//! It outlives SIGTERM as well, which is how the kubelet restarts a container whose probe fails: `sheave cleanup` forgets it.

use std::time::{Duration, Instant};

use super::adoption::blocking;
use super::report::with_causes;
use super::servers::OpenServers;
use super::stand_by::{self, Serving};
use crate::dataplane::nftables::TABLE;
use crate::migration::presence::{self, Listeners};
use crate::migration::rollback;
use crate::netlink::nft::{KernelNft, NftDoor as _};

/// How soon a request is noticed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// kube-proxy tries its ports every 5 s. The kubelet ends a container after 60 s without an answer on 10256, as we ship its probe.
const COMES_WITHIN: Duration = Duration::from_secs(45);
/// kube-proxy must be gone for so many looks in a row: not only on its way back after a restart.
const LOOKS: u32 = 10;

/// What a request means at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtStart {
    /// kube-proxy serves this node, or the rules that it left do: it may be on its way back.
    GivenBack,
    /// There is no kube-proxy, and our own rules are still here: nobody has given this node back.
    Unfulfilled,
    /// There is neither a kube-proxy, nor a rule of its own that serves, nor one of ours.
    NobodyServes,
}

/// Waits until somebody asks.
pub(super) async fn requested() {
    let Ok(mut door) = KernelNft::open() else { return std::future::pending().await };
    // No answer is no request: others' transactions may have interrupted it.
    while !rollback::is_requested(&mut door).unwrap_or(false) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether somebody has asked. A kernel that does not answer has not.
pub(super) fn is_requested() -> bool {
    KernelNft::open().and_then(|mut door| rollback::is_requested(&mut door)).unwrap_or(false)
}

/// Waits until somebody asks and kube-proxy is seen to run. Where its process is out of sight it can be seen by its ports alone, which
/// are ours as long as we listen there: so our servers close, and open again if it does not come.
pub(super) async fn agreed(servers: &mut OpenServers) {
    loop {
        requested().await;
        if presence::signs(Listeners::Count).is_empty() {
            tracing::info!("asked to give this node back to kube-proxy: our servers close until kube-proxy listens on its ports");
            servers.close().await;
            if !comes(COMES_WITHIN).await {
                servers.reopen();
                if is_requested() {
                    decline();
                }
                continue;
            }
        }
        return tracing::info!("asked to give this node back to kube-proxy: our rules go, and this process stands by");
    }
}

/// Whether kube-proxy is seen within this time, and while the request stands.
async fn comes(limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end && is_requested() {
        if !presence::signs(Listeners::Count).is_empty() {
            return true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    false
}

/// What a request means to a process that starts and finds it, and has the hold. Who listens on kube-proxy's ports is kube-proxy: we do
/// not yet.
pub(super) async fn at_start() -> AtStart {
    seen_at_start(LOOK_AGAIN).await
}

async fn seen_at_start(pause: Duration) -> AtStart {
    let mut ours = false;
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(pause).await;
        }
        let seen = blocking(|| {
            let mut door = KernelNft::open()?;
            Ok((stand_by::who_serves(&mut door)?, door.table_exists(TABLE)?))
        });
        ours = match seen.await {
            // Another is not another: the hold is ours.
            Ok((Serving::Nobody | Serving::Another, ours)) => ours,
            // Ours come before them.
            Ok((Serving::ItsRules, true)) => true,
            // What cannot be asked may serve.
            Ok((Serving::ItsRules | Serving::KubeProxy, _)) | Err(_) => return AtStart::GivenBack,
        };
    }
    if ours { AtStart::Unfulfilled } else { AtStart::NobodyServes }
}

/// Forgets a request that nobody is there to fulfil.
pub(super) fn decline() {
    tracing::warn!("no kube-proxy runs on this node, by its process or on its ports 10256 and 10249: sheave goes on serving");
    withdraw();
}

/// Forgets a request that means nothing any more.
pub(super) fn withdraw() {
    let withdrawn = KernelNft::open().map_err(anyhow::Error::from).and_then(|mut door| Ok(rollback::withdraw(&mut door)?));
    match withdrawn {
        Ok(()) => tracing::info!("the request to give this node back is forgotten"),
        Err(error) => {
            tracing::warn!(error = with_causes(error.as_ref()), "the request to give this node back is not withdrawn");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::netlink::testns::in_namespace;

    #[test]
    fn a_request_stands_at_a_start_while_rules_of_kube_proxys_serve() {
        in_namespace(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let at_start = || runtime.block_on(seen_at_start(Duration::ZERO));
            let nft = |text: &str| assert!(Command::new("nft").arg(text).status().is_ok_and(|status| status.success()), "{text}");
            assert_eq!(at_start(), AtStart::NobodyServes);
            nft("add table ip kube-proxy; add set ip kube-proxy cluster-ips { type ipv4_addr; elements = { 10.96.0.1 }; }");
            assert_eq!(at_start(), AtStart::GivenBack, "it may be on its way back");
            nft("add table inet sheave");
            assert_eq!(at_start(), AtStart::Unfulfilled, "ours decide");
        });
    }
}
