//! What a rule of a packet filter looks for, in nf_tables' words or in x_tables': as much as has to be understood of others' rules.

use std::net::IpAddr;

use ipnet::IpNet;

/// One thing that a rule asks of a packet. A rule without any is for all packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It comes from there.
    Source(IpNet),
    /// It goes there.
    Destination(IpNet),
    /// It came in by this interface.
    InputInterface(Interface),
    /// It leaves by this interface.
    OutputInterface(Interface),
    /// These bits of its mark have this value.
    Mark {
        /// The value.
        value: u32,
        /// The bits.
        mask: u32,
    },
    /// Its connection is in one of these states: [`INVALID`], [`ESTABLISHED`] and others.
    States(u32),
    /// `IPPROTO_*`.
    Protocol(u8),
    /// The port that it goes to.
    DestinationPort(u16),
    /// Anything else, or the contrary of any of these.
    Other,
}

/// `IFNAMSIZ`
const INTERFACE_NAME: usize = 16;

/// An interface by its name, or all whose names begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Filled up with zeros.
    name: [u8; INTERFACE_NAME],
    /// No more than this is compared.
    length: usize,
}

/// `NF_CT_STATE_INVALID_BIT`, `XT_CONNTRACK_STATE_INVALID`.
pub const INVALID: u32 = 1;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`, `XT_CONNTRACK_STATE_BIT(IP_CT_ESTABLISHED)`.
pub const ESTABLISHED: u32 = 2;

/// `match_flags`, `invert_flags` and `state_mask` of `struct xt_conntrack_mtinfo3`, and the flag of a match by state alone.
const MATCH_FLAGS: usize = 146;
const INVERT_FLAGS: usize = 148;
const STATE_MASK: usize = 150;
const BY_STATE: u16 = 1;

impl Condition {
    /// What an extension of iptables asks (`iptables -m name`), from its arguments as the kernel keeps them; nothing for a comment.
    #[must_use]
    pub fn of_extension(name: &str, info: &[u8]) -> Option<Self> {
        let half = |at: usize| info.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
        let ports = |at| Some((half(at)?, half(at + 2)?));
        let is_zero =
            |at: usize, length: usize| info.get(at..at + length).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
        let known = match name {
            "comment" => return None,
            // `struct xt_tcp`: source ports, destination ports, option, flags' mask and value, inversions.
            "tcp" if is_zero(8, 4) => by_port(ports(0), ports(4)),
            // `struct xt_udp`: source ports, destination ports, inversions.
            "udp" if is_zero(8, 1) => by_port(ports(0), ports(4)),
            // `struct xt_sctp_info`, the other way round: ports that are not asked for are zero.
            "sctp" => half(0).map(Self::DestinationPort),
            // `struct xt_mark_mtinfo1`: value, mask, inversion.
            "mark" if is_zero(8, 1) => {
                let word = |at: usize| info.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
                word(0).zip(word(4)).map(|(value, mask)| Self::Mark { value, mask })
            }
            "state" => info.get(..4).and_then(|mask| mask.try_into().ok()).map(|mask| Self::States(u32::from_ne_bytes(mask))),
            "conntrack" if half(MATCH_FLAGS) == Some(BY_STATE) && half(INVERT_FLAGS) == Some(0) => {
                half(STATE_MASK).map(|mask| Self::States(mask.into()))
            }
            _ => None,
        };
        Some(known.unwrap_or(Self::Other))
    }

    /// From the bytes of an address, of which fewer than all are a prefix, and of a mask; `None` if the mask is no prefix's.
    #[must_use]
    pub fn network(bytes: &[u8], mask: Option<&[u8]>, length: usize) -> Option<IpNet> {
        let prefix = match mask {
            None => bytes.len() * 8,
            Some(mask) => {
                let mut bits = [0; 16];
                bits.get_mut(..mask.len())?.copy_from_slice(mask);
                let bits = u128::from_be_bytes(bits);
                (bits.leading_ones() == bits.count_ones()).then_some(usize::try_from(bits.count_ones()).ok()?)?
            }
        };
        let mut full = [0; 16];
        full.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let address = match length {
            4 => IpAddr::from(<[u8; 4]>::try_from(&full[..4]).ok()?),
            _ => IpAddr::from(full),
        };
        IpNet::new(address, u8::try_from(prefix).ok()?).ok()
    }
}

impl Interface {
    /// From what a name is compared with: with the zero that ends it, or only its beginning. `None` if no name is so long.
    #[must_use]
    pub fn compared_with(bytes: &[u8]) -> Option<Self> {
        let length = bytes.iter().position(|byte| *byte == 0).map_or(bytes.len(), |end| end + 1);
        let mut name = [0; INTERFACE_NAME];
        name.get_mut(..length)?.copy_from_slice(&bytes[..length]);
        Some(Self { name, length })
    }

    /// Whether it is this, in iptables' words: `lxc+` are all whose names begin with `lxc`.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        let compared = &self.name[..self.length];
        match text.strip_suffix('+') {
            Some(beginning) => compared == beginning.as_bytes(),
            None => compared.split_last() == Some((&0, text.as_bytes())),
        }
    }
}

/// One destination port of any source port.
fn by_port(source: Option<(u16, u16)>, destination: Option<(u16, u16)>) -> Option<Condition> {
    let (first, last) = destination?;
    (source == Some((0, u16::MAX)) && first == last).then_some(Condition::DestinationPort(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_that_is_no_prefix_is_no_network() {
        let net = |bytes: &[u8], mask: Option<&[u8]>| Condition::network(bytes, mask, 4).map(|net| net.to_string());
        assert_eq!(net(&[10], None).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(net(&[10, 96, 0, 1], None).as_deref(), Some("10.96.0.1/32"));
        assert_eq!(net(&[10, 96, 0, 0], Some(&[255, 240, 0, 0])).as_deref(), Some("10.96.0.0/12"));
        assert_eq!(net(&[10, 0, 0, 1], Some(&[255, 0, 0, 255])), None);
        assert_eq!(net(&[10, 0, 0, 0], Some(&[255, 240, 255, 0])), None);
        assert_eq!(net(&[0, 0, 0, 0], Some(&[0, 0, 0, 0])).as_deref(), Some("0.0.0.0/0"));
    }

    #[test]
    fn interfaces_of_one_beginning_are_not_the_one_of_that_name() {
        let interface = |bytes: &[u8]| Interface::compared_with(bytes).unwrap();
        let (all, one, padded) = (interface(b"lxc"), interface(b"lxc\0"), interface(b"lxc\0\0\0\0\0\0\0\0\0\0\0\0\0"));
        assert!(all.is("lxc+") && !all.is("lxc") && one.is("lxc") && !one.is("lxc+") && one == padded);
        assert!(!interface(b"lxcbr0\0").is("lxc+") && !interface(b"").is("lxc+") && !interface(b"lx").is("lxc+"));
        assert_eq!(Interface::compared_with(&[b'x'; 17]), None);
    }

    #[test]
    fn an_extension_with_more_than_one_question_is_not_understood() {
        let tcp = |source: [u16; 2], destination: [u16; 2], flags: u8| {
            let ports = [source, destination].concat();
            let bytes: Vec<u8> = ports.into_iter().flat_map(u16::to_ne_bytes).chain([0, flags, 0, 0]).collect();
            Condition::of_extension("tcp", &bytes)
        };
        assert_eq!(tcp([0, u16::MAX], [80, 80], 0), Some(Condition::DestinationPort(80)));
        assert_eq!(tcp([0, u16::MAX], [80, 81], 0), Some(Condition::Other));
        assert_eq!(tcp([5, 5], [80, 80], 0), Some(Condition::Other));
        assert_eq!(tcp([0, u16::MAX], [80, 80], 2), Some(Condition::Other));
        assert_eq!(Condition::of_extension("comment", &[]), None);
        for name in ["tcp", "udp", "sctp", "mark", "state", "conntrack", "physdev"] {
            assert_eq!(Condition::of_extension(name, &[]), Some(Condition::Other), "{name}");
        }
    }
}
