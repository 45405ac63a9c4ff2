//! Where objects come from, and what comes with it: who writes Events, the controller beside the daemon, what counts for announcing.
//!
//! ```text
//! manifests ─► Beside (addresses) ─► Tap ─► loop        API server ─► service proxy's watches ──────────────► loop
//!                                     └─► Rules                       └► pools, L2Advertisements ─► Tap ───────┘
//!                                                                                                    └─► Rules ─► Nodes ─► Peers
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::report::Reporter;
use super::{CHANGES_QUEUED, Control, DaemonError};
use crate::config::{Announcing, ControllerChoice, Options, SourceOptions};
use crate::loadbalancer::announcer::Prober;
use crate::loadbalancer::controller::{self, Beside, ControllerOptions, ControllerView, LeaseTiming};
use crate::loadbalancer::speaker::{PeerFollower, Peers, Rules, Tap};
use crate::metrics::Metrics;
use crate::model::load_balancer::Home;
use crate::source::kube::{ApiServers, EventSink, KubeOptions, KubeSource, Watches};
use crate::source::{Change, kube, manifests};

/// The API server's names are resolved again this often.
const RESOLVE_AGAIN: Duration = Duration::from_secs(300);

/// What a source brings with it.
pub(super) struct Started {
    /// Who writes the Events.
    pub(super) reporter: Reporter,
    /// How its watches are doing, if it has any.
    pub(super) watches: Option<Arc<kube::Health>>,
    /// The controller beside it, which writes to the same API server.
    pub(super) controller: Option<tokio::task::JoinHandle<()>>,
    /// What announcing is decided by, where this node announces.
    pub(super) announcing: Option<Grounds>,
}

/// What announcing is decided by.
pub(super) struct Grounds {
    /// What counts.
    pub(super) rules: watch::Receiver<Arc<Rules>>,
    /// A cluster; without one, this node is alone.
    pub(super) cluster: Option<Cluster>,
}

/// Of an API server.
pub(super) struct Cluster {
    /// Who else may announce.
    pub(super) peers: watch::Receiver<Arc<Peers>>,
    /// Where things are written.
    pub(super) servers: Arc<ApiServers>,
}

/// Starts the source.
pub(super) async fn start(
    options: &Options,
    prober: Prober,
    changes: mpsc::Sender<Change>,
    control: &mpsc::Sender<Control>,
    metrics: Arc<Metrics>,
    cancel: &CancellationToken,
) -> Result<Started, DaemonError> {
    match &options.source {
        SourceOptions::Manifests(path) => {
            let (changes, rules) = match &options.controller {
                Some(ControllerChoice { host: _ }) => {
                    let (changes, rules) = addressed(options, prober, changes, &metrics, cancel);
                    (changes, Some(rules))
                }
                None => (changes, None),
            };
            let manifests = manifests::ManifestOptions { node_name: options.node_name.clone(), headless: false };
            manifests::spawn(path.clone(), manifests, changes, cancel.clone());
            let announcing = rules.filter(|_| options.announces).map(|rules| Grounds { rules, cluster: None });
            Ok(Started { reporter: Reporter::default(), watches: None, controller: None, announcing })
        }
        SourceOptions::Kube(kube) => {
            let kube = KubeOptions { metallb_namespace: options.announcing.metallb_namespace.clone(), ..(**kube).clone() };
            let servers = Arc::new(kube::connect(&kube).await?);
            servers.metered_by(metrics.clone());
            let events = EventSink::spawn(servers.clone(), &options.node_name, cancel.clone());
            tokio::spawn(cancel.clone().run_until_cancelled_owned(tell_addresses(servers.clone(), control.clone())));
            let controller = options.controller.as_ref();
            let controller = controller.map(|choice| {
                tokio::spawn(lead_beside(choice, &options.announcing, &kube, prober, servers.clone(), &metrics, cancel.clone()))
            });
            let (watches, announcing) = if options.announces {
                let (watches, grounds) = watch_all(options, &kube, &servers, changes, cancel);
                (watches, Some(grounds))
            } else {
                let source = KubeSource::new(servers, kube);
                let watches = source.health();
                tokio::spawn(source.run(changes, cancel.clone()));
                (watches, None)
            };
            let reporter = Reporter::with_events(events, options.node_name.clone());
            Ok(Started { reporter, watches: Some(watches), controller, announcing })
        }
    }
}

/// Gives Services addresses on their way to the loop, and reads along what counts for announcing.
fn addressed(
    options: &Options,
    prober: Prober,
    changes: mpsc::Sender<Change>,
    metrics: &Metrics,
    cancel: &CancellationToken,
) -> (mpsc::Sender<Change>, watch::Receiver<Arc<Rules>>) {
    let home = home(&options.announcing);
    let (heard, from) = mpsc::channel(CHANGES_QUEUED);
    let (tap, rules) = Tap::new(options.node_name.clone(), home.clone());
    tokio::spawn(cancel.clone().run_until_cancelled_owned(tap.run(from, changes)));
    let (told, from) = mpsc::channel(CHANGES_QUEUED);
    let beside = Beside::new(options.announcing.class.clone(), home, metrics.allocator.clone()).probing(prober);
    tokio::spawn(cancel.clone().run_until_cancelled_owned(beside.run(from, heard)));
    (told, rules)
}

/// Watches everything. If one of the watches dies, all of them end: the loop sees it, and so does the operator.
fn watch_all(
    options: &Options,
    kube: &KubeOptions,
    servers: &Arc<ApiServers>,
    changes: mpsc::Sender<Change>,
    cancel: &CancellationToken,
) -> (Arc<kube::Health>, Grounds) {
    let together = cancel.child_token();
    let proxy = KubeSource::new(servers.clone(), kube.clone());
    let health = proxy.health();
    let of = |watches| KubeSource::of(watches, servers.clone(), kube.clone()).telling(health.clone());
    let (heard, from) = mpsc::channel(CHANGES_QUEUED);
    let (tap, rules) = Tap::new(options.node_name.clone(), home(&options.announcing));
    tokio::spawn(together.clone().run_until_cancelled_owned(tap.run(from, changes.clone())));
    for (source, changes) in [(proxy, changes), (of(Watches::Announcer), heard)] {
        let (until, all) = (together.clone(), together.clone());
        tokio::spawn(async move {
            source.run(changes, until).await;
            all.cancel();
        });
    }
    let (follower, peers) = PeerFollower::new(options.node_name.clone(), rules.clone());
    let (servers_of_peers, kube, health_of_peers) = (servers.clone(), kube.clone(), health.clone());
    let all = together.clone();
    let begin = move |watches, changes, until: CancellationToken| {
        let source = KubeSource::of(watches, servers_of_peers.clone(), kube.clone()).telling(health_of_peers.clone());
        let all = all.clone();
        tokio::spawn(async move {
            source.run(changes, until.clone()).await;
            if !until.is_cancelled() {
                all.cancel();
            }
        });
    };
    tokio::spawn(together.run_until_cancelled_owned(follower.run(begin)));
    (health, Grounds { rules, cluster: Some(Cluster { peers, servers: servers.clone() }) })
}

fn home(announcing: &Announcing) -> Home {
    announcing.metallb_namespace.clone().map_or(Home::Detected, Home::Given)
}

/// None of the API server's addresses may become a VIP (CVE-2020-8554). A name may resolve to something else tomorrow.
async fn tell_addresses(servers: Arc<ApiServers>, control: mpsc::Sender<Control>) {
    while control.send(Control::ApiServers(servers.api_server_addresses().await)).await.is_ok() {
        tokio::time::sleep(RESOLVE_AGAIN).await;
    }
}

/// The controller, beside the daemon of the only node, or of one that may.
fn lead_beside(
    choice: &ControllerChoice,
    announcing: &Announcing,
    kube: &KubeOptions,
    prober: Prober,
    servers: Arc<ApiServers>,
    metrics: &Metrics,
    cancel: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let options = ControllerOptions {
        kube: kube.clone(),
        class: announcing.class.clone(),
        namespace: announcing.namespace.clone(),
        lease: controller::LEASE.to_owned(),
        timing: LeaseTiming::default(),
        identity: ControllerOptions::identity_at(&choice.host),
        prober: Some(prober),
    };
    let view = ControllerView { health: Arc::default(), metrics: metrics.allocator.clone() };
    controller::run(options, servers, view, cancel)
}
