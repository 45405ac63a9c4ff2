//! Configurations for people: the defaults with a word about each field, and what differs from them.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::catalogue::{self, Change, Effect, Entry};
use super::{Configuration, KubeProxyConfiguration, SheaveConfiguration, kube_proxy, sheave};

/// Columns of a comment.
const WIDTH: usize = 110;

/// Both documents with their defaults, every field with what it means here.
#[must_use]
pub fn default_documents() -> String {
    let mut text = String::from("# Everything as it is where nothing is said. Leave out what you do not change.\n");
    document(&mut text, kube_proxy::API_VERSION, kube_proxy::KIND, catalogue::KUBE_PROXY, &KubeProxyConfiguration::defaults());
    text.push_str("---\n");
    document(&mut text, sheave::API_VERSION, sheave::KIND, catalogue::SHEAVE, &SheaveConfiguration::default());
    text
}

/// Both documents, by their API groups, as `/configz` has them.
pub(super) fn configz(configuration: &Configuration) -> Value {
    let whole = |version: &'static str, kind: &str, fields: Value| {
        let mut whole = serde_json::Map::from_iter([("apiVersion".to_owned(), version.into()), ("kind".to_owned(), kind.into())]);
        if let Value::Object(fields) = fields {
            whole.extend(fields);
        }
        (group(version).to_owned(), Value::Object(whole))
    };
    Value::Object(serde_json::Map::from_iter([
        whole(kube_proxy::API_VERSION, kube_proxy::KIND, json(&configuration.kube_proxy)),
        whole(sheave::API_VERSION, sheave::KIND, json(&configuration.sheave)),
    ]))
}

fn document(text: &mut String, version: &str, kind: &str, catalogue: &'static [Entry], defaults: &impl Serialize) {
    _ = writeln!(text, "apiVersion: {version}\nkind: {kind}");
    object(text, catalogue, "", &json(defaults), 0);
}

fn object(text: &mut String, catalogue: &'static [Entry], above: &str, value: &Value, depth: usize) {
    let Value::Object(fields) = value else { return };
    let indent = "  ".repeat(depth);
    for (key, value) in fields {
        let path = below(above, key);
        match catalogue::find(catalogue, &path) {
            Some(entry) => {
                let word = if entry.effect == Effect::None { "No effect: " } else { "" };
                comment(text, &indent, &format!("{word}{}{}", entry.means, entry.change.remark()));
                _ = writeln!(text, "{indent}{key}: {value}");
            }
            None => {
                _ = writeln!(text, "{indent}{key}:");
                object(text, catalogue, &path, value, depth + 1);
            }
        }
    }
}

fn comment(text: &mut String, indent: &str, words: &str) {
    let mut line = String::new();
    for word in words.split(' ') {
        if !line.is_empty() && indent.len() + line.len() + word.len() > WIDTH {
            _ = writeln!(text, "{indent}#{line}");
            line.clear();
        }
        line.push(' ');
        line.push_str(word);
    }
    _ = writeln!(text, "{indent}#{line}");
}

/// Fields that are not the default, by path, with their values. Defaults that follow from another field (the family of `bindAddress`)
/// are defaults.
#[must_use]
pub fn non_defaults(configuration: &KubeProxyConfiguration) -> Vec<(String, Value)> {
    let mut defaults = KubeProxyConfiguration { bind_address: configuration.bind_address.clone(), ..Default::default() };
    defaults.set_defaults();
    defaults.bind_address = KubeProxyConfiguration::defaults().bind_address;
    let mut found = Vec::new();
    differences(catalogue::KUBE_PROXY, "", &json(configuration), &json(&defaults), &mut found);
    found
}

fn differences(catalogue: &'static [Entry], above: &str, value: &Value, default: &Value, found: &mut Vec<(String, Value)>) {
    let Value::Object(fields) = value else { return };
    for (key, value) in fields {
        let (path, default) = (below(above, key), &default[key]);
        if catalogue::find(catalogue, &path).is_none() {
            differences(catalogue, &path, value, default, found);
        } else if value != default {
            found.push((path, value.clone()));
        }
    }
}

/// What is otherwise than by default, a line for each field: its value, how far it is honoured, what it means.
#[must_use]
pub fn explained(configuration: &Configuration) -> Vec<String> {
    let mut ours = Vec::new();
    differences(catalogue::SHEAVE, "", &json(&configuration.sheave), &json(&SheaveConfiguration::default()), &mut ours);
    let theirs =
        non_defaults(&configuration.kube_proxy).into_iter().map(|found| (kube_proxy::KIND, catalogue::KUBE_PROXY, found));
    let ours = ours.into_iter().map(|found| (sheave::KIND, catalogue::SHEAVE, found));
    let line = |(kind, catalogue, (path, value)): (&str, &'static [Entry], (String, Value))| {
        let entry = catalogue::find(catalogue, &path)?;
        Some(format!("{kind}.{path}: {value}  ({}: {})", entry.effect.word(), entry.means))
    };
    theirs.chain(ours).filter_map(line).collect()
}

/// Fields that differ between two that are in force, both as `/configz` tells them, and whose change has an effect. One that waits for the
/// next start of the process has none yet.
#[must_use]
pub fn changed_fields(before: &Value, after: &Value) -> Vec<String> {
    let documents = [(kube_proxy::API_VERSION, catalogue::KUBE_PROXY), (sheave::API_VERSION, catalogue::SHEAVE)];
    let changed = documents.into_iter().flat_map(|(version, catalogue)| {
        let (mut found, group) = (Vec::new(), group(version));
        differences(catalogue, "", &after[group], &before[group], &mut found);
        let has_effect = |path: &String| {
            catalogue::find(catalogue, path).is_some_and(|entry| matches!(entry.change, Change::Live | Change::Restart))
        };
        found.into_iter().map(|(path, _)| path).filter(has_effect).collect::<Vec<_>>()
    });
    changed.collect()
}

fn group(version: &'static str) -> &'static str {
    version.split('/').next().unwrap_or(version)
}

/// Paths of all fields of a document.
#[cfg(test)]
pub(super) fn paths(catalogue: &'static [Entry], document: &impl Serialize) -> Vec<String> {
    let mut found = Vec::new();
    differences(catalogue, "", &json(document), &Value::Null, &mut found);
    found.into_iter().map(|(path, _)| path).collect()
}

/// The path of a field below another.
pub(super) fn below(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

/// Our own types have string keys and finite numbers: they are JSON.
fn json(document: &impl Serialize) -> Value {
    serde_json::to_value(document).unwrap_or_default()
}
