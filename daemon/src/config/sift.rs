//! A document against the catalogue: what its fields cannot take is told, all of it at once, and taken out.

use serde_json::{Map, Value};

use super::catalogue::{self, Entry};
use super::field_error::Mistakes;
use super::present::below;
use super::takes::{Takes, found};

/// What is known of a document, and what is found in it.
pub(super) struct Sieve<'a> {
    pub(super) kind: &'static str,
    pub(super) catalogue: &'static [Entry],
    /// Values of another type than their field's.
    pub(super) mistakes: &'a mut Mistakes,
    /// Fields that are not known.
    pub(super) warnings: &'a mut Vec<String>,
}

impl Sieve<'_> {
    /// Leaves in these fields, which are below a path, what can be read.
    pub(super) fn sift(&mut self, fields: &mut Map<String, Value>, above: &str) {
        fields.retain(|key, value| {
            let path = below(above, key);
            if let Some(entry) = catalogue::find(self.catalogue, &path) {
                return self.fits(entry, value);
            }
            let within = self.within(&path);
            match value {
                _ if within.is_empty() => {
                    self.unknown(&path);
                    false
                }
                Value::Object(fields) => {
                    self.sift(fields, &path);
                    true
                }
                other => {
                    let detail = format!("must be an object of {}, found {}", within.join(", "), found(other));
                    self.refuse(&path, other, detail);
                    false
                }
            }
        });
    }

    /// Whether a field can keep its value. An item that it cannot take is made an empty one, so that the others keep their places.
    fn fits(&mut self, entry: &Entry, value: &mut Value) -> bool {
        let (path, takes) = (entry.path, entry.takes);
        if takes.is_counted()
            && let Some(whole) = whole(value)
        {
            *value = whole.into();
        }
        match (takes, &mut *value) {
            (Takes::Texts, Value::Array(items)) => {
                for (place, item) in items.iter_mut().enumerate().filter(|(_, item)| !Takes::Text.admits(item)) {
                    self.refuse(&format!("{path}[{place}]"), item, Takes::Text.refusal(item));
                    *item = Value::String(String::new());
                }
            }
            (Takes::Gates, Value::Object(gates)) => gates.retain(|name, gate| {
                let fits = Takes::Flag.admits(gate);
                if !fits {
                    self.refuse(&below(path, name), gate, Takes::Flag.refusal(gate));
                }
                fits
            }),
            (takes, value) if !takes.admits(value) => {
                self.refuse(path, value, takes.refusal(value));
                return false;
            }
            _ => {}
        }
        true
    }

    /// The names of the fields right below a path; none, and it is no section.
    fn within(&self, path: &str) -> Vec<&'static str> {
        let inside = self.catalogue.iter().filter_map(|entry| entry.path.strip_prefix(path)?.strip_prefix('.'));
        let mut names: Vec<_> = inside.map(|rest| rest.split_once('.').map_or(rest, |(name, _)| name)).collect();
        names.dedup();
        names
    }

    fn unknown(&mut self, path: &str) {
        let alike = self.catalogue.iter().find(|entry| entry.path.eq_ignore_ascii_case(path));
        let hint = alike.map(|entry| format!("; did you mean {}?", entry.path)).unwrap_or_default();
        self.warnings.push(format!("{}.{path}: no such field, ignored{hint}", self.kind));
    }

    fn refuse(&mut self, path: &str, value: &Value, detail: String) {
        self.mistakes.invalid(format!("{}.{path}", self.kind), value.clone(), detail);
    }
}

/// A number that was written with a point or an exponent and has no fraction: `1e2`. Kubernetes makes JSON of YAML, and Go writes such a
/// one as `100` there.
fn whole(value: &Value) -> Option<i64> {
    let number = value.as_f64().filter(|number| value.is_f64() && number.fract() == 0.0)?;
    format!("{number:.0}").parse().ok()
}
