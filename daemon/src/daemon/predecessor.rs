//! One daemon on a node at a time.
//!
//! Two would mend each other's tables for ever. The one that runs holds a table that goes with it (docs/decisions/nat-hold.md), so the
//! second one waits for its end: what a rolling update wants. One that stands by may serve again, and is waited for as well.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::DaemonError;
use crate::config::{Options, SourceOptions};
use crate::dataplane::PlaneError;
use crate::dataplane::nftables::{NatHold, is_held, stands_by};
use crate::netlink::nft::{DoorError, KernelNft};
use crate::source::kube::{self, ConnectError};

/// How often a second daemon looks whether the first has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Waits for our turn, see [`take_over`]. While another one serves, not with an API server that cannot even be tried: that would come out
/// when the other one has ended, and nobody serves.
///
/// # Errors
/// Those of the door, and what is wrong with the client's configuration.
pub(super) async fn take_turn(options: &Options, door: &mut KernelNft) -> Result<Option<NatHold>, DaemonError> {
    let waits = Notify::new();
    let mistake = async {
        waits.notified().await;
        what_is_wrong_with(&options.source).await
    };
    tokio::select! {
        hold = take_over(door, &waits) => Ok(hold?),
        error = mistake => Err(error.into()),
    }
}

/// Why no client could be made. Where one could, nothing is said, ever: the wait goes on.
///
/// A plugin that gives credentials may take its time, or hang, and is run on a thread where that holds up neither the wait nor a signal.
async fn what_is_wrong_with(source: &SourceOptions) -> ConnectError {
    if let SourceOptions::Kube(kube) = source {
        let (kube, runtime) = (kube.clone(), Handle::current());
        let tried = tokio::task::spawn_blocking(move || runtime.block_on(kube::try_connect(&kube))).await;
        if let Ok(Err(error)) = tried {
            return error;
        }
    }
    std::future::pending().await
}

/// Waits until nobody else serves this network namespace, and takes the hold: from then on others wait. Two that start at the same
/// moment both find it free; the kernel gives it to one of them, and the other goes on waiting.
///
/// `None` where the kernel cannot keep a table for one process: then nothing tells daemons of each other.
///
/// Whoever listens to `waits` hears when another one is found to serve.
///
/// # Errors
/// Those of the door.
async fn take_over(door: &mut KernelNft, waits: &Notify) -> Result<Option<NatHold>, DoorError> {
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
            waits.notify_one();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future as _, poll_fn};
    use std::path::{Path, PathBuf};
    use std::task::Poll;

    use super::*;
    use crate::dataplane::nftables::StandBySign;
    use crate::netlink::testns::in_namespace;
    use crate::source::kube::KubeOptions;

    #[test]
    fn a_mistake_is_told_while_another_one_serves() {
        in_namespace(|| {
            let _hold = NatHold::take().unwrap();
            let mut door = KernelNft::open().unwrap();
            let options = options("/no/such/kubeconfig".into());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let outcome = runtime.block_on(take_turn(&options, &mut door));
            let error = outcome.map(|_| ()).expect_err("there is no such file");
            assert!(error.is_usage(), "{error}");
        });
    }

    fn options(kubeconfig: PathBuf) -> Options {
        let kube = KubeOptions { kubeconfig: Some(kubeconfig), ..KubeOptions::default() };
        Options::new("n".into(), SourceOptions::Kube(kube.into()))
    }

    #[test]
    fn who_need_not_wait_or_waits_for_one_that_stands_by_is_not_held_to_it() {
        in_namespace(|| {
            let mut door = KernelNft::open().unwrap();
            let options = options("/no/such/kubeconfig".into());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                assert!(take_turn(&options, &mut door).await.unwrap().is_some(), "nobody else is there");
                let sign = StandBySign::take().unwrap();
                let (turn, ()) = tokio::join!(take_turn(&options, &mut door), async {
                    tokio::task::yield_now().await;
                    drop(sign);
                });
                assert!(turn.unwrap().is_some(), "it waited");
            });
        });
    }

    /// The file in which a plugin for credentials says that it runs, before it waits for the end of whoever reads that.
    fn kubeconfig_of_a_plugin_that_hangs(directory: &Path) -> PathBuf {
        let fifo = directory.join("hangs");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let kubeconfig = directory.join("kubeconfig");
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'http://10.0.0.1:6443'}}}}]\n\
             users: [{{name: u, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: cat, \
             args: ['{}']}}}}}}]\n",
            fifo.display()
        );
        std::fs::write(&kubeconfig, text).unwrap();
        kubeconfig
    }

    #[test]
    fn a_plugin_that_hangs_holds_up_nobody() {
        in_namespace(|| {
            let directory = tempfile::tempdir().unwrap();
            let options = options(kubeconfig_of_a_plugin_that_hangs(directory.path()));
            let fifo = directory.path().join("hangs");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let hold = NatHold::take().unwrap();
            let mut door = KernelNft::open().unwrap();
            let plugin = runtime.block_on(async {
                let ends = async {
                    // Opened for writing as soon as the plugin reads.
                    let plugin = tokio::task::spawn_blocking(|| std::fs::File::options().write(true).open(fifo)).await;
                    drop(hold);
                    plugin.unwrap().unwrap()
                };
                let (turn, plugin) = tokio::join!(take_turn(&options, &mut door), ends);
                assert!(turn.unwrap().is_some(), "it is our turn, whatever the plugin does");
                plugin
            });
            // Its end.
            drop(plugin);
        });
    }

    #[test]
    fn of_two_that_start_at_the_same_moment_one_waits_for_the_end_of_the_other() {
        in_namespace(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let (mut one, mut other) = (KernelNft::open().unwrap(), KernelNft::open().unwrap());
                let nobody = Notify::new();
                let (one, other) = (take_over(&mut one, &nobody), take_over(&mut other, &nobody));
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
