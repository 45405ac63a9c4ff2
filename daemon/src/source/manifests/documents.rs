//! From the bytes of one file to its documents: YAML or JSON, several of them.

use std::fmt;

use serde::Deserialize as _;
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::misspelt;
use crate::config::tree::Tree;
use crate::source::decode::cut;
use crate::source::decode::field::Field;
use crate::source::decode::wire::Manifest;

/// Of keys that are there twice, and of those that are no field but for their case, this many are named.
const MOST_NAMED: usize = 8;

/// Why a file as a whole could not be read.
#[derive(Debug)]
pub(super) struct ParseError {
    /// Line and column, from 1, where the parser knows them.
    pub(super) place: Option<(u64, u64)>,
    pub(super) reason: String,
    /// It is only that a key is there twice.
    repeats: bool,
}

/// The documents of a file, empty ones included.
#[derive(Debug, Default)]
pub(super) struct Documents<'a> {
    pub(super) list: Vec<Field<Manifest<'a>>>,
    /// For the log.
    pub(super) warnings: Vec<String>,
}

/// The first [`MOST_NAMED`] of what there is to say, and how many more there are.
#[derive(Default)]
struct Named {
    lines: Vec<String>,
    beyond: usize,
}

/// Reads a file. Of a key that an object has twice the last one counts, as for an API server that is not asked to be strict and as in
/// our own configuration, and a warning names it: so a slip of the hand costs neither the document nor its neighbours, and means
/// the same before and after a restart.
///
/// # Errors
/// The file is not YAML, or with `json` not JSON.
pub(super) fn read(json: bool, bytes: &[u8]) -> Result<Documents<'_>, ParseError> {
    let mut documents = match strictly(json, bytes) {
        Err(error) if error.repeats => leniently(json, bytes, &error)?,
        read => Documents { list: read?, warnings: Vec::new() },
    };
    if misspelt::suspected(bytes) {
        documents.warnings.extend(misspelt_fields(json, bytes));
    }
    Ok(documents)
}

fn strictly(json: bool, bytes: &[u8]) -> Result<Vec<Field<Manifest<'_>>>, ParseError> {
    if json {
        let documents = serde_json::Deserializer::from_slice(bytes).into_iter().collect::<Result<_, _>>();
        return documents.map_err(|error| ParseError::of_json(&error, bytes));
    }
    Ok(serde_saphyr::from_str_multiple_with_options(text(bytes)?, yaml_options(DuplicateKeyPolicy::Error))?)
}

/// Both libraries give up at the first repeated key, and only one of them could be told not to. A [`Tree`] takes them all. This second
/// reading is for files that need it.
fn leniently<'a>(json: bool, bytes: &[u8], first: &ParseError) -> Result<Documents<'a>, ParseError> {
    let trees = trees(json, bytes)?;
    let mut list = Vec::with_capacity(trees.len());
    let (mut repeated, mut number) = (Named::default(), 0);
    for tree in trees {
        number += usize::from(tree != Tree::Null);
        let mut paths = Vec::new();
        let document = tree.into_json("", &mut |path| paths.push(path)).unwrap_or(Value::Null);
        for path in paths {
            repeated.push(|| {
                let title = title(document["kind"].as_str(), document["metadata"]["name"].as_str());
                format!("{} of document {number}{title}", path.trim_start_matches('.'))
            });
        }
        list.push(Field::deserialize(document).map_err(|error| ParseError::of_json(&error, bytes))?);
    }
    let repeated = repeated.into_lines(|beyond| format!("and {beyond} more"));
    let place = first.place.map(|(line, column)| format!("line {line}, column {column}: ")).unwrap_or_default();
    let warning = format!("{place}said twice, the last one counts: {}", repeated.join(", "));
    Ok(Documents { list, warnings: vec![warning] })
}

fn trees(json: bool, bytes: &[u8]) -> Result<Vec<Tree>, ParseError> {
    if json {
        let trees = serde_json::Deserializer::from_slice(bytes).into_iter().collect::<Result<_, _>>();
        return trees.map_err(|error| ParseError::of_json(&error, bytes));
    }
    Ok(serde_saphyr::from_str_multiple_with_options(text(bytes)?, yaml_options(DuplicateKeyPolicy::LastWins))?)
}

/// Of a file that has been understood already. Nothing is said of a document with a value that a [`Tree`] cannot hold, a number beyond 64 bits, nor
/// of what follows it where it is JSON.
fn misspelt_fields(json: bool, bytes: &[u8]) -> Vec<String> {
    let (mut warnings, mut number) = (Named::default(), 0);
    let mut look = |tree: Option<Tree>| {
        number += usize::from(tree != Some(Tree::Null));
        let Some(tree) = tree else { return };
        misspelt::in_document(&tree, number, &mut |warning| warnings.push(|| warning));
    };
    if json {
        serde_json::Deserializer::from_slice(bytes).into_iter().map(Result::ok).for_each(&mut look);
    } else {
        let (mut rest, options) = (bytes, yaml_options(DuplicateKeyPolicy::LastWins));
        serde_saphyr::read_with_options(&mut rest, options).map(Result::ok).for_each(&mut look);
    }
    warnings.into_lines(|beyond| format!("{beyond} more fields that are not read for their case"))
}

impl Named {
    fn push(&mut self, line: impl FnOnce() -> String) {
        if self.lines.len() < MOST_NAMED {
            self.lines.push(line());
        } else {
            self.beyond += 1;
        }
    }

    /// With a last line for those beyond, if there are any.
    fn into_lines(mut self, rest: impl FnOnce(usize) -> String) -> Vec<String> {
        if self.beyond > 0 {
            self.lines.push(rest(self.beyond));
        }
        self.lines
    }
}

/// ` (Service web)`, as far as that can be said.
pub(super) fn title(kind: Option<&str>, name: Option<&str>) -> String {
    let words: Vec<_> = kind.into_iter().chain(name).map(|word| cut(word).to_string()).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(" ")) }
}

fn text(bytes: &[u8]) -> Result<&str, ParseError> {
    std::str::from_utf8(bytes).map_err(|error| ParseError::of_whole(format!("not UTF-8: {error}")))
}

/// The parser's own limits are for configuration files; ours holds whole clusters. Aliases keep theirs: they can make much of little.
fn yaml_options(duplicate_keys: DuplicateKeyPolicy) -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: None,
            max_events: usize::MAX,
            max_documents: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
        duplicate_keys: duplicate_keys,
        with_snippet: false,
    }
}

// === impl ParseError ===

impl ParseError {
    /// Something is wrong with all of it.
    pub(super) fn of_whole(reason: String) -> Self {
        Self { place: None, reason, repeats: false }
    }

    fn of_json(error: &serde_json::Error, bytes: &[u8]) -> Self {
        let (line, column) = (error.line(), error.column());
        let reason = without(error.to_string(), &format!(" at line {line} column {column}"));
        // serde's derived code has no other way of saying it.
        let repeats = error.is_data() && reason.starts_with("duplicate field `");
        let place = if error.is_eof() {
            // What is missing is missing behind the last that is there, whatever empty lines follow.
            Some(place_behind(bytes.trim_ascii_end()))
        } else if column == 0 {
            // The end of a line is counted as the beginning of the next one.
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1));
            let end = lines.map(<[u8]>::len).sum::<usize>().saturating_sub(1);
            Some(place_behind(&bytes[..end]))
        } else {
            Some((line as u64, column as u64))
        };
        Self { place, reason, repeats }
    }
}

/// Line and column, from 1, of what would follow.
fn place_behind(text: &[u8]) -> (u64, u64) {
    let line = 1 + text.iter().filter(|byte| **byte == b'\n').count();
    let column = 1 + text.iter().rev().take_while(|byte| **byte != b'\n').count();
    (line as u64, column as u64)
}

impl fmt::Display for ParseError {
    /// `3:14: reason`, to follow the file's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, reason, repeats: _ } = self;
        match place {
            Some((line, column)) => write!(f, "{line}:{column}: {reason}"),
            None => write!(f, " {reason}"),
        }
    }
}

impl std::error::Error for ParseError {}

impl From<serde_saphyr::Error> for ParseError {
    fn from(error: serde_saphyr::Error) -> Self {
        let place = error.location().map(|location| (location.line(), location.column()));
        let error = error.without_snippet();
        if let Some(reason) = beyond(error) {
            return Self { place, reason: reason.to_owned(), repeats: false };
        }
        let mut reason = error.to_string();
        if let Some((line, column)) = place {
            reason = without(reason, &format!(" at line {line}, column {column}"));
        }
        Self { place, reason, repeats: matches!(error, serde_saphyr::Error::DuplicateMappingKey { .. }) }
    }
}

/// Which of the parser's bounds was met, perhaps by way of an alias, in words of the file instead of the parser's.
fn beyond(error: &serde_saphyr::Error) -> Option<&'static str> {
    use serde_saphyr::Error;
    use serde_saphyr::budget::BudgetBreach as Breach;
    const MULTIPLIED: &str = "aliases (`*name`) make more of this file than is read: write out what they stand for";
    const TOO_DEEP: &str = "nested more deeply than is read";
    match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => beyond(error),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => Some(MULTIPLIED),
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            Some("an alias (`*name`) stands for something that it is itself part of")
        }
        Error::Budget { breach, .. } => match breach {
            Breach::Aliases { .. }
            | Breach::AliasAnchorRatio { .. }
            | Breach::RecordedAnchorEvents { .. }
            | Breach::RecordedAnchorBytes { .. } => Some(MULTIPLIED),
            Breach::Anchors { .. } => Some("more anchors (`&name`) than are read"),
            Breach::MergeKeys { .. } => Some("more merge keys (`<<`) than are read"),
            Breach::Depth { .. } => Some(TOO_DEEP),
            _ => None,
        },
        // The scanner has a bound of its own, and no name for it.
        other if other.to_string().starts_with("recursion limit exceeded") => Some(TOO_DEEP),
        _ => None,
    }
}

/// A message without the place that stands before it already.
fn without(mut message: String, place: &str) -> String {
    if let Some(at) = message.find(place) {
        message.replace_range(at..at + place.len(), "");
    }
    message
}
