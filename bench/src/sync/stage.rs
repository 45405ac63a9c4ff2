//! A node in a small network, with a pod that answers, and an API server double in the node's namespace.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result};
use sheave_lab::{Lab, Namespace};
use sheave_tests::apiserver::{ApiServer, Config};

use crate::probe::{self, ATTEMPT, POD};
use crate::proxy::Proxy;

/// Of the pod.
const POD_PORT: u16 = 8080;
const ANSWER: &[u8] = b"through the sheave\n";

pub(super) struct Stage {
    lab: Lab,
}

impl Stage {
    /// Builds the network and starts the pod.
    pub(super) fn build() -> Result<Self> {
        let lab = Lab::new().context("building the network")?;
        let pod = lab.pod("probe", &POD.to_string())?;
        let listener = pod.run(|| TcpListener::bind((POD, POD_PORT)))?.context("listening in the pod")?;
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
    server.apply(&probe::service()).context("creating the probe Service")?;
    server.apply(&probe::slice(POD_PORT)).context("creating the probe's EndpointSlice")?;
    Ok(())
}

/// Connects to the probe's ClusterIP from this thread's namespace until the pod answers, and says when it did.
pub(super) fn await_probe(daemon: &mut Proxy) -> Result<Instant> {
    probe::await_through(daemon, || Ok(answers()))
}

fn answers() -> bool {
    let target = SocketAddr::from((probe::IP, probe::PORT));
    let answered = TcpStream::connect_timeout(&target, ATTEMPT).and_then(|mut stream| {
        stream.set_read_timeout(Some(ATTEMPT * 10))?;
        let mut answer = vec![0; ANSWER.len()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    });
    answered.is_ok_and(|answer| answer == ANSWER)
}
