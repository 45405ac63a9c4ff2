//! Settings that could not be made at the start: told once each, and looked at again.
//!
//! Most often the daemon may not write them at all, in a container without `privileged`. Then somebody else makes them, by a sysctl.d
//! or an init container, and from that moment on nothing is out of order any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Sysctls, make, warn_of_others};
use crate::config::Options;
use crate::daemon::Reporter;
use crate::health::ProxyHealth;
use crate::metrics::Metrics;

/// How often what is missing is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Keeps the settings of a configuration made, as far as it may.
pub(in crate::daemon) struct Keeper {
    sysctls: Sysctls,
    health: Arc<ProxyHealth>,
    metrics: Arc<Metrics>,
    reporter: Reporter,
    /// Those that are not as wanted, as they were told.
    missed: BTreeMap<&'static str, String>,
}

impl Keeper {
    pub(in crate::daemon) fn new(sysctls: Sysctls, health: Arc<ProxyHealth>, metrics: Arc<Metrics>, reporter: Reporter) -> Self {
        Self { sysctls, health, metrics, reporter, missed: BTreeMap::new() }
    }

    /// Makes the settings of a configuration that is new.
    pub(in crate::daemon) fn take_over(&mut self, options: &Options) {
        self.look(options);
        warn_of_others(options, &self.sysctls);
    }

    /// Follows the configuration until nobody can change it any more.
    pub(in crate::daemon) async fn follow(mut self, mut options: watch::Receiver<Arc<Options>>) {
        loop {
            tokio::select! {
                changed = options.changed() => match changed {
                    Ok(()) => self.take_over(&options.borrow_and_update().clone()),
                    Err(_) => return,
                },
                () = sleep(LOOK_AGAIN), if !self.missed.is_empty() => self.look(&options.borrow().clone()),
            }
        }
    }

    /// Tells what is missing, and what no longer is, each once.
    fn look(&mut self, options: &Options) {
        let now: BTreeMap<_, _> =
            make(options, &self.sysctls).into_iter().map(|missed| (missed.name, missed.to_string())).collect();
        for name in self.missed.keys().filter(|name| !now.contains_key(*name)) {
            tracing::info!("{name} is as wanted now");
            self.health.problem(&problem(name), None);
        }
        for (name, text) in now.iter().filter(|(name, text)| self.missed.get(*name) != Some(text)) {
            tracing::warn!("{text}");
            self.health.problem(&problem(name), Some(text.clone()));
        }
        if now.keys().any(|name| !self.missed.contains_key(name)) {
            let texts: Vec<_> = now.values().cloned().collect();
            self.reporter.settings_missed(&texts);
        }
        self.metrics.kernel_settings_missed.set(i64::try_from(now.len()).unwrap_or(i64::MAX));
        self.missed = now;
    }
}

/// As `/healthz` names it.
fn problem(name: &str) -> String {
    format!("kernel setting {name}")
}
