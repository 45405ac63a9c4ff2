//! Standing down when `sheave migrate back` asks: our rules go while this process lives, and are not restored.
//!
//! A DaemonSet restarts whoever ends, and a Helm hook that runs before the deletion of a release finds us alive. So the request is a
//! table in the kernel: it outlives a crash, and a process that starts and finds it, with kube-proxy there, does not begin to serve.
//! It outlives SIGTERM as well, which is how the kubelet restarts a container whose probe fails: `sheave cleanup` forgets it.

use std::time::{Duration, Instant};

use super::report::with_causes;
use super::servers::OpenServers;
use crate::migration::presence::{self, Listeners};
use crate::migration::rollback;
use crate::netlink::nft::KernelNft;

/// How soon a request is noticed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// kube-proxy tries its ports every 5 s. The kubelet ends a container after 60 s without an answer on 10256, as we ship its probe.
const COMES_WITHIN: Duration = Duration::from_secs(45);
/// kube-proxy must be gone for so many looks in a row.
const LOOKS: u32 = 10;

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
                    tracing::warn!(
                        "no kube-proxy runs on this node, by its process or on its ports 10256 and 10249: sheave goes on serving"
                    );
                    withdraw();
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

/// Whether kube-proxy is gone, and not only on its way back after a restart. Who listens on its ports is kube-proxy: a request is made
/// when it serves, and we do not listen yet.
pub(super) async fn kube_proxy_is_gone() -> bool {
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        if !presence::can_tell() || !presence::signs(Listeners::Count).is_empty() {
            return false;
        }
    }
    true
}

/// Forgets a request that means nothing any more.
pub(super) fn withdraw() {
    let withdrawn = KernelNft::open().map_err(anyhow::Error::from).and_then(|mut door| Ok(rollback::withdraw(&mut door)?));
    if let Err(error) = withdrawn {
        tracing::warn!(error = with_causes(error.as_ref()), "the request to give this node back is not withdrawn");
    }
}
