//! Chains of others that drop what is forwarded from and to pods: told when they are found, at the start or later.
//!
//! Docker sets the policy of FORWARD to DROP when it starts, a firewall when it is reloaded, and a rule that let pods through may not
//! outlive a boot. Nothing of ours can mend that (docs/decisions/forward-policy.md), and nobody else would say why NodePorts time out.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::sleep;

use super::adoption::blocking;
use super::kernel_settings::{Amiss, LOOK_AGAIN};
use super::report::{Reporter, with_causes};
use crate::config::Options;
use crate::health::ProxyHealth;
use crate::metrics::Metrics;
use crate::migration::check::{self, Finding};
use crate::netlink::nft::KernelNft;

/// Under this name `/healthz` tells of them.
const PROBLEM: &str = "forwarding";
/// And under this one that they cannot be looked for.
const UNSEEN: &str = "look at forwarding";
/// Others' transactions interrupt a look now and then, but not so many in a row.
const FAILURES: u32 = 3;

/// Looks at what is forwarded, and says what it comes to.
pub(super) struct Forwarding {
    pub(super) health: Arc<ProxyHealth>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reporter: Reporter,
    /// What has been said, whatever configuration was in force then.
    pub(super) told: Amiss<String>,
}

impl Forwarding {
    /// Looks again every minute, and when the configuration changes, until nobody can change it any more. A look that fails leaves
    /// what was known; when several in a row have, it is told that nothing newer is.
    pub(super) async fn watch(self, mut options: watch::Receiver<Arc<Options>>) {
        let mut failed = 0;
        loop {
            let pods = options.borrow_and_update().cluster_cidrs.clone();
            match blocking(move || check::forwarding(&mut KernelNft::open()?, &pods)).await {
                Ok(found) => {
                    self.seen(std::mem::take(&mut failed));
                    self.tell(&found);
                }
                Err(error) => {
                    failed += 1;
                    self.unseen(failed, &with_causes(&error));
                }
            }
            tokio::select! {
                changed = options.changed() => if changed.is_err() { return },
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// A look that failed, after `failed - 1` others.
    fn unseen(&self, failed: u32, error: &str) {
        match failed {
            ..FAILURES => return tracing::debug!(error, "what is forwarded cannot be told"),
            FAILURES => tracing::warn!(error, "what is forwarded cannot be told any more: what was known stays; trying again"),
            _ => {}
        }
        self.health.problem(UNSEEN, Some(format!("what is forwarded cannot be told: {error}")));
    }

    /// A look that did not, after so many that failed.
    fn seen(&self, failed: u32) {
        if failed >= FAILURES {
            tracing::info!("what is forwarded can be told again");
            self.health.problem(UNSEEN, None);
        }
    }

    /// Each once while it lasts, and once when it is over.
    fn tell(&self, found: &[Finding]) {
        let texts: Vec<&str> = found.iter().map(|finding| finding.text.as_str()).collect();
        let text = (!texts.is_empty()).then(|| texts.join("; "));
        self.metrics.chains_in_the_way.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
        self.health.problem(PROBLEM, text);
        // Others' chains come and go one by one.
        let matters = texts.iter().map(|&text| (text.to_owned(), text.to_owned())).collect();
        let begun = Vec::from_iter(self.told.are(matters));
        if !begun.is_empty() {
            self.reporter.not_forwarded(&begun.join("; "));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::captured_log::Log;
    use crate::health::STALE_AFTER;
    use crate::migration::check::{Kind, Severity};
    use crate::netlink::testns::in_namespace;

    /// What the finding asks for is what ends it, as nft itself writes it in a table of both families.
    #[test]
    fn the_told_remedy_is_recognised_in_a_table_of_both_families() {
        in_namespace(|| {
            let nft = |script: &str| assert!(Command::new("nft").arg(script).status().is_ok_and(|status| status.success()));
            let pods: Vec<_> = ["10.244.0.0/16", "fd00:10:244::/56"].map(|net| net.parse().unwrap()).into();
            let found = || check::forwarding(&mut KernelNft::open().unwrap(), &pods).unwrap().len();
            nft("table inet filter { chain forward { type filter hook forward priority 0; policy drop; \
                 ip saddr 10.244.0.0/16 accept; ip daddr 10.244.0.0/16 accept; }; }");
            assert_eq!(found(), 1, "nothing accepts what is of IPv6");
            nft("add rule inet filter forward ip6 saddr fd00:10:244::/56 accept");
            nft("add rule inet filter forward ip6 daddr fd00:10:244::/56 accept");
            assert_eq!(found(), 0);
        });
    }

    fn watch(health: &Arc<ProxyHealth>, told: &Amiss<String>) -> Forwarding {
        let (metrics, reporter) = (Arc::new(Metrics::new()), Reporter::default());
        Forwarding { health: health.clone(), metrics, reporter, told: told.clone() }
    }

    #[test]
    fn of_several_chains_each_is_told_once_and_when_it_is_over() {
        let (log, _captured) = Log::capture();
        let watch = watch(&Arc::new(ProxyHealth::new(STALE_AFTER, false)), &Amiss::default());
        let [x, y] = ["chain x drops", "chain y drops"].map(|text| Finding {
            kind: Kind::ForwardPolicyDrop,
            severity: Severity::Manual,
            text: text.to_owned(),
        });
        for found in [&[x.clone()][..], &[x.clone(), y.clone()], &[y.clone(), x], std::slice::from_ref(&y), &[]] {
            watch.tell(found);
        }
        assert_eq!(
            log.lines(),
            ["WARN chain x drops", "WARN chain y drops", "INFO no longer: chain x drops", "INFO no longer: chain y drops"]
        );
    }

    #[test]
    fn looks_that_fail_one_after_another_are_told_once() {
        let (log, _captured) = Log::capture();
        let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
        let watch = watch(&health, &Amiss::default());
        let warnings = || log.lines().into_iter().filter(|line| line.starts_with("WARN")).count();
        (1..FAILURES).for_each(|failed| watch.unseen(failed, "interrupted"));
        watch.seen(FAILURES - 1);
        assert_eq!((health.look().problems.len(), warnings()), (0, 0));
        (1..FAILURES + 5).for_each(|failed| watch.unseen(failed, "no permission"));
        assert_eq!(health.look().problems, ["look at forwarding: what is forwarded cannot be told: no permission"]);
        watch.seen(FAILURES + 4);
        assert_eq!((health.look().problems.len(), warnings()), (0, 1));
    }

    #[test]
    fn a_chain_that_drops_is_told_once_and_again_when_it_is_over() {
        let (log, _captured) = Log::capture();
        let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
        let metrics = Arc::new(Metrics::new());
        let told = Amiss::default();
        let watch =
            || Forwarding { health: health.clone(), metrics: metrics.clone(), reporter: Reporter::default(), told: told.clone() };
        let finding = Finding { kind: Kind::ForwardPolicyDrop, severity: Severity::Manual, text: "chain x drops".to_owned() };
        watch().tell(&[]);
        assert_eq!((health.look().problems.len(), metrics.chains_in_the_way.get()), (0, 0));
        watch().tell(std::slice::from_ref(&finding));
        assert_eq!(health.look().problems, ["forwarding: chain x drops"]);
        // Another configuration: the same matter.
        watch().tell(&[finding]);
        assert_eq!(metrics.chains_in_the_way.get(), 1);
        watch().tell(&[]);
        assert_eq!((health.look().problems.len(), metrics.chains_in_the_way.get()), (0, 0));
        assert_eq!(log.lines(), ["WARN chain x drops", "INFO no longer: chain x drops"]);
    }
}
