//! What `sheave-bench sync` is asked for: sizes, and the budgets that are for them.

use clap::{Args, ValueEnum};
use sheave_tests::apiserver::load::{Mix, Shape};

use crate::daemon::Plane;
use crate::results::Held;
use crate::session::Destination;
use crate::statistics::samples_for;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What carries the traffic
    #[arg(long, default_value = "nftables")]
    pub(super) plane: Plane,

    /// Services at the cold sync and at the changes
    #[arg(long, value_name = "N", default_value_t = USUAL.services, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) services: u32,

    /// Endpoints of each of them
    #[arg(long, value_name = "N", default_value_t = USUAL.each, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) endpoints_per_service: u32,

    /// Endpoints to change one after the other, and Services to add; at each size of the matrix, 100 unless said otherwise
    #[arg(long, value_name = "N", default_value_t = 200, default_value_if("matrix", "true", "100"),
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) changes: u32,

    /// Services that are there when one is added. They share the same total of endpoints, each having at least one
    #[arg(long, value_name = "N", default_value_t = ADD_AT, value_parser = clap::value_parser!(u32).range(1..))]
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

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum MixName {
    /// ClusterIP, IPv4, without affinity
    Plain,
    /// 70 % ClusterIP, 20 % NodePort, 10 % LoadBalancer with policy Local; 5 % with affinity; all dual stack
    Realistic,
}

/// A size that there are budgets for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    services: u32,
    /// Endpoints of each.
    each: u32,
}

/// What most budgets are for.
const USUAL: Size = Size { services: 5_000, each: 50 };
/// And those of a million endpoints.
const MILLION: Size = Size { services: 20_000, each: 50 };
/// Services that are there when the one is added whose time is budgeted.
const ADD_AT: u32 = 50_000;

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

    /// What a figure is held to: its budget, if this run is of the very shape that the budget names. The realistic mix may take twice as
    /// much.
    pub(super) fn budget(&self, figure: &str, usual: f64) -> Held {
        self.held(figure, usual, &[USUAL])
    }

    /// The same of a figure that has a budget for a million endpoints, too. That one is for the plain mix.
    pub(super) fn budget_by_size(&self, figure: &str, usual: f64, of_a_million: f64) -> Held {
        match self.mix {
            MixName::Plain if self.size() == MILLION => Held::To(of_a_million),
            MixName::Plain => self.held(figure, usual, &[USUAL, MILLION]),
            MixName::Realistic => self.held(figure, usual, &[USUAL]),
        }
    }

    fn held(&self, figure: &str, usual: f64, sizes: &[Size]) -> Held {
        let least = samples_for(figure);
        if self.size() != USUAL {
            let sizes: Vec<_> = sizes.iter().map(|Size { services, each }| format!("{services} Services of {each}")).collect();
            return Held::Elsewhere(format!("the budget is for {} endpoints", sizes.join(", or ")));
        }
        if figure.starts_with("service_add") && self.add_at != ADD_AT {
            return Held::Elsewhere(format!("the budget is for a Service added at {ADD_AT}"));
        }
        if self.changes < least {
            return Held::Elsewhere(format!("such a percentile needs {least} changes"));
        }
        Held::To(usual * self.allowance())
    }

    fn size(&self) -> Size {
        Size { services: self.services, each: self.endpoints_per_service }
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
    fn a_budget_is_for_its_shape_and_no_other() {
        let why = |line: &str, figure: &str| match arguments(line).budget(figure, 3.0) {
            Held::Elsewhere(why) => why,
            judged => panic!("{line}: {judged:?}"),
        };
        assert_eq!(arguments("").budget("change_p99_ms", 3.0), Held::To(3.0));
        for size in
            ["--services 5 --endpoints-per-service 2", "--services 5001", "--endpoints-per-service 49", "--services 20000"]
        {
            assert_eq!(why(size, "start_to_programmed_ms"), "the budget is for 5000 Services of 50 endpoints", "{size}");
        }
        assert_eq!(why("--add-at 50", "service_add_p99_ms"), "the budget is for a Service added at 50000");
        assert_eq!(arguments("--add-at 50").budget("change_p99_ms", 3.0), Held::To(3.0));
        assert_eq!(why("--changes 1", "change_p99_ms"), "such a percentile needs 100 changes");
        assert_eq!(arguments("--changes 99").budget("change_p50_ms", 3.0), Held::To(3.0));
        assert_eq!(arguments("--changes 1").budget("start_to_programmed_ms", 3.0), Held::To(3.0));
    }

    #[test]
    fn a_million_endpoints_have_budgets_of_their_own_and_the_realistic_mix_twice_the_plain_ones() {
        let cold = |line: &str| arguments(line).budget_by_size("cold_sync_ms", 500.0, 3_000.0);
        assert_eq!(cold(""), Held::To(500.0));
        assert_eq!(cold("--services 20000"), Held::To(3_000.0));
        assert_eq!(cold("--mix realistic"), Held::To(1_000.0));
        let sizes = "the budget is for 5000 Services of 50, or 20000 Services of 50 endpoints";
        assert_eq!(cold("--services 20001"), Held::Elsewhere(sizes.to_owned()));
        assert!(matches!(cold("--services 20000 --mix realistic"), Held::Elsewhere(_)));
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
