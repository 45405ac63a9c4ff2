//! Which address families this node has.

use std::fs;
use std::path::Path;

/// Why IPv6 is not served here; `None` if it is. As kube-proxy asks, and like it once, at the start (kube-proxy 6.6). IPv4 is always
/// there: no Linux has IPv6 without it, and no sysctl switches it off.
///
/// `proc` is where procfs is, of the network namespace of this thread.
pub(super) fn why_no_ipv6(proc: &Path) -> Option<&'static str> {
    if !proc.join("net/if_inet6").exists() {
        return Some("this kernel has no IPv6");
    }
    let disabled = fs::read_to_string(proc.join("sys/net/ipv6/conf/all/disable_ipv6"));
    // A file that cannot be read says nothing, and rules that no packet meets do no harm.
    disabled.is_ok_and(|text| text.trim() == "1").then_some("IPv6 is switched off (net.ipv6.conf.all.disable_ipv6=1)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_off_without_the_kernels_part_or_by_sysctl() {
        let proc = tempfile::tempdir().unwrap();
        let conf = proc.path().join("sys/net/ipv6/conf/all");
        assert!(why_no_ipv6(proc.path()).is_some_and(|reason| reason.contains("kernel")));
        fs::create_dir_all(&conf).unwrap();
        fs::create_dir(proc.path().join("net")).unwrap();
        fs::write(proc.path().join("net/if_inet6"), "").unwrap();
        assert_eq!(why_no_ipv6(proc.path()), None, "nothing is said of it");
        for (text, off) in [("0\n", false), ("1\n", true)] {
            fs::write(conf.join("disable_ipv6"), text).unwrap();
            assert_eq!(why_no_ipv6(proc.path()).is_some(), off, "{text:?}");
        }
    }
}
