//! `sheave controller` as a process: its runtime, its signals, its two ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{ControllerHealth, ControllerOptions, ControllerProbes, ControllerView};
use crate::http_server::{self, Answer, BindError};
use crate::metrics::{ControllerMetrics, ControllerScrapes};
use crate::source::kube::{ConnectError, connect};

/// Where it answers about itself; `None`: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerServers {
    /// `/healthz` and `/readyz`.
    pub health: Option<SocketAddr>,
    /// `/metrics`.
    pub metrics: Option<SocketAddr>,
}

/// Why `sheave controller` ended.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The API server cannot even be tried: a kubeconfig, a URL or a service account is wrong.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A port is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The loop came to an end that nobody asked for; the log says why.
    #[error("the controller has ended; no status was changed by that")]
    Ended,
    /// No runtime, no signal handler.
    #[error("{what}: {source}")]
    Process {
        /// What could not be had.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ControllerError {
    /// What was asked for makes no sense, or too little was said.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::NotInCluster(_) | ConnectError::Url { .. } | ConnectError::Kubeconfig { .. }))
    }
}

/// Runs until SIGTERM or SIGINT. An API server that cannot be reached is waited for.
///
/// # Errors
/// Something that no waiting would mend, at the start.
pub fn serve(options: ControllerOptions, servers: ControllerServers) -> Result<(), ControllerError> {
    let failed = |what| move |source| ControllerError::Process { what, source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("starting the runtime"))?;
    let outcome = runtime.block_on(async {
        let listening = failed("listening for signals");
        let mut terminate = signal(SignalKind::terminate()).map_err(&listening)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(&listening)?;
        let cancel = CancellationToken::new();
        let metrics = Arc::new(ControllerMetrics::new());
        let health = Arc::new(ControllerHealth::default());
        open(servers.health, Arc::new(ControllerProbes(health.clone())), &cancel)?;
        open(servers.metrics, Arc::new(ControllerScrapes(metrics.clone())), &cancel)?;
        let api = Arc::new(connect(&options.kube).await?);
        api.metered_by(metrics.clone());
        let view = ControllerView { health, metrics: metrics.allocator() };
        tracing::info!(identity = options.identity, version = env!("CARGO_PKG_VERSION"), "sheave controller starts");
        let mut controller = std::pin::pin!(super::run(options, api, view, cancel.clone()));
        let asked = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = controller.as_mut() => return Err(ControllerError::Ended),
        };
        tracing::info!("{asked}: stopping");
        cancel.cancel();
        controller.await;
        Ok(())
    });
    runtime.shutdown_background();
    outcome
}

fn open(address: Option<SocketAddr>, answer: Arc<dyn Answer>, cancel: &CancellationToken) -> Result<(), BindError> {
    if let Some(address) = address {
        tokio::spawn(http_server::serve(bind(address)?, answer, cancel.clone()));
    }
    Ok(())
}

/// All addresses of both families, where the kernel has both.
fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = http_server::bind(address, true);
    match &bound {
        Err(error) if address.ip().is_unspecified() && error.source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            http_server::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()), true)
        }
        _ => bound,
    }
}
