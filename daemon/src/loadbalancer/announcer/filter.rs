//! The kernel filter of a socket: a classic BPF program that lets through what is about our addresses, so that nothing else wakes
//! us. Every other host's ARP stays in the kernel, and on a busy link that is most of it.
//!
//! A classic program has no maps, no way back and 4,096 instructions. So the addresses become ranges, found by bisection: a pool's
//! addresses lie side by side, and a thousand of them are usually one range. If there are more ranges than fit, the smallest gaps
//! are closed, and a few neighbours' frames come through in vain: the look-up behind the filter is exact, the filter only has to
//! miss nothing. A socket's options have a limit of their own (`net.core.optmem_max`, 20,480 bytes before Linux 6.9); where the kernel
//! refuses a program for its size, one of half as many ranges is tried.

use std::net::IpAddr;

use super::ethernet;
use crate::model::Family;

/// Ranges that fit into a program whatever their numbers are: ARP's looks twice, each time with two comparisons and leaves a range.
pub const RANGES: usize = 400;

/// A closed range of numbers.
type Range = (u32, u32);

/// One instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to pass over if a comparison is true.
    pub then: u8,
    /// And if it is not.
    pub otherwise: u8,
    /// Its operand.
    pub operand: u32,
}

/// Operations of `include/uapi/linux/bpf_common.h` and `filter.h`.
mod operation {
    /// Load from the frame: word, half, byte.
    pub(super) const WORD: u16 = 0x20;
    pub(super) const HALF: u16 = 0x28;
    pub(super) const BYTE: u16 = 0x30;
    /// Jump: always, if equal, if greater, if greater or equal.
    pub(super) const JUMP: u16 = 0x05;
    pub(super) const IF_EQUAL: u16 = 0x15;
    pub(super) const IF_GREATER: u16 = 0x25;
    pub(super) const IF_AT_LEAST: u16 = 0x35;
    /// Return so many bytes of the frame; none: it is not for us.
    pub(super) const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE`: to whom the kernel thinks that the frame goes.
    pub(super) const PACKET_TYPE: u32 = 0xffff_f004;
}

/// `PACKET_MULTICAST`: above are frames to other hosts, those of VLANs that this interface has not, and our own.
const LAST_FOR_US: u32 = 2;
/// More than any frame has.
const WHOLE: u32 = 0x4_0000;

/// The addresses of a family as ranges, no more than `limit` of them, each address in one.
///
/// Of an IPv6 address the last 32 bits are compared: what differs only before them does so in another subnet.
#[must_use]
pub fn ranges(addresses: impl Iterator<Item = IpAddr>, limit: usize) -> Vec<Range> {
    let mut numbers: Vec<u32> = addresses.map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut gaps: Vec<(u32, usize)> =
        (1..).zip(numbers.windows(2)).map(|(at, pair)| (pair[1] - pair[0] - 1, at)).filter(|(width, _)| *width > 0).collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    // The widest stay open.
    gaps.truncate(limit.max(1) - 1);
    let mut ends: Vec<usize> = gaps.into_iter().map(|(_, at)| at).chain([numbers.len()]).collect();
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter()
        .filter_map(|end| {
            let range = numbers.get(std::mem::replace(&mut start, end)..end)?;
            Some((*range.first()?, *range.last()?))
        })
        .collect()
}

/// The program for a socket of this family's protocol.
#[must_use]
pub fn program(family: Family, ranges: &[Range]) -> Vec<Instruction> {
    let mut program = vec![load(operation::WORD, operation::PACKET_TYPE)];
    reject_if(&mut program, operation::IF_GREATER, LAST_FOR_US);
    program.push(load(operation::HALF, 12));
    match family {
        // Requests for one of ours, and whatever says that one of ours is its sender's.
        Family::V4 => {
            reject_unless(&mut program, ethernet::ARP.into());
            program.push(load(operation::WORD, 38));
            search(&mut program, ranges);
            program.push(load(operation::WORD, 28));
        }
        // Solicitations and advertisements of one of ours.
        Family::V6 => {
            reject_unless(&mut program, ethernet::IPV6.into());
            program.push(load(operation::BYTE, 20));
            reject_unless(&mut program, 58);
            program.push(load(operation::BYTE, 54));
            reject_if(&mut program, operation::IF_GREATER, 136);
            program.push(Instruction { then: 1, ..when(operation::IF_AT_LEAST, 135) });
            program.push(give(0));
            program.push(load(operation::WORD, 74));
        }
    }
    search(&mut program, ranges);
    program.push(give(0));
    program
}

fn number(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    }
}

/// Accepts if the number loaded is in a range, and goes on behind itself if not.
fn search(program: &mut Vec<Instruction>, ranges: &[Range]) {
    // Where the answer changes: a number is in a range if an odd count of these is not above it. A range that ends with the
    // largest number of all never ends.
    let bounds: Vec<u32> = ranges.iter().flat_map(|(first, last)| [Some(*first), last.checked_add(1)]).flatten().collect();
    let start = program.len();
    bisect(program, &bounds, false);
    let end = program.len();
    for (at, instruction) in (start..).zip(&mut program[start..]) {
        if instruction.code == operation::JUMP && instruction.operand == OUT {
            instruction.operand = distance(at, end);
        }
    }
}

/// Where a search that found nothing goes; replaced when its end is known.
const OUT: u32 = u32::MAX;

fn bisect(program: &mut Vec<Instruction>, bounds: &[u32], inside: bool) {
    let (below, bound, above) = match bounds {
        [] if inside => return program.push(give(WHOLE)),
        [] => return program.push(Instruction { operand: OUT, ..when(operation::JUMP, 0) }),
        _ => {
            let (below, rest) = bounds.split_at(bounds.len() / 2);
            (below, rest[0], &rest[1..])
        }
    };
    // Comparisons reach 255 instructions far, jumps reach anywhere.
    program.push(Instruction { then: 0, otherwise: 1, ..when(operation::IF_AT_LEAST, bound) });
    let jump = program.len();
    program.push(when(operation::JUMP, 0));
    bisect(program, below, inside);
    let target = program.len();
    program[jump].operand = distance(jump, target);
    if let Ok(near) = u8::try_from(distance(jump - 1, target) - 1) {
        // It reaches: without the jump, everything behind it moves up by one.
        program.remove(jump);
        program[jump - 1] = Instruction { then: near, ..when(operation::IF_AT_LEAST, bound) };
    }
    bisect(program, above, inside != (below.len() % 2 == 0));
}

fn distance(from: usize, to: usize) -> u32 {
    u32::try_from(to - from - 1).unwrap_or(OUT)
}

fn load(code: u16, offset: u32) -> Instruction {
    when(code, offset)
}

fn when(code: u16, operand: u32) -> Instruction {
    Instruction { code, then: 0, otherwise: 0, operand }
}

fn give(bytes: u32) -> Instruction {
    when(operation::RETURN, bytes)
}

fn reject_if(program: &mut Vec<Instruction>, code: u16, operand: u32) {
    program.push(Instruction { otherwise: 1, ..when(code, operand) });
    program.push(give(0));
}

fn reject_unless(program: &mut Vec<Instruction>, operand: u32) {
    program.push(Instruction { then: 1, ..when(operation::IF_EQUAL, operand) });
    program.push(give(0));
}

#[cfg(test)]
mod tests;
