//! Who is down, and in which way: one member's judgement of another.
//!
//! The three faults look alike at first: no more beats. What tells them apart is the peer's *kernel*, which is probed while its daemon
//! is silent. A kernel that answers forwards packets, so nothing needs to move at once: the daemon may be restarting.

use std::collections::BTreeMap;
use std::time::Instant;

use super::options::UNCONTRADICTED;
use super::ring::MemberId;
use super::wire::{Departure, Says};

/// What is known of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in the roster; nothing was heard of it so far.
    Unheard,
    /// It beats.
    Alive,
    /// Its kernel answers, its daemon does not.
    DaemonDown {
        /// How that was seen.
        fault: Fault,
        /// Since when. After `daemonRestartGrace` it is [`State::Gone`].
        since: Instant,
    },
    /// It hands over, and will end.
    Leaving,
    /// It announces nothing.
    Gone {
        /// How that came.
        cause: Cause,
        /// Since when.
        since: Instant,
    },
}

/// What is wrong with a daemon whose node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Its port refuses: there is no process.
    Refuses,
    /// Its port takes datagrams and answers none: it is stopped, starved or stuck.
    Stalled,
    /// It said that it would be back soon.
    Restarting,
}

/// Why a member is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Neither its daemon nor its kernel answers: power, cable, switch.
    NodeGone,
    /// The node lives; its daemon was not back in time.
    DaemonDown(Fault),
    /// It said so.
    Left,
}

/// What a probe found out about the node of a silent daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// Its membership port refuses datagrams (ICMP port unreachable): its kernel lives, and nobody listens.
    Refuses,
    /// Its kernel answered: a TCP reset, an ARP or neighbour reply, an echo.
    KernelAnswers,
}

/// Everything that is said about one member.
#[derive(Debug, Default)]
pub(super) struct Case {
    /// Who says what. Of the living only, and our own word is among them.
    pub(super) words: BTreeMap<MemberId, Says>,
}

/// What the words come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nobody accuses it, or too few do.
    Up,
    /// Its node is gone.
    NodeGone,
    /// Its daemon is.
    DaemonDown(Fault),
}

impl Case {
    /// Judges by what its watchers say, those of them that we hear. `accused` is since when somebody accuses it.
    ///
    /// Most of them suffice at once. One alone does after a while in which nobody who hears the member objected: the other watchers
    /// may have gone with it.
    pub(super) fn judge(&self, watchers: impl Iterator<Item = MemberId>, accused: Instant, now: Instant) -> Finding {
        let accusers = self.words.values().filter(|says| says.accuses()).count();
        let silent_watchers = watchers.filter(|watcher| !self.words.contains_key(watcher)).count();
        let defenders = self.words.len() - accusers;
        let most = accusers * 2 > accusers + defenders + silent_watchers;
        let uncontradicted = accusers > 0 && defenders == 0 && now >= accused + UNCONTRADICTED;
        if !most && !uncontradicted {
            return Finding::Up;
        }
        let says = |wanted| self.words.values().any(|&says| says == wanted);
        match (says(Says::Refuses), says(Says::KernelAnswers)) {
            (true, _) => Finding::DaemonDown(Fault::Refuses),
            (false, true) => Finding::DaemonDown(Fault::Stalled),
            (false, false) => Finding::NodeGone,
        }
    }
}

impl State {
    /// Whether it counts as a member at the moment: its node lives.
    #[must_use]
    pub fn is_member(self) -> bool {
        matches!(self, Self::Alive | Self::DaemonDown { .. } | Self::Leaving)
    }

    /// What it comes to when it beats.
    pub(super) fn after_beat(self, departure: Option<Departure>, now: Instant) -> Self {
        match (departure, self) {
            (None, _) => Self::Alive,
            (Some(Departure::Leave), _) => Self::Leaving,
            // It said so before, and counts from then.
            (Some(Departure::Restart), Self::DaemonDown { fault: Fault::Restarting, .. } | Self::Gone { .. }) => self,
            (Some(Departure::Restart), _) => Self::DaemonDown { fault: Fault::Restarting, since: now },
        }
    }

    /// What it comes to when it is found down, or up. A member that is gone comes back by being heard only.
    pub(super) fn after(self, finding: Finding, now: Instant) -> Self {
        let gone = |cause| Self::Gone { cause, since: now };
        match (self, finding) {
            (Self::Unheard | Self::Gone { .. }, _) | (_, Finding::Up) => self,
            (Self::Leaving, _) => gone(Cause::Left),
            (_, Finding::NodeGone) => gone(Cause::NodeGone),
            // What it said itself stands, and since when does.
            (Self::DaemonDown { fault: Fault::Restarting, .. }, Finding::DaemonDown(_)) => self,
            (Self::DaemonDown { since, .. }, Finding::DaemonDown(fault)) => Self::DaemonDown { fault, since },
            (Self::Alive, Finding::DaemonDown(fault)) => Self::DaemonDown { fault, since: now },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn finding(words: &[(u64, Says)], waited: u64) -> Finding {
        let case = Case { words: words.iter().map(|&(who, says)| (MemberId(who), says)).collect() };
        let accused = Instant::now();
        case.judge((1..=4).map(MemberId), accused, accused + Duration::from_millis(waited))
    }

    #[test]
    fn most_watchers_or_one_whom_nobody_contradicts() {
        use Says::{Heard, KernelAnswers, Mute, Refuses};
        for (words, waited, expected) in [
            (&[][..], 1000, Finding::Up),
            (&[(1, Mute), (2, Mute)], 0, Finding::Up),
            (&[(1, Mute), (2, Mute), (3, Mute)], 0, Finding::NodeGone),
            (&[(1, Mute)], 149, Finding::Up),
            (&[(1, Mute)], 150, Finding::NodeGone),
            (&[(1, Mute), (2, Heard)], 1000, Finding::Up),
            (&[(1, Mute), (2, Mute), (3, Refuses)], 0, Finding::DaemonDown(Fault::Refuses)),
            (&[(1, Mute), (2, Mute), (3, KernelAnswers)], 0, Finding::DaemonDown(Fault::Stalled)),
            (&[(1, Mute), (2, Mute), (3, Mute), (4, Heard)], 0, Finding::NodeGone),
            // Not among its watchers by our count, but it hears it: a word all the same.
            (&[(1, Mute), (2, Mute), (3, Mute), (8, Heard), (9, Heard)], 0, Finding::Up),
        ] {
            assert_eq!(finding(words, waited), expected, "{words:?} after {waited} ms");
        }
    }

    #[test]
    fn who_left_is_gone_and_who_restarts_keeps_its_word() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let restarting = State::DaemonDown { fault: Fault::Restarting, since: now };
        assert_eq!(
            State::Leaving.after(Finding::DaemonDown(Fault::Refuses), now),
            State::Gone { cause: Cause::Left, since: now }
        );
        assert_eq!(restarting.after(Finding::DaemonDown(Fault::Refuses), later), restarting);
        assert_eq!(restarting.after(Finding::NodeGone, later), State::Gone { cause: Cause::NodeGone, since: later });
        assert_eq!(State::Unheard.after(Finding::NodeGone, now), State::Unheard);
    }
}
