//! Numbers for people.

use crate::table::significant;

/// Names end in a unit: see [`crate::results`].
const UNITS: [(&str, &str); 7] = [
    ("_per_second", " per second"),
    ("_bytes", " bytes"),
    ("_ns", " ns"),
    ("_us", " µs"),
    ("_ms", " ms"),
    ("_mb", " MB"),
    ("_ratio", " ×"),
];
/// Three digits after the point tell no less from nothing.
const LEAST: f64 = 0.001;

/// A measured value with the unit that its name ends in.
pub(super) fn with_unit(name: &str, value: f64) -> String {
    match unit(name) {
        "" if value.fract() == 0.0 => count(value),
        unit => digits(value) + unit,
    }
}

/// A value that was chosen, to its last digit.
pub(super) fn exact_with_unit(name: &str, value: f64) -> String {
    grouped(&value.to_string()) + unit(name)
}

fn unit(name: &str) -> &'static str {
    UNITS.iter().find(|(ending, _)| name.ends_with(ending)).map_or("", |(_, unit)| unit)
}

/// Three digits that mean something, thousands apart.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < LEAST => format!("<{LEAST}"),
        _ => grouped(&significant(value)),
    }
}

/// A whole number, thousands apart.
pub(crate) fn count(value: f64) -> String {
    grouped(&format!("{value:.0}"))
}

/// As a part of a hundred.
pub(super) fn percent(share: f64) -> String {
    grouped(&format!("{:.0}", share * 100.0)) + " %"
}

fn grouped(number: &str) -> String {
    let (whole, fraction) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut text = String::with_capacity(number.len() + 4);
    for (place, digit) in whole.char_indices() {
        let left = whole.len() - place;
        if left % 3 == 0 && text.ends_with(|last: char| last.is_ascii_digit()) {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart_and_units_follow_the_name() {
        assert_eq!([0.0, 0.1234, 999.6, 1_000.0, 123_456.7].map(digits), ["0", "0.123", "1,000", "1,000", "123,457"]);
        assert_eq!([-1_234.0, -123.0, 12.0, 1_060_040.0].map(count), ["-1,234", "-123", "12", "1,060,040"]);
        assert_eq!(with_unit("cold_sync_ms", 483.2), "483 ms");
        assert_eq!(with_unit("p50_us", 16.93), "16.9 µs");
        assert_eq!(with_unit("first_packet_growth", 1.001), "1.00");
        assert_eq!([0.000_4, 0.001].map(digits), ["<0.001", "0.001"]);
        assert_eq!([exact_with_unit("x_ms", 0.5), exact_with_unit("x_ms", 3_000.0)], ["0.5 ms", "3,000 ms"]);
        assert_eq!(with_unit("kernel_elements", 265_040.0), "265,040");
        assert_eq!(percent(0.896), "90 %");
    }
}
