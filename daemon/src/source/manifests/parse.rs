//! From the documents of one file to objects: `kind: List` taken apart; selectors as an API server would apply them.

use super::ManifestOptions;
use super::documents::{self, Documents, ParseError};
use super::kinds::{self, Recognised};
use crate::model::{Interner, ObjectKey, Problem, Service, ServiceType};
use crate::source::decode::field::{Field, Text};
use crate::source::decode::wire::{Document, Labels, Manifest, Port};
use crate::source::decode::{self, Author, Decoded};
use crate::source::{Kind, Object};

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
    let Documents { list, warnings } = documents::read(json, bytes)?;
    list.into_iter().for_each(|document| reader.document(document));
    reader.parsed.warnings.extend(warnings);
    reader.parsed.blank = reader.documents == 0;
    // Mere text is YAML by the letter, and what is left of a file that was damaged.
    match reader.parsed.warnings.pop() {
        Some(reason) if reader.manifests == 0 => Err(ParseError::of_whole(reason)),
        last => {
            reader.parsed.warnings.extend(last);
            Ok(reader.parsed)
        }
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
                for (place, item) in items.into_iter().enumerate() {
                    self.item(of, place, item);
                }
            }
            _ => self.object(&kind, document),
        }
    }

    /// The items of a typed list (`ServiceList`, `of` is `Service`) need not repeat what they are.
    fn item(&mut self, of: &str, place: usize, item: Field<Document<'_>>) {
        let mut warn = |why: &str| {
            self.parsed.warnings.push(format!(
                "items[{place}] of document {} ({}List) {why}: ignored",
                self.documents,
                decode::cut(of)
            ));
        };
        let item = match item {
            Field::Is(item) => item,
            Field::Absent => return warn("is null, not an object"),
            Field::Wrong(found) => return warn(&format!("is {found}, not an object")),
        };
        let kind = item.kind.get().map_or(of, AsRef::as_ref).to_owned();
        if kind.ends_with("List") && item.items != Field::Absent {
            return warn(&format!("is a {} itself; lists do not nest here, make it a document of its own", decode::cut(&kind)));
        }
        self.object(&kind, item);
    }

    fn object(&mut self, kind: &str, document: Document<'_, impl Sized>) {
        if kind.is_empty() {
            let name = document.metadata.get().and_then(|metadata| metadata.name.get());
            let name = name.map(|name| format!(" ({})", decode::cut(name))).unwrap_or_default();
            self.parsed.warnings.push(format!("document {}{name} has no kind: ignored", self.documents));
            return;
        }
        let version = document.api_version.get().map_or("", AsRef::as_ref);
        let Some(Recognised { kind, slips }) = kinds::recognise(version, kind) else {
            tracing::debug!(version, kind, "kind of no interest in manifest: ignored");
            return;
        };
        let kind = match kind {
            Kind::Service if has_label(&document, |labels| labels.service_proxy_name.0) => Kind::ForeignService,
            other => other,
        };
        if kind == Kind::EndpointSlice && !self.options.headless && has_label(&document, |labels| labels.headless.0) {
            return;
        }
        let document = with_defaults(kind, document);
        if kind == Kind::Node
            && let Ok(peer) = decode::peer(&document, self.names)
        {
            // Any Node may announce. What is wrong with ours is said of ours.
            let key = ObjectKey::new("", &peer.name);
            self.parsed.objects.push((Kind::Peer, key, Object::Peer(Box::new(peer))));
        }
        match decode::object(Author::Person, kind, document, self.names) {
            Ok(Decoded::Object(mut object)) => {
                match problems_of(&mut object) {
                    Some(problems) => problems.extend(slips),
                    None => {
                        let number = self.documents;
                        self.parsed.warnings.extend(slips.iter().map(|slip| format!("document {number} ({kind}): {slip}")));
                    }
                }
                self.keep(kind, object);
            }
            Ok(Decoded::NotOurs { key, problems }) => {
                tracing::debug!(%key, "slice of no Service, or of names: ignored");
                self.parsed.warnings.extend(slips.iter().chain(&problems).map(|problem| format!("{kind} {key}: {problem}")));
            }
            Err(error) => self.parsed.warnings.push(format!("document {} ({kind}): {error}: ignored", self.documents)),
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
                } else {
                    service.problems.retain(|problem| !decode::is_unallocated(problem));
                }
                service.key.clone()
            }
            Object::EndpointSlice(slice) => slice.key.clone(),
            Object::Node(node) if *node.name != *self.options.node_name => return,
            Object::Node(node) => ObjectKey::new("", &node.name),
            Object::ServiceCidr(cidr) => ObjectKey::new("", &cidr.name),
            Object::Peer(peer) => ObjectKey::new("", &peer.name),
            Object::Namespace(namespace) => ObjectKey::new("", &namespace.name),
            Object::AddressPool(pool) => pool.key.clone(),
            Object::Advertisement(advertisement) => advertisement.key.clone(),
        };
        self.parsed.objects.push((kind, key, object));
    }
}

/// Where a slip can be told of that costs nothing. A pool or an advertisement with a problem is not used at all, and others have none.
fn problems_of(object: &mut Object) -> Option<&mut Vec<Problem>> {
    match object {
        Object::Service(service) | Object::ForeignService(service) => Some(&mut service.problems),
        Object::EndpointSlice(slice) => Some(&mut slice.problems),
        Object::Node(node) => Some(&mut node.problems),
        Object::ServiceCidr(cidr) => Some(&mut cidr.problems),
        Object::Peer(_) | Object::Namespace(_) | Object::AddressPool(_) | Object::Advertisement(_) => None,
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

/// An API server fills this in; a directory has nobody who would. (Likewise `nodePort`, which is noted port by port as it is read.)
fn note_what_nobody_allocates(service: &mut Service) {
    // One that could not be read has been named already.
    let given = service.problems.iter().any(|problem| problem.field.starts_with("spec.clusterIP"));
    if service.cluster_ips.is_empty() && !given && !service.headless && service.kind != ServiceType::ExternalName {
        let reason = "no clusterIP: nothing allocates one without an API server".into();
        // First, since without it nothing of the Service is served.
        service.problems.insert(0, Problem { field: "spec.clusterIP".into(), reason });
    }
}
