//! A node in a small network, with a pod that answers, and an API server double in the node's namespace.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use sheave_lab::{Lab, Namespace};
use sheave_tests::apiserver::{ApiServer, Config};

use crate::proxy::{NODE, Proxy};

/// The pod behind the probe. Far from the load's own pods, which begin at 10.128.0.0.
const PROBE_POD: Ipv4Addr = Ipv4Addr::new(10, 180, 0, 1);
const PROBE_PORT: u16 = 8080;
/// The probe's ClusterIP, of the double's first ServiceCIDR and below those of the load.
const PROBE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 7);
const ANSWER: &[u8] = b"through the sheave\n";
/// A SYN to a ClusterIP that is not programmed is lost; the next attempt must not wait for its retransmission.
const ATTEMPT: Duration = Duration::from_millis(10);
/// Beyond this, something is broken rather than slow.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Stage {
    lab: Lab,
}

impl Stage {
    /// Builds the network and starts the pod.
    pub(super) fn build() -> Result<Self> {
        let lab = Lab::new().context("building the network")?;
        let pod = lab.pod("probe", &PROBE_POD.to_string())?;
        let listener = pod.run(|| TcpListener::bind((PROBE_POD, PROBE_PORT)))?.context("listening in the pod")?;
        // Ends with the process: nothing is left that could keep it.
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                // A client that is gone has no more questions.
                let _ = client.write_all(ANSWER);
            }
        });
        Ok(Self { lab })
    }

    /// The node's namespace. It is the lab's: it goes with the stage.
    pub(super) fn node(&self) -> &Namespace {
        self.lab.node()
    }

    /// Starts the double where the daemon finds it on 127.0.0.1.
    pub(super) fn api_server(&self) -> Result<ApiServer> {
        self.node().run(|| ApiServer::start(Config::default()))?.context("starting the API server double")
    }
}

/// Creates the probe: a Service whose one endpoint is the pod.
pub(super) fn create_probe(server: &ApiServer) -> Result<()> {
    let metadata = json!({"name": "probe", "namespace": "default", "labels": {"kubernetes.io/service-name": "probe"}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"clusterIP": PROBE_IP, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
    let endpoint = json!({"addresses": [PROBE_POD], "nodeName": NODE, "conditions": {"ready": true}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
        "endpoints": [endpoint], "ports": [{"name": "http", "port": PROBE_PORT, "protocol": "TCP"}]});
    server.apply(&service).context("creating the probe Service")?;
    server.apply(&slice).context("creating the probe's EndpointSlice")?;
    Ok(())
}

/// Connects to the probe's ClusterIP from this thread's namespace until the pod answers, and says when it did.
pub(super) fn await_probe(daemon: &mut Proxy) -> Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if answers() {
            return Ok(Instant::now());
        }
        daemon.ensure_running()?;
    }
    bail!("the pod did not answer through {PROBE_IP}:80 within {PATIENCE:?}; the daemon said:\n{}", daemon.last_words())
}

fn answers() -> bool {
    let target = SocketAddr::from((PROBE_IP, 80));
    let started = Instant::now();
    let answered = TcpStream::connect_timeout(&target, ATTEMPT).and_then(|mut stream| {
        stream.set_read_timeout(Some(ATTEMPT * 10))?;
        let mut answer = vec![0; ANSWER.len()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    });
    if answered.is_err() {
        // Where the answer is "unreachable" and comes at once: the daemon needs the processor more than the probe does.
        std::thread::sleep(ATTEMPT.saturating_sub(started.elapsed()));
    }
    answered.is_ok_and(|answer| answer == ANSWER)
}
