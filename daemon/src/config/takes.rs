//! What the value of a field has to be, and the words for one that is something else.
//!
//! serde's own words would be about Rust's types, and it tells one mistake at a time. So a document is held against the catalogue
//! first, and what does not fit is taken out of it; a test holds the catalogue against the types.

use std::fmt;

use serde_json::Value;

use super::duration::GoDuration;

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// A string.
    Text,
    /// A boolean.
    Flag,
    /// A whole number, from and to.
    Whole(i64, i64),
    /// Any number.
    Number,
    /// In Go's notation.
    Duration,
    /// The same, or a number of nanoseconds.
    DurationOrNanoseconds,
    /// A resource.Quantity: a string or a whole number.
    Quantity,
    /// Strings.
    Texts,
    /// Booleans by name.
    Gates,
    /// Objects of `filePattern` and `verbosity`.
    Modules,
}

impl Takes {
    /// Whether this is such a value. What is in a list of strings or among gates is looked at one by one, not here.
    pub(super) fn admits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::Whole(from, to) => value.as_i64().is_some_and(|number| (from..=to).contains(&number)),
            Self::Number => value.is_number(),
            Self::Duration => is_duration(value),
            Self::DurationOrNanoseconds => value.is_i64() || is_duration(value),
            Self::Quantity => value.is_i64() || value.is_string(),
            Self::Texts => value.is_array(),
            Self::Gates => value.is_object(),
            Self::Modules => value.as_array().is_some_and(|modules| modules.iter().all(is_module)),
        }
    }

    /// Whether a number of this type is a whole one.
    pub(super) fn is_counted(self) -> bool {
        matches!(self, Self::Whole(..) | Self::DurationOrNanoseconds | Self::Quantity)
    }

    /// Why it does not admit this value.
    pub(super) fn refusal(self, value: &Value) -> String {
        let found = found(value);
        let alike = match self {
            Self::Whole(..) | Self::Number => value.is_number(),
            Self::Duration | Self::DurationOrNanoseconds => value.is_string(),
            _ => false,
        };
        match self {
            _ if alike => format!("must be {self}"),
            Self::Text if value.is_number() || value.is_boolean() => format!("must be {self}, found {found}: put it in quotes"),
            _ => format!("must be {self}, found {found}"),
        }
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a string",
            Self::Flag => "true or false",
            Self::Whole(from, to) => return write!(f, "a whole number from {from} to {to}"),
            Self::Number => "a number",
            Self::Duration => "a duration such as 30s, 1h30m or 500ms",
            Self::DurationOrNanoseconds => "a duration such as 5s, or a number of nanoseconds",
            Self::Quantity => "a quantity such as 64Ki",
            Self::Texts => "a list of strings",
            Self::Gates => "an object of names, each with true or false",
            Self::Modules => "a list of objects with filePattern and verbosity",
        })
    }
}

/// What a value is, in YAML's words.
pub(super) fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn is_duration(value: &Value) -> bool {
    value.as_str().is_some_and(|text| GoDuration::parse(text).is_ok())
}

fn is_module(value: &Value) -> bool {
    let verbosity = Takes::Whole(0, u32::MAX.into());
    value.as_object().is_some_and(|module| {
        module.get("filePattern").is_none_or(Value::is_string)
            && module.get("verbosity").is_none_or(|value| verbosity.admits(value))
    })
}
