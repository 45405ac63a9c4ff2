//! Whether kube-proxy runs on this node, or only its rules are left.
//!
//! Rules do not tell: kube-proxy leaves them in place when it ends, as we do. A process does, where its /proc can be seen; in a
//! container it cannot be, but whoever shares the node's network sees who listens in it. A listener alone is no proof (others have
//! their health checks on kube-proxy's port), and beside kube-proxy's rules it is one.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::user_namespace;

/// kube-proxy's health and metrics servers.
const PORTS: [u16; 2] = [10256, 10249];
/// The kernel's tables of sockets; the second one is missing where there is no IPv6.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// `PROC_PID_INIT_INO`: the machine's own, in which every process is seen.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Who is on every node.
const KUBELETS: [&str; 2] = ["kubelet", "k3s"];
/// `TCP_LISTEN`, as /proc/net/tcp has it.
const LISTEN: &str = "0A";

/// Something that says that kube-proxy runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A process of that name, in this network.
    Process {
        /// Its id, as seen from here.
        id: u32,
        /// How it was called.
        command: String,
    },
    /// Somebody else than this process listens on one of its ports.
    Listener {
        /// Which.
        port: u16,
    },
}

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    at: SocketAddr,
    inode: u64,
}

/// What listeners on kube-proxy's ports mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listeners {
    /// kube-proxy, since its rules are here, too.
    Count,
    /// Nothing: there are no rules of kube-proxy's, or another `sheave run` listens there.
    Ignore,
}

/// What says that kube-proxy runs in this network namespace; nothing if it does not.
#[must_use]
pub fn signs(listeners: Listeners) -> Vec<Sign> {
    let mut signs = processes();
    if listeners == Listeners::Count {
        signs.extend(listening().into_iter().map(|port| Sign::Listener { port }));
    }
    signs
}

/// Why no sign of a process says nothing, if it does not: those of the node are out of sight here.
#[must_use]
pub fn why_out_of_sight() -> Option<String> {
    if let Err(error) = fs::read("/proc/1/cmdline") {
        return Some(format!("the processes of others cannot be seen (/proc/1: {error})"));
    }
    let is_first = fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == FIRST_PID_NAMESPACE);
    // A node may be a container itself (kind); then its kubelet is there.
    let is_nodes = || commands().any(|(_, command)| named(&command).is_some_and(|name| KUBELETS.contains(&name)));
    (!is_first && !is_nodes()).then(|| {
        "this is a PID namespace of its own, in which the node's processes cannot be seen (hostPID), and nobody listens on the ports \
         10256 and 10249 but, maybe, sheave"
            .to_owned()
    })
}

/// Whether it is a port of kube-proxy's, if nobody has changed those.
#[must_use]
pub fn is_kube_proxys(port: u16) -> bool {
    PORTS.contains(&port)
}

/// Whether no sign means that kube-proxy does not run: /proc answers.
#[must_use]
pub fn can_tell() -> bool {
    fs::read_dir("/proc").is_ok() && fs::read_to_string(TABLES[0]).is_ok()
}

fn processes() -> Vec<Sign> {
    let own = network(Path::new("/proc/thread-self"));
    let mut found = Vec::new();
    for (id, command) in commands().filter(|(_, command)| is_kube_proxy(command)) {
        // One whose network cannot be seen counts: better a question too many than two masters of the same rules. In a user namespace
        // other than the machine's first, those are the processes outside of it, whose rules are in other networks.
        let here = match network(&Path::new("/proc").join(id.to_string())) {
            Some(network) => Some(network) == own,
            None => !fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| user_namespace::is_nested(&map)),
        };
        if here {
            found.push(Sign::Process { id, command: command.join(" ") });
        }
    }
    found
}

/// A process's network namespace, by the inode of the kernel's own rtnetlink socket there. The link `ns/net` says which it is as well,
/// to those only who may trace the process (`ptrace_may_access()` in fs/proc/namespaces.c), and a daemon with `CAP_NET_ADMIN` alone may
/// not: any pod's process of that name would be the node's kube-proxy.
fn network(process: &Path) -> Option<u64> {
    rtnetlink_socket(&fs::read_to_string(process.join("net/netlink")).ok()?)
}

/// Columns of `/proc/net/netlink`: address, protocol (`NETLINK_ROUTE` is 0), port ID (the kernel's is 0), six more, and the inode.
fn rtnetlink_socket(sockets: &str) -> Option<u64> {
    sockets.lines().find_map(|line| {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        let inode = (columns.get(1..3)? == ["0", "0"]).then(|| columns.get(9))??;
        inode.parse().ok().filter(|inode| *inode != 0)
    })
}

/// Every process that can be seen, with its command line.
fn commands() -> impl Iterator<Item = (u32, Vec<String>)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        Some((id, command(&entry.path())?))
    })
}

/// The command line; none for a thread of the kernel's, and for a process that has ended.
fn command(process: &Path) -> Option<Vec<String>> {
    let bytes = fs::read(process.join("cmdline")).ok()?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

fn is_kube_proxy(command: &[String]) -> bool {
    // k3s and hyperkube are called otherwise, and are known by their listeners.
    named(command) == Some("kube-proxy")
}

/// The program's name.
fn named(command: &[String]) -> Option<&str> {
    Path::new(command.first()?).file_name()?.to_str()
}

fn listening() -> BTreeSet<u16> {
    others().map(|listener| listener.at.port()).filter(|port| PORTS.contains(port)).collect()
}

/// Where somebody else than this process can be reached who listens on a port of this node's.
pub(super) fn listens_at(port: u16) -> Option<SocketAddr> {
    let at = others().map(|listener| listener.at).find(|at| at.port() == port)?;
    let loopback = |ip: IpAddr| match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    Some(if at.ip().is_unspecified() { SocketAddr::new(loopback(at.ip()), port) } else { at })
}

/// Listeners that are not this process's.
fn others() -> impl Iterator<Item = Listener> {
    let own = own_sockets();
    let all = TABLES.into_iter().flat_map(|file| {
        let table = fs::read_to_string(file).unwrap_or_default();
        listeners(&table).collect::<Vec<_>>()
    });
    all.filter(move |listener| !own.contains(&listener.inode))
}

/// Every listening socket of a table such as /proc/net/tcp.
fn listeners(table: &str) -> impl Iterator<Item = Listener> + '_ {
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        let (ip, port) = words.nth(1)?.rsplit_once(':')?;
        let state = words.nth(1)?;
        let inode = words.nth(5)?.parse().ok()?;
        let at = SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?);
        (state == LISTEN).then_some(Listener { at, inode })
    })
}

/// An address as /proc has it: words of four bytes, each printed as a number of this machine's.
fn address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..text.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    super::address(&bytes)
}

/// Inodes of this process's own sockets: our health server listens there, too.
fn own_sockets() -> BTreeSet<u64> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { id, command } => write!(f, "process {id} `{command}`"),
            Self::Listener { port } => write!(f, "a listener on port {port}"),
        }
    }
}

/// Several signs in one line.
#[must_use]
pub fn sentence(signs: &[Sign]) -> String {
    signs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_known_by_the_kernels_socket_in_it() {
        let own = network(Path::new("/proc/thread-self"));
        assert!(own.is_some());
        assert_eq!(network(Path::new("/proc/self")), own);
        assert_eq!(network(Path::new("/proc/0")), None);
        let table = "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n\
                     0000000082 0 77 00000000 0 0 0 2 0 75\n\
                     0000000083 4 0 00000000 0 0 0 2 0 76\n\
                     0000000084 0 0 00000000 0 0 0 2 0\n\
                     0000000085 0 0 00000000 0 0 0 2 0 77\n";
        assert_eq!(rtnetlink_socket(table), Some(77));
    }

    #[test]
    fn only_a_process_of_that_very_name_is_kube_proxy() {
        let is = |command: &[&str]| is_kube_proxy(&command.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert!(is(&["/usr/local/bin/kube-proxy", "--config=/var/lib/kube-proxy/config.conf"]));
        assert!(!is(&["vi", "kube-proxy"]) && !is(&["kube-proxy-exporter"]) && !is(&[]));
    }

    #[test]
    fn listeners_are_read_and_connections_are_not() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n   \
             1: 0100007F:2810 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n";
        let at = "127.0.0.1:10249".parse().unwrap();
        assert_eq!(listeners(table).collect::<Vec<_>>(), [Listener { at, inode: 4711 }]);
        let v6 = "  sl\n   0: 00000000000000000000000001000000:2809 0:0000 0A 0:0 00:0 0 0 0 4713 1\n";
        assert_eq!(listeners(v6).map(|listener| listener.at).collect::<Vec<_>>(), ["[::1]:10249".parse().unwrap()]);
    }

    #[test]
    fn our_own_listeners_do_not_count() {
        let own = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = own.local_addr().unwrap().port();
        let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        let inode = listeners(&table).find(|listener| listener.at.port() == port).expect("it listens").inode;
        assert!(own_sockets().contains(&inode));
    }
}
