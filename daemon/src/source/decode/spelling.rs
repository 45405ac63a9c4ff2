//! What an API server refuses for how it is written, and a service proxy reads all the same: said, and served.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{self, Spelling};
use super::problems::{Path, Problems, cut};

/// An address, as kube-proxy reads it.
pub(super) fn ip(path: Path<'_>, text: &str, problems: &mut Problems) -> Option<IpAddr> {
    let (address, spelling) = address::spelt_ip(text)?;
    note_sloppy(path, text, (address, spelling), problems);
    Some(address)
}

/// A network, likewise.
pub(super) fn cidr(path: Path<'_>, text: &str, problems: &mut Problems) -> Option<IpNet> {
    let (network, spelling) = address::spelt_cidr(text)?;
    note_sloppy(path, text, (network, spelling), problems);
    Some(network)
}

/// Of what has been read. Objects still carry it from the days when API servers took it.
pub(super) fn note_sloppy(path: Path<'_>, text: &str, (read, spelling): (impl Display, Spelling), problems: &mut Problems) {
    if spelling == Spelling::Sloppy {
        let refused = "is a spelling that an API server refuses; it is read as";
        problems.note_to_person(path, format!("{:?} {refused} {read}", cut(text)));
    }
}

/// The name of a Service or of a port, which is a label of RFC 1123 (`IsDNS1123Label` of `k8s.io/apimachinery`). An empty one is none.
pub(super) fn note_no_label(path: Path<'_>, name: &str, problems: &mut Problems) {
    if !name.is_empty() && !is_label(name) {
        let wanted = "up to 63 lower case letters, digits and '-' within";
        problems.note(path, format!("{:?} is not {wanted}, which an API server demands; it is served", cut(name)));
    }
}

fn is_label(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= 63 && name.bytes().all(is_inner) && !name.starts_with('-') && !name.ends_with('-')
}
