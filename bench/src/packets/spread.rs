//! The middle of a few numbers, and how far they lie apart.

/// Median and quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) lower_quartile: f64,
    pub(super) upper_quartile: f64,
}

impl Spread {
    /// Of any finite numbers; `None` of none. Between two numbers it is interpolated (Hyndman and Fan's type 7, as in R and NumPy).
    pub(super) fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().filter(|number| number.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |quarters: usize| {
            let (whole, rest) = (last * quarters / 4, last * quarters % 4);
            let (low, high) = (sorted[whole], sorted[(whole + 1).min(last)]);
            low + (high - low) * [0.0, 0.25, 0.5, 0.75][rest]
        };
        Some(Self { median: at(2), lower_quartile: at(1), upper_quartile: at(3) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_quartiles_are_numpys() {
        let of = |numbers: &[f64]| {
            let Spread { median, lower_quartile, upper_quartile } = Spread::of(numbers.iter().copied()).unwrap();
            [lower_quartile, median, upper_quartile]
        };
        assert_eq!(of(&[3.0]), [3.0, 3.0, 3.0]);
        assert_eq!(of(&[2.0, 1.0]), [1.25, 1.5, 1.75]);
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0]), [1.75, 2.5, 3.25]);
        assert_eq!(of(&[5.0, 1.0, 4.0, 2.0, 3.0]), [2.0, 3.0, 4.0]);
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0, 1000.0])[1], 3.0, "one round that was disturbed moves nothing");
    }

    #[test]
    fn nothing_has_no_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }
}
