//! Whether a cluster fits into this machine.

mod cgroup;

use anyhow::{Result, anyhow};
use sheave_tests::apiserver::load::Shape;

use crate::machine;
use crate::refusal::Refusal;
use crate::session::Session;
use cgroup::Limit;

/// What sheave serves at the most (docs/nftables.md): more is left out by it, and then the bench would wait for it in vain.
const ENDPOINTS_MAX: u64 = 4_000_000;
const BACKENDS_MAX: u32 = 131_072;
/// A Service without its endpoints, in API server double, daemon and kernel together. An estimate, on the safe side.
pub(crate) const SERVICE_BYTES: f64 = 6_000.0;

/// Memory that a cluster takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Room {
    bytes_per_endpoint: f64,
    /// However few endpoints there are.
    bytes_at_least: f64,
}

impl Room {
    /// All parts of a bench together: the double's JSON, the daemon, the kernel and what plays the loop. An estimate, on the safe side.
    pub(crate) const BENCH: Self = Self { bytes_per_endpoint: 1_500.0, bytes_at_least: 60e6 };
    /// Stock nft while it loads the rules: a test holds it to `nft -f` in `bench/results`.
    pub(crate) const NFT: Self = Self { bytes_per_endpoint: 2_600.0, bytes_at_least: 20e6 };
    /// A kube-proxy with the programs that it runs. An estimate, on the safe side, for none could be measured: it holds every object and
    /// all rules as text, and in nftables mode its nft reads those.
    pub(crate) const KUBE_PROXY: Self = Self { bytes_per_endpoint: 3_500.0, bytes_at_least: 50e6 }.and(Self::NFT);
    /// A real API server with its etcd. An estimate, on the safe side, for none could be measured: each holds every object, the API
    /// server also decoded in its watch cache, and Go lets its heap double before it collects.
    pub(crate) const CONTROL_PLANE: Self = Self { bytes_per_endpoint: 2_000.0, bytes_at_least: 500e6 };

    /// Both at the same time.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            bytes_per_endpoint: self.bytes_per_endpoint + other.bytes_per_endpoint,
            bytes_at_least: self.bytes_at_least + other.bytes_at_least,
        }
    }

    /// In bytes.
    pub(crate) fn of(self, endpoints: f64) -> f64 {
        endpoints * self.bytes_per_endpoint + self.bytes_at_least
    }

    /// Refuses what has not enough addresses, and what would not fit into memory, rather than be killed half-way through.
    ///
    /// # Errors
    /// With the limit, if it does not fit.
    pub(crate) fn ensure_for(self, shape: Shape) -> Result<()> {
        ensure_served(shape)?;
        let endpoints = endpoints(shape);
        ensure_available(&format!("{endpoints} endpoints"), self.of(endpoints) + f64::from(shape.services) * SERVICE_BYTES)
    }
}

/// Refuses what has not enough addresses, and what sheave would not serve.
///
/// # Errors
/// With the limit.
pub(crate) fn ensure_served(shape: Shape) -> Result<()> {
    shape.check().map_err(Refusal::of)?;
    let Shape { services, endpoints_per_service: each, .. } = shape;
    if each > BACKENDS_MAX {
        return Err(Refusal::of(anyhow!("{each} endpoints of a Service are more than the {BACKENDS_MAX} that sheave serves")));
    }
    let endpoints = u64::from(services) * u64::from(each);
    if endpoints > ENDPOINTS_MAX {
        return Err(Refusal::of(anyhow!("{endpoints} endpoints are more than the {ENDPOINTS_MAX} that sheave serves")));
    }
    Ok(())
}

/// Whether a cluster fits now, where smaller ones are worth measuring without it. What does not is told, and fails the run at its end.
pub(crate) fn admits(shape: Shape, session: &Session) -> bool {
    let Err(error) = Room::BENCH.ensure_for(shape) else { return true };
    session.leave_out(error.to_string());
    false
}

/// Refuses what takes more bytes than can be had.
///
/// # Errors
/// With both numbers. Where the kernel does not say how many there are, they are not known to be too few.
#[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 bytes")]
pub(crate) fn ensure_available(what: &str, bytes: f64) -> Result<()> {
    let group = cgroup::tightest();
    let (machines, groups) = (machine::available_memory(), group.as_ref().map(|limit| limit.left));
    let available = machines.into_iter().chain(groups).min().map_or(f64::INFINITY, |bytes| bytes as f64);
    if bytes <= available {
        return Ok(());
    }
    let by = match group {
        Some(Limit { group, left }) if machines.is_none_or(|machines| left < machines) => {
            format!(", which is what the control group {} leaves", group.display())
        }
        _ => String::new(),
    };
    let (needed, available) = (bytes / 1e6, available / 1e6);
    Err(Refusal::of(anyhow!("{what} need some {needed:.0} MB of memory, and {available:.0} MB are available{by}")))
}

fn endpoints(shape: Shape) -> f64 {
    let families = if shape.dual_stack { 2.0 } else { 1.0 };
    f64::from(shape.services) * f64::from(shape.endpoints_per_service) * families
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::results::Results;

    #[test]
    fn what_does_not_fit_into_memory_is_refused_with_the_sizes() {
        // A petabyte.
        let error = ensure_available("all of them", 1e15).unwrap_err();
        assert!(error.to_string().starts_with("all of them need some 1000000000 MB of memory, and "), "{error}");
        assert!(Refusal::is_behind(&error) && error.to_string().contains("MB are available"), "{error}");
        Room::BENCH.ensure_for(Shape { services: 10, endpoints_per_service: 5, ..Shape::default() }).unwrap();
    }

    #[test]
    fn what_has_no_addresses_is_refused_whatever_memory_there_is() {
        let huge = Shape { services: 1_000_000, endpoints_per_service: 1_000_000, ..Shape::default() };
        let error = Room::BENCH.ensure_for(huge).unwrap_err();
        assert!(Refusal::is_behind(&error), "{error}");
        assert!(error.to_string().starts_with("1000000000000 endpoints are more than the 8000000"), "{error}");
    }

    #[test]
    fn what_sheave_does_not_serve_is_refused_with_its_limit() {
        let check = |services, endpoints_per_service| {
            let shape = Shape { services, endpoints_per_service, ..Shape::default() };
            ensure_served(shape).map_err(|error| (Refusal::is_behind(&error), error.to_string()))
        };
        for (services, each) in [(1, 131_072), (80_000, 50), (1_000_000, 4)] {
            check(services, each).unwrap();
        }
        for (services, each, limit) in [(1, 131_073, "more than the 131072 that"), (80_001, 50, "more than the 4000000 that")] {
            let (refused, said) = check(services, each).unwrap_err();
            assert!(refused && said.contains(limit), "{said}");
        }
    }

    #[test]
    fn nft_has_the_room_that_it_was_seen_to_take() {
        let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("results")).unwrap();
        let results = files.map(|file| Results::read(&file.unwrap().path()).unwrap());
        let rows: Vec<_> = results.flat_map(|results| results.measurements).collect();
        let loads: Vec<_> = rows.iter().filter(|row| row.at.get("contender").is_some_and(|name| name == "nft -f")).collect();
        assert!(!loads.is_empty());
        for load in loads {
            let number = |name: &str| load.at[name].as_f64().unwrap();
            let room = Room::NFT.of(number("services") * number("endpoints_per_service"));
            let of_seen = room / (load.values["peak_rss_mb"] * 1e6);
            assert!((1.0..1.3).contains(&of_seen), "{of_seen} of {load:?}");
        }
    }

    #[test]
    fn a_second_family_has_endpoints_of_its_own() {
        let shape = Shape { services: 5_000, endpoints_per_service: 50, ..Shape::default() };
        assert_eq!(endpoints(Shape { dual_stack: true, ..shape }), 2.0 * endpoints(shape));
    }
}
