//! What keeps established flows translated while somebody flushes the ruleset.
//!
//! The kernel translates packets of established flows in hooks that it registers with the first NAT chain of a network namespace and
//! unregisters with the last (`nf_nat_register_fn`, `nf_nat_unregister_fn` in net/netfilter/nf_nat_core.c, v6.18); connection
//! tracking comes and goes with the expressions that need it (`nf_ct_netns_get`). So on a node without other NAT rules a flush of the
//! ruleset does not only take the rules for new flows: from that moment until the repair every packet of every translated flow goes
//! out as it is, and its receiver, who never heard of such a connection, answers with a reset. Measured: ten TCP flows of 1 MB/s lose
//! one or more of their number at every flush, however quick the repair.
//!
//! The hold is a table of a few bytes that the kernel lets nobody but its owner change (`flags owner`, Linux 5.12): others' flushes
//! pass it by. It has one NAT chain with one rule that asks for the connection's state, and decides nothing. It vanishes with its
//! socket, that is, with this process; a restart loses nothing by that, because `table inet sheave` holds the same hooks.

use std::ffi::CString;

use nftnl::{MsgType, ProtoFamily};

use crate::dataplane::PlaneError;
use crate::model::Family;
use crate::netlink::nft::{BaseChain, Batch, ChainKind, ChainPolicy, ChainSpec, DoorError, Hook, NftDoor};

use super::owned_table::{self, OwnedTable};
use super::skeleton::{Bound, RuleSpec, line};

/// The table, of family `inet`.
pub const HOLD_TABLE: &str = "sheave-hold";

/// Its chain.
const CHAIN: &str = "hold";

/// Behind everybody else's chains of the hook.
const LAST: i32 = 1000;

/// Keeps NAT and connection tracking hooked into this network namespace as long as it lives.
#[derive(Debug)]
pub struct NatHold {
    _table: OwnedTable,
}

impl NatHold {
    /// Makes the table in this thread's network namespace.
    ///
    /// # Errors
    /// [`PlaneError::Owned`] if another process holds it; `EOPNOTSUPP` or `EINVAL` before Linux 5.12.
    pub fn take() -> Result<Self, PlaneError> {
        let table = OwnedTable::take(HOLD_TABLE, |batch| {
            // Of the five hooks, the one with the fewest packets: each new flow to the node itself pays one rule.
            let base = BaseChain { kind: ChainKind::Nat, hook: Hook::Input, priority: LAST, policy: ChainPolicy::Accept };
            batch.add_chain(HOLD_TABLE, &ChainSpec { name: CHAIN.to_owned(), base: Some(base), userdata: None });
            add_rule(batch, &line(Family::V4).new_connection().leave());
        })?;
        Ok(Self { _table: table })
    }
}

/// Whether a process, this one or another, holds the table: then a `sheave run` is alive in this network namespace. A leftover that
/// nobody owns does not count.
///
/// # Errors
/// See [`DoorError`].
pub fn is_held(door: &mut dyn NftDoor) -> Result<bool, DoorError> {
    owned_table::is_owned(door, HOLD_TABLE)
}

/// `ct state new return`: connection tracking for both families, as an `inet` table asks for it.
fn add_rule(batch: &mut Batch, RuleSpec(exprs): &RuleSpec) {
    let name = |text| CString::new(text).expect("our names have no NUL");
    let table = nftnl::Table::new(name(HOLD_TABLE), ProtoFamily::Inet);
    let chain = nftnl::Chain::new(name(CHAIN), &table);
    let mut rule = nftnl::Rule::new(&chain);
    for expr in exprs {
        rule.add_expr(&Bound { expr, anonymous: 0 });
    }
    batch.nftnl(format!("add rule {HOLD_TABLE} {CHAIN}"), &rule, MsgType::Add);
}

#[cfg(test)]
mod tests {
    use super::super::tests::namespace::{in_namespace, nft};
    use super::*;
    use crate::netlink::nft::KernelNft;

    fn tables() -> String {
        nft(&["list", "tables"], "")
    }

    #[test]
    fn the_hold_outlives_a_flush_and_not_its_process() {
        in_namespace(|| {
            let hold = NatHold::take().expect("the first of this namespace");
            nft(&["flush", "ruleset"], "");
            assert_eq!(tables(), "table inet sheave-hold\n");
            let second = NatHold::take().expect_err("there is one");
            assert!(matches!(second, PlaneError::Owned { table: HOLD_TABLE }), "{second}");
            drop(hold);
            assert_eq!(tables(), "");
            nft(&["-f", "-"], "table inet sheave-hold { chain leftover { }; }");
            let mut door = KernelNft::open().unwrap();
            assert!(!is_held(&mut door).unwrap(), "nobody owns it");
            let _hold = NatHold::take().expect("it is free again");
            assert!(is_held(&mut door).unwrap());
            assert!(!nft(&["list", "table", "inet", "sheave-hold"], "").contains("leftover"));
        });
    }
}
