//! A real API server with its etcd, for one contender: started in the node's namespace, gone with it.
//!
//! Flags are those of kube-apiserver's and etcd's documentation, and of the test environment of controller-runtime, which starts both
//! in the same way. Nothing but the API server is there: no controllers, so nobody makes EndpointSlices or marks ServiceCIDRs as ready
//! but the server's own, which therefore holds the ClusterIPs of the whole load.

use std::fs::{self, File};
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::Request;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use sheave_lab::{Namespace, Process};
use sheave_tests::apiserver::load::Shape;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::program::{self, identify, kubernetes_version};
use crate::proxy::NODE_ADDRESS;
use crate::scratch;

/// The two programs.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    api_server: PathBuf,
    etcd: PathBuf,
    /// Of the API server, as it says it itself.
    pub(super) version: String,
}

/// They, serving.
pub(super) struct ControlPlane {
    client: Client,
    /// Drives the client, on whichever thread asks.
    runtime: tokio::runtime::Runtime,
    // The API server ends before etcd, and both before their directory.
    _api_server: Process,
    _etcd: Process,
    directory: TempDir,
}

/// What names them on the command line.
pub(super) const API_SERVER: &str = "--kube-apiserver";
pub(super) const ETCD: &str = "--etcd";

const ETCD_URL: &str = "http://127.0.0.1:2379";
const PORT: &str = "6443";
/// All ClusterIPs of the load are in it; a range for the flag may not be wider.
const CLUSTER_IPS: &str = "10.96.0.0/12";
/// Until it is ready.
const PATIENCE: Duration = Duration::from_secs(90);
const ASK_EVERY: Duration = Duration::from_millis(100);
/// For one answer. A server that takes longer has stopped to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Objects that are created at once.
const AT_ONCE: usize = 16;
/// Of a log, when something fails.
const LAST_LINES: usize = 12;

impl Programs {
    /// Asks both who they are.
    pub(super) fn identify(api_server: &Path, etcd: &Path) -> Result<Self> {
        let (api_server, version) = identify(API_SERVER, api_server, "kube-apiserver", kubernetes_version)?;
        let (etcd, _) = identify(ETCD, etcd, "etcd", etcd_version)?;
        Ok(Self { api_server, etcd, version })
    }
}

/// "etcd Version: 3.6.5", and more lines.
fn etcd_version(said: &str) -> Option<String> {
    said.lines().next()?.strip_prefix("etcd Version: ").map(|version| version.trim().to_owned())
}

impl ControlPlane {
    /// Starts both in a namespace, and waits until the API server is ready.
    pub(super) fn start(node: &Namespace, programs: &Programs) -> Result<Self> {
        let directory = scratch::directory().context("making a directory for the API server")?;
        furnish(directory.path()).context("making what the API server needs")?;
        let mut etcd = logged(node, etcd_command(programs, directory.path()), directory.path(), "etcd")?;
        let command = api_server_command(programs, directory.path());
        let mut api_server = logged(node, command, directory.path(), "kube-apiserver")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("making a runtime")?;
        let client = node.run(|| {
            let client = runtime.block_on(client(&kubeconfig(directory.path())))?;
            let deadline = Instant::now() + PATIENCE;
            loop {
                let Err(unready) = runtime.block_on(ask_ready(&client, deadline)) else { return Ok(client) };
                for (process, name) in [(&mut etcd, "etcd"), (&mut api_server, "kube-apiserver")] {
                    if let Some(status) = process.child().try_wait().with_context(|| format!("asking for the end of {name}"))? {
                        bail!("{name} ended ({status}) and {}", last_words(directory.path(), name));
                    }
                }
                if Instant::now() > deadline {
                    let said = last_words(directory.path(), "kube-apiserver");
                    bail!("kube-apiserver is not ready within {PATIENCE:?} ({unready:#}); it {said}");
                }
                std::thread::sleep(ASK_EVERY);
            }
        })??;
        Ok(Self { client, runtime, _api_server: api_server, _etcd: etcd, directory })
    }

    /// What a contender needs to reach it.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        kubeconfig(self.directory.path())
    }

    /// Creates the load. The server's own ServiceCIDR takes the place of the load's.
    pub(super) fn fill(&self, shape: Shape) -> Result<()> {
        let surroundings = shape.surroundings().into_iter().filter(|object| object["kind"] != "ServiceCIDR");
        for object in surroundings {
            self.create(&object)?;
        }
        let services = (0..shape.services).map(move |number| shape.service_document(number));
        let slices = (0..shape.services).flat_map(move |number| {
            shape.families().flat_map(move |family| (0..shape.parts()).map(move |part| (family, part))).map(
                move |(family, part)| {
                    let endpoints = shape.places(part).map(|place| shape.first_endpoint(number, place, family));
                    shape.slice_document(number, family, part, endpoints)
                },
            )
        });
        self.create_all(services.chain(slices))
    }

    /// Creates one object.
    pub(super) fn create(&self, object: &Value) -> Result<()> {
        self.create_all(std::iter::once(object.to_string()))
    }

    /// Replaces whatever an object that is there says otherwise.
    pub(super) fn change(&self, object: &Value) -> Result<()> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{}/{name}", collection(object)?);
        let patch = request("PATCH", &path, "application/merge-patch+json", object.to_string().into_bytes())?;
        self.wait(self.client.request_text(patch), || format!("changing {path}"))
    }

    fn create_all(&self, documents: impl Iterator<Item = String>) -> Result<()> {
        self.runtime.block_on(async {
            let mut under_way = JoinSet::new();
            for document in documents {
                if under_way.len() >= AT_ONCE
                    && let Some(created) = under_way.join_next().await
                {
                    created.context("creating an object")??;
                }
                under_way.spawn(create(self.client.clone(), document));
            }
            while let Some(created) = under_way.join_next().await {
                created.context("creating an object")??;
            }
            Ok(())
        })
    }

    fn wait(&self, answer: impl Future<Output = kube::Result<String>>, what: impl FnOnce() -> String) -> Result<()> {
        self.runtime.block_on(answer).map(drop).with_context(what)
    }
}

async fn create(client: Client, document: String) -> Result<()> {
    let object: Value = serde_json::from_str(&document).context("reading an object of the load")?;
    let path = collection(&object)?;
    let created = client.request_text(request("POST", &path, "application/json", document.into_bytes())?).await;
    created.map(drop).with_context(|| format!("creating {} in {path}", object["metadata"]["name"]))
}

/// Whether it is ready, if it says so before the deadline.
async fn ask_ready(client: &Client, deadline: Instant) -> Result<()> {
    let question = client.request_text(request("GET", "/readyz", "application/json", Vec::new())?);
    let answer = tokio::time::timeout_at(deadline.into(), question).await.context("it does not answer")?;
    answer.map(drop).context("its last answer")
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).context("reading the kubeconfig")?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let mut config = config.context("understanding the kubeconfig")?;
    config.read_timeout = Some(ANSWER);
    Client::try_from(config).context("making a client")
}

fn request(method: &str, path: &str, content_type: &str, body: Vec<u8>) -> Result<Request<Vec<u8>>> {
    let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, content_type);
    request.body(body).with_context(|| format!("asking for {path}"))
}

/// Where objects of this kind are created.
fn collection(object: &Value) -> Result<String> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    Ok(match object["kind"].as_str() {
        Some("Namespace") => "/api/v1/namespaces".to_owned(),
        Some("Node") => "/api/v1/nodes".to_owned(),
        Some("Service") => format!("/api/v1/namespaces/{namespace}/services"),
        Some("EndpointSlice") => format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
        _ => bail!("{} is of no kind that a load has", object["metadata"]["name"]),
    })
}

/// A CA, the server's certificate, the key of service accounts, a token that may do everything, and a kubeconfig with it. Both
/// contenders and the bench itself use that one.
fn furnish(directory: &Path) -> Result<()> {
    let write = |name: &str, text: String| fs::write(directory.join(name), text).with_context(|| format!("writing {name}"));
    let mut authority = CertificateParams::new(Vec::new()).context("describing a CA")?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().context("making the CA's key")?;
    write("ca.crt", authority.self_signed(&key).context("signing the CA")?.pem())?;
    let issuer = Issuer::new(authority, key);
    let names = vec![Ipv4Addr::LOCALHOST.to_string(), "localhost".to_owned()];
    let key = KeyPair::generate().context("making the server's key")?;
    let certificate = CertificateParams::new(names).and_then(|params| params.signed_by(&key, &issuer));
    write("server.crt", certificate.context("signing the server's certificate")?.pem())?;
    write("server.key", key.serialize_pem())?;
    write("accounts.key", KeyPair::generate().context("making the key of service accounts")?.serialize_pem())?;
    let token = token();
    write("tokens.csv", format!("{token},bench,bench,\"system:masters\"\n"))?;
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": format!("https://127.0.0.1:{PORT}"),
            "certificate-authority": directory.join("ca.crt")}}],
        "users": [{"name": "bench", "user": {"token": token}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}]});
    // JSON is YAML.
    write("kubeconfig", config.to_string())
}

/// Good enough for a server that only this namespace can reach, and for a minute.
fn token() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn kubeconfig(directory: &Path) -> PathBuf {
    directory.join("kubeconfig")
}

fn etcd_command(programs: &Programs, directory: &Path) -> Command {
    let mut command = Command::new(&programs.etcd);
    // Nothing of it is to outlive the run, so it need not reach the disk (etcd 3.5 and later).
    command.arg("--data-dir").arg(directory.join("etcd")).arg("--unsafe-no-fsync=true").args([
        "--listen-client-urls",
        ETCD_URL,
        "--advertise-client-urls",
        ETCD_URL,
        "--listen-peer-urls",
        "http://127.0.0.1:0",
    ]);
    command
}

fn api_server_command(programs: &Programs, directory: &Path) -> Command {
    let mut command = Command::new(&programs.api_server);
    let file = |flag: &str, name: &str| format!("{flag}={}", directory.join(name).display());
    command
        .args(["--bind-address=127.0.0.1".to_owned(), format!("--secure-port={PORT}"), format!("--etcd-servers={ETCD_URL}")])
        .args([format!("--advertise-address={NODE_ADDRESS}"), format!("--service-cluster-ip-range={CLUSTER_IPS}")])
        .args([file("--tls-cert-file", "server.crt"), file("--tls-private-key-file", "server.key")])
        .args([file("--service-account-key-file", "accounts.key"), file("--service-account-signing-key-file", "accounts.key")])
        .args([file("--token-auth-file", "tokens.csv"), file("--cert-dir", "certificates")])
        // The Service `kubernetes` is nobody's here, and no controller makes the account that pods would need.
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--endpoint-reconciler-type=none"])
        .args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"]);
    command
}

fn logged(node: &Namespace, mut command: Command, directory: &Path, name: &str) -> Result<Process> {
    let log = File::create(log(directory, name)).with_context(|| format!("making the log of {name}"))?;
    let again = log.try_clone().with_context(|| format!("making the log of {name}"))?;
    command.stdin(Stdio::null()).stdout(log).stderr(again);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    node.spawn_contained(command).with_context(|| format!("starting {name}"))
}

fn log(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.log"))
}

/// As they stand behind its name.
fn last_words(directory: &Path, name: &str) -> String {
    let text = fs::read(log(directory, name)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    program::said(&lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_says_its_version_in_its_own_words() {
        assert_eq!(etcd_version("etcd Version: 3.6.5\nGit SHA: a\n").as_deref(), Some("3.6.5"));
        for other in ["", "Kubernetes v1.36.2", "3.6.5"] {
            assert_eq!(etcd_version(other), None, "{other}");
        }
    }

    #[test]
    fn the_server_is_given_what_was_made_for_it() {
        let directory = tempfile::tempdir().unwrap();
        furnish(directory.path()).unwrap();
        let programs = Programs { api_server: "/a".into(), etcd: "/e".into(), version: "v1.36.2".into() };
        let command = api_server_command(&programs, directory.path());
        let flags: Vec<String> = command.get_args().map(|flag| flag.to_string_lossy().into_owned()).collect();
        for file in ["tls-cert-file", "tls-private-key-file", "service-account-key-file", "token-auth-file"] {
            let path = flags.iter().find_map(|flag| flag.strip_prefix(&format!("--{file}="))).unwrap();
            assert!(Path::new(path).is_file(), "{file}: {path}");
        }
        Kubeconfig::read_from(kubeconfig(directory.path())).unwrap();
    }

    #[test]
    fn a_server_that_never_answers_is_told_as_one() {
        let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let error = runtime.block_on(async {
            let client = Client::try_from(kube::Config::new(url)).unwrap();
            ask_ready(&client, Instant::now() + Duration::from_millis(50)).await.unwrap_err()
        });
        assert!(error.to_string().starts_with("it does not answer"), "{error}");
    }

    #[test]
    fn objects_go_where_their_kind_belongs() {
        let slice = json!({"kind": "EndpointSlice", "metadata": {"name": "a", "namespace": "load"}});
        assert_eq!(collection(&slice).unwrap(), "/apis/discovery.k8s.io/v1/namespaces/load/endpointslices");
        assert!(collection(&json!({"kind": "Pod", "metadata": {"name": "a"}})).is_err());
    }
}
