//! `/v1/vips`: every VIP as this node sees it, in words.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::loadbalancer::election::{Reason, Standing};
use crate::loadbalancer::membership::State;
use crate::loadbalancer::speaker::{Account, VipAccount};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vips {
    /// The node that tells; empty if it announces nothing.
    pub node: String,
    /// When it was told.
    pub as_of: Timestamp,
    /// Why there are none, where this daemon announces nothing at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// By address.
    pub vips: Vec<Vip>,
    /// The other announcers; none for a single node.
    pub members: Vec<Member>,
}

/// One VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vip {
    /// The VIP.
    pub address: IpAddr,
    /// `namespace/name` of each Service that has it, sorted.
    pub services: Vec<String>,
    /// The IPAddressPool that it is from.
    pub pool: String,
    /// Who answers for it on the LAN; none: nobody, as far as this node knows.
    pub announced: Option<Announcement>,
    /// The node that is to announce it; none: no node can.
    pub elected: Option<String>,
    /// In words: why there, or why nobody announces it.
    pub why: String,
    /// How every node fared in the election, the first one first.
    pub standings: Vec<NodeStanding>,
}

/// Who answers for a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Name of the node.
    pub node: String,
    /// Since when, or since when the node that tells has known.
    pub since: Timestamp,
    /// On which interfaces; another node does not tell.
    pub interfaces: Vec<String>,
    /// It moved there after a failure, and does not move back for five minutes.
    pub protected: bool,
}

/// How a node fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStanding {
    /// Name of the node.
    pub node: String,
    /// Its place among those that can announce the VIP, from 0.
    pub rank: Option<usize>,
    /// Why it cannot.
    pub excluded: Option<String>,
}

/// Another announcer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Name of its node.
    pub node: String,
    /// How it does: `unheard`, `alive`, `daemon down`, `leaving` or `gone`.
    pub state: String,
}

impl Vips {
    pub(super) fn of(account: Option<&Account>, as_of: Timestamp) -> Self {
        let Some(account) = account else {
            let note = "this daemon announces no VIPs: --no-announcing, or manifests without --controller".to_owned();
            return Self { node: String::new(), as_of, note: Some(note), vips: Vec::new(), members: Vec::new() };
        };
        let Account { node, vips, members } = account;
        let member =
            |(node, state): (&std::sync::Arc<str>, &State)| Member { node: node.to_string(), state: word(state).to_owned() };
        Self {
            node: node.to_string(),
            as_of,
            note: None,
            vips: vips.iter().map(|(address, vip)| Vip::of(*address, vip)).collect(),
            members: members.iter().map(member).collect(),
        }
    }
}

impl Vip {
    fn of(address: IpAddr, account: &VipAccount) -> Self {
        let VipAccount { services, pool, announced, elected, withheld: _, standings } = account;
        Self {
            address,
            services: services.iter().map(ToString::to_string).collect(),
            pool: pool.to_string(),
            announced: announced.as_ref().map(|announced| Announcement {
                node: announced.node.to_string(),
                since: announced.since,
                interfaces: announced.interfaces.iter().map(ToString::to_string).collect(),
                protected: announced.protected,
            }),
            elected: elected.as_ref().ok().map(|elected| elected.node.to_string()),
            why: why(account),
            standings: standings.iter().map(standing).collect(),
        }
    }
}

fn standing(Standing { node, rank }: &Standing) -> NodeStanding {
    let (rank, excluded) = match rank {
        Ok(rank) => (Some(*rank), None),
        Err(exclusion) => (None, Some(exclusion.to_string())),
    };
    NodeStanding { node: node.to_string(), rank, excluded }
}

fn why(account: &VipAccount) -> String {
    let VipAccount { announced, elected, withheld, standings, .. } = account;
    let elected = match elected {
        Ok(elected) => elected,
        // One that nobody is to announce may still be answered for, for a moment.
        Err(silence) => return only_reason(standings).unwrap_or_else(|| silence.to_string()),
    };
    match (announced, withheld) {
        (Some(announced), _) if announced.node == elected.node => match elected.reason {
            Reason::Protected => "it came there after a failure, and stays for five minutes".to_owned(),
            Reason::First => match standings.iter().filter(|standing| standing.rank.is_ok()).count() {
                0 | 1 => "the only node that can".to_owned(),
                count => format!("first of {count} nodes"),
            },
        },
        (Some(_), _) => format!("moves to {}", elected.node),
        (None, Some(withheld)) => withheld.clone(),
        (None, None) => format!("{} is about to announce it", elected.node),
    }
}

/// Of one node alone, its own reason says more than that nobody can.
fn only_reason(standings: &[Standing]) -> Option<String> {
    match standings {
        [Standing { node, rank: Err(exclusion) }] => Some(format!("{node}: {exclusion}")),
        _ => None,
    }
}

fn word(state: &State) -> &'static str {
    match state {
        State::Unheard => "unheard",
        State::Alive => "alive",
        State::DaemonDown { .. } => "daemon down",
        State::Leaving => "leaving",
        State::Gone { .. } => "gone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loadbalancer::election::{Exclusion, Silence};
    use crate::loadbalancer::speaker::{Announced, Elected};
    use crate::model::ObjectKey;

    fn at(node: &str) -> Announced {
        Announced { node: node.into(), since: Timestamp::UNIX_EPOCH, interfaces: vec!["eth0".into()], protected: false }
    }

    fn account(announced: Option<&str>, elected: Result<Reason, Silence>) -> VipAccount {
        let standing = |(rank, node): (usize, &str)| Standing { node: node.into(), rank: Ok(rank) };
        VipAccount {
            services: vec![ObjectKey::new("default", "web")],
            pool: "lan".into(),
            announced: announced.map(at),
            elected: elected.map(|reason| Elected { node: "a".into(), reason }),
            withheld: None,
            standings: ["a", "b"].into_iter().enumerate().map(standing).collect(),
        }
    }

    #[test]
    fn each_state_has_its_words() {
        assert_eq!(why(&account(Some("a"), Ok(Reason::First))), "first of 2 nodes");
        assert_eq!(why(&account(Some("a"), Ok(Reason::Protected))), "it came there after a failure, and stays for five minutes");
        assert_eq!(why(&account(Some("b"), Ok(Reason::First))), "moves to a");
        assert_eq!(why(&account(None, Ok(Reason::First))), "a is about to announce it");
        let withheld = VipAccount { withheld: Some("the kernel does not have it".into()), ..account(None, Ok(Reason::First)) };
        assert_eq!(why(&withheld), "the kernel does not have it");
        assert_eq!(why(&account(None, Err(Silence::NoEndpoints))), "none of its Services has a ready endpoint");
        let standings = vec![Standing { node: "a".into(), rank: Err(Exclusion::NoCarrier) }];
        let alone = VipAccount { standings, ..account(None, Err(Silence::NoEligibleNode)) };
        assert_eq!(why(&alone), "a: the interfaces on which it would have to announce have no carrier");
    }

    #[test]
    fn what_is_told_is_read_again() {
        let vips = [([10, 0, 0, 1].into(), account(Some("a"), Ok(Reason::First)))];
        let members = [("b".into(), State::Alive)];
        let account = Account { node: "a".into(), vips: vips.into(), members: members.into() };
        let told = Vips::of(Some(&account), Timestamp::UNIX_EPOCH);
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<Vips>(&text).unwrap(), told);
        for part in [
            r#""asOf":"1970-01-01T00:00:00Z""#,
            r#""address":"10.0.0.1","services":["default/web"],"pool":"lan""#,
            r#""announced":{"node":"a","since":"1970-01-01T00:00:00Z","interfaces":["eth0"],"protected":false}"#,
            r#""standings":[{"node":"a","rank":0,"excluded":null}"#,
            r#""members":[{"node":"b","state":"alive"}]"#,
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
