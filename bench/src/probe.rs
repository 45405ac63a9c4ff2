//! The Service that proves what the kernel has: its one endpoint is a pod that answers.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::proxy::{NODE, Proxy};
use crate::say;

/// The pod behind it. The load's own begin at 10.128.0.0; a load of some millions has an endpoint here, too, which nobody asks.
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 180, 0, 1);
/// Its ClusterIP, of the double's first ServiceCIDR and below those of the load.
pub(crate) const IP: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 7);
/// At the ClusterIP.
pub(crate) const PORT: u16 = 80;
/// A SYN to a ClusterIP that is not programmed is lost; the next attempt must not wait for its retransmission.
pub(crate) const ATTEMPT: Duration = Duration::from_millis(10);
/// The load's own: that of a real API server called `default` comes some time after the server is ready.
const NAMESPACE: &str = "load";
/// Beyond this, something is broken rather than slow, even where all rules are written as one text.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// When whoever looks on is told that this waits, and how often then.
const FIRST_SIGN: Duration = Duration::from_secs(10);
const NEXT_SIGN: Duration = Duration::from_secs(60);

/// Who is asked in its name.
pub(crate) const NAME: &str = "the probe's ClusterIP";

/// The Service.
pub(crate) fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "probe", "namespace": NAMESPACE},
        "spec": {"clusterIP": IP, "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}]}})
}

/// Its EndpointSlice: the pod, at this port.
pub(crate) fn slice(port: u16) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "probe", "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "probe"}},
        "endpoints": [{"addresses": [POD], "nodeName": NODE, "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}]})
}

/// Waits until an attempt gets through, and says when it did. `what`: who sends, and to which address.
///
/// # Errors
/// If the proxy ends, an attempt fails for another reason than that nothing is programmed, or none gets through.
pub(crate) fn await_through(proxy: &mut Proxy, what: &str, mut attempt: impl FnMut() -> Result<bool>) -> Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    let mut sign_of_life = Instant::now() + FIRST_SIGN;
    while Instant::now() < deadline {
        let begun = Instant::now();
        if begun >= sign_of_life {
            say(&format!("{what}: still waiting for a packet, for {PATIENCE:?} in all"));
            sign_of_life = begun + NEXT_SIGN;
        }
        if attempt()? {
            return Ok(Instant::now());
        }
        proxy.ensure_running()?;
        // Where the answer is "unreachable" and comes at once: the proxy needs the processor more than the probe does.
        std::thread::sleep(ATTEMPT.saturating_sub(begun.elapsed()));
    }
    give_up(proxy, what)
}

/// After [`PATIENCE`].
///
/// # Errors
/// Always, with what the proxy said last.
pub(crate) fn give_up(proxy: &Proxy, what: &str) -> Result<Instant> {
    bail!("{what}: no packet came where it must within {PATIENCE:?}; the proxy {}", proxy.last_words())
}
