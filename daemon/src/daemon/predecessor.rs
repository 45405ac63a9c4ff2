//! One daemon on a node at a time.
//!
//! Two would mend each other's tables for ever. The one that runs holds a table that goes with it (docs/decisions/nat-hold.md), so the
//! second one waits for its end: what a rolling update wants. One that stands by may serve again, and is waited for as well.

use std::time::Duration;

use super::DaemonError;
use crate::config::{Options, SourceOptions};
use crate::dataplane::PlaneError;
use crate::dataplane::nftables::{NatHold, is_held, stands_by};
use crate::netlink::nft::{DoorError, KernelNft};
use crate::source::kube;

/// How often a second daemon looks whether the first has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Waits for our turn, see [`take_over`]. Not with an API server that cannot even be tried: that would come out when the other one has
/// ended, and nobody serves.
///
/// # Errors
/// Those of the door, and what is wrong with the client's configuration.
pub(super) async fn take_turn(options: &Options, door: &mut KernelNft) -> Result<Option<NatHold>, DaemonError> {
    if let SourceOptions::Kube(kube) = &options.source {
        kube::try_connect(kube).await?;
    }
    Ok(take_over(door).await?)
}

/// Waits until nobody else serves this network namespace, and takes the hold: from then on others wait. Two that start at the same
/// moment both find it free; the kernel gives it to one of them, and the other goes on waiting.
///
/// `None` where the kernel cannot keep a table for one process: then nothing tells daemons of each other.
///
/// # Errors
/// Those of the door.
async fn take_over(door: &mut KernelNft) -> Result<Option<NatHold>, DoorError> {
    let (mut told, mut told_stand_by) = (false, false);
    loop {
        if stands_by(door)? {
            if !std::mem::replace(&mut told_stand_by, true) {
                tracing::warn!(
                    "another `sheave run` stands by on this node, which was given back to kube-proxy: waiting for it to end"
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        }
        if !is_held(door)? {
            match NatHold::take() {
                Ok(hold) => return Ok(Some(hold)),
                Err(PlaneError::Owned { .. }) => {}
                // The watchman tries again, and tells what comes of it.
                Err(_) => return Ok(None),
            }
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("another `sheave run` serves this node: waiting for it to end");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future as _, poll_fn};
    use std::task::Poll;

    use super::*;
    use crate::netlink::testns::in_namespace;
    use crate::source::kube::KubeOptions;

    #[test]
    fn a_mistake_is_told_while_another_one_serves() {
        in_namespace(|| {
            let _hold = NatHold::take().unwrap();
            let mut door = KernelNft::open().unwrap();
            let kube = KubeOptions { kubeconfig: Some("/no/such/kubeconfig".into()), ..KubeOptions::default() };
            let options = Options::new("n".into(), SourceOptions::Kube(kube.into()));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let outcome = runtime.block_on(take_turn(&options, &mut door));
            let error = outcome.map(|_| ()).expect_err("there is no such file");
            assert!(error.is_usage(), "{error}");
        });
    }

    #[test]
    fn of_two_that_start_at_the_same_moment_one_waits_for_the_end_of_the_other() {
        in_namespace(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let (mut one, mut other) = (KernelNft::open().unwrap(), KernelNft::open().unwrap());
                let (one, other) = (take_over(&mut one), take_over(&mut other));
                tokio::pin!(one, other);
                let (first, mut second) = tokio::select! {
                    biased;
                    first = &mut one => (first, other),
                    first = &mut other => (first, one),
                };
                let first = first.unwrap().expect("the kernel has owners of tables");
                let refused = NatHold::take().expect_err("it is taken");
                assert!(matches!(refused, PlaneError::Owned { .. }), "{refused}");
                let waits = poll_fn(|context| Poll::Ready(second.as_mut().poll(context).is_pending())).await;
                assert!(waits, "one at a time");
                drop(first);
                assert!(second.await.unwrap().is_some(), "it takes over");
            });
        });
    }
}
