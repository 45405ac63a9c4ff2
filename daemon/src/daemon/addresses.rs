//! The addresses of this node, followed whatever becomes of the socket that tells them.
//!
//! kube-proxy looks at interface addresses once an hour; a NodePort on a new address is dead until then. Here every event leads to
//! a fresh look, so that a lost or coalesced event can never leave a wrong picture; and after a failure, to a look through a new
//! socket, with backoff, until one works.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::outage::{Matter, Outage};
use crate::health::ProxyHealth;
use crate::netlink::route::{AddressSocket, LocalAddresses, RouteError};

/// First pause after a failure.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Longest pause: for so long a NodePort may be dead on a new address although rtnetlink works again.
const AGAIN_AT_LATEST: Duration = Duration::from_secs(10);

const ADDRESSES: Matter = Matter {
    whose: "node addresses",
    fails: "addresses of this node not re-read, the last known stay in force",
    works: "addresses of this node are followed",
};

/// What is asked of the kernel here. [`AddressSocket`] says what each means.
trait AddressDoor: Send {
    fn list(&mut self) -> impl Future<Output = Result<LocalAddresses, RouteError>> + Send;
    fn changed(&mut self) -> impl Future<Output = Result<(), RouteError>> + Send;
    /// Subscribes anew.
    fn reopen(&mut self) -> Result<(), RouteError>;
}

/// Follows the node's addresses until cancelled. The first value is there when this returns. `health` hears of outages.
///
/// # Errors
/// No rtnetlink socket, or the first list failed. Later failures are waited out.
pub(super) async fn watch_addresses(
    cancel: CancellationToken,
    health: Arc<ProxyHealth>,
) -> Result<watch::Receiver<LocalAddresses>, RouteError> {
    // Subscribed before the first look: a change in between is seen twice rather than never.
    let mut door = AddressSocket::open()?;
    let (sender, receiver) = watch::channel(door.list().await?);
    tokio::spawn(cancel.run_until_cancelled_owned(follow(door, sender, health)));
    Ok(receiver)
}

async fn follow(mut door: impl AddressDoor, known: watch::Sender<LocalAddresses>, health: Arc<ProxyHealth>) {
    let mut outage = Outage::new(ADDRESSES, health, AGAIN_AFTER, AGAIN_AT_LATEST);
    let mut works = true;
    loop {
        let outcome = if works { after_a_change(&mut door).await } else { anew(&mut door).await };
        works = outcome.is_ok();
        match outcome {
            Ok(now) => {
                outage.worked(Instant::now());
                known.send_if_modified(|known| {
                    let changed = *known != now;
                    *known = now;
                    changed
                });
            }
            Err(error) => tokio::time::sleep(outage.failed(Instant::now(), &error)).await,
        }
    }
}

async fn after_a_change(door: &mut impl AddressDoor) -> Result<LocalAddresses, RouteError> {
    door.changed().await?;
    door.list().await
}

async fn anew(door: &mut impl AddressDoor) -> Result<LocalAddresses, RouteError> {
    door.reopen()?;
    door.list().await
}

impl AddressDoor for AddressSocket {
    fn list(&mut self) -> impl Future<Output = Result<LocalAddresses, RouteError>> + Send {
        Self::list(self)
    }

    fn changed(&mut self) -> impl Future<Output = Result<(), RouteError>> + Send {
        Self::changed(self)
    }

    fn reopen(&mut self) -> Result<(), RouteError> {
        *self = Self::open()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::process::Command;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::health::STALE_AFTER;
    use crate::netlink::testns::in_namespace;

    /// A socket that does what a test says; at its end, nothing changes any more.
    struct Script(VecDeque<Step>);

    enum Step {
        Changed,
        Lists(&'static str),
        Opens,
        /// Whatever is asked.
        Fails,
    }

    impl Script {
        fn step(&mut self) -> Result<Option<Step>, RouteError> {
            match self.0.pop_front() {
                Some(Step::Fails) => Err(RouteError::new("test", io::ErrorKind::Other.into())),
                step => Ok(step),
            }
        }
    }

    impl AddressDoor for Script {
        async fn list(&mut self) -> Result<LocalAddresses, RouteError> {
            let Some(Step::Lists(addresses)) = self.step()? else { panic!("a list is not expected here") };
            Ok(addresses.split(' ').map(|address| address.parse().unwrap()).collect())
        }

        async fn changed(&mut self) -> Result<(), RouteError> {
            match self.step()? {
                Some(Step::Changed) => Ok(()),
                None => std::future::pending().await,
                Some(_) => panic!("a change is not expected here"),
            }
        }

        fn reopen(&mut self) -> Result<(), RouteError> {
            assert!(matches!(self.step()?, Some(Step::Opens)), "a new socket is not expected here");
            Ok(())
        }
    }

    #[tokio::test]
    async fn after_any_failure_the_addresses_are_listed_anew() {
        use Step::{Changed, Fails, Lists, Opens};
        let missed = || Lists("192.0.2.2");
        let failures: [fn() -> Vec<Step>; 4] = [
            || vec![Changed, Fails, Opens],
            || vec![Fails, Opens],
            || vec![Fails, Fails, Opens],
            || vec![Changed, Fails, Opens, Fails, Fails, Opens],
        ];
        for failure in failures {
            for (further, expected) in [(vec![], "192.0.2.2"), (vec![Changed, Lists("192.0.2.3")], "192.0.2.3")] {
                let steps = failure().into_iter().chain([missed()]).chain(further).collect();
                let (sender, mut receiver) = watch::channel(LocalAddresses::new());
                let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
                let task = tokio::spawn(follow(Script(steps), sender, health.clone()));
                let expected = LocalAddresses::from([expected.parse().unwrap()]);
                receiver.wait_for(|known| *known == expected).await.expect("it goes on");
                assert_eq!(health.look().problems, Vec::<String>::new());
                task.abort();
            }
        }
    }

    #[tokio::test]
    async fn an_outage_of_the_watch_is_told_by_healthz() {
        let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
        let (sender, _receiver) = watch::channel(LocalAddresses::new());
        // Polled once: it fails, and waits.
        let first = follow(Script([Step::Fails].into()), sender, health.clone()).now_or_never();
        assert_eq!(first, None);
        assert_eq!(health.look().problems, ["node addresses: test through rtnetlink: other error"]);
    }

    #[test]
    fn events_that_were_lost_are_made_up_for() {
        in_namespace(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let cancel = CancellationToken::new();
                let mut known = watch_addresses(cancel.clone(), Arc::new(ProxyHealth::new(STALE_AFTER, false))).await.unwrap();
                // Nobody reads while these come: many more than a socket's buffer holds.
                let commands: String =
                    (0..3_000).map(|number| format!("address add 10.9.{}.{}/32 dev lo\n", number / 250, number % 250)).collect();
                ip(&commands);
                known.wait_for(|known| known.len() == 3_000).await.expect("it goes on");
                ip("address del 10.9.0.0/32 dev lo\n");
                known.wait_for(|known| known.len() == 2_999).await.expect("it goes on");
                cancel.cancel();
            });
        });
    }

    fn ip(commands: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, commands).unwrap();
        let output = Command::new("ip").arg("-batch").arg(file.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
