//! What `sheave-bench sync` is asked for. What is not is what budgets are for: see [`crate::promises`].

use clap::{Args, ValueEnum};
use sheave_tests::apiserver::load::{Mix, Shape};

use super::operations;
use crate::daemon::Plane;
use crate::session::Destination;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What carries the traffic
    #[arg(long, default_value = "nftables")]
    pub(super) plane: Plane,

    /// Services at the cold sync and at the changes
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) services: u32,

    /// Endpoints of each of them
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) endpoints_per_service: u32,

    /// Endpoints to change one after the other, and Services to add; at each size of the matrix, 100 unless said otherwise
    #[arg(long, value_name = "N", default_value_t = 200, default_value_if("matrix", "true", "100"),
        value_parser = clap::value_parser!(u32).range(1..=CHANGES_MAX))]
    pub(super) changes: u32,

    /// Services that are there when one is added. They share the same total of endpoints, each having at least one
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) add_at: u32,

    /// Which Services there are
    #[arg(long, default_value = "plain")]
    pub(super) mix: MixName,

    /// Instead of one size, sweep 10 to 50,000 Services and 10 to 1,000,000 endpoints and show how cost grows
    #[arg(long, conflicts_with_all = ["services", "endpoints_per_service", "add_at"])]
    pub(super) matrix: bool,

    /// Begin no further size of the matrix after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 15, requires = "matrix", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) time_limit: u32,

    #[command(flatten)]
    pub(crate) destination: Destination,
}

/// More take days, and tell nothing more.
pub(super) const CHANGES_MAX: i64 = 1_000_000;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum MixName {
    /// ClusterIP, IPv4, without affinity
    Plain,
    /// 70 % ClusterIP, 20 % NodePort, 10 % LoadBalancer with policy Local; 5 % with affinity; all dual stack
    Realistic,
}

impl Arguments {
    /// A cluster of this mix, of any size.
    pub(super) fn shape(&self) -> Shape {
        match self.mix {
            MixName::Plain => Shape { mix: Mix::Plain, dual_stack: false, ..Shape::default() },
            MixName::Realistic => Shape { mix: Mix::Realistic, dual_stack: true, ..Shape::default() },
        }
    }

    /// The cluster of the cold sync and the changes.
    pub(super) fn cluster(&self) -> Shape {
        Shape { services: self.services, endpoints_per_service: self.endpoints_per_service, ..self.shape() }
    }

    /// A cluster with all the Services that are added to it.
    pub(super) fn with_added(&self, shape: Shape) -> Shape {
        Shape { services: operations::with_added(shape.services, self.changes), ..shape }
    }

    /// The cluster that Services are added to.
    pub(super) fn wide_cluster(&self) -> Shape {
        let endpoints = u64::from(self.services) * u64::from(self.endpoints_per_service);
        let each = u32::try_from(endpoints / u64::from(self.add_at)).unwrap_or(u32::MAX).max(1);
        Shape { services: self.add_at, endpoints_per_service: each, ..self.shape() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        crate::tests::parse(&line.split_whitespace().collect::<Vec<_>>())
    }

    fn arguments(line: &str) -> Arguments {
        parse(line).unwrap()
    }

    #[test]
    fn many_services_share_the_same_total_of_endpoints() {
        let wide = arguments("").wide_cluster();
        assert_eq!((wide.services, wide.endpoints_per_service), (50_000, 5));
        assert_eq!(arguments("--services 10 --endpoints-per-service 3").wide_cluster().endpoints_per_service, 1);
    }

    #[test]
    fn services_that_are_added_need_addresses_too() {
        let check = |line: &str| {
            let arguments = arguments(line);
            arguments.with_added(arguments.wide_cluster()).check().map_err(|error| error.to_string())
        };
        check("--add-at 50000").unwrap();
        assert!(check("--add-at 1000000").unwrap_err().contains("more than the 1000000"));
        assert!(check("--add-at 10 --changes 1000000").is_err());
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for bad in [
            "--matrix --services 10",
            "--matrix --endpoints-per-service 10",
            "--matrix --add-at 10",
            "--matrix --time-limit 0",
            "--time-limit 5",
            "--changes 0",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(arguments("--matrix --time-limit 5").time_limit, 5);
        assert_eq!(["", "--matrix", "--matrix --changes 7"].map(|line| arguments(line).changes), [200, 100, 7]);
    }
}
