//! Assembles source, sync loop, plane and monitor, and takes them down again.
//!
//! ```text
//! runtime "sheave" (2 workers)        thread "sync" (own runtime)       threads
//!   source task ──── changes ───────►  SyncLoop ── sendmsg ─► kernel     "monitor": nf_tables events ─► control
//!   rtnetlink task ─ addresses ─────►      │                             "stale-flows": conntrack
//!   signals                                └─► Published, marks
//! ```

mod absent_node;
mod addresses;
mod adoption;
mod closed_door;
mod families;
mod forwarding;
mod handover;
mod instruments;
mod kernel_settings;
mod localnet;
mod misgivings;
mod node;
mod outage;
mod predecessor;
mod reload;
mod report;
mod servers;
mod sources;
mod speaker;
mod stale_flows;
mod stand_by;
mod sync;
mod told;
mod watchman;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use localnet::{give_back as give_back_localnet, unguarded_localnet, would_give_back as would_give_back_localnet};
pub use report::Reporter;
pub(crate) use report::with_causes;
use servers::Listening;
use sources::Started;
use stale_flows::LeftBehind;
pub use stale_flows::StaleFlows;
pub use sync::{Control, Inputs, Outputs, SyncLoop};
pub use watchman::Watchman;

use self::adoption::Adoption;
use self::forwarding::Forwarding;
use self::handover::AtStart;
use self::kernel_settings::{OwnScore, Sysctls};
use self::localnet::Localnet;
use self::reload::{Follower, InForce};
use self::stand_by::Over;
use self::told::Told;
use crate::config::{ConfigFile, LogDefaults, Options, Settings, SourceOptions};
use crate::dataplane::nftables::{NatHold, NftablesPlane, StandBySign};
use crate::dataplane::{Dataplane as _, PlaneError};
use crate::health::{ProxyHealth, ServiceChecks};
use crate::http_server::BindError;
use crate::loadbalancer::announcer::Prober;
use crate::loadbalancer::membership::Departure;
use crate::loadbalancer::speaker::Speaker;
use crate::log_filter::LogFilter;
use crate::metrics::Metrics;
use crate::netlink::nft::{DoorError, KernelNft, NftDoor as _};
use crate::netlink::route::RouteError;
use crate::source::kube::ConnectError;
use crate::table::Published;

/// Changes on their way to the loop. A source that is faster than the loop waits, with the API server's own buffers behind it.
const CHANGES_QUEUED: usize = 1024;
/// Repairs and node matters on their way to the loop.
const CONTROL_QUEUED: usize = 64;

/// Why `sheave run` ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The plane cannot work on this machine.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The door to nf_tables did not open.
    #[error("{}; {}", .0, closed_door::why(.0))]
    Door(#[from] DoorError),
    /// rtnetlink did not answer.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The API server cannot even be tried: a kubeconfig, a URL or a service account is wrong.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Two masters of the same Services; nothing was begun.
    #[error(
        "kube-proxy runs on this node ({signs}): stop it first, or start with --adopt, which serves beside it and removes its rules \
         once it has ended; `sheave migrate check` says more"
    )]
    KubeProxyRuns {
        /// What says that it does.
        signs: String,
    },
    /// What is forwarded would stop with our first rules; nothing was begun.
    #[error(
        "chain {chains} drops forwarded packets, and only kube-proxy's KUBE-FORWARD accepts those of Services there, by a mark that \
         its own rules set; sheave accepts nothing on behalf of others: nothing was begun, so that traffic goes on. Have rules accept \
         packets from and to {pods} first (`iptables -I FORWARD -s CIDR -j ACCEPT`, and the same with `-d`); `sheave \
         migrate check` says when that is done, with `--cluster-cidr` if that is set"
    )]
    ForwardsByKubeProxy {
        /// Which chains.
        chains: String,
        /// Where the pods are.
        pods: String,
    },
    /// The source or the loop came to an end that nobody asked for; the log says why.
    #[error("the sync loop has ended; the rules stay in place")]
    Ended,
    /// An address is taken, and waiting for it was not wanted.
    #[error("{0}; bindAddressHardFail is set")]
    Bind(#[from] BindError),
    /// `--init-only`, which has nothing else to do.
    #[error("not set: {}; the log says why", names.join(", "))]
    KernelSettings {
        /// Settings as `sysctl` names them.
        names: Vec<&'static str>,
    },
    /// No thread, no runtime, no signal handler.
    #[error("{what}: {source}")]
    Process {
        /// What could not be had.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl DaemonError {
    /// The kernel (or the source) cannot be reached, as opposed to: it was reached and failed.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Plane(PlaneError::Unsupported { .. }) | Self::Door(_) | Self::Route(_))
    }

    /// What was asked for makes no sense, or too little was said.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::NotInCluster(_) | ConnectError::Url { .. } | ConnectError::Kubeconfig { .. }))
    }
}

/// Why the inside of the daemon came to its end without a failure.
enum End {
    /// Somebody asked for it.
    Asked,
    /// This node was given back to kube-proxy. Others see that we stand by.
    GivenBack(Option<StandBySign>),
    /// With this configuration it has to be built anew.
    Restart(Box<Settings>),
}

/// What made the inside of the daemon begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// The process.
    Process,
    /// Another configuration; this process has served already.
    Configuration,
    /// Nobody served this node any more, which had been given back to kube-proxy.
    Return,
}

/// What ends the daemon. Heard from before the first [`serve`] to after the last, so that none is lost while one follows another.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// As terminate, and another daemon follows at once: VIPs stay with this node (SIGUSR1; systemd: `RestartKillSignal=`).
    restart: Signal,
}

/// Makes the kernel settings of a configuration, without serving anything.
///
/// # Errors
/// One that was asked for could not be made.
pub fn init_only(options: &Options) -> Result<(), DaemonError> {
    // It asks for connection tracking, without which there is none of its settings. One that is another's does so as well; and if it
    // cannot be had at all, the settings will tell.
    let _hold = NatHold::take();
    let sysctls = Sysctls::default();
    let missed = kernel_settings::make(options, &sysctls);
    let beside = kernel_settings::look_beside(options, &sysctls, &OwnScore::default());
    missed.iter().map(ToString::to_string).chain(beside.into_values()).for_each(|text| tracing::warn!("{text}"));
    let names: Vec<_> = missed.iter().map(|missed| missed.name).collect();
    if names.is_empty() { Ok(()) } else { Err(DaemonError::KernelSettings { names }) }
}

/// Serves this node until SIGTERM or SIGINT. Rules stay in place. A configuration that came from a file is followed.
///
/// # Errors
/// Something that no waiting would mend, at the start. An unreachable API server is not such a thing.
pub fn run(mut settings: Settings, file: Option<&ConfigFile>, log: &LogFilter) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("sheave")
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Process { what: "starting the runtime", source })?;
    let mut beginning = Beginning::Process;
    let mut told = Told { log_format: Some(settings.log.format), verbosity: Some(settings.log.verbosity), ..Told::default() };
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        loop {
            match serve(settings.clone(), file, log.clone(), &mut signals, &mut told, beginning).await? {
                End::Restart(next) => (settings, beginning) = (*next, Beginning::Configuration),
                End::Asked => return Ok(()),
                End::GivenBack(sign) => match stand_by::stand_by(&settings, log, sign, &mut signals).await {
                    Over::Asked => return Ok(()),
                    Over::NobodyServes => {
                        // What changed in the file meanwhile, or was taken over before, is in it.
                        match file.map(ConfigFile::load) {
                            Some(Ok(now)) => settings = now,
                            Some(Err(error)) => {
                                let error = with_causes(&error);
                                tracing::error!(
                                    "the configuration cannot be used, sheave serves with the one it last began with: {error}"
                                );
                            }
                            None => {}
                        }
                        beginning = Beginning::Return;
                    }
                },
            }
        }
    });
    // A source that is in the middle of a request is not waited for: nothing it could still say matters.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    settings: Settings,
    file: Option<&ConfigFile>,
    log: LogFilter,
    signals: &mut Signals,
    told: &mut Told,
    mut beginning: Beginning,
) -> Result<End, DaemonError> {
    let Signals { terminate, interrupt, restart } = signals;
    let cancel = CancellationToken::new();

    // The kernel first: if it says no, a person should hear that and not a word about API servers.
    let mut door = KernelNft::open()?;
    let hold = tokio::select! {
        hold = predecessor::take_turn(&settings.options, &mut door) => hold?,
        _ = terminate.recv() => return Ok(End::Asked),
        _ = interrupt.recv() => return Ok(End::Asked),
        _ = restart.recv() => return Ok(End::Asked),
    };
    if handover::is_requested() {
        match handover::at_start().await {
            AtStart::GivenBack => {
                // First: who reads the next line may look for what is left. And others never see neither of the two.
                let sign = stand_by::sign();
                drop(hold);
                tracing::info!("this node was given back to kube-proxy: standing by, without serving");
                return Ok(End::GivenBack(sign));
            }
            AtStart::Unfulfilled => handover::decline(),
            AtStart::NobodyServes => {
                handover::withdraw();
                beginning = Beginning::Return;
            }
        }
    }
    let adoption = adoption::prepare(&settings.options, beginning == Beginning::Configuration).await?;
    settings.tell(&mut told.configuration);
    // The file may have another since the filter was set, if this process stood by.
    let verbosity = told.verbosity.unwrap_or(settings.log.verbosity);
    let (log_now, log_filter) = (LogDefaults { verbosity, ..settings.log }, log.clone());
    let options = Arc::new(settings.options);
    let own_port = door.port_id();
    let plane = NftablesPlane::new(Box::new(door));
    let metrics = Arc::new(Metrics::new());
    let node_expected = matches!(options.source, SourceOptions::Kube(_));
    let no_ipv6 = families::why_no_ipv6(Path::new("/proc"));
    let health = ProxyHealth::new(options.stale_after, node_expected);
    let health = Arc::new(if no_ipv6.is_some() { health.without_ipv6() } else { health });
    let stale_flows = StaleFlows::spawn(metrics.clone(), health.clone())
        .inspect_err(|error| {
            tracing::warn!(%error, "no conntrack: UDP flows to backends that are gone will not be cut");
            health.problem("stale flows", Some(error.to_string()));
        })
        .ok();

    let left_behind =
        LeftBehind::read().inspect_err(|error| tracing::warn!(%error, "no thread to read the rules that are here")).ok();

    let (changes, changes_in) = mpsc::channel(CHANGES_QUEUED);
    let (control, control_in) = mpsc::channel(CONTROL_QUEUED);
    let addresses = addresses::watch_addresses(cancel.clone(), health.clone()).await?;
    let inputs = Inputs { changes: changes_in, control: control_in, addresses };
    servers::watch_queue(&metrics, &changes);
    let exclusions = speaker::exclusions(&options, &health);
    let prober = Prober::new(exclusions.clone());
    let Started { reporter, watches, controller, announcing } =
        sources::start(&options, prober.clone(), changes, &control, metrics.clone(), &cancel).await?;
    if let Some(watches) = watches {
        servers::watch_source(&metrics, &health, watches);
    }
    let outputs = Outputs {
        published: Arc::new(Published::default()),
        marks: watch::Sender::new(Vec::new()),
        reporter: reporter.clone(),
        stale_flows,
        metrics: metrics.clone(),
        health: health.clone(),
    };
    let speaker =
        announcing.map(|grounds| speaker::start(&options, grounds, exclusions, prober, &outputs, cancel.clone())).transpose()?;
    let checks = ServiceChecks::new(outputs.published.clone(), health.clone(), metrics.clone(), reporter.clone());
    let plane_name = plane.name();
    let configz = watch::Sender::new(settings.configz);
    let mut servers = options.servers.clone();
    if servers.bind_address_hard_fail && adoption.as_ref().is_some_and(Adoption::is_awaiting) {
        tracing::info!("bindAddressHardFail waits: what kube-proxy listens on is ours when it has ended");
        servers.bind_address_hard_fail = false;
    }
    let (in_force, settings_wanted) = watch::channel(options.clone());
    // Before anybody can ask.
    servers::watch_gates(&metrics, in_force.subscribe());
    let (subscribed, events) = (configz.subscribe(), reporter.clone());
    let keeper = kernel_settings::Keeper::new(health.clone(), metrics.clone(), reporter.clone(), told);
    let account = speaker.as_ref().map(Speaker::account);
    let listening = Listening {
        servers,
        account,
        configz: subscribed,
        plane: plane_name,
        metrics,
        health: health.clone(),
        reporter: events,
        log,
    };
    let mut open_servers = listening.open(&cancel)?;
    let checks = tokio::spawn(checks.run(cancel.clone()));
    let watchman = Watchman::start(own_port, control.clone(), health.clone())?.holding(hold);
    // After the hold, which asks for connection tracking: before, its settings need not be there.
    keeper.start(settings_wanted, cancel.clone());
    let forwarding = Forwarding {
        health: health.clone(),
        metrics: outputs.metrics.clone(),
        reporter: reporter.clone(),
        told: told.forwarding.clone(),
    };
    tokio::spawn(cancel.clone().run_until_cancelled_owned(forwarding.watch(in_force.subscribe())));

    tracing::info!(node = %options.node_name, plane = plane_name, version = env!("CARGO_PKG_VERSION"), "sheave starts");
    reporter.starting();
    if beginning == Beginning::Return {
        reporter.returned();
    }
    if node_expected {
        let watching = absent_node::watch_over(options.clone(), health.clone(), absent_node::PATIENCE);
        tokio::spawn(cancel.clone().run_until_cancelled_owned(watching));
    }
    let localnet = Localnet::resume(health.clone(), outputs.metrics.clone(), told.localnet.clone());
    let sync_loop = SyncLoop::new(options.clone(), Box::new(plane), outputs);
    let mut sync_loop = sync_loop.watched_by(watchman).with_localnet(localnet).after(left_behind);
    if node_expected && options.announces {
        sync_loop = sync_loop.awaiting_pools();
    }
    if let Some(reason) = no_ipv6 {
        tracing::info!("{reason}: only IPv4 is served");
        sync_loop = sync_loop.without_ipv6();
    }
    if let Some(adoption) = adoption {
        let (told, first_commit) = oneshot::channel();
        sync_loop = sync_loop.telling_the_first_commit(told);
        let adopting = adoption.run(first_commit, in_force.subscribe(), health.clone(), reporter.clone());
        tokio::spawn(cancel.clone().run_until_cancelled_owned(adopting));
    }
    let sync = spawn_loop(sync_loop, inputs, cancel.clone())?;

    let reconfigured = async {
        match file {
            Some(file) => {
                let in_force = InForce { options: in_force, log: log_now, configz };
                Follower { file, in_force, control, health: &health, log: log_filter, told }.run().await
            }
            None => std::future::pending().await,
        }
    };
    let mut ended = tokio::task::spawn_blocking(move || sync.join());
    let (end, departure) = tokio::select! {
        _ = terminate.recv() => {
            tracing::info!("SIGTERM: stopping, the rules stay in place");
            (End::Asked, Departure::Leave)
        }
        _ = interrupt.recv() => {
            tracing::info!("SIGINT: stopping, the rules stay in place");
            (End::Asked, Departure::Leave)
        }
        _ = restart.recv() => {
            tracing::info!("SIGUSR1: stopping for a restart, rules and VIPs stay in place");
            (End::Asked, Departure::Restart)
        }
        settings = reconfigured => (End::Restart(Box::new(settings)), Departure::Restart),
        () = handover::agreed(&mut open_servers) => (End::GivenBack(stand_by::sign()), Departure::Leave),
        // Better no process, which whoever started it notices, than one that serves nothing.
        _ = &mut ended => return Err(DaemonError::Ended),
    };
    if let Some(speaker) = speaker {
        // First, while all else goes on: VIPs are answered for here until others do.
        speaker.depart(departure).await;
    }
    cancel.cancel();
    // A commit that has begun is finished; none is begun any more.
    let _ = ended.await;
    // A daemon that is built anew listens on the same ports, and so does kube-proxy.
    open_servers.close().await;
    if let Some(controller) = controller {
        // Its Lease is released, for whoever waits for it.
        let _ = controller.await;
    }
    let _ = checks.await;
    Ok(end)
}

/// The loop has a thread and a runtime of its own: nothing else may hold it up, and it may hold up nothing else.
fn spawn_loop(sync_loop: SyncLoop, inputs: Inputs, cancel: CancellationToken) -> Result<JoinHandle<()>, DaemonError> {
    let failed = |source| DaemonError::Process { what: "starting the sync loop", source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    std::thread::Builder::new().name("sync".into()).spawn(move || runtime.block_on(sync_loop.run(inputs, cancel))).map_err(failed)
}

impl Signals {
    /// From now on; needs the runtime.
    fn listen() -> Result<Self, DaemonError> {
        let on = |kind| signal(kind).map_err(|source| DaemonError::Process { what: "listening for signals", source });
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            restart: on(SignalKind::user_defined1())?,
        })
    }
}
