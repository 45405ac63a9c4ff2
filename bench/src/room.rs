//! Whether a cluster fits into this machine.

use anyhow::{Result, ensure};
use sheave_tests::apiserver::load::Shape;

use crate::machine;
use crate::say;
use crate::session::Session;

/// Memory that a cluster takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Room {
    bytes_per_endpoint: f64,
    /// However few endpoints there are.
    bytes_at_least: f64,
}

impl Room {
    /// All parts of a bench together: the double's JSON, the daemon, the kernel and what plays the loop. Measured: 1.1 GB for a
    /// million endpoints.
    pub(crate) const BENCH: Self = Self { bytes_per_endpoint: 1_500.0, bytes_at_least: 300e6 };
    /// A kube-proxy. 856 MB at most were seen of v1.36.2 in nftables mode with 250,000 endpoints, and some 50 MB are there without any.
    pub(crate) const KUBE_PROXY: Self = Self { bytes_per_endpoint: 3_424.0, bytes_at_least: 50e6 };
    /// A real API server with its etcd. An estimate, on the safe side, for none could be measured: each holds every object, the API
    /// server also decoded in its watch cache, and Go lets its heap double before it collects.
    pub(crate) const CONTROL_PLANE: Self = Self { bytes_per_endpoint: 2_000.0, bytes_at_least: 500e6 };

    /// Both at the same time.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            bytes_per_endpoint: self.bytes_per_endpoint + other.bytes_per_endpoint,
            bytes_at_least: self.bytes_at_least + other.bytes_at_least,
        }
    }

    /// In bytes.
    pub(crate) fn of(self, endpoints: f64) -> f64 {
        endpoints * self.bytes_per_endpoint + self.bytes_at_least
    }

    /// Refuses what would not fit into memory, rather than be killed half-way through.
    ///
    /// # Errors
    /// With the sizes, if it does not fit.
    pub(crate) fn ensure_for(self, shape: Shape) -> Result<()> {
        let endpoints = endpoints(shape);
        ensure_available(&format!("{endpoints} endpoints"), self.of(endpoints))
    }
}

/// Whether a cluster fits now, where smaller ones are worth measuring without it. What does not is told, and fails the run at its end.
pub(crate) fn admits(shape: Shape, session: &Session) -> bool {
    let Err(error) = Room::BENCH.ensure_for(shape) else { return true };
    say(&format!("left out: {error:#}"));
    session.leave_out(error.to_string());
    false
}

/// Refuses what takes more bytes than can be had.
///
/// # Errors
/// With both numbers. Where the kernel does not say how many there are, they are not known to be too few.
pub(crate) fn ensure_available(what: &str, bytes: f64) -> Result<()> {
    let needed = bytes / 1e6;
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 MB")]
    let available = machine::available_memory_mb().map_or(f64::INFINITY, |megabytes| megabytes as f64);
    ensure!(needed <= available, "{what} need some {needed:.0} MB of memory, and {available:.0} MB are available");
    Ok(())
}

fn endpoints(shape: Shape) -> f64 {
    let families = if shape.dual_stack { 2.0 } else { 1.0 };
    f64::from(shape.services) * f64::from(shape.endpoints_per_service) * families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_memory_is_refused_with_the_sizes() {
        let huge = Shape { services: 1_000_000, endpoints_per_service: 1_000_000, ..Shape::default() };
        assert!(Room::BENCH.ensure_for(huge).unwrap_err().to_string().contains("MB are available"));
        Room::BENCH.ensure_for(Shape { services: 10, endpoints_per_service: 5, ..Shape::default() }).unwrap();
    }

    #[test]
    fn a_kube_proxy_has_the_room_that_it_was_seen_to_take() {
        let shape = Shape { services: 5_000, endpoints_per_service: 50, ..Shape::default() };
        let endpoints = endpoints(shape);
        assert!(Room::BENCH.and(Room::KUBE_PROXY).of(endpoints) - Room::BENCH.of(endpoints) >= 856e6);
        assert_eq!(super::endpoints(Shape { dual_stack: true, ..shape }), 2.0 * endpoints);
    }
}
