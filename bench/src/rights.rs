//! What the bench must be allowed to do, and what to say if it may not.

use anyhow::{Result, anyhow};
use nix::unistd::geteuid;

use crate::machine;
use crate::refusal::Refusal;

/// What root needs here, by the bit of linux/capability.h: to make namespaces and mounts, and to configure networks and their rules.
const NEEDED: [(u32, &str); 2] = [(21, "CAP_SYS_ADMIN"), (12, "CAP_NET_ADMIN")];
const WHY: &str = "the bench needs namespaces of its own";

/// Looks for what is missing. Whoever is not root needs nothing but a user namespace, which trying tells.
///
/// # Errors
/// With the names of the capabilities that root lacks, as in most containers.
pub(crate) fn ensure_sufficient() -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let missing = missing(machine::effective_capabilities());
    if missing.is_empty() {
        return Ok(());
    }
    Err(Refusal::of(anyhow!(
        "{WHY}, for which this root lacks {}: add it (docker run --cap-add, securityContext.capabilities.add), or be a user who may \
         make user namespaces",
        missing.join(" and ")
    )))
}

/// Moves the process into its sandbox. To be called while there is one thread: the kernel moves only the one that asks into a user
/// namespace.
///
/// # Errors
/// With what an administrator can do about it.
pub(crate) fn enter_sandbox() -> Result<()> {
    match sheave_lab::enter_sandbox() {
        Ok(()) => Ok(()),
        // Who has every right and is refused is told to become root by nobody but the lab, which does not look.
        Err(sheave_lab::Error::NotAllowed { call, source }) if geteuid().is_root() => Err(Refusal::of(anyhow!(
            "{WHY}: {call} was refused ({source}) though no capability is missing: a seccomp profile, a security module or a limit \
             (user.max_net_namespaces, user.max_mnt_namespaces) forbids it"
        ))),
        Err(error) => Err(Refusal::of(anyhow!(error).context(WHY))),
    }
}

fn missing(effective: u64) -> Vec<&'static str> {
    NEEDED.iter().filter(|(bit, _)| effective & 1 << bit == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(missing(u64::MAX), [""; 0]);
        assert_eq!(missing(1 << 21), ["CAP_NET_ADMIN"]);
        // docker's default set.
        assert_eq!(missing(0xa804_25fb), ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    }
}
