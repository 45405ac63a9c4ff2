//! From Kubernetes JSON or YAML to [`crate::model`].
//!
//! Everything here is lenient field by field: what cannot be understood is left out and becomes a
//! [`Problem`] of the object, and the rest of it still works. Only an object without a usable name is lost, since there is nothing
//! to hang it on. What an API server would refuse, and only a manifest can hold, is a problem as well, even where it does no harm.

pub(crate) mod address;
mod advertisement;
mod endpoint_slice;
pub(crate) mod field;
mod labels;
mod node;
mod peer;
mod pool;
mod problems;
mod request;
mod service;
mod source_ranges;
mod spelling;
pub(crate) mod wire;
mod wishes;

#[cfg(test)]
mod tests;

pub(crate) use endpoint_slice::is_of_nobody;
use field::{Field, Text};
pub(crate) use peer::decode as peer;
use problems::Problems;
pub(crate) use problems::{Author, cut, without_places};
pub(crate) use service::is_unallocated;
use wire::{Document, Metadata};

use super::{Kind, Object};
use crate::model::{Interner, ObjectKey, Problem};

/// What an object turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// An object of the kind asked for.
    Object(Object),
    /// An object that no plane can use: a slice of FQDNs, or one that belongs to no Service. What was known under its key is gone.
    NotOurs {
        /// Its name.
        key: ObjectKey,
        /// What made it useless, if that was not meant so.
        problems: Vec<Problem>,
    },
}

/// Why an object was lost as a whole.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not JSON, or hold text that is not UTF-8.
    #[error("object is not readable JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The document is JSON, but not an object.
    #[error("document is {found}, not an object")]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// Nothing to know it by.
    #[error("object has no usable name: {reason}")]
    Name {
        /// What is wrong with `metadata.name` or `metadata.namespace`.
        reason: String,
    },
}

/// An object's identity, taken from its metadata before anything else of it is looked at.
struct Identity {
    key: ObjectKey,
    uid: compact_str::CompactString,
    created: Option<i64>,
}

/// Decodes one object of a known kind from JSON that somebody wrote.
///
/// # Errors
/// Bytes that are not JSON, or an object without a name.
pub fn from_json(kind: Kind, bytes: &[u8], names: &mut Interner) -> Result<Decoded, DecodeError> {
    match wire::read::<Field<Document<'_>>>(bytes)? {
        Field::Is(document) => object(Author::Person, kind, document, names),
        Field::Absent => Err(DecodeError::NotAnObject { found: "null" }),
        Field::Wrong(found) => Err(DecodeError::NotAnObject { found }),
    }
}

/// Decodes a document as the given kind; its own `kind` is not looked at, since the items of a list do not carry one.
pub(crate) fn object(
    author: Author,
    kind: Kind,
    document: Document<'_, impl Sized>,
    names: &mut Interner,
) -> Result<Decoded, DecodeError> {
    Ok(match kind {
        Kind::Service => Decoded::Object(Object::Service(Box::new(service::decode(author, document)?))),
        Kind::ForeignService => Decoded::Object(Object::ForeignService(Box::new(service::decode(author, document)?))),
        Kind::EndpointSlice => return endpoint_slice::decode(author, document, names),
        Kind::Node => Decoded::Object(Object::Node(Box::new(node::decode(author, document, names)?))),
        Kind::ServiceCidr => Decoded::Object(Object::ServiceCidr(Box::new(node::decode_service_cidr(author, document, names)?))),
        Kind::Peer => Decoded::Object(Object::Peer(Box::new(peer(&document, names)?))),
        Kind::Namespace => Decoded::Object(Object::Namespace(Box::new(peer::decode_namespace(&document, names)?))),
        Kind::AddressPool => Decoded::Object(Object::AddressPool(Box::new(pool::decode(author, document)?))),
        Kind::Advertisement => Decoded::Object(Object::Advertisement(Box::new(advertisement::decode(author, document)?))),
    })
}

/// The key of an object of this kind. A namespace that is not given is `default`, which only manifests may leave to us.
pub(crate) fn key(kind: Kind, metadata: &Metadata<'_>) -> Result<ObjectKey, DecodeError> {
    let name =
        name("metadata.name", &metadata.name)?.ok_or_else(|| DecodeError::Name { reason: "metadata.name is missing".into() })?;
    Ok(match kind {
        Kind::Node | Kind::ServiceCidr | Kind::Peer | Kind::Namespace => ObjectKey::new("", name),
        Kind::Service | Kind::ForeignService | Kind::EndpointSlice | Kind::AddressPool | Kind::Advertisement => {
            ObjectKey::new(self::name("metadata.namespace", &metadata.namespace)?.unwrap_or("default"), name)
        }
    })
}

/// A name that can be part of a key and of a log line: not empty, at most 253 bytes (RFC 1123), printable, without a slash.
fn name<'a>(field: &str, name: &'a Field<Text<'_>>) -> Result<Option<&'a str>, DecodeError> {
    let reason = match name {
        Field::Absent => return Ok(None),
        Field::Wrong(found) => format!("{field} is {found}, not a string"),
        Field::Is(name) if name.is_empty() => return Ok(None),
        Field::Is(name) if name.len() > 253 => format!("{field} has {} bytes, more than 253", name.len()),
        Field::Is(name) if name.contains(|c: char| c == '/' || c.is_control() || c.is_whitespace()) => {
            format!("{field} {name:?} has a character that no name may have")
        }
        Field::Is(name) => return Ok(Some(name)),
    };
    Err(DecodeError::Name { reason })
}

impl Identity {
    fn read(kind: Kind, metadata: &mut Metadata<'_>, problems: &mut Problems) -> Result<Self, DecodeError> {
        let key = key(kind, metadata)?;
        let uid = problems.take(format_args!("metadata.uid"), std::mem::take(&mut metadata.uid)).unwrap_or_default();
        let field = format_args!("metadata.creationTimestamp");
        let created = problems.take(field, std::mem::take(&mut metadata.creation_timestamp)).and_then(|text| {
            let time = timestamp(&text);
            if time.is_none() {
                problems.note(field, format!("{:?} is not a time (RFC 3339): ignored", cut(&text)));
            }
            time
        });
        Ok(Self { key, uid: uid.into(), created: created.map(jiff::Timestamp::as_second) })
    }
}

/// A point in time as the API writes it (RFC 3339).
fn timestamp(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok()
}
