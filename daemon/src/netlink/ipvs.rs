//! IP virtual server through generic netlink, as far as somebody needs it who has no virtual servers of his own.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::attr::{self, Fields};
use super::message::{Acknowledgement, Message, NLM_F_ACK, NLM_F_DUMP};
use super::socket::{DATAGRAM, NetfilterSocket, RequestError, single};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME`
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `IPVS_CMD_DEL_SERVICE`, `IPVS_CMD_GET_SERVICE`, `IPVS_CMD_ATTR_SERVICE`
const DELETE: u8 = 3;
const GET: u8 = 4;
const SERVICE: u16 = 1;

/// `IPVS_SVC_ATTR_*`
mod field {
    pub(super) const AF: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDRESS: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const MARK: u16 = 5;
}

/// A virtual server that is addressed by IP address; those of firewall marks are nobody's that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualServer {
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// Address and port.
    pub at: SocketAddr,
}

/// IPVS of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Ipvs {
    socket: NetfilterSocket,
    datagram: Vec<u8>,
    /// The number that generic netlink gave the family.
    family: u16,
}

/// Why a question was not answered, or a virtual server is still there.
#[derive(Debug, thiserror::Error)]
#[error("{call} {subject}: {source}")]
pub struct IpvsError {
    call: &'static str,
    subject: String,
    #[source]
    source: io::Error,
}

impl Ipvs {
    /// Opens the door of this thread's network namespace; `None` in a kernel without IPVS, or that has not loaded it.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open() -> Result<Option<Self>, IpvsError> {
        let failed = |source| IpvsError { call: "open generic netlink socket", subject: "for IPVS".to_owned(), source };
        let socket = NetfilterSocket::open_generic().map_err(failed)?;
        let mut datagram = vec![0; DATAGRAM];
        let request = single(CONTROLLER, NLM_F_ACK, GET_FAMILY, |request| attr::put_text(request, FAMILY_NAME, "IPVS"));
        let mut family = None;
        let each = &mut |message: &Message<'_>| {
            let id = message.fields::<3>().bytes(FAMILY_ID).and_then(|id| id.try_into().ok());
            family = family.or(id.map(u16::from_ne_bytes));
        };
        match socket.request(&mut datagram, &request, each) {
            Ok(()) => Ok(family.map(|family| Self { socket, datagram, family })),
            Err(RequestError::Refused(Acknowledgement { errno: libc::ENOENT, .. })) => Ok(None),
            Err(error) => Err(refused("find", "generic netlink family IPVS", &error)),
        }
    }

    /// All virtual servers that have an address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn virtual_servers(&mut self) -> Result<Vec<VirtualServer>, IpvsError> {
        let request = single(self.family, NLM_F_DUMP, GET, |_| {});
        let mut found = Vec::new();
        self.socket
            .request(&mut self.datagram, &request, &mut |message| found.extend(VirtualServer::parse(message)))
            .map_err(|error| refused("list", "virtual servers", &error))?;
        Ok(found)
    }

    /// Deletes a virtual server; one that is not there is deleted already.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete(&mut self, server: &VirtualServer) -> Result<(), IpvsError> {
        let request = single(self.family, NLM_F_ACK, DELETE, |request| {
            attr::nest(request, SERVICE, |request| {
                let (af, address) = match server.at.ip() {
                    IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
                    IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
                };
                attr::put(request, field::AF, &u16::try_from(af).unwrap_or_default().to_ne_bytes());
                attr::put(request, field::PROTOCOL, &u16::from(server.protocol).to_ne_bytes());
                // `union nf_inet_addr`, of either family.
                attr::put(request, field::ADDRESS, &[&address[..], &[0; 12]].concat()[..16]);
                attr::put_u16_be(request, field::PORT, server.at.port());
            });
        });
        match self.socket.request(&mut self.datagram, &request, &mut |_| {}) {
            Ok(()) | Err(RequestError::Refused(Acknowledgement { errno: libc::ESRCH | libc::ENOENT, .. })) => Ok(()),
            Err(error) => Err(refused("delete virtual server", &server.to_string(), &error)),
        }
    }
}

/// Connections that IPVS still carries, by virtual server: active and inactive ones of all its destinations. From
/// `/proc/net/ip_vs`; empty where there is none.
#[must_use]
pub fn connections() -> HashMap<VirtualServer, u64> {
    fs::read_to_string("/proc/thread-self/net/ip_vs").map(|text| parse_connections(&text)).unwrap_or_default()
}

/// Virtual servers that send new connections somewhere: one of their destinations has a weight. From `/proc/net/ip_vs`.
#[must_use]
pub fn serving() -> HashSet<VirtualServer> {
    fs::read_to_string("/proc/thread-self/net/ip_vs").map(|text| parse_serving(&text)).unwrap_or_default()
}

fn parse_serving(text: &str) -> HashSet<VirtualServer> {
    let mut found = HashSet::new();
    let mut server = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["->", _, _, weight, ..] => found.extend(server.filter(|_| weight.parse().is_ok_and(|weight: u32| weight > 0))),
            [protocol, at, ..] => server = parse_server(protocol, at),
            _ => {}
        }
    }
    found
}

fn parse_connections(text: &str) -> HashMap<VirtualServer, u64> {
    let mut found = HashMap::new();
    let mut server = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["->", _, _, _, active, inactive] => {
                if let (Some(server), Ok(active), Ok(inactive)) = (server, active.parse::<u64>(), inactive.parse::<u64>()) {
                    *found.entry(server).or_default() += active.saturating_add(inactive);
                }
            }
            [protocol, at, ..] => {
                server = parse_server(protocol, at);
                found.extend(server.map(|server| (server, 0)));
            }
            _ => {}
        }
    }
    found
}

/// `TCP  AC1E0029:0050 rr`, and for IPv6 `TCP  [fd00:0172:...:0041]:0050 rr` (`ip_vs_info_seq_show`).
fn parse_server(protocol: &str, at: &str) -> Option<VirtualServer> {
    let protocol = match protocol {
        "TCP" => libc::IPPROTO_TCP,
        "UDP" => libc::IPPROTO_UDP,
        "SCTP" => libc::IPPROTO_SCTP,
        _ => return None,
    };
    let (address, port) = at.rsplit_once(':')?;
    let address: IpAddr = match address.strip_prefix('[') {
        Some(address) => address.trim_end_matches(']').parse().ok()?,
        None => IpAddr::from(u32::from_str_radix(address, 16).ok()?.to_be_bytes()),
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(VirtualServer { protocol: u8::try_from(protocol).ok()?, at: SocketAddr::new(address, port) })
}

impl VirtualServer {
    fn parse(message: &Message<'_>) -> Option<Self> {
        let fields: Fields<'_, 8> = message.fields::<3>().nest(SERVICE);
        if fields.bytes(field::MARK).is_some() {
            return None;
        }
        let number = |kind| fields.bytes(kind)?.try_into().ok().map(u16::from_ne_bytes);
        let address = fields.bytes(field::ADDRESS)?;
        let address = match i32::from(number(field::AF)?) {
            libc::AF_INET => IpAddr::from(<[u8; 4]>::try_from(address.get(..4)?).ok()?),
            libc::AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(address.get(..16)?).ok()?),
            _ => return None,
        };
        let protocol = u8::try_from(number(field::PROTOCOL)?).ok()?;
        Some(Self { protocol, at: SocketAddr::new(address, fields.u16_be(field::PORT)?) })
    }
}

impl fmt::Display for VirtualServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match i32::from(self.protocol) {
            libc::IPPROTO_TCP => "TCP",
            libc::IPPROTO_UDP => "UDP",
            libc::IPPROTO_SCTP => "SCTP",
            other => return write!(f, "{} protocol {other}", self.at),
        };
        write!(f, "{} {protocol}", self.at)
    }
}

fn refused(call: &'static str, subject: &str, error: &RequestError) -> IpvsError {
    IpvsError { call, subject: subject.to_owned(), source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_server_serves_while_a_destination_has_weight() {
        let found = parse_serving(
            "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
             TCP  AC1E0029:0050 rr \n  -> 0AB40001:0050      Masq    0      3          4         \n  -> 0AB40201:0050      Masq    1      1          0         \n\
             TCP  AC1E0029:0051 rr \nTCP  AC1E0029:0052 rr \n  -> 0AB40001:0050      Masq    0      0          0\n",
        );
        assert_eq!(found, HashSet::from([VirtualServer { protocol: 6, at: "172.30.0.41:80".parse().unwrap() }]));
    }

    #[test]
    fn connections_are_summed_by_virtual_server() {
        let found = parse_connections(
            "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
             TCP  AC1E0029:0050 rr \n  -> 0AB40001:0050      Masq    1      3          4         \n  -> 0AB40201:0050      Masq    1      1          0         \n\
             UDP  [fd00:0172:0030:0000:0000:0000:0000:0041]:0035 rr \nFWM  00000001 rr \n  -> 0AB40001:0050      Masq    1      9          0\n",
        );
        let server = |protocol, at: &str| VirtualServer { protocol, at: at.parse().unwrap() };
        let expected = [(server(6, "172.30.0.41:80"), 8), (server(17, "[fd00:172:30::41]:53"), 0)];
        assert_eq!(found, HashMap::from(expected));
        assert_eq!(expected[1].0.to_string(), "[fd00:172:30::41]:53 UDP");
    }
}
