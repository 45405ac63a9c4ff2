//! Settings that could not be made at the start: told once each, and looked at again.
//!
//! Most often the daemon may not write them at all, in a container without `privileged`. Then somebody else makes them, by a sysctl.d
//! or an init container, and from that moment on nothing is out of order any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Amiss, OwnScore, Sysctls, look_beside, make};
use crate::config::{Options, SourceOptions};
use crate::daemon::Reporter;
use crate::daemon::told::Told;
use crate::health::ProxyHealth;
use crate::metrics::Metrics;
use crate::source::manifests;

/// How often what is missing is looked at again.
pub(in crate::daemon) const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Keeps the settings of a configuration made, as far as it may.
pub(in crate::daemon) struct Keeper {
    sysctls: Sysctls,
    health: Arc<ProxyHealth>,
    metrics: Arc<Metrics>,
    reporter: Reporter,
    /// Those that are not as wanted.
    missed: BTreeSet<&'static str>,
    told: Amiss,
    score: OwnScore,
}

impl Keeper {
    pub(in crate::daemon) fn new(health: Arc<ProxyHealth>, metrics: Arc<Metrics>, reporter: Reporter, told: &Told) -> Self {
        let (told, score) = (told.kernel.clone(), told.score.clone());
        Self { sysctls: Sysctls::default(), health, metrics, reporter, missed: BTreeSet::new(), told, score }
    }

    /// The same for settings that are elsewhere.
    #[cfg(test)]
    pub(super) fn of(self, sysctls: Sysctls) -> Self {
        Self { sysctls, ..self }
    }

    /// Makes the settings of a configuration, and follows it until cancelled. Where manifests are to come from a path that is not there,
    /// that is waited for first: it may be a mistake, and one changes nothing on this host.
    pub(in crate::daemon) fn start(mut self, options: watch::Receiver<Arc<Options>>, cancel: CancellationToken) {
        let now = options.borrow().clone();
        match &now.source {
            SourceOptions::Manifests(path) if !path.exists() => {
                let there = manifests::until_there(path.clone());
                tokio::spawn(cancel.run_until_cancelled_owned(self.begin_after(there, options)));
            }
            SourceOptions::Manifests(_) | SourceOptions::Kube(_) => {
                self.look(&now);
                tokio::spawn(cancel.run_until_cancelled_owned(self.follow(options)));
            }
        }
    }

    /// The first look comes then, and with what is in force by then.
    async fn begin_after(mut self, due: impl Future<Output = ()>, mut options: watch::Receiver<Arc<Options>>) {
        due.await;
        let now = options.borrow_and_update().clone();
        self.look(&now);
        self.follow(options).await;
    }

    /// Follows the configuration until nobody can change it any more.
    async fn follow(mut self, mut options: watch::Receiver<Arc<Options>>) {
        loop {
            tokio::select! {
                changed = options.changed() => if changed.is_err() { return },
                () = sleep(LOOK_AGAIN), if !self.told.is_nothing() => {}
            }
            let now = options.borrow_and_update().clone();
            self.look(&now);
        }
    }

    /// Makes what is missing, and tells what stays so, and what no longer is, each once.
    pub(super) fn look(&mut self, options: &Options) {
        let missed: BTreeMap<_, _> =
            make(options, &self.sysctls).into_iter().map(|missed| (missed.name, missed.to_string())).collect();
        for name in self.missed.iter().filter(|name| !missed.contains_key(*name)) {
            self.health.problem(&problem(name), None);
        }
        for (name, text) in &missed {
            self.health.problem(&problem(name), Some(text.clone()));
        }
        // The sync loop counts one of its own (`route_localnet`).
        let count = |settings: usize| i64::try_from(settings).unwrap_or(i64::MAX);
        self.metrics.kernel_settings_missed.inc_by(count(missed.len()) - count(self.missed.len()));
        let texts: Vec<_> = missed.values().cloned().collect();
        self.missed = missed.keys().copied().collect();
        let mut matters = look_beside(options, &self.sysctls, &self.score);
        matters.extend(missed);
        // Matters beside those begin and end without an Event.
        if !self.told.are(matters).is_disjoint(&self.missed) {
            self.reporter.settings_missed(&texts);
        }
    }
}

/// As `/healthz` names it.
pub(in crate::daemon) fn problem(name: &str) -> String {
    format!("kernel setting {name}")
}
