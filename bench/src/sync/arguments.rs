//! What `sheave-bench sync` is asked for: sizes, and the budgets that are for them.

use clap::{Args, ValueEnum};
use sheave_tests::apiserver::load::{Mix, Shape};

use crate::daemon::Plane;
use crate::session::Destination;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What carries the traffic
    #[arg(long, default_value = "nftables")]
    pub(super) plane: Plane,

    /// Services at the cold sync and at the changes
    #[arg(long, value_name = "N", default_value_t = BUDGETED.0, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) services: u32,

    /// Endpoints of each of them
    #[arg(long, value_name = "N", default_value_t = BUDGETED.1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) endpoints_per_service: u32,

    /// Endpoints to change one after the other, and Services to add
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) changes: u32,

    /// Services that are there when one is added. They share the same total of endpoints, each having at least one
    #[arg(long, value_name = "N", default_value_t = BUDGETED.2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) add_at: u32,

    /// Which Services there are
    #[arg(long, default_value = "plain")]
    pub(super) mix: MixName,

    /// Instead of one size, sweep 10 to 50,000 Services and 10 to 1,000,000 endpoints and show how cost grows
    #[arg(long)]
    pub(super) matrix: bool,

    /// Begin no further size of the matrix after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 15)]
    pub(super) time_limit: u32,

    #[command(flatten)]
    pub(crate) destination: Destination,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum MixName {
    /// ClusterIP, IPv4, without affinity
    Plain,
    /// 70 % ClusterIP, 20 % NodePort, 10 % LoadBalancer with policy Local; 5 % with affinity; all dual stack
    Realistic,
}

/// The sizes that the budgets are for.
const BUDGETED: (u32, u32, u32) = (5_000, 50, 50_000);

/// Endpoints up to which there are budgets at all, and those for so many: cold sync in ms, peak memory in MB.
const MOST_ENDPOINTS: u64 = 1_000_000;
pub(super) const AT_MOST_ENDPOINTS: (f64, f64) = (3_000.0, 400.0);

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

    /// The cluster that Services are added to.
    pub(super) fn wide_cluster(&self) -> Shape {
        let endpoints = u64::from(self.services) * u64::from(self.endpoints_per_service);
        let each = u32::try_from(endpoints / u64::from(self.add_at)).unwrap_or(u32::MAX).max(1);
        Shape { services: self.add_at, endpoints_per_service: each, ..self.shape() }
    }

    /// A budget, where the sizes are not above those it is for. The realistic mix may take twice as much.
    pub(super) fn budget(&self, budget: f64) -> Option<f64> {
        let (services, endpoints, add_at) = BUDGETED;
        let within = self.services <= services && self.endpoints_per_service <= endpoints && self.add_at <= add_at;
        within.then_some(budget * self.allowance())
    }

    /// A budget that grows with the cluster: of the usual sizes, or of a million endpoints.
    pub(super) fn budget_by_size(&self, usual: f64, of_a_million: f64) -> Option<f64> {
        let endpoints = u64::from(self.services) * u64::from(self.endpoints_per_service);
        let large = (endpoints <= MOST_ENDPOINTS).then_some(of_a_million * self.allowance());
        self.budget(usual).or(large)
    }

    fn allowance(&self) -> f64 {
        match self.mix {
            MixName::Plain => 1.0,
            MixName::Realistic => 2.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(services: u32, endpoints_per_service: u32, add_at: u32) -> Arguments {
        let plane = Plane::Nftables;
        let (mix, destination) = (MixName::Plain, Destination::default());
        Arguments { plane, services, endpoints_per_service, changes: 1, add_at, mix, matrix: false, time_limit: 1, destination }
    }

    #[test]
    fn many_services_share_the_same_total_of_endpoints() {
        let wide = arguments(5_000, 50, 50_000).wide_cluster();
        assert_eq!((wide.services, wide.endpoints_per_service), (50_000, 5));
        assert_eq!(arguments(10, 3, 50_000).wide_cluster().endpoints_per_service, 1);
    }

    #[test]
    fn a_budget_is_for_its_sizes_and_smaller_ones() {
        assert_eq!(arguments(5_000, 50, 50_000).budget(3.0), Some(3.0));
        assert_eq!(arguments(50, 5, 50).budget(3.0), Some(3.0));
        assert_eq!(arguments(5_001, 50, 50_000).budget(3.0), None);
        assert_eq!(arguments(20_000, 50, 50_000).budget_by_size(500.0, 3_000.0), Some(3_000.0));
        assert_eq!(arguments(20_001, 50, 50_000).budget_by_size(500.0, 3_000.0), None);
        let realistic = Arguments { mix: MixName::Realistic, ..arguments(5_000, 50, 50_000) };
        assert_eq!(realistic.budget_by_size(500.0, 3_000.0), Some(1_000.0));
    }
}
