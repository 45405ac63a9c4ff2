//! The kernel's answers in the words of [`PlaneError`].

use std::io;

use nix::errno::Errno;

use crate::dataplane::PlaneError;
use crate::netlink::nft::{CommitError, DoorError, NftDoor, Refusal};

const NO_PERMISSION: (&str, &str) = ("permission to change nftables", "run as root or with CAP_NET_ADMIN");
const NO_NF_TABLES: (&str, &str) = (
    "nf_tables in this kernel",
    "load the modules nf_tables, nft_chain_nat, nft_nat, nft_masq, nft_fib_inet, nft_ct, nft_reject_inet and nft_numgen, or use a kernel that has them (5.13 or newer)",
);

/// The subject where nobody knows whether a transaction happened.
const OUTCOME_UNKNOWN: &str = "outcome unknown";

/// Whether what failed may have happened all the same.
pub(crate) fn may_have_happened(error: &PlaneError) -> bool {
    matches!(error, PlaneError::Kernel { subject, .. } if subject == OUTCOME_UNKNOWN)
}

/// A transaction that did not happen.
pub(crate) fn commit(error: CommitError) -> PlaneError {
    let errno = error.errno();
    if let Some(unsupported) = errno.and_then(unsupported) {
        return unsupported;
    }
    let (subject, source) = match error {
        CommitError::Refused { refusals } => match refusals.into_iter().next() {
            Some(refusal) => (subject_of(&refusal), io::Error::from(refusal.errno)),
            None => ("transaction".to_owned(), io::Error::other("refused without a reason")),
        },
        CommitError::TooLarge { bytes, limit } => {
            let source = io::Error::from(Errno::EMSGSIZE);
            (format!("batch of {bytes} bytes, above the limit of {limit}"), source)
        }
        CommitError::Send { bytes, errno } => (format!("batch of {bytes} bytes"), errno.into()),
        CommitError::Unknown { errno } => (OUTCOME_UNKNOWN.to_owned(), errno.into()),
    };
    PlaneError::Kernel { call: "commit", subject, source }
}

/// Says of a refused permission whose it is: the kernel's word for a table that belongs to another process is that for a process
/// that may not change any (`nft_table_lookup` in net/netfilter/nf_tables_api.c, v6.18).
pub(crate) fn explain(door: &mut dyn NftDoor, error: PlaneError, written: &[&'static str]) -> PlaneError {
    if !matches!(&error, PlaneError::Unsupported { missing, .. } if *missing == NO_PERMISSION.0) {
        return error;
    }
    let Ok(tables) = door.tables() else { return error };
    let owned = |table: &&&str| tables.iter().any(|there| there.name == **table && there.owner.is_some());
    written.iter().find(owned).map_or(error, |table| PlaneError::Owned { table })
}

/// A question that was not answered.
pub(crate) fn door(error: DoorError) -> PlaneError {
    if let Some(unsupported) = error.errno().and_then(unsupported) {
        return unsupported;
    }
    match error {
        DoorError::Open { call, source } => PlaneError::Kernel { call, subject: "nfnetlink socket".to_owned(), source },
        DoorError::Kernel { call, subject, errno, .. } => PlaneError::Kernel { call, subject, source: errno.into() },
        DoorError::Interrupted { call, subject } | DoorError::NoAnswer { call, subject } => {
            PlaneError::Kernel { call, subject, source: Errno::EAGAIN.into() }
        }
    }
}

fn subject_of(refusal: &Refusal) -> String {
    let element = refusal.element.as_ref().map(|element| format!(" #{}", element.index)).unwrap_or_default();
    let text = refusal.text.as_deref().map(|text| format!(" ({text})")).unwrap_or_default();
    format!("{}{element}{text}", refusal.subject)
}

fn unsupported(errno: Errno) -> Option<PlaneError> {
    let (missing, advice) = match errno {
        Errno::EPERM => NO_PERMISSION,
        // What nfnetlink says of a subsystem it does not have, and the socket of a protocol the kernel lacks.
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT => NO_NF_TABLES,
        _ => return None,
    };
    Some(PlaneError::Unsupported { missing: missing.to_owned(), advice })
}
