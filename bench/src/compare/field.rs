//! A node in a small network, and a pod with two doors: which of them a packet comes to proves which rules the kernel has.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sheave_lab::{Lab, Namespace};
use socket2::SockRef;

use super::commits::Commits;
use crate::packets::exchange;
use crate::probe::{self, ATTEMPT, PATIENCE, POD};
use crate::proxy::{NODE, NODE_ADDRESS, Proxy};

/// The network of one contender.
pub(super) struct Field {
    lab: Lab,
    doors: [(Door, TcpListener); 2],
}

/// A port of the pod. The probe Service has one endpoint, which is one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Front,
    Back,
}

impl Door {
    /// Both, in the order in which they are tried.
    const ALL: [Self; 2] = [Self::Front, Self::Back];

    pub(super) fn other(self) -> Self {
        match self {
            Self::Front => Self::Back,
            Self::Back => Self::Front,
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Front => 8080,
            Self::Back => 8081,
        }
    }

    fn open(self) -> io::Result<(Self, TcpListener)> {
        let listener = TcpListener::bind((POD, self.port()))?;
        listener.set_nonblocking(true)?;
        Ok((self, listener))
    }
}

impl Field {
    /// Builds the network and opens the doors.
    pub(super) fn build() -> Result<Self> {
        let lab = Lab::new().context("building the network")?;
        let pod = lab.pod("probe", &POD.to_string())?;
        let doors = pod.run(|| -> io::Result<_> {
            let [front, back] = Door::ALL.map(Door::open);
            Ok([front?, back?])
        })?;
        Ok(Self { lab, doors: doors.context("listening in the pod")? })
    }

    /// The node's namespace. It is the lab's: it goes with the field.
    pub(super) fn node(&self) -> &Namespace {
        self.lab.node()
    }

    /// Waits until a packet from this thread's namespace to the probe's ClusterIP comes to the door, and says when it did.
    pub(super) fn await_open(&self, door: Door, proxy: &mut Proxy) -> Result<Instant> {
        probe::await_through(proxy, probe::NAME, || Ok(self.knock()? == Some(door)))
    }

    /// Waits until the kernel sends packets to the door, which it was to do after `begun`. That is when it told of the commit after
    /// which the first packet came there, or when that packet came where the kernel tells nothing.
    pub(super) fn await_moved(&self, door: Door, begun: Instant, commits: &Commits, proxy: &mut Proxy) -> Result<Instant> {
        let deadline = begun + PATIENCE;
        let mut since = begun;
        while Instant::now() < deadline {
            let told = commits.next(since);
            let knocked = Instant::now();
            if self.knock()? == Some(door) {
                return Ok(told.unwrap_or_else(Instant::now));
            }
            // What was told before it was not yet the change.
            since = knocked;
            if told.is_none() {
                proxy.ensure_running()?;
            }
        }
        probe::give_up(proxy, probe::NAME)
    }

    /// Sends one packet, and sees where it came to. Both ends are in this thread: see [`exchange`].
    fn knock(&self) -> Result<Option<Door>> {
        let target = SocketAddr::from((probe::IP, probe::PORT));
        let client = match TcpStream::connect_timeout(&target, ATTEMPT) {
            Ok(client) => client,
            Err(error) if exchange::is_loss(&error) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("connecting to {target}")),
        };
        // Ends with a RST: thousands of probes must not fill the node's ports with TIME-WAIT.
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).context("a socket that does not linger")?;
        let came = exchange::first(&self.doors, ATTEMPT, |(door, listener)| listener.accept().map(|_| *door));
        Ok(came.ok())
    }
}

/// The node itself, which a kube-proxy waits for, the probe Service and its one endpoint.
pub(super) fn probe(door: Door) -> [Value; 3] {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]}});
    [node, probe::service(), probe_slice(door)]
}

/// Where the probe sends to.
pub(super) fn probe_slice(door: Door) -> Value {
    probe::slice(door.port())
}
