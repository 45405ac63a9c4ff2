//! Who may announce a VIP, and of everybody else why not.

use std::net::IpAddr;

use compact_str::CompactString;

use super::{Candidate, Contest, Interfaces, Presence, Silence, Tenant};
use crate::loadbalancer::membership::NetworkInterface;
use crate::model::Labels;
use crate::model::load_balancer::{Advertisement, EXCLUDE_LABEL};

/// Why a node may not announce a VIP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exclusion {
    /// Its daemon is gone, or was never seen.
    #[error("no sheave is heard from it")]
    Absent,
    /// It was deleted, or has another name.
    #[error("the API server has no Node of this name")]
    Unlisted,
    /// It keeps what it has for `daemonRestartGrace`.
    #[error("its daemon does not answer at the moment, so it gets no further VIP")]
    Restarting,
    /// It hands over.
    #[error("its daemon is ending")]
    Leaving,
    /// Condition `NetworkUnavailable`.
    #[error("its condition NetworkUnavailable is True")]
    NetworkUnavailable,
    /// Label, see [`EXCLUDE_LABEL`].
    #[error("it has the label {EXCLUDE_LABEL}")]
    ExcludeLabel,
    /// Cordoned, where that counts.
    #[error("it is cordoned")]
    Unschedulable,
    /// `nodeSelectors` of each.
    #[error("no L2Advertisement that applies selects it")]
    NotSelected,
    /// `externalTrafficPolicy: Local`.
    #[error("it hosts no ready endpoint, and externalTrafficPolicy is Local")]
    NoEndpoint,
    /// Another node can serve all the Services that share the address.
    #[error("it cannot serve every Service that shares the address, as others can")]
    ServesFewer,
    /// Nothing known of its interfaces.
    #[error("it has not yet told on which networks it is")]
    Unknown,
    /// None of those that the advertisements name, or none at all.
    #[error("it has none of the interfaces on which it would have to announce")]
    NoInterface,
    /// Of those, each.
    #[error("the interfaces on which it would have to announce have no carrier")]
    NoCarrier,
    /// Others do.
    #[error("it has no address in the VIP's subnet, as others have")]
    NotOnSubnet,
}

/// One candidate with its verdict.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) candidate: &'a Candidate<'a>,
    pub(super) verdict: Result<(), Exclusion>,
}

/// How much of what is asked a node can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Service {
    Some,
    All,
}

/// Judges every candidate; with it, why nobody could announce whoever was there.
pub(super) fn judge<'a>(contest: &Contest<'a>) -> (Vec<Entry<'a>>, Option<Silence>) {
    let advertisements = in_force(contest);
    let served: Vec<&Tenant<'_>> = contest.tenants.iter().filter(|tenant| tenant.hosting.any).collect();
    let demands: Vec<&Tenant<'_>> =
        served.iter().copied().filter(|tenant| advertisements.iter().any(|ad| ad.selects_service(tenant.labels))).collect();
    let silence = match (served.is_empty(), demands.is_empty()) {
        (true, _) => Some(Silence::NoEndpoints),
        (false, true) => Some(Silence::NoAdvertisement),
        (false, false) => None,
    };
    let judged: Vec<_> = contest
        .candidates
        .iter()
        .map(|candidate| {
            let verdict = of_itself(candidate, contest)
                .and_then(|()| serves(candidate, &advertisements, &demands))
                .and_then(|service| Ok((service, reaches(candidate, &advertisements, contest.vip)?)));
            (candidate, verdict)
        })
        .collect();
    // Judged against each other last: only those that can announce at all set the measure. A node that can serve all the Services of
    // the address comes before one that drops the traffic of some; where there is none, some are better served than nobody. The
    // subnet counts only where somebody is on it: VIPs that a router sends to this LAN are in nobody's.
    let eligible = judged.iter().filter_map(|(_, verdict)| verdict.as_ref().ok());
    let most = eligible.clone().map(|(service, _)| *service).max();
    let on_subnet = eligible.filter(|(service, _)| Some(*service) == most).any(|(_, on_subnet)| *on_subnet);
    let judged = judged.into_iter().map(|(candidate, verdict)| {
        let verdict = verdict.and_then(|(service, on_it)| match () {
            () if Some(service) < most => Err(Exclusion::ServesFewer),
            () if on_subnet && !on_it => Err(Exclusion::NotOnSubnet),
            () => Ok(()),
        });
        Entry { candidate, verdict }
    });
    (judged.collect(), silence)
}

/// The advertisements that apply to the VIP: those for a Service of it that has endpoints. Two that say the same count once, unless
/// they have preferences, which add up (as MetalLB).
pub(super) fn in_force<'a>(contest: &Contest<'a>) -> Vec<&'a Advertisement> {
    let mut applying: Vec<&Advertisement> = Vec::new();
    for &advertisement in contest.advertisements {
        let for_somebody =
            contest.tenants.iter().any(|tenant| tenant.hosting.any && advertisement.selects_service(tenant.labels));
        let known = applying.iter().any(|other| other.preferences.is_empty() && same(other, advertisement));
        if for_somebody && !(known && advertisement.preferences.is_empty()) {
            applying.push(advertisement);
        }
    }
    applying
}

fn same(one: &Advertisement, other: &Advertisement) -> bool {
    one.node_selectors == other.node_selectors
        && one.interfaces == other.interfaces
        && one.service_selectors == other.service_selectors
}

/// On which interfaces a node announces: all that the advertisements which select it name; one that names none means every one.
pub(super) fn interfaces(advertisements: &[&Advertisement], node: &Labels) -> Interfaces {
    let selecting = advertisements.iter().filter(|advertisement| advertisement.selects_node(node));
    let mut names: Vec<CompactString> = Vec::new();
    for advertisement in selecting {
        if advertisement.interfaces.is_empty() {
            return Interfaces::All;
        }
        names.extend(advertisement.interfaces.iter().cloned());
    }
    names.sort_unstable();
    names.dedup();
    Interfaces::Only(names)
}

/// What says no whatever the VIP is.
fn of_itself(candidate: &Candidate<'_>, contest: &Contest<'_>) -> Result<(), Exclusion> {
    let node = candidate.node;
    match candidate.presence {
        Presence::Absent => return Err(Exclusion::Absent),
        Presence::Unlisted => return Err(Exclusion::Unlisted),
        Presence::Leaving => return Err(Exclusion::Leaving),
        Presence::Grace if candidate.holds.is_none() => return Err(Exclusion::Restarting),
        Presence::Grace | Presence::Present => {}
    }
    if node.network_unavailable {
        return Err(Exclusion::NetworkUnavailable);
    }
    if node.labels.contains(EXCLUDE_LABEL) && !contest.options.ignore_exclude_label {
        return Err(Exclusion::ExcludeLabel);
    }
    if node.unschedulable && contest.options.move_from_unschedulable {
        return Err(Exclusion::Unschedulable);
    }
    Ok(())
}

/// Which of the Services it could announce for.
fn serves(candidate: &Candidate<'_>, ads: &[&Advertisement], demands: &[&Tenant<'_>]) -> Result<Service, Exclusion> {
    let selects =
        |tenant: &Tenant<'_>| ads.iter().any(|ad| ad.selects_service(tenant.labels) && ad.selects_node(&candidate.node.labels));
    let selected: Vec<_> = demands.iter().filter(|tenant| selects(tenant)).collect();
    if selected.is_empty() {
        return Err(Exclusion::NotSelected);
    }
    let hosted = selected.iter().filter(|tenant| !tenant.local || tenant.hosting.nodes.contains(&candidate.node.name)).count();
    match hosted {
        0 => Err(Exclusion::NoEndpoint),
        all if all == demands.len() => Ok(Service::All),
        _ => Ok(Service::Some),
    }
}

/// Whether it has an interface to announce on, and whether one of these is in the VIP's subnet.
fn reaches(candidate: &Candidate<'_>, ads: &[&Advertisement], vip: IpAddr) -> Result<bool, Exclusion> {
    let own = candidate.interfaces.ok_or(Exclusion::Unknown)?;
    let allowed = interfaces(ads, &candidate.node.labels);
    let mut usable = own.iter().filter(|interface| allowed.contains(&interface.name)).peekable();
    usable.peek().ok_or(Exclusion::NoInterface)?;
    let mut connected = usable.filter(|interface| interface.carrier).peekable();
    connected.peek().ok_or(Exclusion::NoCarrier)?;
    Ok(connected.any(|interface| interface.is_on_subnet(vip)))
}

impl Interfaces {
    /// Whether the winner announces on this one.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|own| own == name),
        }
    }
}

impl NetworkInterface {
    /// Whether the address is in one of its subnets.
    #[must_use]
    pub fn is_on_subnet(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(&address))
    }
}
