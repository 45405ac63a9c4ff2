//! The skeleton: sets, chains and rules, written once. Afterwards every change of the API is elements only.
//!
//! A skeleton is a value. What has to be written to get from one to another is their difference, whatever the reason: the first
//! load, a grown set, the first sticky Service. nftnl writes tables, chains and rules; our own codec writes sets.

mod chains;
mod expr;
mod features;
mod line;

use std::ffi::CString;

use nftnl::{MsgType, ProtoFamily};

use crate::model::Family;
use crate::netlink::nft::{Batch, Element, SetFlags, SetSpec};

use super::names::{Instances, Pool, Reach, SetId, SetKind, TABLE};

pub(crate) use chains::Chain;
use chains::Hook;
pub use chains::NAT_PRIORITY;
pub(crate) use chains::TRANSLATING;
pub(crate) use expr::Bound;
use expr::{Expr, SetRef};
use features::classes;
pub(crate) use features::{Features, LARGEST_CLASS, class_of};
pub(crate) use line::{RuleSpec, line};

/// Chains with their rules, in an order in which none is jumped to before it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skeleton {
    chains: Vec<Chain>,
}

/// What one message of a skeleton is about; each is small, so a small send buffer can take them a few at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// The chain itself, without rules.
    Add(&'a Chain),
    /// Its rules go.
    Flush(&'a Chain),
    /// One of its rules, by place.
    Rule(&'a Chain, usize),
    /// The chain goes.
    Delete(&'a Chain),
}

/// Room that is left for one step: more than the longest rule of ours takes with its anonymous set.
pub(crate) const STEP_BYTES: usize = 2048;

impl Features {
    /// Every set of both families, in the order of loading.
    pub(crate) fn sets(&self) -> impl Iterator<Item = SetId> {
        Family::ALL.into_iter().flat_map(|family| {
            let features = self.family(family);
            let classes = Pool::ALL
                .into_iter()
                .flat_map(move |pool| classes(features.top(pool)).map(move |class| SetKind::Class(pool, class)));
            let sticky = features.sticky.iter().map(|timeout| SetKind::Sticky(Reach::Address, *timeout));
            let node_sticky = features.node_sticky.iter().map(|timeout| SetKind::Sticky(Reach::NodePort, *timeout));
            let ranges = [SetKind::Ranged, SetKind::Ranges].into_iter().filter(|_| features.ranges);
            let vips = Some(SetKind::Vips).filter(|_| features.vips);
            let kinds = classes.chain(sticky).chain(node_sticky).chain(ranges).chain(vips);
            SetId::permanent(family).chain(kinds.map(move |kind| kind.of(family)))
        })
    }
}

impl Skeleton {
    pub(crate) fn new(features: &Features, names: &Instances) -> Self {
        Self { chains: chains::chains(features, names) }
    }

    /// Names of all chains.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.chains.iter().map(|chain| chain.name.as_str())
    }

    /// Names of all chains with hook (`enum nf_inet_hooks`), priority and type, for base chains.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&str, Option<(u32, i32, &'static str)>)> {
        let place = |Hook { hook, priority, nat }| (u32::from(hook as u16), priority, if nat { "nat" } else { "filter" });
        self.chains.iter().map(move |chain| (chain.name.as_str(), chain.hook.map(place)))
    }

    /// Names of all chains with the number of their rules, in the order in which a load writes the rules.
    pub(crate) fn rule_counts(&self) -> impl Iterator<Item = (&str, usize)> {
        let of = |based: bool| self.chains.iter().filter(move |chain| chain.hook.is_some() == based);
        of(false).chain(of(true)).map(|chain| (chain.name.as_str(), chain.rules.len()))
    }

    /// What makes the regular chains, which nothing reaches yet.
    pub(crate) fn build_regular(&self) -> impl Iterator<Item = Step<'_>> {
        let regular = || self.chains.iter().filter(|chain| chain.hook.is_none());
        regular().map(Step::Add).chain(regular().flat_map(rules))
    }

    /// What makes the base chains jump to this skeleton's, whatever they have now: the turn-over of a load.
    pub(crate) fn turn_over(&self) -> impl Iterator<Item = Step<'_>> {
        let base = || self.chains.iter().filter(|chain| chain.hook.is_some());
        base().map(Step::Add).chain(base().map(Step::Flush)).chain(base().flat_map(rules))
    }

    /// What turns `self` into `next`, in one transaction.
    pub(crate) fn edit<'a>(&'a self, next: &'a Self) -> Vec<Step<'a>> {
        let old = |chain: &Chain| self.chains.iter().find(|old| old.name == chain.name);
        let gone = || self.chains.iter().filter(|old| next.chains.iter().all(|chain| chain.name != old.name));
        let new = || next.chains.iter().filter(|chain| old(chain).is_none());
        let changed = || next.chains.iter().filter(|chain| old(chain).is_some_and(|old| old.rules != chain.rules));
        // New chains before rules that jump to them; old chains after the rules that jumped there, and after each other's.
        let mut steps: Vec<Step<'a>> = new().map(Step::Add).collect();
        steps.extend(gone().chain(changed()).map(Step::Flush));
        steps.extend(new().chain(changed()).flat_map(rules));
        steps.extend(gone().map(Step::Delete));
        steps
    }
}

fn rules(chain: &Chain) -> impl Iterator<Item = Step<'_>> {
    (0..chain.rules.len()).map(move |place| Step::Rule(chain, place))
}

impl Step<'_> {
    /// Appends it to a transaction.
    pub(crate) fn write(self, batch: &mut Batch) {
        match self {
            Self::Flush(chain) => batch.flush_chain(TABLE, &chain.name),
            Self::Delete(chain) => batch.delete_chain(TABLE, &chain.name),
            Self::Add(chain) => with_chain(chain, |object| {
                batch.nftnl(format!("add chain {TABLE} {}", chain.name), object, MsgType::Add);
            }),
            Self::Rule(chain, place) => {
                let RuleSpec(exprs) = &chain.rules[place];
                let transports = |expr: &Expr| matches!(expr, Expr::Lookup { set: SetRef::Transports, .. });
                // Any number will do that no other anonymous set of the transaction has.
                let anonymous = u32::try_from(batch.messages()).unwrap_or(u32::MAX);
                if exprs.iter().any(transports) {
                    add_transports(batch, anonymous);
                }
                with_chain(chain, |object| {
                    let mut rule = nftnl::Rule::new(object);
                    for expr in exprs {
                        rule.add_expr(&Bound { expr, anonymous });
                    }
                    batch.nftnl(format!("add rule {TABLE} {} #{}", chain.name, place + 1), &rule, MsgType::Add);
                });
            }
        }
    }
}

/// Appends the table, which may be there already.
pub(crate) fn add_table(batch: &mut Batch) {
    batch.nftnl(format!("add table {TABLE}"), &table(), MsgType::Add);
}

fn table() -> nftnl::Table {
    nftnl::Table::new(c_name(TABLE), ProtoFamily::Inet)
}

fn with_chain(chain: &Chain, write: impl FnOnce(&nftnl::Chain<'_>)) {
    let table = table();
    let mut object = nftnl::Chain::new(c_name(&chain.name), &table);
    if let Some(Hook { nat, hook, priority }) = chain.hook {
        object.set_hook(hook, priority);
        object.set_type(if nat { nftnl::ChainType::Nat } else { nftnl::ChainType::Filter });
        object.set_policy(nftnl::Policy::Accept);
    }
    write(&object);
}

fn c_name(name: &str) -> CString {
    CString::new(name).expect("names of our tables and chains have no NUL")
}

/// The anonymous set `{ tcp, udp, sctp }`, which belongs to the rule that follows.
fn add_transports(batch: &mut Batch, id: u32) {
    const NAME: &str = "__set%d";
    const INET_PROTO: u32 = 12;
    // Byte order of the key and its `typeof` (meta l4proto), as nft 1.0.6 notes them.
    const USERDATA: &[u8] = &[0, 4, 1, 0, 0, 0, 3, 14, 0, 4, 9, 0, 0, 0, 1, 6, 0, 4, 16, 0, 0, 0];
    let protocols = crate::model::Protocol::ALL;
    batch.add_set(
        TABLE,
        &SetSpec {
            name: NAME.to_owned(),
            key_type: INET_PROTO,
            key_len: 1,
            flags: SetFlags { anonymous: true, constant: true, ..SetFlags::default() },
            size: u32::try_from(protocols.len()).ok(),
            userdata: Some(USERDATA.to_vec()),
            id,
            ..SetSpec::default()
        },
    );
    let mut elements = batch.add_elements(TABLE, NAME).of_set_id(id);
    for protocol in protocols {
        elements.push(Element::key(&[protocol.number()]));
    }
}
