//! Which API servers there are, and how to talk to them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use kube::client::{ClientBuilder, RustlsTlsError};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError, LoadDataError};
use kube::{Client, Config};
use tracing::{debug, info, warn};

use super::failure::{self, Failure};
use super::meter::{Meter, MeterLayer, MeterPlace};
use crate::regular_file;

/// Where a service account's token is, in a pod.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// A connection that takes longer is to a server that is down.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of a kubeconfig: dozens of clusters with their certificates are not a tenth of it.
const LARGEST: u64 = 4 << 20;
/// Name resolution must not hold up a start.
const RESOLVE: Duration = Duration::from_secs(5);
/// Where TLS can be checked by nothing.
const NO_AUTHORITY: &str = "nothing is known by which its certificate could be checked: the kubeconfig names no certificate-authority, \
                            and there are no certificates on this machine (/etc/ssl/certs, SSL_CERT_FILE)";

/// How to reach the API server, and what to watch there.
#[derive(Clone, Debug, PartialEq)]
pub struct KubeOptions {
    /// Credentials and server from this file (`--kubeconfig`).
    pub kubeconfig: Option<PathBuf>,
    /// URLs of API servers, tried in turn (`--api-server`). They replace the server of the kubeconfig or of the pod's environment,
    /// whose credentials are used; in a pod that is the ClusterIP, which this daemon itself would have to carry.
    pub api_servers: Vec<String>,
    /// Our node's name: the Node that is watched.
    pub node_name: Arc<str>,
    /// Also watch headless Services and their slices, for DNS. kube-proxy's selectors leave them out.
    pub headless: bool,
    /// This process makes Services work where it runs, so their addresses are no way for itself to the API server. Otherwise it is a
    /// client of Services like any other.
    pub serves_itself: bool,
    /// The namespace whose IPAddressPools and L2Advertisements count. `None`: those of all namespaces are delivered, and
    /// [`Home`](crate::model::load_balancer::Home) tells by them which one it is.
    pub metallb_namespace: Option<Arc<str>>,
    /// How long to wait for what.
    pub timing: Timing,
}

impl Default for KubeOptions {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            api_servers: Vec::new(),
            node_name: "".into(),
            headless: false,
            serves_itself: true,
            metallb_namespace: None,
            timing: Timing::default(),
        }
    }
}

/// How long to wait for what. The defaults are for production; tests have less time.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// First pause after a failure; doubles with each further one, and is drawn at random between itself and its double.
    pub backoff: Duration,
    /// Longest pause after a failure.
    pub longest_backoff: Duration,
    /// Longest pause after an attempt that nobody answered, while the stream has listed nothing yet: at boot a node has no rules
    /// until it has. 5 streams of 500 nodes that ask every 1.5 to 3 s are 1,100 connections a second, which a host without a server
    /// refuses without work; 5,000 nodes are 11,000. A server that comes back gets the lists of all of them within 3 s, where longer
    /// pauses would spread them over 15; what is too much for it, it refuses (429, 5xx), and whoever was refused waits
    /// as after any refusal, up to `longest_backoff` and no shorter than its `Retry-After`.
    pub longest_unlisted: Duration,
    /// For the head of an answer: that of a watch comes at once, and that of a page as soon as its 100 or 500 objects are read.
    /// Less than client-go's pings take to give up on a connection (45 s), so that another server is soon tried; no less than a
    /// busy server may let a request wait before it refuses it (15 s).
    pub answer: Duration,
    /// For the head of a list in one piece, which older servers write down as a whole first. They give up after 60 s themselves.
    pub whole_list: Duration,
    /// For the next object of a streaming list, or the bookmark that ends it. A server that sends neither never will, however many
    /// other bookmarks come (they keep the stream itself alive), and is asked for pages.
    pub streaming_list: Duration,
    /// A stream on which nothing came for this long is dead: the server sends a bookmark about every minute.
    pub silence: Duration,
    /// When to ask again for a resource that the server did not have.
    pub absent: Duration,
    /// When to ask again for a resource whose CustomResourceDefinition is not installed; up to twice as long, at random. Somebody who
    /// installs it waits for that; 5,000 nodes that ask for two of them are 111 requests a second, each answered without a look into
    /// the store.
    pub uninstalled: Duration,
    /// How long a watch is to last; up to twice as long, at random, so that not all nodes come back at once.
    pub watch: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff: Duration::from_millis(800),
            longest_backoff: Duration::from_secs(30),
            longest_unlisted: Duration::from_secs(3),
            answer: Duration::from_secs(15),
            whole_list: Duration::from_secs(65),
            streaming_list: Duration::from_secs(15),
            silence: Duration::from_secs(150),
            absent: Duration::from_secs(600),
            uninstalled: Duration::from_secs(60),
            watch: Duration::from_secs(300),
        }
    }
}

/// Why no client could be made. Nothing has been asked of a server then: one that is down is waited for.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig file is missing, or makes no sense. Its text, which may hold credentials, is not quoted.
    #[error("kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither a kubeconfig nor an API server was named, and this is no pod.
    #[error("no API server is known: give --kubeconfig or --api-server, or run in a pod ({0})")]
    NotInCluster(#[source] kube::config::InClusterError),
    /// The service account's files cannot be used.
    #[error("service account of this pod: {0}")]
    ServiceAccount(#[source] kube::config::InClusterError),
    /// `--api-server` is not a URL.
    #[error("API server {url:?} is not a URL such as https://10.0.0.1:6443")]
    Url {
        /// As given.
        url: String,
    },
    /// TLS or credentials could not be set up.
    #[error("client for API server {server}: {reason}")]
    Client {
        /// Its URL.
        server: String,
        /// From the client library.
        reason: String,
    },
}

/// The API servers and the one in use. Shared by all streams: when one finds it failing, all go on to the next.
#[derive(Debug)]
pub struct ApiServers {
    servers: Vec<Server>,
    current: AtomicUsize,
    meter: MeterPlace,
}

pub(super) struct Server {
    pub(super) url: String,
    host: String,
    /// Its name is ours to resolve, and not a proxy's.
    direct: bool,
    pub(super) client: Client,
    /// It has refused streaming lists, and will do so again.
    pub(super) refuses_streaming: AtomicBool,
}

/// Prepares clients for every server. Does not wait for any of them.
///
/// # Errors
/// The kubeconfig, the service account or a URL cannot be used.
pub async fn connect(options: &KubeOptions) -> Result<ApiServers, ConnectError> {
    let (config, urls) = sought(options).await?;
    match (&options.kubeconfig, &options.api_servers[..]) {
        (Some(_), _) => {}
        (None, []) if !options.serves_itself => {}
        (None, []) => warn!(
            "the API server is known by its ClusterIP alone, {}, which answers only where a service proxy runs: on a node that boots \
             with empty rules this process would wait for itself; name an address of its own with --api-server \
             https://CONTROL-PLANE:6443, or a kubeconfig that has one with --kubeconfig",
            config.cluster_url
        ),
        (None, _) if Path::new(TOKEN).exists() => {}
        (None, _) => info!("no kubeconfig and no service account: asking the API server without credentials"),
    }
    clients(&config, urls)
}

/// Whether [`connect`] would find what it needs, without a word in the log.
///
/// # Errors
/// Those of [`connect`].
pub async fn try_connect(options: &KubeOptions) -> Result<(), ConnectError> {
    let (config, urls) = sought(options).await?;
    clients(&config, urls).map(drop)
}

/// The same, but that the command is not run by which the kubeconfig's user is to get credentials. Returns the field that names it, if one
/// does: whether it would give any is not known then.
///
/// # Errors
/// Those of [`connect`].
pub async fn look_at(options: &KubeOptions) -> Result<Option<&'static str>, ConnectError> {
    let (mut config, urls) = sought(options).await?;
    let user = &mut config.auth_info;
    let exec = user.exec.take().map(|_| "users[].user.exec");
    let provider = user.auth_provider.take().map(|_| "users[].user.auth-provider");
    clients(&config, urls)?;
    Ok(exec.or(provider))
}

/// Credentials, and where to go with them.
async fn sought(options: &KubeOptions) -> Result<(Config, Vec<Uri>), ConnectError> {
    let config = match &options.kubeconfig {
        Some(path) => kubeconfig(path).await?,
        None if options.api_servers.is_empty() => Config::incluster().map_err(ConnectError::NotInCluster)?,
        // Its URL is replaced below, so that the pod's environment need not name one.
        None if Path::new(TOKEN).exists() => Config::incluster_dns().map_err(ConnectError::ServiceAccount)?,
        None => Config::new(Uri::from_static("http://localhost")),
    };
    let urls = match &options.api_servers[..] {
        [] => vec![config.cluster_url.clone()],
        given => given.iter().map(|url| parse(url)).collect::<Result<_, _>>()?,
    };
    Ok((config, urls))
}

fn clients(config: &Config, urls: Vec<Uri>) -> Result<ApiServers, ConnectError> {
    let meter = MeterPlace::default();
    let servers = urls.into_iter().map(|url| Server::new(config.clone(), url, &meter)).collect::<Result<_, _>>()?;
    Ok(ApiServers { servers, current: AtomicUsize::new(0), meter })
}

async fn kubeconfig(path: &Path) -> Result<Config, ConnectError> {
    let because = |reason: String| ConnectError::Kubeconfig { path: path.to_owned(), reason };
    let failed = |error: KubeconfigError| because(kubeconfig_reason(&error));
    refuse_what_is_no_small_file(path).map_err(because)?;
    let file = Kubeconfig::read_from(path).map_err(failed)?;
    for (field, path) in files_in_use(&file) {
        refuse_what_is_no_small_file(path).map_err(|reason| because(format!("{field} {}: {reason}", path.display())))?;
    }
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?;
    if !names_a_place(&config.cluster_url) {
        return Err(because("clusters[].cluster.server: no host, or a port that there is not".to_owned()));
    }
    Ok(config)
}

/// The library reads whatever it is, without end.
fn refuse_what_is_no_small_file(path: &Path) -> Result<(), String> {
    let size = regular_file::open(path).and_then(|file| file.metadata()).map_err(|error| error.to_string())?.len();
    if size > LARGEST { Err(format!("larger than any kubeconfig ({} MiB)", LARGEST >> 20)) } else { Ok(()) }
}

/// The files that the current context's cluster and user name, with the fields that do. Where the data itself is given, or a token,
/// that is what counts, and the file is not read.
fn files_in_use(config: &Kubeconfig) -> Vec<(&'static str, &Path)> {
    let current = config.contexts.iter().find(|context| Some(&context.name) == config.current_context.as_ref());
    let Some(context) = current.and_then(|context| context.context.as_ref()) else { return Vec::new() };
    let cluster = config.clusters.iter().find(|cluster| cluster.name == context.cluster);
    let user = config.auth_infos.iter().find(|user| Some(&user.name) == context.user.as_ref());
    // Field, file, whether something else counts.
    let mut named: Vec<(_, &Option<String>, bool)> = Vec::new();
    if let Some(cluster) = cluster.and_then(|cluster| cluster.cluster.as_ref()) {
        let field = "clusters[].cluster.certificate-authority";
        named.push((field, &cluster.certificate_authority, cluster.certificate_authority_data.is_some()));
    }
    if let Some(user) = user.and_then(|user| user.auth_info.as_ref()) {
        named.push(("users[].user.client-certificate", &user.client_certificate, user.client_certificate_data.is_some()));
        named.push(("users[].user.client-key", &user.client_key, user.client_key_data.is_some()));
        named.push(("users[].user.tokenFile", &user.token_file, user.token.is_some()));
    }
    let in_use = named.into_iter().filter(|(_, _, other_counts)| !other_counts);
    in_use.filter_map(|(field, file, _)| Some((field, Path::new(file.as_deref()?)))).collect()
}

/// Which field of the file is wrong, and how. What stands in it is not repeated where it may be a secret.
fn kubeconfig_reason(error: &KubeconfigError) -> String {
    use KubeconfigError as Error;
    let data = |field: &str, error: &LoadDataError| match error {
        LoadDataError::DecodeBase64(_) => format!("{field}-data: not base64"),
        LoadDataError::ReadFile(error, file) => format!("{field} {}: {error}", file.display()),
        LoadDataError::NoBase64DataOrFile => format!("{field}: neither data nor a file is given"),
    };
    match error {
        Error::ReadConfig(error, _) => error.to_string(),
        // The parser would show the lines around the mistake, and those may be a token.
        Error::Parse(error) => match error.location() {
            Some(place) => format!("not YAML, or not a kubeconfig, at line {}, column {}", place.line(), place.column()),
            None => "not YAML, or not a kubeconfig".into(),
        },
        Error::CurrentContextNotSet => "current-context is not set".into(),
        Error::LoadContext(name) => format!("current-context: there is no context {name:?}"),
        Error::LoadClusterOfContext(name) => format!("contexts[].context.cluster: there is no cluster {name:?}"),
        Error::MissingClusterUrl => "clusters[].cluster.server is not set".into(),
        Error::ParseClusterUrl(error) => format!("clusters[].cluster.server: {error}"),
        Error::ParseProxyUrl(error) => format!("clusters[].cluster.proxy-url: {error}"),
        Error::LoadCertificateAuthority(error) => data("clusters[].cluster.certificate-authority", error),
        Error::LoadClientCertificate(error) => data("users[].user.client-certificate", error),
        Error::LoadClientKey(error) => data("users[].user.client-key", error),
        Error::ParseCertificates(_) => "clusters[].cluster.certificate-authority: not PEM".into(),
        other => other.to_string(),
    }
}

pub(crate) fn parse(url: &str) -> Result<Uri, ConnectError> {
    let trimmed = url.trim().trim_end_matches('/');
    let parsed = trimmed.parse::<Uri>().ok();
    let parsed = parsed.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && names_a_place(uri));
    parsed.ok_or_else(|| ConnectError::Url { url: url.to_owned() })
}

/// Whether it has a host and, if any, a port that there is. A port beyond 65535 would silently be the scheme's own one, and somebody else
/// would get the token.
fn names_a_place(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| {
        let place = authority.as_str().rsplit('@').next().unwrap_or_default();
        place == authority.host() || authority.port_u16().is_some()
    })
}

// === impl Server ===

impl Server {
    fn new(mut config: Config, url: Uri, meter: &MeterPlace) -> Result<Self, ConnectError> {
        // A URL may carry a password; what is shown does not.
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let scheme = url.scheme_str().unwrap_or("https");
        let shown = match (host.contains(':'), url.port_u16()) {
            (true, Some(port)) => format!("{scheme}://[{host}]:{port}"),
            (true, None) => format!("{scheme}://[{host}]"),
            (false, Some(port)) => format!("{scheme}://{host}:{port}"),
            (false, None) => format!("{scheme}://{host}"),
        };
        let named = shown.split_once("://").map_or_else(|| shown.clone(), |(_, rest)| rest.to_owned());
        let shown = format!("{shown}{}", url.path().trim_end_matches('/'));
        let direct = config.proxy_url.is_none();
        // Without an authority of its own the library reads the machine's certificates, and fails where there are none.
        if url.scheme_str() == Some("http") {
            config.root_cert.get_or_insert_default();
        }
        config.cluster_url = url;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = None;
        // The library would retry 15 times, unseen and for up to 1,000 s each. We back off ourselves, and say so.
        config.default_retry = false;
        let needs_roots = config.root_cert.is_none();
        let failed = |error| ConnectError::Client {
            server: shown.clone(),
            reason: match error {
                kube::Error::RustlsTls(RustlsTlsError::AddRootCertificate(_)) if needs_roots => NO_AUTHORITY.into(),
                error => failure::reason(&error),
            },
        };
        let layer = MeterLayer { host: named.into(), place: meter.clone() };
        let client = ClientBuilder::try_from(config).map_err(failed)?.with_layer(&layer).build();
        Ok(Self { url: shown, host, direct, client, refuses_streaming: AtomicBool::new(false) })
    }
}

impl Server {
    /// A connection that takes too long does not say whether it was the resolver's fault, so that is asked then. It may take as long
    /// again: go on to another server first.
    pub(super) async fn explain(&self, failure: Failure) -> Failure {
        if self.direct
            && let Failure::Unreachable { too_slow: true, .. } = failure
            && let Err(why) = self.resolve().await
        {
            let reason = format!("host name cannot be resolved: {why}");
            return Failure::Unreachable { server: self.url.clone(), reason, too_slow: false };
        }
        failure
    }

    /// Its addresses, or why they are not known.
    async fn resolve(&self) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![address.to_canonical()]);
        }
        match tokio::time::timeout(RESOLVE, tokio::net::lookup_host((self.host.as_str(), 0))).await {
            Ok(Ok(found)) => Ok(found.map(|address| address.ip().to_canonical()).collect()),
            Ok(Err(error)) => Err(failure::unresolved(&error)),
            Err(_) => Err(format!("no answer of the resolver within {} s", RESOLVE.as_secs())),
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}

// === impl ApiServers ===

impl ApiServers {
    /// From now on this one is told of every request. The first one that is given stays.
    pub fn metered_by(&self, meter: Arc<dyn Meter>) {
        self.meter.hang_up(meter);
    }

    /// A client of the server in use. It stays with that server; ask again after a failure.
    #[must_use]
    pub fn client(&self) -> Client {
        self.current().1.client.clone()
    }

    /// Every address of every server, resolved now: none of them may become a VIP. A name that does not resolve is left out.
    pub async fn api_server_addresses(&self) -> BTreeSet<IpAddr> {
        let mut addresses = BTreeSet::new();
        for server in &self.servers {
            match server.resolve().await {
                Ok(found) => addresses.extend(found),
                // The watches say so, once, if it is the one in use.
                Err(why) => debug!("API server {} cannot be resolved: {why}", server.host),
            }
        }
        addresses
    }

    /// The server in use and its place, for [`Self::give_up_on`].
    pub(super) fn current(&self) -> (usize, &Server) {
        let place = self.current.load(Ordering::Relaxed) % self.servers.len();
        (place, &self.servers[place])
    }

    /// Goes on to the next server, unless another stream has done so already.
    pub(super) fn give_up_on(&self, place: usize) {
        let next = (place + 1) % self.servers.len();
        let moved = self.current.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if moved && next != place {
            debug!("going on from API server {} to {}", self.servers[place].url, self.servers[next].url);
        }
    }
}
