//! The servers that answer about the daemon itself, and what they look at when somebody asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::report::Reporter;
use crate::admin;
use crate::config::{Options, Servers};
use crate::health::{HealthServer, ProxyHealth};
use crate::http_server::{self, Answer, BindError};
use crate::loadbalancer::speaker::Account;
use crate::log_filter::LogFilter;
use crate::metrics::{Admin, AdminParts, Metrics};
use crate::retry::Retry;
use crate::source::{Change, kube};

/// What the servers need.
pub(super) struct Listening {
    pub(super) servers: Servers,
    /// Of the VIPs, where this node announces any.
    pub(super) account: Option<watch::Receiver<Arc<Account>>>,
    /// What `/configz` tells.
    pub(super) configz: watch::Receiver<serde_json::Value>,
    pub(super) plane: &'static str,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<ProxyHealth>,
    pub(super) reporter: Reporter,
    pub(super) log: LogFilter,
}

/// Servers that listen, or try to.
pub(super) struct OpenServers {
    listening: Listening,
    tasks: TaskTracker,
    /// Ends with the daemon's, or before.
    until: CancellationToken,
    daemon: CancellationToken,
}

/// One of them, in words.
#[derive(Clone, Copy)]
struct Name {
    server: &'static str,
    /// kube-proxy's reason for the Event.
    reason: &'static str,
}

const HEALTHZ: Name = Name { server: "healthz", reason: "FailedToStartProxierHealthcheck" };
const METRICS: Name = Name { server: "metrics", reason: "FailedToStartMetricServer" };

impl Listening {
    /// Listens at both addresses, from now on or as soon as they can be had, until `cancel`.
    ///
    /// # Errors
    /// An address is taken, and `bind_address_hard_fail` is set.
    pub(super) fn open(self, cancel: &CancellationToken) -> Result<OpenServers, BindError> {
        watch_problems(&self.metrics, self.health.clone());
        let open =
            OpenServers { tasks: TaskTracker::new(), until: cancel.child_token(), daemon: cancel.clone(), listening: self };
        open.listening.start(open.listening.servers.bind_address_hard_fail, &open.tasks, &open.until)?;
        Ok(open)
    }

    fn start(&self, hard: bool, tasks: &TaskTracker, cancel: &CancellationToken) -> Result<(), BindError> {
        let Servers { healthz, metrics: metrics_address, admin: socket, bind_address_hard_fail: _ } = &self.servers;
        if let Some(socket) = socket {
            let desk = Arc::new(admin::Desk { account: self.account.clone() });
            tasks.spawn(admin::serve(socket.clone(), desk, self.health.clone(), cancel.clone()));
        }
        let health_server: Arc<dyn Answer> = Arc::new(HealthServer::new(self.health.clone(), self.metrics.clone()));
        let scraped: Arc<dyn Answer> = Arc::new(Admin::new(AdminParts {
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            plane: self.plane,
            configz: self.configz.clone(),
            log: self.log.clone(),
        }));
        self.serve(HEALTHZ, *healthz, hard, &health_server, tasks, cancel)?;
        self.serve(METRICS, *metrics_address, hard, &scraped, tasks, cancel)
    }

    fn serve(
        &self,
        name: Name,
        address: Option<SocketAddr>,
        hard_fail: bool,
        answer: &Arc<dyn Answer>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Result<(), BindError> {
        let Some(address) = address else { return Ok(()) };
        let begin = |listener: TcpListener| tasks.spawn(http_server::serve(listener, answer.clone(), cancel.clone()));
        match http_server::bind(address, true) {
            Ok(listener) => {
                begin(listener);
            }
            Err(error) => {
                let failures = self.metrics.listeners.bind_failures.of([name.server]);
                failures.inc();
                self.reporter.server_failed(name.server, name.reason, &error, hard_fail);
                if hard_fail {
                    return Err(error);
                }
                let (health, reporter) = (self.health.clone(), self.reporter.clone());
                let (cancel, answer) = (cancel.clone(), answer.clone());
                health.problem(name.server, Some(error.to_string()));
                tasks.spawn(async move {
                    // kube-proxy tries every 5 s.
                    let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(5));
                    let failed = |error: &BindError, _| {
                        failures.inc();
                        health.problem(name.server, Some(error.to_string()));
                    };
                    if let Some(listener) = http_server::listen(address, true, retry, &cancel, failed).await {
                        health.problem(name.server, None);
                        reporter.server_listens(name.server, address);
                        http_server::serve(listener, answer, cancel).await;
                    }
                });
            }
        }
        Ok(())
    }
}

impl OpenServers {
    /// Ends them; then nobody listens there any more.
    pub(super) async fn close(&self) {
        self.until.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Listens again, or as soon as the addresses can be had: who has begun to serve does not end for want of one.
    pub(super) fn reopen(&mut self) {
        self.tasks = TaskTracker::new();
        self.until = self.daemon.child_token();
        if let Err(error) = self.listening.start(false, &self.tasks, &self.until) {
            tracing::warn!(%error, "the servers are not open again");
        }
    }
}

/// Lets scrapes see how full the channel to the loop is. Holds no end of it: the source's is the one whose end is told.
pub(super) fn watch_queue(metrics: &Metrics, changes: &mpsc::Sender<Change>) {
    let changes = changes.downgrade();
    metrics.before_each_scrape(move |metrics| {
        if let Some(changes) = changes.upgrade() {
            let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            metrics.queue.capacity.set(number(changes.max_capacity()));
            metrics.queue.length.set(number(changes.max_capacity().saturating_sub(changes.capacity())));
        }
    });
}

/// Lets scrapes see which feature gates are on.
pub(super) fn watch_gates(metrics: &Metrics, options: watch::Receiver<Arc<Options>>) {
    metrics.before_each_scrape(move |metrics| {
        metrics.external_ips_allowed.set((!options.borrow().external_ips_denied).into());
    });
}

/// Lets scrapes see how much is out of order.
fn watch_problems(metrics: &Metrics, health: Arc<ProxyHealth>) {
    metrics.before_each_scrape(move |metrics| {
        metrics.problems.set(i64::try_from(health.look().problems.len()).unwrap_or(i64::MAX));
    });
}

/// Lets scrapes and probes see how the watches are doing.
pub(super) fn watch_source(metrics: &Metrics, health: &ProxyHealth, watches: Arc<kube::Health>) {
    health.follow_watches(watches.clone());
    metrics.before_each_scrape(move |metrics| metrics.watches(&watches));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceOptions;
    use crate::health::STALE_AFTER;

    #[test]
    fn a_gate_is_told_as_it_is_now() {
        let options = Options::new("n".into(), SourceOptions::Manifests("none".into()));
        let in_force = watch::Sender::new(Arc::new(options.clone()));
        let metrics = Metrics::new();
        watch_gates(&metrics, in_force.subscribe());
        let told = |value: u8| {
            let line = format!("kubernetes_feature_enabled{{name=\"AllowServiceExternalIPs\",stage=\"DEPRECATED\"}} {value}");
            metrics.text().lines().any(|told| told == line)
        };
        assert!(told(1));
        in_force.send_replace(Arc::new(Options { external_ips_denied: true, ..options }));
        assert!(told(0));
    }

    #[test]
    fn problems_are_counted_at_each_scrape() {
        let (metrics, health) = (Metrics::new(), Arc::new(ProxyHealth::new(STALE_AFTER, false)));
        watch_problems(&metrics, health.clone());
        let told = |expected: &str| metrics.text().lines().any(|line| line == expected);
        assert!(told("sheave_problems 0"));
        health.problem("node addresses", Some("no answer".to_owned()));
        assert!(told("sheave_problems 1"));
        health.problem("node addresses", None);
        assert!(told("sheave_problems 0"));
    }
}
