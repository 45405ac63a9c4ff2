//! Where the daemon answers about itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Interpreter, at};
use crate::config::{KubeProxyConfiguration, Servers};
use crate::source::decode::address;

impl Interpreter<'_> {
    pub(super) fn servers(&mut self, admin: Option<PathBuf>) -> Servers {
        let KubeProxyConfiguration { healthz_bind_address, metrics_bind_address, bind_address_hard_fail, .. } = self.kube_proxy;
        // Empty only by flag, which turns it off; for metrics kube-proxy refuses that, too.
        let healthz =
            if healthz_bind_address.is_empty() { None } else { self.address("healthzBindAddress", healthz_bind_address) };
        let metrics = self.address("metricsBindAddress", metrics_bind_address);
        if let (Some(healthz), Some(metrics)) = (healthz, metrics)
            && overlap(healthz, metrics)
        {
            let detail = format!("must not be that of {}, {healthz}: each server has its own", at("healthzBindAddress"));
            self.mistakes.invalid(at("metricsBindAddress"), metrics.to_string(), detail);
        }
        Servers { healthz, metrics, admin, bind_address_hard_fail: *bind_address_hard_fail }
    }

    fn address(&mut self, field: &str, text: &str) -> Option<SocketAddr> {
        let Some((host, port)) = text.rsplit_once(':') else {
            self.mistakes.invalid(at(field), text, "must be IP:port");
            return None;
        };
        let ip = address::ip(host.trim_matches(['[', ']']));
        if ip.is_none() {
            self.mistakes.invalid(at(field), host, "must be a valid IP");
        }
        let port = port.parse::<u16>().ok();
        if port.is_none() {
            self.mistakes.invalid(at(field), text, "must be a valid port, 0 to 65535");
        }
        Some(SocketAddr::new(ip?, port?))
    }
}

/// Whether nobody can listen at both. Our servers take IPv4 at `[::]` as well.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: SocketAddr, ip: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    one.port() == other.port() && one.port() != 0 && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
}
