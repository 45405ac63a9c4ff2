//! The endpoints of one Service port -> backends of scope cluster and local (kube-proxy 3.2).

use std::net::SocketAddr;
use std::sync::Arc;

use super::Context;
use super::endpoints::Candidate;
use super::service::Uses;
use crate::model::Hints;
use crate::table::Backend;

/// The two lists of a Service port, and whether anything is usable at all.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) cluster: Vec<Backend>,
    pub(super) local: Vec<Backend>,
    pub(super) any_usable: bool,
}

/// Which hints the cluster list obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// `hints.forNodes` (KEP-3015).
    Node,
    /// `hints.forZones` (KEP-2433).
    Zone,
    /// None: any ready endpoint.
    Anywhere,
}

/// `candidates` are distinct and sorted; so are the lists.
pub(super) fn lists(candidates: &[Candidate<'_>], uses: Uses, context: &Context) -> Lists {
    Lists {
        cluster: if uses.cluster { cluster(candidates, context) } else { Vec::new() },
        local: if uses.local { local(candidates) } else { Vec::new() },
        any_usable: candidates.iter().any(|candidate| is_ready(candidate) || is_fallback(candidate)),
    }
}

/// All endpoints that still answer: a UDP flow towards one of them is alive whatever its readiness, hints or place (kube-proxy 5.1).
pub(super) fn serving(candidates: &[Candidate<'_>]) -> Arc<[SocketAddr]> {
    candidates.iter().filter(|candidate| candidate.endpoint.conditions.serving).map(|candidate| candidate.address).collect()
}

/// Ready endpoints, as far as the hints allow. Hints never leave the list empty while anything is ready, so the fallback is for
/// when nothing is: then all that terminate but still serve, wherever they are.
fn cluster(candidates: &[Candidate<'_>], context: &Context) -> Vec<Backend> {
    let mode = mode(candidates, context);
    // Nearly always that is all of them.
    let mut ready = Vec::with_capacity(candidates.len());
    ready.extend(select(candidates, |candidate| is_ready(candidate) && is_near(candidate, mode, context)));
    if ready.is_empty() { select(candidates, is_fallback).collect() } else { ready }
}

/// Ready endpoints of this node, else those of this node that terminate but still serve. Hints never apply, and a ready endpoint
/// elsewhere does not prevent the fallback.
fn local(candidates: &[Candidate<'_>]) -> Vec<Backend> {
    let ready: Vec<Backend> = select(candidates, |candidate| candidate.local && is_ready(candidate)).collect();
    if ready.is_empty() { select(candidates, |candidate| candidate.local && is_fallback(candidate)).collect() } else { ready }
}

/// Only ready endpoints have a say. Where node hints do not lead here, zone hints still may.
fn mode(candidates: &[Candidate<'_>], context: &Context) -> Mode {
    if is_hinted(candidates, |hints| &hints.nodes, Some(&context.node_name)) {
        Mode::Node
    } else if is_hinted(candidates, |hints| &hints.zones, context.zone.as_ref().filter(|zone| !zone.is_empty())) {
        Mode::Zone
    } else {
        Mode::Anywhere
    }
}

/// Every ready endpoint has hints of the kind, and some of them name the place where we are. A single endpoint without a hint
/// switches the kind off: the controller has not caught up, and trusting the rest would overload them.
fn is_hinted(candidates: &[Candidate<'_>], kind: impl Fn(&Hints) -> &Vec<Arc<str>>, here: Option<&Arc<str>>) -> bool {
    let Some(here) = here else { return false };
    let mut leads_here = false;
    for candidate in candidates.iter().filter(|candidate| is_ready(candidate)) {
        match candidate.endpoint.hints.as_deref().map(&kind) {
            Some(names) if !names.is_empty() => leads_here = leads_here || names.contains(here),
            _ => return false,
        }
    }
    leads_here
}

/// The endpoint is meant for us, in this mode.
fn is_near(candidate: &Candidate<'_>, mode: Mode, context: &Context) -> bool {
    let hints = candidate.endpoint.hints.as_deref();
    match mode {
        Mode::Node => hints.is_some_and(|hints| hints.nodes.contains(&context.node_name)),
        Mode::Zone => hints.is_some_and(|hints| context.zone.as_ref().is_some_and(|zone| hints.zones.contains(zone))),
        Mode::Anywhere => true,
    }
}

fn is_ready(candidate: &Candidate<'_>) -> bool {
    candidate.endpoint.conditions.ready
}

fn is_fallback(candidate: &Candidate<'_>) -> bool {
    candidate.endpoint.conditions.is_fallback()
}

fn select<'a>(candidates: &[Candidate<'a>], wanted: impl Fn(&Candidate<'a>) -> bool) -> impl Iterator<Item = Backend> {
    let chosen = candidates.iter().filter(move |candidate| wanted(candidate));
    chosen.map(|candidate| Backend { address: candidate.address, local: candidate.local })
}
