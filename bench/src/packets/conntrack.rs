//! The kernel's memory of flows in the calling thread's namespace: emptied between slots, and its limit.

use std::fs;
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE` (`include/uapi/linux/netfilter/nfnetlink*.h`).
const DELETE: u16 = 1 << 8 | 2;
/// Bytes of `nlmsghdr` and `nfgenmsg`.
const LENGTH: u32 = 20;

/// Forgets all flows: a deletion without a tuple means every entry (`ctnetlink_del_conntrack`). Only ever asked in a namespace that
/// the bench made.
pub(super) fn forget() -> Result<()> {
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_NETFILTER)))
        .context("opening nfnetlink")?;
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK).context("netlink's flags have 16 bits")?;
    let mut request = Vec::with_capacity(20);
    request.extend(LENGTH.to_ne_bytes());
    request.extend(DELETE.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]); // sequence number and port id
    request.extend([0; 4]); // any family, NFNETLINK_V0, no resource
    socket.write_all(&request).context("asking conntrack to forget")?;
    let mut answer = [0; 512];
    let length = socket.read(&mut answer).context("conntrack's answer")?;
    // nlmsgerr: the header's 16 bytes, then the error, negated.
    let code = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(error) => Err(std::io::Error::from_raw_os_error(-error)).context("conntrack would not forget"),
        None => bail!("conntrack answered {length} bytes"),
    }
}

/// Asks whether so many flows fit. A full table drops every new flow, and near it the kernel looks for victims.
pub(super) fn ensure_room(flows: u32) -> Result<()> {
    const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    let limit = fs::read_to_string(LIMIT).with_context(|| format!("reading {LIMIT}: is conntrack in this kernel?"))?;
    let limit: u32 = limit.trim().parse().with_context(|| format!("{LIMIT} is no number: {limit:?}"))?;
    // 0 is without a limit (`nf_conntrack_alloc`).
    let fits = limit == 0 || limit / 2 >= flows;
    ensure!(fits, "the kernel keeps {limit} flows, and {} are needed: raise net.netfilter.nf_conntrack_max", flows * 2);
    Ok(())
}
