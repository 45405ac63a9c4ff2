//! nf_tables: transactions, the monitor, and a fake with the kernel's rules.
//!
//! A [`Batch`] is one transaction in the making. A [`NftDoor`] commits it: [`KernelNft`] by one `sendmsg`, [`FakeNft`] by reading
//! the same bytes. One conformance suite holds both to the same answers. [`Monitor`] tells what others did to our table.
//!
//! All objects are of family `inet`; what others have, in any family, is read by [`KernelNft`] alone and removed by name.

pub mod abi;
mod batch;
mod door;
mod element;
mod fake;
mod foreign;
mod kernel;
mod monitor;
mod reply;
mod spec;

#[cfg(test)]
mod conformance;

pub use batch::{Batch, Elements};
pub use door::{CommitError, CommitInfo, DoorError, NftDoor, Refusal, RefusedElement};
pub use element::{Element, OwnedElement, OwnedVerdict, Verdict};
pub use fake::FakeNft;
pub use foreign::{BaseInfo, Expression, ForeignChain, ForeignRule, ForeignTable, TableFamily, Verdict as RuleVerdict};
pub use kernel::{KernelNft, KernelNftOptions};
pub use monitor::{Change, Monitor, MonitorEvent, MonitorHandle};
pub use reply::{ChainInfo, RuleInfo, SetInfo, TableInfo};
pub use spec::{BaseChain, ChainKind, ChainPolicy, ChainSpec, Hook, SetFlags, SetSpec};
