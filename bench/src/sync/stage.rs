//! A node in a small network, with a pod that answers, and an API server double in the node's namespace.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, Result};
use sheave_lab::{Lab, Namespace};
use sheave_tests::apiserver::{ApiServer, Config};
use socket2::SockRef;

use crate::probe::{self, ATTEMPT, POD};
use crate::proxy::Proxy;

/// Of the pod.
const POD_PORT: u16 = 8080;
const ANSWER: &[u8] = b"through the sheave\n";

pub(super) struct Stage {
    lab: Lab,
    listener: TcpListener,
    /// The pod's. `None` once it was waited for.
    pod: Option<JoinHandle<()>>,
}

impl Stage {
    /// Builds the network and starts the pod.
    pub(super) fn build() -> Result<Self> {
        let lab = Lab::new().context("building the network")?;
        let pod = lab.pod("probe", &POD.to_string())?;
        let listener = pod.run(|| TcpListener::bind((POD, POD_PORT)))?.context("listening in the pod")?;
        let answering = listener.try_clone().context("listening in the pod")?;
        let pod = thread::Builder::new().name("pod".into()).spawn(move || answer_all(&answering)).context("starting the pod")?;
        Ok(Self { lab, listener, pod: Some(pod) })
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

impl Drop for Stage {
    fn drop(&mut self) {
        // Ends the pod's thread, and with its last socket its network. It fails for no socket that listens.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        let _ = self.pod.take().map(JoinHandle::join);
    }
}

/// Answers whoever comes, until the socket is shut down.
fn answer_all(listener: &TcpListener) {
    loop {
        match listener.accept() {
            // A client that is gone has no more questions.
            Ok((mut client, _)) => drop(client.write_all(ANSWER)),
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            // Of that client.
            Err(_) => {}
        }
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
    probe::await_through(daemon, probe::NAME, || Ok(answers()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_answers_until_its_socket_is_shut_down() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (target, answering) = (listener.local_addr().unwrap(), listener.try_clone().unwrap());
        let pod = thread::spawn(move || answer_all(&answering));
        let mut answer = Vec::new();
        TcpStream::connect(target).unwrap().read_to_end(&mut answer).unwrap();
        assert_eq!(answer, ANSWER);
        SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
        pod.join().unwrap();
    }
}
