//! What is told of VIPs: reasons and texts, MetalLB's where it has them. Each says what to do next.

use std::net::IpAddr;

use super::decide::Quiet;
use crate::loadbalancer::announcer::conflict::{Alarm, Claim};
use crate::loadbalancer::election::{Exclusion, Silence};

/// Something to say about a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// As Events have it.
    pub reason: &'static str,
    /// Somebody should look at it.
    pub is_warning: bool,
    /// For a person.
    pub text: String,
}

/// MetalLB's, to the letter.
pub(super) fn assigned(node: &str) -> Word {
    let text = format!("announcing from node \"{node}\" with protocol \"layer2\"");
    Word { reason: "nodeAssigned", is_warning: false, text }
}

/// MetalLB's, to the letter: it would elect this node all the same.
pub(super) fn no_interface(vip: IpAddr, node: &str) -> Word {
    let text =
        format!("the interfaces specified by LB IP \"{vip}\" doesn't exist in assigned node \"{node}\" with protocol \"layer2\"");
    Word { reason: "announceFailed", is_warning: true, text }
}

/// Nobody hears of a VIP, since no interface that the election chose can announce its family.
pub(super) fn unheard(vip: IpAddr, node: &str) -> Word {
    let family = if vip.is_ipv4() { "broadcasts" } else { "a link-local address" };
    let text = format!(
        "node \"{node}\" has to announce {vip}, and no interface there can: it takes one that is up, is not excluded by name and has \
         {family}; the log of sheave on that node says more"
    );
    Word { reason: "announceFailed", is_warning: true, text }
}

/// Why a VIP is not announced; nothing where another one says it, or it is a matter of moments.
pub(super) fn quiet(vip: IpAddr, node: &str, quiet: &Quiet) -> Option<Word> {
    let (reason, is_warning, text) = match quiet {
        // The controller says that (`NotAdvertised`), where there is no node to say anything, too.
        Quiet::Nobody(Silence::NoAdvertisement) => return None,
        Quiet::Unprogrammed | Quiet::Elsewhere(_) | Quiet::Unsettled | Quiet::Waiting(_) | Quiet::Unprobed => return None,
        Quiet::Occupied(claim) => return Some(occupied(claim)),
        // The log and `/healthz` say that: it is of this node, and not of the Service, which others announce.
        Quiet::CutOff | Quiet::Withdrawn | Quiet::Yielded(_) => return None,
        // Most often that is how a Service begins.
        Quiet::Nobody(silence @ Silence::NoEndpoints) => {
            let text = format!("nobody announces {vip}: {silence}; it is announced as soon as one is ready");
            ("NoReadyEndpoints", false, text)
        }
        Quiet::Nobody(silence) => ("NoEligibleNode", true, format!("nobody announces {vip}: {silence}")),
        Quiet::Unable(named, 0) if matches!(&named[..], [(_, Exclusion::NoInterface)]) => return Some(no_interface(vip, node)),
        Quiet::Unable(named, more) => {
            let each = named.iter().map(|(name, why)| format!("of node \"{name}\", {why}{}", next_step(why)));
            let mut each: Vec<String> = each.collect();
            if *more > 0 {
                each.push(format!("and {more} more, which `sheave get vips -o wide` names"));
            }
            ("NoEligibleNode", true, format!("nobody announces {vip}: {}", each.join("; ")))
        }
    };
    Some(Word { reason, is_warning, text })
}

fn next_step(exclusion: &Exclusion) -> &'static str {
    match exclusion {
        Exclusion::ExcludeLabel => "; take the label away",
        Exclusion::NotSelected => "; see nodeSelectors of the L2Advertisements of its pool",
        Exclusion::NoEndpoint => "; run a pod there, or set the policy to Cluster",
        Exclusion::NoCarrier => "; see cables and switch",
        Exclusion::Unlisted => "; see `kubectl get nodes` and --node-name",
        Exclusion::NetworkUnavailable => "; the network plugin has to clear it",
        _ => "",
    }
}

/// Somebody else had it before it was announced here.
fn occupied(Claim { address: vip, mac, interface }: &Claim) -> Word {
    let text = format!(
        "nobody announces {vip}: another host has it, {mac} on {interface}; find it and take the address from it, or take it out of the \
         pool. It is asked for again, up to a minute later"
    );
    Word { reason: "AddressConflict", is_warning: true, text }
}

/// Somebody else says to have the VIP.
pub(super) fn conflict(Alarm { claim, times }: &Alarm) -> Word {
    let (vip, mac, interface) = (claim.address, claim.mac, &claim.interface);
    let heard = if *times == 1 { String::new() } else { format!(", {times} times since this was said last") };
    let text = format!(
        "another host, {mac} on {interface}, says that {vip} is its own{heard}: find it and take the address from it, or take it out of \
         the pool"
    );
    Word { reason: "AddressConflict", is_warning: true, text }
}
