//! Why nf_tables cannot be had, for the person who has to do something about it: one cause, not all that there could be.

use nix::errno::Errno;

use crate::netlink::nft::DoorError;
use crate::user_namespace;

/// `CAP_NET_ADMIN` is number 12 (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;
/// `Seccomp:` of /proc/self/status where a filter is in force (proc(5)).
const SECCOMP_FILTER: &str = "2";

/// What this process may do, as the kernel says.
#[derive(Clone, Copy, Debug)]
struct Standing {
    net_admin: bool,
    /// In a user namespace other than the machine's first.
    user_namespace: bool,
    seccomp: bool,
}

/// What is lacking, and what to do about it, to follow the error itself.
pub(super) fn why(error: &DoorError) -> String {
    let errno = match error {
        DoorError::Open { source, .. } => source.raw_os_error().map(Errno::from_raw),
        other => other.errno(),
    };
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    cause(errno, Standing::read(&read("/proc/self/status"), &read("/proc/self/uid_map"))).to_owned()
}

/// Everybody may open the socket; what it takes to send through it is `CAP_NET_ADMIN` over the network namespace (`netlink_net_capable`).
fn cause(errno: Option<Errno>, standing: Standing) -> &'static str {
    let Standing { net_admin, user_namespace, seccomp } = standing;
    match errno {
        Some(Errno::EPERM | Errno::EACCES) if !net_admin => {
            "this process lacks CAP_NET_ADMIN: run it as root, or give it that capability"
        }
        Some(Errno::EPERM | Errno::EACCES) if user_namespace => {
            "this process has CAP_NET_ADMIN in its user namespace only, and its network belongs to another: run it without a user \
             namespace (hostUsers: true)"
        }
        Some(Errno::EPERM | Errno::EACCES) if seccomp => {
            "this process has CAP_NET_ADMIN, so a seccomp filter refuses it: the container's profile must let it open netlink sockets"
        }
        Some(Errno::EPERM | Errno::EACCES) => {
            "this process has CAP_NET_ADMIN, so a security module refuses it (SELinux, AppArmor): its audit log says which rule"
        }
        Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => {
            "this kernel has no netlink of netfilter (CONFIG_NETFILTER_NETLINK, of which CONFIG_NF_TABLES is a part)"
        }
        Some(Errno::EOPNOTSUPP | Errno::EINVAL) => "this kernel has no nf_tables (CONFIG_NF_TABLES), or may not load its module",
        _ => "it takes a kernel with nf_tables (CONFIG_NF_TABLES)",
    }
}

impl Standing {
    /// From the text of /proc/self/status and /proc/self/uid_map. Where they cannot be read, nothing is lacking that could be named.
    fn read(status: &str, uid_map: &str) -> Self {
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let effective = field("CapEff:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
        Self {
            net_admin: effective.is_none_or(|mask| mask >> CAP_NET_ADMIN & 1 == 1),
            user_namespace: !uid_map.is_empty() && user_namespace::is_nested(uid_map),
            seccomp: field("Seccomp:") == Some(SECCOMP_FILTER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "         0          0 4294967295\n";
    const OWN: &str = "         0       1000          1\n";

    fn status(capabilities: &str, seccomp: u8) -> String {
        format!("Name:\tsheave\nCapPrm:\t0000000000000000\nCapEff:\t{capabilities}\nSeccomp:\t{seccomp}\nSeccomp_filters:\t1\n")
    }

    #[test]
    fn one_cause_is_named() {
        let (all, none, all_but) = ("000001ffffffffff", "0000000000000000", "000001ffffffefff");
        for (errno, status, uid_map, expected) in [
            (Errno::EPERM, status(none, 2), FIRST, "lacks CAP_NET_ADMIN"),
            (Errno::EPERM, status(all_but, 0), OWN, "lacks CAP_NET_ADMIN"),
            (Errno::EPERM, status(all, 0), OWN, "in its user namespace only"),
            (Errno::EPERM, status(all, 2), FIRST, "seccomp filter"),
            (Errno::EACCES, status(all, 0), FIRST, "security module"),
            (Errno::EPERM, String::new(), "", "security module"),
            (Errno::EPROTONOSUPPORT, status(all, 0), FIRST, "CONFIG_NETFILTER_NETLINK"),
            (Errno::EOPNOTSUPP, status(all, 0), FIRST, "no nf_tables (CONFIG_NF_TABLES)"),
            (Errno::ENOMEM, status(all, 0), FIRST, "it takes a kernel with"),
        ] {
            let told = cause(Some(errno), Standing::read(&status, uid_map));
            assert!(told.contains(expected), "{errno}: {told}");
        }
    }
}
