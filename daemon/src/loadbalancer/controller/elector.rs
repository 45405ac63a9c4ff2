//! Holding the Lease, or waiting for it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::health::{ControllerHealth, Role};
use super::lease::{Candidate, Claim};
use crate::source::kube::{ApiRequest, ApiServers, RequestError};

/// The times between two attempts to take over are drawn from the period and this much more of it, as client-go's.
const JITTER: f64 = 1.2;

/// Takes the Lease, renews it, and gives it back.
pub(super) struct Elector {
    candidate: Candidate,
    servers: Arc<ApiServers>,
    health: Arc<ControllerHealth>,
    /// The Leases of its namespace.
    path: String,
    name: String,
    /// Who was last said to lead.
    told: Option<String>,
    /// It was said that the Lease cannot be asked for.
    failing: bool,
}

/// The right to write, as long as it lasts.
#[derive(Clone, Debug)]
pub(super) struct Tenure {
    until: watch::Receiver<Instant>,
}

/// Why it came to an end.
enum End {
    Asked,
    Lost,
    /// Whoever leads has stopped of its own accord.
    Resigned,
}

impl Tenure {
    /// Whether it lasts at this moment.
    pub(super) fn lasts(&self) -> bool {
        Instant::now() < *self.until.borrow()
    }
}

impl Elector {
    pub(super) fn new(
        candidate: Candidate,
        (namespace, name): (&str, &str),
        servers: Arc<ApiServers>,
        health: Arc<ControllerHealth>,
    ) -> Self {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        Self { candidate, servers, health, path, name: name.to_owned(), told: None, failing: false }
    }

    /// Leads whenever the Lease is ours, until cancelled or until `lead` ends of its own accord. When the Lease is lost, what `lead`
    /// returned is dropped where it stands. When we are asked to stop, `lead` is told first, and the Lease is released after it.
    pub(super) async fn run<L>(mut self, cancel: CancellationToken, lead: impl Fn(Tenure, CancellationToken) -> L)
    where
        L: Future<Output = ()>,
    {
        loop {
            let Some(until) = cancel.run_until_cancelled(self.acquire()).await else { return };
            info!("this replica leads from now on");
            self.health.set(Role::Leading { listed: false });
            let (renewed, until) = watch::channel(until);
            let stop = CancellationToken::new();
            // Before anybody hears that we do not lead any more, nothing of it is left.
            let end = {
                let mut leading = std::pin::pin!(lead(Tenure { until }, stop.clone()));
                tokio::select! {
                    () = cancel.cancelled() => {
                        stop.cancel();
                        // What is under way may still be written; the Lease is ours meanwhile.
                        tokio::select! {
                            () = leading.as_mut() => {}
                            () = self.renew(&renewed) => {}
                        }
                        End::Asked
                    }
                    () = leading.as_mut() => End::Resigned,
                    () = self.renew(&renewed) => End::Lost,
                }
            };
            match end {
                End::Lost => {
                    error!("the lease {} is lost: nothing is written any more until it is held again", self.name);
                    self.health.set(Role::Starting);
                }
                End::Asked | End::Resigned => return self.release().await,
            }
        }
    }

    /// Waits until the Lease is ours; until when.
    async fn acquire(&mut self) -> Instant {
        let period = self.candidate.timing().retry_period;
        loop {
            let start = Instant::now();
            match self.attempt(start).await {
                Ok(true) => {
                    self.told = None;
                    return start + self.candidate.timing().renew_deadline;
                }
                Ok(false) => {
                    let holder = self.candidate.holder();
                    self.health.set(Role::Following { leader: holder.to_owned() });
                    if self.told.as_deref() != Some(holder) {
                        info!("{holder} leads: standing by");
                        self.told = Some(holder.to_owned());
                    }
                }
                Err(error) => self.note(&error),
            }
            sleep(period.mul_f64(rand::random_range(1.0..=1.0 + JITTER))).await;
        }
    }

    /// Renews until that fails for too long, or somebody else is seen to hold it.
    async fn renew(&mut self, renewed: &watch::Sender<Instant>) {
        let timing = self.candidate.timing();
        loop {
            let deadline = *renewed.borrow();
            let next = Instant::now() + timing.retry_period;
            sleep_until(next.min(deadline)).await;
            let start = Instant::now();
            match timeout_at(deadline, self.attempt(start)).await {
                Ok(Ok(true)) => _ = renewed.send_replace(start + timing.renew_deadline),
                Ok(Ok(false)) => {
                    warn!("{} holds the lease {} now", self.candidate.holder(), self.name);
                    return;
                }
                Ok(Err(error)) => self.note(&error),
                Err(_) => return,
            }
        }
    }

    /// One attempt to hold it, from `start` on: whether that succeeded. A holder that knows its record writes without reading, as
    /// client-go.
    async fn attempt(&mut self, start: Instant) -> Result<bool, RequestError> {
        if self.candidate.is_ours()
            && let Claim::Replace(object) = self.candidate.claim(Timestamp::now())
        {
            match self.servers.ask(ApiRequest::put(self.lease(), &object)).await {
                Ok(object) => return Ok(self.seen(object)),
                // Somebody wrote it, if only its metadata.
                Err(RequestError::Conflict { .. } | RequestError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match self.servers.ask(ApiRequest::get(self.lease())).await {
            Ok(object) => _ = self.seen(object),
            Err(RequestError::NotFound { .. }) => self.candidate.observe_none(),
            Err(error) => return Err(error),
        }
        if !self.candidate.is_free(start) {
            return Ok(false);
        }
        let claim = match self.candidate.claim(Timestamp::now()) {
            Claim::Create(object) => ApiRequest::post(&*self.path, &object),
            Claim::Replace(object) => ApiRequest::put(self.lease(), &object),
        };
        match self.servers.ask(claim).await {
            Ok(object) => Ok(self.seen(object)),
            // Who was quicker is seen the next time.
            Err(RequestError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The Lease as the server has it; whether it is ours.
    fn seen(&mut self, object: serde_json::Value) -> bool {
        if std::mem::take(&mut self.failing) {
            info!("the lease {} can be asked for again", self.name);
        }
        self.candidate.observe(object, Instant::now());
        self.candidate.is_ours()
    }

    fn note(&mut self, error: &RequestError) {
        if std::mem::replace(&mut self.failing, true) {
            debug!("lease {}: {error}", self.name);
        } else {
            warn!("lease {}: {error}; it is tried again until it works", self.name);
        }
    }

    async fn release(&mut self) {
        let Some(object) = self.candidate.release(Timestamp::now()) else { return };
        let request = self.servers.ask(ApiRequest::put(self.lease(), &object));
        match tokio::time::timeout(Duration::from_secs(2), request).await {
            Ok(Ok(_)) => info!("the lease {} is released", self.name),
            Ok(Err(error)) => warn!("lease not released, another replica waits until it has run out: {error}"),
            Err(_) => warn!("lease not released, another replica waits until it has run out: no answer"),
        }
    }

    fn lease(&self) -> String {
        format!("{}/{}", self.path, self.name)
    }
}
