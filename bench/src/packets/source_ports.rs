//! The ports that clients send from.

use std::ops::Range;

/// Ports, each once. A flow whose 5-tuple was there before meets what conntrack remembers of that one (UDP: 30 s, and 120 s once
/// answered; TCP: 120 s after its end) and would be measured as established. So within a slot no port comes twice, and between two
/// slots the node's memory is emptied.
#[derive(Clone, Debug)]
pub(super) struct SourcePorts(Range<u16>);

/// Apart from every port that is served: pods', the node's own (10249, 10256), and those below 1024.
const RANGE: Range<u16> = 11_000..31_000;

impl SourcePorts {
    /// All of them, for each of so many clients a part of its own.
    pub(super) fn parts(clients: u16) -> Vec<Self> {
        let each = (RANGE.end - RANGE.start) / clients.max(1);
        (0..clients.max(1)).map(|part| Self(RANGE.start + part * each..RANGE.start + (part + 1) * each)).collect()
    }

    /// How many flows a slot can have.
    pub(super) const fn total() -> u32 {
        (RANGE.end - RANGE.start) as u32
    }
}

impl Iterator for SourcePorts {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.0.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_clients_share_a_port() {
        for clients in [1, 2, 7] {
            let mut ports: Vec<u16> = SourcePorts::parts(clients).into_iter().flatten().collect();
            let all = ports.len();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(ports.len(), all);
            assert!(all > usize::try_from(SourcePorts::total()).unwrap() - usize::from(clients));
        }
    }
}
