//! What is wrong with a field, in the words of Kubernetes (k8s.io/apimachinery/pkg/util/validation/field).

use std::fmt;

use serde_json::Value;

/// Characters of a value that are shown: a file may have anything in it.
const MOST_SHOWN: usize = 120;

/// One mistake, with the whole path of its field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// `KubeProxyConfiguration.conntrack.min`.
    pub field: String,
    /// What is wrong.
    pub problem: FieldProblem,
}

/// The kind of a mistake.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldProblem {
    /// The value makes no sense.
    Invalid {
        /// As given.
        value: Value,
        /// What would have.
        detail: String,
    },
    /// Not one of the few words that are known.
    NotSupported {
        /// As given.
        value: String,
        /// The words.
        supported: &'static [&'static str],
    },
    /// It must be there, and is not.
    Required(String),
    /// It is there once too often.
    Duplicate(String),
}

/// Collects mistakes, so that all are told at once.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    pub(super) found: Vec<FieldError>,
}

impl Mistakes {
    pub(super) fn invalid(&mut self, field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) {
        self.push(field, FieldProblem::Invalid { value: value.into(), detail: detail.into() });
    }

    pub(super) fn not_supported(&mut self, field: impl Into<String>, value: &str, supported: &'static [&'static str]) {
        self.push(field, FieldProblem::NotSupported { value: value.to_owned(), supported });
    }

    pub(super) fn push(&mut self, field: impl Into<String>, problem: FieldProblem) {
        self.found.push(FieldError { field: field.into(), problem });
    }
}

impl FieldError {
    /// Whether the other one's field is this one's, or lies below it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let below = other.field.strip_prefix(self.field.as_str());
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

/// A value that fits on a line, or its beginning.
fn shown(value: &impl fmt::Display) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.field)?;
        match &self.problem {
            FieldProblem::Invalid { value, detail } => write!(f, "Invalid value: {}: {detail}", shown(value)),
            FieldProblem::NotSupported { value, supported } => {
                write!(f, "Unsupported value: {}: supported values: ", shown(&format_args!("{value:?}")))?;
                for (place, word) in supported.iter().enumerate() {
                    write!(f, "{}{word:?}", if place > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
            FieldProblem::Required(detail) => write!(f, "Required value: {detail}"),
            FieldProblem::Duplicate(value) => write!(f, "Duplicate value: {value:?}"),
        }
    }
}
