//! Whether a cluster fits into this machine.

use anyhow::{Result, ensure};
use sheave_tests::apiserver::load::Shape;

use crate::machine;

/// Memory that one endpoint needs in all parts of a bench together: the double's JSON, the daemon, the kernel and what plays the
/// loop. Measured: 1.1 GB for a million.
const BYTES_PER_ENDPOINT: f64 = 1_500.0;
const BYTES_AT_LEAST: f64 = 300e6;

/// Refuses what would not fit into memory, rather than be killed half-way through.
pub(crate) fn ensure_fits(shape: Shape) -> Result<()> {
    let families = if shape.dual_stack { 2.0 } else { 1.0 };
    let endpoints = f64::from(shape.services) * f64::from(shape.endpoints_per_service) * families;
    let needed = (endpoints * BYTES_PER_ENDPOINT + BYTES_AT_LEAST) / 1e6;
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 MB")]
    let available = machine::available_memory_mb().map_or(f64::INFINITY, |megabytes| megabytes as f64);
    ensure!(needed <= available, "{endpoints} endpoints need some {needed:.0} MB of memory, and {available:.0} MB are available");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_memory_is_refused_with_the_sizes() {
        let huge = Shape { services: 1_000_000, endpoints_per_service: 1_000_000, ..Shape::default() };
        assert!(ensure_fits(huge).unwrap_err().to_string().contains("MB are available"));
        ensure_fits(Shape { services: 10, endpoints_per_service: 5, ..Shape::default() }).unwrap();
    }
}
