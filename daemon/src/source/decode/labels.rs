//! Labels, and selectors over them (apimachinery `pkg/apis/meta/v1`, `LabelSelectorAsSelector`).
//!
//! A selector with anything wrong in it is left out as a whole: without one of its requirements it would select more than was meant.

use std::collections::HashSet;

use compact_str::CompactString;

use super::field::{Field, List, Pairs, Text};
use super::problems::{Path, Problems, cut};
use super::wire::{Expression, LabelSelector};
use crate::model::{Labels, Operator, Requirement, Selector};

/// A selector as it is written. MetalLB calls two of them duplicates if they are written alike, not if they mean the same.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Spelt {
    /// Of `matchLabels`, by key.
    labels: Vec<Requirement>,
    /// Of `matchExpressions`, their values sorted.
    expressions: Vec<Requirement>,
}

/// All labels of an object. One that is no text is left out, and is a problem where there is somebody to hear of it.
pub(super) fn labels(path: Path<'_>, Pairs(pairs): Pairs<'_>, mut problems: Option<&mut Problems>) -> Labels {
    let pairs = pairs.into_iter().filter_map(|(key, value)| {
        let value = match (value, &mut problems) {
            // As Go reads it.
            (Field::Absent, _) => Text::default(),
            (value, Some(problems)) => problems.take(format_args!("{path}[{}]", cut(&key)), value)?,
            (value, None) => value.into_value()?,
        };
        Some((key, value))
    });
    pairs.collect()
}

/// A list of selectors of which any will do. Two that are written alike are a mistake (MetalLB's `validateLabelSelectorDuplicate`).
pub(super) fn selectors(path: Path<'_>, list: Field<List<LabelSelector<'_>>>, problems: &mut Problems) -> Vec<Selector> {
    let mut seen = HashSet::new();
    let mut selectors = Vec::new();
    for (place, entry) in problems.list(path, list).into_iter().enumerate() {
        let path = format_args!("{path}[{place}]");
        let Some(spelt) = problems.element(path, entry).and_then(|entry| spelt(path, entry, problems)) else { continue };
        selectors.push(spelt.selector());
        if !seen.insert(spelt) {
            problems.note(path, "is the same selector as one before it");
        }
    }
    selectors
}

/// One selector; `None` if anything of it cannot be understood.
pub(super) fn spelt(path: Path<'_>, selector: LabelSelector<'_>, problems: &mut Problems) -> Option<Spelt> {
    let LabelSelector { match_labels, match_expressions } = selector;
    let labels = match_labels_of(format_args!("{path}.matchLabels"), match_labels, problems);
    let expressions = expressions_of(format_args!("{path}.matchExpressions"), match_expressions, problems);
    labels.zip(expressions).map(|(labels, expressions)| Spelt { labels, expressions })
}

impl Spelt {
    /// What it means.
    pub(super) fn selector(&self) -> Selector {
        Selector::new(self.labels.iter().chain(&self.expressions).cloned().collect())
    }
}

fn match_labels_of(path: Path<'_>, pairs: Field<Pairs<'_>>, problems: &mut Problems) -> Option<Vec<Requirement>> {
    let pairs = match pairs {
        Field::Absent => return Some(Vec::new()),
        given => problems.take(path, given)?,
    };
    let before = problems.total();
    let labels = labels(path, pairs, Some(problems));
    let mut requirements = Vec::with_capacity(labels.iter().len());
    for (key, value) in labels.iter() {
        let path = format_args!("{path}[{}]", cut(key));
        note_key(path, key, problems);
        note_value(path, value, problems);
        requirements.push(Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) });
    }
    (problems.total() == before).then_some(requirements)
}

fn expressions_of(path: Path<'_>, list: Field<List<Expression<'_>>>, problems: &mut Problems) -> Option<Vec<Requirement>> {
    let before = problems.total();
    let mut seen = HashSet::new();
    let mut requirements = Vec::new();
    for (place, entry) in problems.list(path, list).into_iter().enumerate() {
        let path = format_args!("{path}[{place}]");
        let Some(requirement) = problems.element(path, entry).and_then(|entry| requirement(path, entry, problems)) else {
            continue;
        };
        if !seen.insert(requirement.clone()) {
            problems.note(path, "is the same requirement as one before it");
        }
        requirements.push(requirement);
    }
    (problems.total() == before).then_some(requirements)
}

/// As `labels.NewRequirement` judges it.
fn requirement(path: Path<'_>, expression: Expression<'_>, problems: &mut Problems) -> Option<Requirement> {
    let Expression { key, operator, values } = expression;
    let key = problems.take(format_args!("{path}.key"), key).unwrap_or_default();
    note_key(format_args!("{path}.key"), &key, problems);
    let values = values_of(format_args!("{path}.values"), values, problems);
    let operator_path = format_args!("{path}.operator");
    let operator = match problems.take(operator_path, operator).unwrap_or_default().as_ref() {
        "In" => Operator::In(values),
        "NotIn" => Operator::NotIn(values),
        named @ ("Exists" | "DoesNotExist") => {
            if !values.is_empty() {
                problems.note(format_args!("{path}.values"), format!("{named} has no values"));
            }
            if named == "Exists" { Operator::Exists } else { Operator::DoesNotExist }
        }
        other => {
            problems.note(operator_path, format!("{:?} is not In, NotIn, Exists or DoesNotExist", cut(other)));
            return None;
        }
    };
    if let Operator::In(values) | Operator::NotIn(values) = &operator
        && values.is_empty()
    {
        problems.note(format_args!("{path}.values"), "In and NotIn need values");
    }
    Some(Requirement { key: key.into(), operator })
}

/// Sorted.
fn values_of(path: Path<'_>, list: Field<List<Text<'_>>>, problems: &mut Problems) -> Vec<CompactString> {
    let mut seen = HashSet::new();
    let mut values = Vec::new();
    for (place, entry) in problems.list(path, list).into_iter().enumerate() {
        let path = format_args!("{path}[{place}]");
        let Some(value) = problems.element(path, entry) else { continue };
        note_value(path, &value, problems);
        let value = CompactString::from(value);
        if !seen.insert(value.clone()) {
            problems.note(path, format!("{:?} is there before", cut(&value)));
        }
        values.push(value);
    }
    values.sort_unstable();
    values
}

/// `IsQualifiedName`: a name, perhaps behind a domain and a slash.
fn note_key(path: Path<'_>, key: &str, problems: &mut Problems) {
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    if !is_name(name) || domain.is_some_and(|domain| !is_domain(domain)) {
        problems.note(path, format!("{:?} cannot be the key of a label", cut(key)));
    }
}

/// `IsValidLabelValue`.
fn note_value(path: Path<'_>, value: &str, problems: &mut Problems) {
    if !value.is_empty() && !is_name(value) {
        problems.note(path, format!("{:?} cannot be the value of a label", cut(value)));
    }
}

fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    name.len() <= 63 && bytes.iter().copied().all(is_inner) && is_outer(bytes.first()) && is_outer(bytes.last())
}

/// `IsDNS1123Subdomain`.
fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    domain.len() <= 253 && domain.split('.').all(is_label)
}
