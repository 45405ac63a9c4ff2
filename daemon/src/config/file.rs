//! A configuration file: one or two YAML documents, strict where it can be, lenient with a warning where it must.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::catalogue::{self, Entry};
use super::field_error::{FieldProblem, Mistakes};
use super::kube_proxy::KubeProxyConfiguration;
use super::sheave::SheaveConfiguration;
use super::sift::Sieve;
use super::tree::Tree;
use super::{Configuration, FieldError, LogDefaults, LogFormat, Overrides, Settings, interpret, kube_proxy, sheave, yaml};
use crate::regular_file;

/// Bytes of a file. A ConfigMap, where most of them come from, has 1 MiB at most.
const LARGEST: u64 = 4 << 20;

/// What a file says, defaults not yet filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// The KubeProxyConfiguration, if there is one.
    pub kube_proxy: Option<KubeProxyConfiguration>,
    /// The SheaveConfiguration, if there is one.
    pub sheave: Option<SheaveConfiguration>,
    /// Fields that are not known, or said twice.
    pub warnings: Vec<String>,
    /// Documents that are none of ours or there twice, and values of another type than their field's, which are left out.
    pub mistakes: Vec<FieldError>,
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
    /// It is no configuration, by its size alone.
    #[error("{path} is larger than any configuration ({} MiB)", LARGEST >> 20)]
    Large {
        /// The file.
        path: PathBuf,
    },
    /// It is no text.
    #[error("{path} is not text in UTF-8: line {line} has other bytes")]
    Binary {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// It has more values than a configuration can need, or says so by aliases of aliases.
    #[error("more values than any configuration has{}", yaml::at(*.0))]
    Endless(Option<(u64, u64)>),
    /// It is not YAML.
    #[error("not YAML{}: {reason}", yaml::at(*place))]
    Yaml {
        /// Line and column, from 1, where the parser knows them.
        place: Option<(u64, u64)>,
        /// What is wrong there.
        reason: String,
    },
    /// It is YAML, and wrong; all that is.
    #[error("{}", lines(.0))]
    Invalid(Vec<FieldError>),
}

impl Documents {
    /// What they come to, under what the command line says.
    ///
    /// # Errors
    /// All that is wrong: with the documents as such, and with what could be read of them.
    pub fn judge(&self, overrides: &Overrides) -> Result<Settings, Vec<FieldError>> {
        let outcome = interpret(&Configuration::of(self), overrides);
        match outcome {
            Ok(mut settings) if self.mistakes.is_empty() => {
                if self.kube_proxy.is_none() {
                    let remark = "no KubeProxyConfiguration: its defaults, and mode nftables, as without --config";
                    settings.remarks.insert(0, remark.to_owned());
                }
                settings.warnings.splice(0..0, self.warnings.iter().cloned());
                Ok(settings)
            }
            outcome => {
                let mut found = self.mistakes.clone();
                // Where a value was left out, what is said of its absence is no second mistake.
                let further = outcome.err().into_iter().flatten();
                found.extend(further.filter(|error| !self.mistakes.iter().any(|mistake| mistake.covers(error))));
                Err(found)
            }
        }
    }
}

fn lines(errors: &[FieldError]) -> String {
    errors.iter().map(FieldError::to_string).collect::<Vec<_>>().join("\n  ")
}

/// What a file says of the log, as far as that can be read; it need not be good for anything else.
#[must_use]
pub fn log_defaults(path: &Path) -> Option<LogDefaults> {
    let logging = Configuration::of(&read(path).ok()?).kube_proxy.logging;
    Some(LogDefaults { format: LogFormat::of(&logging.format)?, verbosity: logging.verbosity })
}

/// Reads and decodes a file, a regular one.
///
/// # Errors
/// See [`ConfigError`].
pub fn read(path: &Path) -> Result<Documents, ConfigError> {
    let file = regular_file::open(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    read_from(file, path)
}

/// Reads and decodes what is to be had there, to its end. Errors call it `path`.
///
/// # Errors
/// See [`ConfigError`].
pub fn read_from(input: impl Read, path: &Path) -> Result<Documents, ConfigError> {
    let mut bytes = Vec::new();
    let read = input.take(LARGEST + 1).read_to_end(&mut bytes);
    read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > LARGEST {
        return Err(ConfigError::Large { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let text = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        ConfigError::Binary { path: path.to_owned(), line: 1 + text.filter(|byte| **byte == b'\n').count() }
    })?;
    parse(&text)
}

/// Decodes a file's text. What is YAML and cannot be decoded is among the mistakes, beside what can.
///
/// # Errors
/// It is not YAML.
pub fn parse(text: &str) -> Result<Documents, ConfigError> {
    let mut reader = Reader::default();
    for tree in yaml::trees(text)?.into_iter().filter(|tree| *tree != Tree::Null) {
        reader.document(tree);
    }
    Ok(reader.end())
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
                    ("v1", "ConfigMap") => FieldProblem::Invalid {
                        value: format!("{version} {kind}").into(),
                        detail: format!("the text of a configuration stands below its data; apiVersion and kind must be {known}"),
                    },
                    ("", "") => FieldProblem::Required(format!("apiVersion and kind must be {known}")),
                    _ => FieldProblem::Invalid {
                        value: format!("{version} {kind}").trim().into(),
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

    fn end(mut self) -> Documents {
        if self.count == 0 {
            self.mistakes.push(
                "document 1",
                FieldProblem::Required(format!(
                    "there is none; {} {} or {} {} is wanted",
                    kube_proxy::API_VERSION,
                    kube_proxy::KIND,
                    sheave::API_VERSION,
                    sheave::KIND
                )),
            );
        }
        Documents { mistakes: self.mistakes.found, ..self.documents }
    }

    /// A document as its type, with what is wrong in it left out and told.
    fn decode<T: DeserializeOwned + Default>(&mut self, kind: &'static str, catalogue: &'static [Entry], tree: Tree) -> T {
        let Documents { warnings, .. } = &mut self.documents;
        let json = tree.into_json(kind, &mut |path| warnings.push(format!("{path}: said twice, the last one counts")));
        let Some(Value::Object(mut fields)) = json else { return T::default() };
        fields.remove("apiVersion");
        fields.remove("kind");
        Sieve { kind, catalogue, mistakes: &mut self.mistakes, warnings }.sift(&mut fields, "");
        let document = Value::Object(fields);
        T::deserialize(&document).unwrap_or_else(|error| {
            self.mistakes.invalid(kind, document, error.to_string());
            T::default()
        })
    }
}
