//! A configuration file: one or two YAML documents, strict where it can be, lenient with a warning where it must.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::catalogue::{self, Entry};
use super::field_error::{FieldProblem, Mistakes};
use super::kube_proxy::KubeProxyConfiguration;
use super::sheave::SheaveConfiguration;
use super::tree::Tree;
use super::{FieldError, kube_proxy, sheave};

/// What a file says, defaults not yet filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// The KubeProxyConfiguration, if there is one.
    pub kube_proxy: Option<KubeProxyConfiguration>,
    /// The SheaveConfiguration, if there is one.
    pub sheave: Option<SheaveConfiguration>,
    /// Fields that are not known, or said twice.
    pub warnings: Vec<String>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is not YAML.
    #[error("not YAML{}: {reason}", place.map_or(String::new(), |(line, column)| format!(" at line {line}, column {column}")))]
    Yaml {
        /// Line and column, from 1, where the parser knows them.
        place: Option<(u64, u64)>,
        /// From the parser.
        reason: String,
    },
    /// It is YAML, and wrong; all that is.
    #[error("{}", lines(.0))]
    Invalid(Vec<FieldError>),
}

fn lines(errors: &[FieldError]) -> String {
    errors.iter().map(FieldError::to_string).collect::<Vec<_>>().join("\n  ")
}

/// Reads and decodes a file.
///
/// # Errors
/// See [`ConfigError`].
pub fn read(path: &Path) -> Result<Documents, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text)
}

/// Decodes a file's text.
///
/// # Errors
/// It is not YAML; a document is not one of ours, is there twice, or has a field of another type; all that is wrong.
pub fn parse(text: &str) -> Result<Documents, ConfigError> {
    let trees: Vec<Tree> = serde_saphyr::from_str_multiple_with_options(text, yaml_options()).map_err(|error| {
        let place = error.location().map(|location| (location.line(), location.column()));
        ConfigError::Yaml { place, reason: error.without_snippet().to_string() }
    })?;
    let mut reader = Reader::default();
    for tree in trees.into_iter().filter(|tree| *tree != Tree::Null) {
        reader.document(tree);
    }
    reader.end()
}

/// The last of two equal keys counts, as in Kubernetes' lenient decoding; in a [`Tree`] both are seen.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
        with_snippet: false,
    }
}

#[derive(Default)]
struct Reader {
    documents: Documents,
    count: usize,
    mistakes: Mistakes,
}

impl Reader {
    fn document(&mut self, tree: Tree) {
        self.count += 1;
        let of = |key| tree.get(key).and_then(Tree::text).unwrap_or_default().to_owned();
        match (of("apiVersion").as_str(), of("kind").as_str()) {
            (kube_proxy::API_VERSION, kube_proxy::KIND) => {
                let decoded = self.decode(kube_proxy::KIND, catalogue::KUBE_PROXY, tree);
                self.keep(kube_proxy::KIND, |documents| &mut documents.kube_proxy, decoded);
            }
            (sheave::API_VERSION, sheave::KIND) => {
                let decoded = self.decode(sheave::KIND, catalogue::SHEAVE, tree);
                self.keep(sheave::KIND, |documents| &mut documents.sheave, decoded);
            }
            (version, kind) => {
                let known =
                    format!("{} {} or {} {}", kube_proxy::API_VERSION, kube_proxy::KIND, sheave::API_VERSION, sheave::KIND);
                let problem = match (version, kind) {
                    ("", "") => FieldProblem::Required(format!("apiVersion and kind must be {known}")),
                    _ => FieldProblem::Invalid {
                        value: format!("{version} {kind}").into(),
                        detail: format!("apiVersion and kind must be {known}"),
                    },
                };
                self.mistakes.push(format!("document {}", self.count), problem);
            }
        }
    }

    fn keep<T>(&mut self, kind: &str, place: impl Fn(&mut Documents) -> &mut Option<T>, decoded: T) {
        if place(&mut self.documents).replace(decoded).is_some() {
            self.mistakes.push(format!("document {}", self.count), FieldProblem::Duplicate(kind.to_owned()));
        }
    }

    fn end(mut self) -> Result<Documents, ConfigError> {
        if self.count == 0 {
            self.mistakes.push("document 1", FieldProblem::Required(format!("{} {}", kube_proxy::API_VERSION, kube_proxy::KIND)));
        }
        if self.mistakes.found.is_empty() { Ok(self.documents) } else { Err(ConfigError::Invalid(self.mistakes.found)) }
    }

    /// A document as its type, with what is wrong in it left out and told.
    fn decode<T: DeserializeOwned + Default>(&mut self, kind: &str, catalogue: &'static [Entry], tree: Tree) -> T {
        let warnings = &mut self.documents.warnings;
        let json = tree.into_json(kind, &mut |path| warnings.push(format!("{path}: said twice, the last one counts")));
        let mut json = json.unwrap_or(Value::Null);
        if let Value::Object(fields) = &mut json {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        drop_unknown(&mut json, catalogue, "", &mut |path| {
            let alike = catalogue.iter().find(|entry| entry.path.eq_ignore_ascii_case(path));
            let hint = alike.map(|entry| format!("; did you mean {}?", entry.path)).unwrap_or_default();
            warnings.push(format!("{kind}.{path}: no such field, ignored{hint}"));
        });
        // Without its first mistake a document may show its second.
        loop {
            let error = match serde_path_to_error::deserialize(&json) {
                Ok(decoded) => return decoded,
                Err(error) => error,
            };
            let path: Vec<Segment> = error.path().iter().cloned().collect();
            let value = take(&mut json, &path);
            let found = value.is_some();
            let field = std::iter::once(kind.to_owned()).chain(path.iter().map(segment)).collect::<String>();
            self.mistakes.invalid(field, value.unwrap_or(Value::Null), error.into_inner().to_string());
            if !found {
                return T::default();
            }
        }
    }
}

fn segment(segment: &Segment) -> String {
    match segment {
        Segment::Seq { index } => format!("[{index}]"),
        other => format!(".{other}"),
    }
}

/// Removes fields that the catalogue does not have, below a path of it. What is below a field of its own (a map, a list) stays.
fn drop_unknown(json: &mut Value, catalogue: &'static [Entry], above: &str, unknown: &mut impl FnMut(&str)) {
    let Value::Object(fields) = json else { return };
    fields.retain(|key, value| {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        if catalogue::find(catalogue, &path).is_some() {
            return true;
        }
        let section =
            catalogue.iter().any(|entry| entry.path.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.')));
        if section {
            drop_unknown(value, catalogue, &path, unknown);
        } else {
            unknown(&path);
        }
        section
    });
}

/// Takes the value at a path out of a document.
fn take(json: &mut Value, path: &[Segment]) -> Option<Value> {
    let (last, above) = path.split_last()?;
    let mut place = json;
    for step in above {
        place = match step {
            Segment::Map { key } => place.get_mut(key)?,
            Segment::Seq { index } => place.get_mut(index)?,
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    match (place, last) {
        (Value::Object(fields), Segment::Map { key }) => fields.remove(key),
        (Value::Array(items), Segment::Seq { index }) if *index < items.len() => Some(items.remove(*index)),
        _ => None,
    }
}
