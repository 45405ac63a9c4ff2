//! A cluster whose objects come from an API server in the node's namespace.

use crate::{
    disruption::traffic,
    fixture::{Cluster, DETECT_PODS, Service, node, service_cidr},
};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use sheave_lab::{Host, Outcome, Protocol, Request};
use sheave_tests::{
    apiserver::{ApiServer, Config, Verb},
    scenario::patiently,
};
use std::{
    net::TcpListener,
    ops::{Deref, DerefMut},
    thread,
    time::{Duration, Instant},
};

/// It dereferences to its [`Cluster`].
pub(crate) struct ApiCluster {
    pub(crate) api: ApiServer,
    cluster: Cluster,
}

/// The resources that the daemon watches. Services twice: ours, and those of other proxies.
pub(crate) const WATCHED: [&str; 4] = ["nodes", "servicecidrs", "services", "endpointslices"];
/// How long a change may take to arrive, the pauses after an outage included.
pub(crate) const ARRIVAL: Duration = Duration::from_secs(20);
/// How long a question waits for its answer while it is asked again and again.
const EACH: Duration = Duration::from_millis(300);

impl ApiCluster {
    /// The machines and an API server with the Node and the Services of the traffic, without a daemon.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let cluster = traffic::cluster()?;
        let listener = cluster.node().run(|| TcpListener::bind(("127.0.0.1", 0)))?.context("a port for the API server")?;
        let cidrs = ["172.30.0.0/16", "fd00:172:30::/48"].map(str::parse);
        let config = Config {
            listener: Some(listener),
            service_cidrs: cidrs.into_iter().collect::<Result<_, _>>()?,
            bookmark_interval: Duration::from_millis(500),
            ..Config::default()
        };
        let served = Self { api: ApiServer::start(config)?, cluster };
        served.apply([node(), service_cidr()])?;
        served.services([&traffic::web(), &traffic::decoy()])?;
        Ok(served)
    }

    /// With a daemon that serves it.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut served = Self::new()?;
        let url = served.api.url();
        served.start_on_api(&url, &DETECT_PODS)?;
        served.await_answer("172.30.0.41:80", &traffic::BACKENDS)?;
        Ok(served)
    }

    /// Creates or replaces objects.
    pub(crate) fn apply(&self, objects: impl IntoIterator<Item = Value>) -> anyhow::Result<()> {
        for mut object in objects {
            // Only the server gives uids.
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("uid");
            }
            self.api.apply(&object).map_err(|status| anyhow::anyhow!("the API server refused {object}: {status:?}"))?;
        }
        Ok(())
    }

    /// Creates or replaces Services with their slices.
    pub(crate) fn services<'s>(&self, services: impl IntoIterator<Item = &'s Service>) -> anyhow::Result<()> {
        services.into_iter().try_for_each(|service| self.apply(service.documents()))
    }

    /// Deletes a Service of the scenarios' namespace; its slices stay.
    pub(crate) fn delete_service(&self, name: &str) -> anyhow::Result<()> {
        self.api.delete("services", "ns", name).map_err(|status| anyhow::anyhow!("deleting {name}: {status:?}"))
    }

    /// Waits until the pod gets answers from these and only these when it asks there.
    pub(crate) fn await_answer(&self, to: &str, by: &[&str]) -> anyhow::Result<()> {
        let what = format!("an answer from {by:?} at {to}");
        self.await_outcome(&self.pod, to, &what, |outcome| outcome.by().is_some_and(|by_whom| by.contains(&by_whom)))
    }

    /// Waits until the pod is refused there.
    pub(crate) fn await_refusal(&self, to: &str) -> anyhow::Result<()> {
        self.await_outcome(&self.pod, to, &format!("a refusal at {to}"), |outcome| *outcome == Outcome::Refused)
    }

    /// Asks over TCP, again and again, until the outcome is as wanted.
    pub(crate) fn await_outcome(
        &self,
        from: &Host,
        to: &str,
        what: &str,
        wanted: impl Fn(&Outcome) -> bool,
    ) -> anyhow::Result<()> {
        let request = Request::new(Protocol::Tcp, to)?.timeout(EACH);
        let mut last = None;
        eventually(what, || {
            let outcome = from.ask(&request)?;
            let good = wanted(&outcome);
            last = Some(outcome);
            Ok(good)
        })
        .with_context(|| format!("last: {last:?}"))
    }

    /// Waits until all watches are open.
    pub(crate) fn await_watches(&self) -> anyhow::Result<()> {
        eventually("five open watches", || {
            Ok(self.api.open_watches("services") == 2 && WATCHED.iter().all(|resource| self.api.open_watches(resource) >= 1))
        })
    }

    /// Requests so far for what the daemon watches.
    pub(crate) fn requests(&self) -> u64 {
        WATCHED.iter().flat_map(|resource| [Verb::List, Verb::Watch].map(|verb| self.api.requests(verb, resource))).sum()
    }
}

impl Deref for ApiCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for ApiCluster {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

/// Looks until it is so. For what has no event that somebody outside of the daemon could await.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let limit = patiently(ARRIVAL);
    let deadline = Instant::now() + limit;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
