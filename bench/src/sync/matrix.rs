//! How cost grows: the same operations on clusters of very different sizes.

use std::time::{Duration, Instant};

use anyhow::Result;
use sheave_tests::apiserver::load::Shape;

use super::operations::{self, Scope};
use super::{Arguments, describe};
use crate::progress::Progress;
use crate::results::Measurement;
use crate::room;
use crate::session::Session;

/// Services of [`FEW`] endpoints.
const SERVICES: [u32; 6] = [10, 100, 1_000, 5_000, 20_000, 50_000];
const FEW: u32 = 5;
/// Endpoints in all, 50 to a Service.
const ENDPOINTS: [u32; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];
const EACH: u32 = 50;
/// Sizes below this are left out of an exponent: what a table costs that has next to nothing in it would flatten the line.
const LEAST_IN_SLOPE: f64 = 1_000.0;

/// One direction in which a cluster grows.
struct Sweep {
    /// Of `at` in the measurements, and what an exponent is to.
    along: &'static str,
    shapes: Vec<Shape>,
}

/// Both sweeps, for as long as there is time, without what does not fit into memory.
pub(super) fn measure(arguments: &Arguments, report: &Session) -> Result<()> {
    sweep(arguments, report, Instant::now() + Duration::from_secs(60 * u64::from(arguments.time_limit)))
}

/// Begins no size after the deadline.
fn sweep(arguments: &Arguments, report: &Session, deadline: Instant) -> Result<()> {
    let sweeps = [
        Sweep {
            along: "services",
            shapes: SERVICES.map(|services| Shape { services, endpoints_per_service: FEW, ..arguments.shape() }).into(),
        },
        Sweep {
            along: "endpoints",
            shapes: ENDPOINTS
                .map(|endpoints| Shape {
                    services: (endpoints / EACH).max(1),
                    endpoints_per_service: endpoints.min(EACH),
                    ..arguments.shape()
                })
                .into(),
        },
    ];
    let progress = Progress::new(sweeps.iter().map(|sweep| sweep.shapes.len()).sum());
    for sweep in sweeps {
        let mut seen: Vec<Measurement> = Vec::new();
        for shape in sweep.shapes {
            let what = format!("{} Services x {} endpoints", shape.services, shape.endpoints_per_service);
            if Instant::now() >= deadline {
                report.leave_out(format!("{what}: {} minutes are over (--time-limit)", arguments.time_limit));
                continue;
            }
            if !room::admits(arguments.with_added(shape), report) {
                continue;
            }
            progress.begin(&what);
            operations::measure(shape, arguments.changes, Scope::Growth, &Progress::none(), |row| {
                let row = describe(row, arguments, shape).at("sweep", sweep.along);
                report.measured(row.clone());
                seen.push(row);
            })?;
            progress.done();
        }
        growth(sweep.along, &seen).into_iter().for_each(|row| report.measured(row));
    }
    Ok(())
}

/// For each operation, the exponent of its growth: 0 is flat, 1 is in proportion.
fn growth(along: &str, seen: &[Measurement]) -> Vec<Measurement> {
    let mut names: Vec<&str> = Vec::new();
    for row in seen {
        if !names.contains(&row.name.as_str()) {
            names.push(&row.name);
        }
    }
    let exponent = |name: &str, value: &str| {
        let points = seen.iter().filter(|row| row.name == name);
        let points = points.filter_map(|row| Some((row.at.get(along)?.as_f64()?, *row.values.get(value)?)));
        slope(&points.filter(|(size, _)| *size >= LEAST_IN_SLOPE).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let row = |name: &&str| {
        ["p50_ms", "cpu_ms", "kernel_ms", "allocations", "elements"]
            .iter()
            .fold(Measurement::new(name).at("growth", along), |row, value| {
                row.value(&format!("{}_exponent", value.trim_end_matches("_ms")), exponent(name, value))
            })
    };
    names.iter().map(row).collect()
}

/// Of the line through the logarithms, by least squares. `None` without two sizes.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> =
        points.iter().filter(|(size, cost)| *size > 0.0 && *cost > 0.0).map(|(size, cost)| (size.ln(), cost.ln())).collect();
    let count = f64::from(u32::try_from(logs.len()).ok()?);
    let (x, y) = (logs.iter().map(|log| log.0).sum::<f64>() / count, logs.iter().map(|log| log.1).sum::<f64>() / count);
    let spread: f64 = logs.iter().map(|log| (log.0 - x).powi(2)).sum();
    let together: f64 = logs.iter().map(|log| (log.0 - x) * (log.1 - y)).sum();
    (spread > 0.0).then(|| together / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_there_is_no_time_for_are_left_out_and_fail_the_run() {
        let arguments: Arguments = crate::tests::parse(&["--matrix", "--time-limit", "1"]).unwrap();
        let session = Session::begin("sync", arguments.destination.claim("sync").unwrap(), None).unwrap();
        sweep(&arguments, &session, Instant::now()).unwrap();
        let error = session.end(Ok(())).unwrap_err().to_string();
        assert_eq!(error, "not all was measured: 12 left out, as said above");
    }

    #[test]
    fn exponents_are_those_of_powers() {
        let of = |power: f64| slope(&[1e1, 1e3, 1e5].map(|size: f64| (size, 7.0 * size.powf(power))));
        for power in [0.0, 1.0, 2.0] {
            assert!((of(power).unwrap() - power).abs() < 1e-9);
        }
        assert_eq!((slope(&[]), slope(&[(10.0, 1.0)])), (None, None));
    }

    #[test]
    fn growth_is_told_for_each_operation_and_leaves_small_sizes_out() {
        let row = |name: &str, size: u32, cost: f64| Measurement::new(name).at("services", size).value("p50_ms", cost);
        let seen =
            [row("a", 10, 500.0), row("b", 1_000, 3.0), row("a", 1_000, 1.0), row("b", 10_000, 3.0), row("a", 10_000, 10.0)];
        let growth = growth("services", &seen);
        assert_eq!(growth.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!((growth[0].values["p50_exponent"] - 1.0).abs() < 1e-6, "{growth:?}");
        assert!(growth[1].values["p50_exponent"].abs() < 1e-6, "{growth:?}");
    }
}
