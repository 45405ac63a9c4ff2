//! Standing down when `sheave migrate back` asks: our rules go while this process lives, and are not restored.
//!
//! A DaemonSet restarts whoever ends, and a Helm hook that runs before the deletion of a release finds us alive. So the request is a
//! table in the kernel: it outlives a crash, and a process that starts and finds it, with kube-proxy there, does not begin to serve.

use std::time::Duration;

use tokio::signal::unix::Signal;

use super::report::with_causes;
use crate::dataplane::nftables;
use crate::migration::rollback;
use crate::netlink::nft::KernelNft;

/// How soon a request is noticed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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

/// Removes our rules, once the loop that would restore them has ended.
pub(super) fn stand_down() {
    tracing::info!("asked to give this node back to kube-proxy: our rules go, and this process waits for its end");
    let removed = KernelNft::open().map_err(anyhow::Error::from).and_then(|mut door| Ok(nftables::cleanup(&mut door)?));
    if let Err(error) = removed {
        // `sheave migrate back` removes what we could not.
        tracing::warn!(error = with_causes(error.as_ref()), "our rules are not removed");
    }
}

/// Waits for the end, and withdraws the request with it: whoever starts us again wants us to serve.
pub(super) async fn stand_by(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    withdraw();
}

/// Forgets a request that means nothing any more.
pub(super) fn withdraw() {
    let withdrawn = KernelNft::open().map_err(anyhow::Error::from).and_then(|mut door| Ok(rollback::withdraw(&mut door)?));
    if let Err(error) = withdrawn {
        tracing::warn!(error = with_causes(error.as_ref()), "the request to give this node back is not withdrawn");
    }
}
