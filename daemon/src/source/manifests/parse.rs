//! From the bytes of one file to objects: YAML or JSON, several documents, `kind: List`; selectors as an API server would apply them.

use std::fmt;

use super::ManifestOptions;
use crate::model::{Interner, ObjectKey, Problem, Service, ServiceType};
use crate::source::decode::field::{Field, Text};
use crate::source::decode::wire::{Document, Labels, Manifest, Port};
use crate::source::decode::{self, Decoded};
use crate::source::{Kind, Object};

/// Why a file as a whole could not be read.
#[derive(Debug)]
pub(super) struct ParseError {
    /// Line and column, from 1, where the parser knows them.
    place: Option<(u64, u64)>,
    reason: String,
}

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Objects that we serve, in the order of the file.
    pub(super) objects: Vec<(Kind, ObjectKey, Object)>,
    /// Documents that were not understood, for the log.
    pub(super) warnings: Vec<String>,
    /// There is no document at all: nothing but white space and comments.
    pub(super) blank: bool,
}

struct Reader<'o> {
    options: &'o ManifestOptions,
    names: &'o mut Interner,
    parsed: Parsed,
    /// Documents so far, empty ones left out, and how many of them were objects.
    documents: usize,
    manifests: usize,
}

/// Reads one file. An object that is not ours is skipped; one that makes no sense, and a document that is no object, is a warning.
///
/// # Errors
/// The file is not YAML (or, with a name ending in `.json`, not JSON), or holds no object at all but something else.
pub(super) fn parse(json: bool, bytes: &[u8], options: &ManifestOptions, names: &mut Interner) -> Result<Parsed, ParseError> {
    let mut reader = Reader { options, names, parsed: Parsed::default(), documents: 0, manifests: 0 };
    if json {
        for document in serde_json::Deserializer::from_slice(bytes).into_iter() {
            reader.document(document?);
        }
    } else {
        let text =
            std::str::from_utf8(bytes).map_err(|error| ParseError { place: None, reason: format!("not UTF-8: {error}") })?;
        for document in serde_saphyr::from_str_multiple_with_options::<_, Vec<_>>(text, yaml_options())? {
            reader.document(document);
        }
    }
    reader.parsed.blank = reader.documents == 0;
    // Mere text is YAML by the letter, and what is left of a file that was damaged.
    match reader.parsed.warnings.pop() {
        Some(reason) if reader.manifests == 0 => Err(ParseError { place: None, reason }),
        last => {
            reader.parsed.warnings.extend(last);
            Ok(reader.parsed)
        }
    }
}

/// The parser's own limits are for configuration files; ours holds whole clusters. Aliases keep theirs: they can make much of little.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: None,
            max_events: usize::MAX,
            max_documents: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
        with_snippet: false,
    }
}

// === impl Reader ===

impl Reader<'_> {
    /// Documents between two `---` may be empty. One that is mere text or a list spoils only itself.
    fn document(&mut self, document: Field<Manifest<'_>>) {
        self.documents += usize::from(!matches!(document, Field::Absent));
        let mut document = match document {
            Field::Is(document) => document,
            Field::Absent => return,
            Field::Wrong(found) => {
                let number = self.documents;
                self.parsed.warnings.push(format!("document {number} is {found}, not an object: ignored"));
                return;
            }
        };
        self.manifests += 1;
        let kind = document.kind.get().map(|kind| kind.clone().into_owned()).unwrap_or_default();
        match (kind.strip_suffix("List"), std::mem::take(&mut document.items)) {
            (Some(of), Field::Is(items)) => {
                for item in items {
                    // The items of a typed list (`ServiceList`) need not repeat what they are.
                    let Field::Is(item) = item else {
                        self.parsed.warnings.push(format!("an item of a {kind} is not an object: ignored"));
                        continue;
                    };
                    let kind = item.kind.get().map_or(of, AsRef::as_ref).to_owned();
                    self.object(&kind, item);
                }
            }
            _ => self.object(&kind, document),
        }
    }

    fn object(&mut self, kind: &str, document: Document<'_, impl Sized>) {
        let group = document.api_version.get().map_or("", |version| version.rsplit_once('/').map_or("", |(group, _)| group));
        let kind = match (group, kind) {
            ("", "Service") if has_label(&document, |labels| labels.service_proxy_name.0) => Kind::ForeignService,
            ("", "Service") => Kind::Service,
            ("" | "discovery.k8s.io", "EndpointSlice") => Kind::EndpointSlice,
            ("" | "networking.k8s.io", "ServiceCIDR") => Kind::ServiceCidr,
            ("", "Node") => Kind::Node,
            _ => {
                tracing::debug!(group, kind, "kind of no interest in manifest: ignored");
                return;
            }
        };
        if kind == Kind::EndpointSlice && !self.options.headless && has_label(&document, |labels| labels.headless.0) {
            return;
        }
        let document = with_defaults(kind, document);
        match decode::object(kind, document, self.names) {
            Ok(Decoded::Object(object)) => self.keep(kind, object),
            Ok(Decoded::NotOurs { key, problems }) => {
                tracing::debug!(%key, "slice of no Service, or of names: ignored");
                self.parsed.warnings.extend(problems.iter().map(|problem| format!("{kind:?} {key}: {problem}")));
            }
            Err(error) => self.parsed.warnings.push(format!("document {} ({kind:?}): {error}: ignored", self.documents)),
        }
    }

    /// The field selectors: `spec.clusterIP!=None`, `metadata.name=<our node>`.
    fn keep(&mut self, kind: Kind, mut object: Object) {
        let key = match &mut object {
            Object::Service(service) | Object::ForeignService(service) => {
                if service.headless && !self.options.headless {
                    return;
                }
                if kind == Kind::Service {
                    note_what_nobody_allocates(service);
                }
                service.key.clone()
            }
            Object::EndpointSlice(slice) => slice.key.clone(),
            Object::Node(node) if *node.name != *self.options.node_name => return,
            Object::Node(node) => ObjectKey::new("", &node.name),
            Object::ServiceCidr(cidr) => ObjectKey::new("", &cidr.name),
        };
        self.parsed.objects.push((kind, key, object));
    }
}

fn has_label(document: &Document<'_, impl Sized>, test: impl Fn(&Labels<'_>) -> bool) -> bool {
    document.metadata.get().and_then(|metadata| metadata.labels.get()).is_some_and(test)
}

/// The one default of the API server that decoding does not make: a slice port without a name is the unnamed port
/// (`pkg/apis/discovery/v1/defaults.go`).
fn with_defaults<Items>(kind: Kind, mut document: Document<'_, Items>) -> Document<'_, Items> {
    if let (Kind::EndpointSlice, Field::Is(ports)) = (kind, &mut document.ports) {
        for port in ports {
            if let Field::Is(Port { name: name @ Field::Absent, .. }) = port {
                *name = Field::Is(Text::Borrowed(""));
            }
        }
    }
    document
}

/// An API server fills these in; a directory has nobody who would.
fn note_what_nobody_allocates(service: &mut Service) {
    // One that could not be read has been named already.
    let given = service.problems.iter().any(|problem| problem.field.starts_with("spec.clusterIP"));
    let mut note = |field: String, reason: &str| service.problems.push(Problem { field, reason: reason.into() });
    if service.cluster_ips.is_empty() && !given && !service.headless && service.kind != ServiceType::ExternalName {
        note("spec.clusterIP".into(), "no clusterIP: nothing allocates one without an API server");
    }
    if service.kind == ServiceType::NodePort {
        for (place, _) in service.ports.iter().enumerate().filter(|(_, port)| port.node_port == 0) {
            note(format!("spec.ports[{place}].nodePort"), "no nodePort: nothing allocates one without an API server");
        }
    }
}

// === impl ParseError ===

impl fmt::Display for ParseError {
    /// `3:14: reason`, to follow the file's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, reason } = self;
        match place {
            Some((line, column)) => write!(f, "{line}:{column}: {reason}"),
            None => write!(f, " {reason}"),
        }
    }
}

impl std::error::Error for ParseError {}

impl From<serde_json::Error> for ParseError {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let reason = without(error.to_string(), &format!(" at line {line} column {column}"));
        Self { place: Some((line as u64, column as u64)), reason }
    }
}

impl From<serde_saphyr::Error> for ParseError {
    fn from(error: serde_saphyr::Error) -> Self {
        let place = error.location().map(|location| (location.line(), location.column()));
        let mut reason = error.without_snippet().to_string();
        if let Some((line, column)) = place {
            reason = without(reason, &format!(" at line {line}, column {column}"));
        }
        Self { place, reason }
    }
}

/// A message without the place that stands before it already.
fn without(mut message: String, place: &str) -> String {
    if let Some(at) = message.find(place) {
        message.replace_range(at..at + place.len(), "");
    }
    message
}
