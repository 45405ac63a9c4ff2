//! What this kernel and this machine can do, found out by trying.

use crate::{
    Error, Namespace, Result,
    link::{Links, links},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVlan, LinkAttribute},
    tc::{TcAttribute, TcHandle, TcMessage},
};
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVlan,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
};
use std::{env, fmt, fs, path::Path, str::FromStr};

/// Something a scenario may need and a machine may lack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// SCTP sockets.
    Sctp,
    /// Bonded interfaces.
    Bonding,
    /// VLAN interfaces.
    Vlan,
    /// The network emulator queueing discipline.
    Netem,
    /// Dummy interfaces.
    Dummy,
    /// IP virtual server.
    Ipvs,
    /// nf_tables.
    Nftables,
    /// netfilter hooks for bridged packets (`br_netfilter`).
    BridgeNf,
    /// The sysctls that only the initial user namespace may write, such as `net.netfilter.nf_conntrack_max`.
    InitSysctl,
    /// The kernel's own type information, needed by portable BPF programs.
    Btf,
    /// The second hierarchy of control groups.
    Cgroup2,
    /// A program in the search path: `tool:curl`.
    Tool(String),
}

/// No capability has this name.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a capability")]
pub struct UnknownCapability(String);

impl Capability {
    /// Whether it is there. Run it inside the sandbox: interfaces are made, in a namespace that goes away with the probe.
    ///
    /// # Errors
    /// If no namespace can be made.
    pub fn probe(&self) -> Result<bool> {
        match self {
            Self::Sctp => Ok(socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::STREAM,
                Some(socket2::Protocol::from(libc::IPPROTO_SCTP)),
            )
            .is_ok()),
            Self::Dummy => in_namespace(async |links| links.add_dummy("probe0").await),
            Self::Bonding => in_namespace(async |links| {
                let bond = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bond).name("probe0");
                links.add(bond.build(), "link add type bond", "probe0").await
            }),
            Self::Vlan => in_namespace(async |links| {
                let lower = links.index("lo").await?;
                let mut vlan = LinkMessageBuilder::<LinkVlan>::new_with_info_kind(InfoKind::Vlan).name("probe0").build();
                vlan.attributes.push(LinkAttribute::Link(lower));
                for attribute in &mut vlan.attributes {
                    if let LinkAttribute::LinkInfo(infos) = attribute {
                        infos.push(netlink_packet_route::link::LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(7)])));
                    }
                }
                // Loopback carries no VLANs: "operation not supported" from vlan_check_real_dev is a kernel with VLANs.
                match links.add(vlan, "link add type vlan", "probe0").await {
                    Err(Error::Netlink { source: rtnetlink::Error::NetlinkError(error), .. })
                        if error.to_string().contains("VLAN") =>
                    {
                        Ok(())
                    }
                    other => other,
                }
            }),
            Self::Netem => in_namespace(add_netem),
            Self::Nftables => Ok(Path::new("/proc/sys/net/netfilter").exists() && nfnetlink_answers()),
            Self::BridgeNf => Ok(Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()),
            Self::Ipvs => Ok(Path::new("/proc/net/ip_vs").exists()),
            Self::InitSysctl => Ok(nix::unistd::geteuid().is_root() && in_initial_user_namespace()),
            Self::Btf => Ok(Path::new("/sys/kernel/btf/vmlinux").exists()),
            Self::Cgroup2 => {
                Ok(fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.lines().any(|line| line.contains(" cgroup2 "))))
            }
            Self::Tool(name) => {
                Ok(env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(name).is_file())))
            }
        }
    }
}

impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(name: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match name {
            "sctp" => Self::Sctp,
            "bonding" => Self::Bonding,
            "vlan" => Self::Vlan,
            "netem" => Self::Netem,
            "dummy" => Self::Dummy,
            "ipvs" => Self::Ipvs,
            "nftables" => Self::Nftables,
            "bridge_nf" => Self::BridgeNf,
            "init_sysctl" => Self::InitSysctl,
            "btf" => Self::Btf,
            "cgroup2" => Self::Cgroup2,
            _ => match name.strip_prefix("tool:") {
                Some(tool) if !tool.is_empty() => Self::Tool(tool.to_owned()),
                _ => return Err(UnknownCapability(name.to_owned())),
            },
        })
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sctp => "sctp",
            Self::Bonding => "bonding",
            Self::Vlan => "vlan",
            Self::Netem => "netem",
            Self::Dummy => "dummy",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
            Self::BridgeNf => "bridge_nf",
            Self::InitSysctl => "init_sysctl",
            Self::Btf => "btf",
            Self::Cgroup2 => "cgroup2",
            Self::Tool(name) => return write!(f, "tool:{name}"),
        })
    }
}

/// Whether the kernel grants a request made in a fresh namespace.
fn in_namespace(request: impl AsyncFnOnce(&Links) -> Result<()> + Send) -> Result<bool> {
    match links(&Namespace::new("probe")?, request) {
        Ok(()) => Ok(true),
        Err(Error::Netlink { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// `tc qdisc add dev lo root netem`, without options: the kernel demands a structure of limits, and refuses its absence with
/// EINVAL only after it has found the discipline; an unknown discipline is ENOENT.
async fn add_netem(links: &Links) -> Result<()> {
    let mut message = TcMessage::with_index(links.index("lo").await?.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message.attributes.push(TcAttribute::Kind("netem".to_owned()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut answers = links.handle().clone().request(request).map_err(Error::netlink("qdisc add", "netem"))?;
    while let Some(answer) = futures_util::StreamExt::next(&mut answers).await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.raw_code() == -libc::ENOENT
        {
            return Err(Error::netlink("qdisc add", "netem")(rtnetlink::Error::NetlinkError(error)));
        }
    }
    Ok(())
}

/// Whether netfilter's netlink family exists.
fn nfnetlink_answers() -> bool {
    let family = socket2::Domain::from(libc::AF_NETLINK);
    let netfilter = Some(socket2::Protocol::from(libc::NETLINK_NETFILTER));
    socket2::Socket::new(family, socket2::Type::RAW, netfilter).is_ok()
}

/// The initial user namespace maps every id to itself.
fn in_initial_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
