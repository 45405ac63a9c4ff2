//! Why a Service port does not get a frontend it asks for, in words for the person who wrote the Service.

use super::claims::{Claim, Claimant};
use super::types::{Frontend, FrontendKind, Notice, Subject};
use crate::model::ServiceKey;

/// A frontend that was not given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal<'a> {
    /// Another Service port has it.
    Held(&'a Claim),
    /// The whole address is the ClusterIP of this Service. Who could write externalIPs would otherwise intercept the traffic of
    /// the whole cluster to, say, its DNS (CVE-2020-8554).
    ClusterIpOf(&'a ServiceKey),
}

impl Refusal<'_> {
    /// The notice to the loser. A pure function of the objects involved, so that a refusal that lasts is the same notice.
    pub(super) fn notice(self, frontend: &Frontend, loser: &Claimant) -> Notice {
        let service = loser.port.service.clone();
        let field = field(frontend.kind);
        let address = frontend.address;
        match self {
            Self::Held(holder) => {
                let why = precedence(holder, frontend.kind, loser);
                let message =
                    format!("{field}: {address} belongs to {}, {why}; choose another address or port", holder.claimant.port);
                let subject = Some(Subject::Held(address, holder.claimant.port.clone()));
                Notice { service, reason: "FrontendConflict", subject, message }
            }
            Self::ClusterIpOf(owner) => {
                let subject = address.ip().map(|ip| Subject::ClusterIpOf(ip, owner.clone()));
                let address = address.ip().map_or_else(|| address.to_string(), |ip| ip.to_string());
                let message = format!("{field}: {address} is the ClusterIP of {owner} and stays with it; remove it here");
                Notice { service, reason: "AddressRefused", subject, message }
            }
        }
    }
}

/// The field that asks for a frontend of this kind, as a person writes it in YAML.
fn field(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "spec.clusterIPs",
        FrontendKind::PoolVip | FrontendKind::LoadBalancer => "status.loadBalancer.ingress",
        FrontendKind::ExternalIp => "spec.externalIPs",
        FrontendKind::NodePort => "spec.ports[].nodePort",
    }
}

/// What put the holder first.
fn precedence(holder: &Claim, kind: FrontendKind, loser: &Claimant) -> String {
    let Claim { kind: stronger, claimant: holder } = holder;
    if *stronger != kind {
        format!("whose {stronger} it is")
    } else if holder.port.service == loser.port.service {
        "another port of this Service".to_owned()
    } else if holder.seniority.created != loser.seniority.created {
        "which is older".to_owned()
    } else {
        "which is as old and comes first by UID and name".to_owned()
    }
}
