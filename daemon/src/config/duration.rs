//! Durations as Kubernetes writes them: Go's `time.ParseDuration`, `1h30m`, `500ms`, `0s`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A signed duration in nanoseconds, as metav1.Duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(i64);

/// Units, longest name first where one begins another.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5
    ("μs", 1_000), // U+03BC
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

const SECOND: i64 = 1_000_000_000;

impl GoDuration {
    /// Of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds * SECOND)
    }

    /// No time at all, which most fields take for "not set".
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Less than none.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Whole seconds, cut off.
    #[must_use]
    pub fn as_secs(self) -> i64 {
        self.0 / SECOND
    }

    /// The same for the standard library; nothing if negative.
    #[must_use]
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// Reads Go's notation.
    ///
    /// # Errors
    /// What would have been a duration.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration such as 30s, 1h30m or 500ms");
        let (sign, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total: i64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let (number, after) = rest.split_at(digits);
            let unit_ends = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_ends);
            let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            total = scaled(number, *nanos).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
            rest = after;
        }
        Ok(Self(sign * total))
    }
}

/// `1.5` of a unit, exactly as far as nanoseconds go.
fn scaled(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        total = total.checked_add(i64::from(digit - b'0') * place)?;
    }
    Some(total)
}

impl fmt::Display for GoDuration {
    /// `24h0m0s`, `1m30s`, `1.5s`, `500ms`, as Go prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let second = SECOND.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < second {
            let (unit, name) = match nanos {
                0..1_000 => (1, "ns"),
                1_000..1_000_000 => (1_000, "µs"),
                _ => (1_000_000, "ms"),
            };
            return write!(f, "{}{name}", decimal(nanos, unit));
        }
        let (hours, minutes) = (nanos / second / 3600, nanos / second / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", decimal(nanos % (60 * second), second))
    }
}

/// A number of units, with as many decimals as there are.
fn decimal(nanos: u64, unit: u64) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    format!("{whole}.{}", format!("{rest:0width$}").trim_end_matches('0'))
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_prints_is_read_and_printed_the_same() {
        for text in ["0s", "30s", "1m30s", "24h0m0s", "1h0m0.5s", "500ms", "1.5ms", "3µs", "7ns", "-1s", "15m0s"] {
            assert_eq!(GoDuration::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(GoDuration::parse("1.5h").unwrap().to_string(), "1h30m0s");
        assert_eq!(GoDuration::parse("+.5s").unwrap().to_string(), "500ms");
        assert_eq!(GoDuration::parse("1h90s").unwrap().as_secs(), 3690);
        assert_eq!(GoDuration::parse("0").unwrap(), GoDuration::default());
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in ["", "s", "1", "1 s", "-", ".s", "1.2.3s", "1d", "9999999999h", "1s-", "é1s"] {
            assert!(GoDuration::parse(text).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_duration_survives_being_printed(nanos: i64) {
            proptest::prop_assume!(nanos != i64::MIN);
            proptest::prop_assert_eq!(GoDuration::parse(&GoDuration(nanos).to_string()), Ok(GoDuration(nanos)));
        }
    }
}
