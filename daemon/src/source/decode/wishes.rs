//! What a Service wishes of whoever writes its EndpointSlices: judged, so that a typing mistake is not silent, and not kept.
//!
//! Nothing here is read by a service proxy. Where traffic goes is said by the slices' addresses, ports and hints alone.

use super::field::{Field, Text};
use super::problems::{Path, Problems, cut};
use super::service::port_number;
use super::wire::TargetPort;

/// What an operator has to know about all of them.
const WHAT_COUNTS: &str = "traffic goes by the hints of the EndpointSlices";

/// `spec.trafficDistribution` (KEP-4444, KEP-3015) and the annotation before it (KEP-2433), by both of its names.
pub(super) fn note_unknown(
    topology_mode: Field<Text<'_>>,
    topology_aware_hints: Field<Text<'_>>,
    distribution: Field<Text<'_>>,
    problems: &mut Problems,
) {
    let path = format_args!("spec.trafficDistribution");
    match problems.take(path, distribution).as_deref() {
        None | Some("" | "PreferClose" | "PreferSameZone" | "PreferSameNode") => {}
        Some(other) => {
            let known = "neither PreferSameZone (or PreferClose) nor PreferSameNode";
            problems.note_to_person(path, format!("{:?} is {known}: ignored, {WHAT_COUNTS}", cut(other)));
        }
    }
    let mode = format_args!("metadata.annotations[service.kubernetes.io/topology-mode]");
    note_unknown_mode(mode, topology_mode, problems);
    let hints = format_args!("metadata.annotations[service.kubernetes.io/topology-aware-hints]");
    note_unknown_mode(hints, topology_aware_hints, problems);
}

/// A value with a domain before it (`example.com/heuristic`) means something to somebody's controller.
fn note_unknown_mode(path: Path<'_>, mode: Field<Text<'_>>, problems: &mut Problems) {
    match problems.take(path, mode).as_deref() {
        None | Some("" | "Auto" | "auto" | "Disabled" | "disabled") => {}
        Some(other) if other.contains('/') => {}
        Some(other) => problems.note(path, format!("{:?} is neither Auto nor Disabled: ignored, {WHAT_COUNTS}", cut(other))),
    }
}

/// `targetPort` as an API server would have it: 1 to 65535, or the name of a container's port (`IsValidPortName`). 0 and an empty
/// name are the Service's own port.
pub(super) fn note_unmet_target(path: Path<'_>, target: Field<TargetPort<'_>>, problems: &mut Problems) {
    const SLICES: &str = "ignored, the ports of the EndpointSlices count";
    match problems.take(path, target) {
        None | Some(TargetPort::Number(0)) => {}
        Some(TargetPort::Number(number)) if port_number(number).is_some() => {}
        Some(TargetPort::Number(number)) => problems.note(path, format!("{number} is not a port number: {SLICES}")),
        Some(TargetPort::Name(name)) if name.is_empty() || is_port_name(&name) => {}
        Some(TargetPort::Name(name)) => problems.note(path, format!("{:?} is not the name of a port: {SLICES}", cut(&name))),
    }
}

/// RFC 6335 5.1, in lower case.
fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}
