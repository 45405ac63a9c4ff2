//! What is said on a LAN about who has an address, as one machine hears it: ARP and neighbour discovery, with the time of each frame.

mod frame;

use crate::{
    Error, Host, Result,
    link::links,
    packet_socket::{PacketSocket, wait},
};
use netlink_packet_route::link::LinkAttribute;
use std::{
    collections::BTreeSet,
    fmt, io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Somebody said something about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When the kernel got the frame (CLOCK_MONOTONIC).
    pub at: Instant,
    /// What was said.
    pub word: Word,
    /// About which address.
    pub address: IpAddr,
    /// By whom: the hardware address in the message, which is the one that neighbours believe.
    pub mac: Mac,
}

/// What can be said of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It was announced without a question, to everybody: gratuitous ARP, an unsolicited neighbour advertisement.
    Announced,
    /// A question was answered.
    Answered,
    /// The recorder itself asked, everybody.
    Asked,
}

/// Records at one interface of a machine from its start on, in promiscuous mode. Dropping it ends that.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    /// Closing it ends the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// A question that is asked again and again, until this is dropped.
#[derive(Debug)]
pub struct Questions {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    socket: PacketSocket,
    own: frame::Asker,
    sightings: Mutex<Vec<Sighting>>,
    /// Signalled at every sighting.
    seen: Condvar,
}

// === impl Mac ===

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Host {
    /// The hardware address of an interface.
    ///
    /// # Errors
    /// If the interface is missing, or has none.
    pub fn mac(&self, interface: &str) -> Result<Mac> {
        links(self, async |links| {
            let none = || io::Error::other("it has no hardware address");
            let attributes = links.attributes(interface).await?;
            let mac = attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => Some(Mac(bytes.try_into().ok()?)),
                _ => None,
            });
            mac.ok_or_else(|| Error::call("link show", interface)(none()))
        })
    }
}

// === impl Recorder ===

impl Recorder {
    /// Begins to record.
    ///
    /// # Errors
    /// If there is no such interface, or no socket or thread can be had.
    pub fn start(host: &Host, interface: &str) -> Result<Self> {
        let subject = || format!("a recorder at {interface} of {}", host.name());
        let index = links(host, async |links| links.index(interface).await)?;
        let own = frame::Asker { mac: host.mac(interface)?, v4: host.ipv4(), v6: host.ipv6() };
        let socket = host.run(|| PacketSocket::open(index))?.map_err(Error::call("open", subject()))?;
        // Switches the kernel's stamps on before the first frame that counts. There is none yet, and the kernel says so: ENOENT.
        let _ = socket.received_at();
        let (stopped, stop) = nix::unistd::pipe().map_err(Error::errno("pipe", subject()))?;
        let shared = Arc::new(Shared { socket, own, sightings: Mutex::default(), seen: Condvar::new() });
        let recorder = Arc::clone(&shared);
        let thread = thread::Builder::new().name("recorder".to_owned()).spawn(move || recorder.record(&stopped));
        Ok(Self { shared, stop: Some(stop), thread: Some(thread.map_err(Error::call("spawn", subject()))?) })
    }

    /// Everything so far, in the order of its arrival.
    #[must_use]
    pub fn sightings(&self) -> Vec<Sighting> {
        self.shared.sightings().clone()
    }

    /// The announcements of an address since an instant.
    #[must_use]
    pub fn announcements(&self, address: IpAddr, since: Instant) -> Vec<Sighting> {
        let mut found = self.sightings();
        found.retain(|sighting| sighting.word == Word::Announced && sighting.address == address && sighting.at >= since);
        found
    }

    /// Waits for the first announcement of an address since an instant, by anybody for whom `by` is true.
    ///
    /// # Errors
    /// If there is none within `limit` from now.
    pub fn await_announcement(
        &self,
        address: IpAddr,
        since: Instant,
        limit: Duration,
        by: impl Fn(Mac) -> bool,
    ) -> Result<Sighting> {
        let wanted = |sighting: &&Sighting| {
            sighting.word == Word::Announced && sighting.address == address && sighting.at >= since && by(sighting.mac)
        };
        self.shared
            .wait(limit, |sightings| sightings.iter().find(wanted).copied())
            .ok_or_else(|| Error::TooLate { what: format!("an announcement of {address}"), limit })
    }

    /// Asks everybody once who has the address, and returns all who say that they do within `patience`.
    ///
    /// # Errors
    /// If the question cannot be sent.
    pub fn who_has(&self, address: IpAddr, patience: Duration) -> Result<BTreeSet<Mac>> {
        let asked = Instant::now();
        self.shared.ask(address).map_err(Error::call("send", format!("a question for {address}")))?;
        thread::sleep(patience);
        let found = self.sightings().into_iter();
        let answers = found.filter(|it| it.word == Word::Answered && it.address == address && it.at >= asked);
        Ok(answers.map(|answer| answer.mac).collect())
    }

    /// Asks everybody who has the address, every `pause`, until the result is dropped.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn keep_asking(&self, address: IpAddr, pause: Duration) -> Result<Questions> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&self.shared));
        let ask = move || {
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                // An interface that is down for a while loses questions as a cable does.
                let _ = shared.ask(address);
                next = (next + pause).max(Instant::now());
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        };
        let thread = thread::Builder::new().name("questions".to_owned()).spawn(ask);
        Ok(Questions { stop, thread: Some(thread.map_err(Error::call("spawn", "questions"))?) })
    }

    /// The longest time in which every question was answered by two or more, since an instant: from the first such question to the next
    /// one that was not.
    #[must_use]
    pub fn longest_dispute(&self, address: IpAddr, since: Instant) -> Duration {
        longest_dispute(&self.sightings(), address, since)
    }
}

impl Recorder {
    /// The longest time without an answer to the questions that were asked since an instant, by whomever.
    #[must_use]
    pub fn longest_silence(&self, address: IpAddr, since: Instant) -> Duration {
        longest_silence(&self.sightings(), address, since)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It says nothing but that the socket's interface went first.
            let _ = thread.join();
        }
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// See [`Recorder::longest_dispute`].
fn longest_dispute(sightings: &[Sighting], address: IpAddr, since: Instant) -> Duration {
    let (mut longest, mut began) = (Duration::ZERO, None);
    let mut question: Option<(Instant, BTreeSet<Mac>)> = None;
    let mut about: Vec<&Sighting> = sightings.iter().filter(|it| it.address == address && it.at >= since).collect();
    about.sort_by_key(|sighting| sighting.at);
    for sighting in about {
        match sighting.word {
            Word::Announced => {}
            Word::Answered => {
                if let Some((_, answers)) = &mut question {
                    answers.insert(sighting.mac);
                }
            }
            Word::Asked => {
                if let Some((asked, answers)) = question.replace((sighting.at, BTreeSet::new())) {
                    began = if answers.len() > 1 { began.or(Some(asked)) } else { None };
                    let lasted = began.map(|began: Instant| sighting.at.duration_since(began));
                    longest = longest.max(lasted.unwrap_or_default());
                }
            }
        }
    }
    longest
}

/// See [`Recorder::longest_silence`].
fn longest_silence(sightings: &[Sighting], address: IpAddr, since: Instant) -> Duration {
    let about = sightings.iter().filter(|it| it.address == address && it.at >= since && it.word != Word::Announced);
    let (mut longest, mut waiting) = (Duration::ZERO, None);
    for sighting in about {
        let began = *waiting.get_or_insert(sighting.at);
        longest = longest.max(sighting.at.saturating_duration_since(began));
        if sighting.word == Word::Answered {
            // Until the next question nobody waits.
            waiting = None;
        }
    }
    longest
}

// === impl Shared ===

impl Shared {
    fn sightings(&self) -> MutexGuard<'_, Vec<Sighting>> {
        self.sightings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, sighting: Sighting) {
        self.sightings().push(sighting);
        self.seen.notify_all();
    }

    fn ask(&self, address: IpAddr) -> io::Result<()> {
        // Noted first: the answer may be there before the call returns.
        self.note(Sighting { at: Instant::now(), word: Word::Asked, address, mac: self.own.mac });
        self.socket.send_ethernet(&self.own.question(address)).map(drop)
    }

    /// Takes frames until the pipe closes, or the interface is gone.
    fn record(&self, stopped: &OwnedFd) {
        let mut buffer = vec![0; PacketSocket::LONGEST];
        while let Ok([frames, stop]) = wait([self.socket.as_raw_fd(), stopped.as_raw_fd()], None) {
            if stop {
                return;
            }
            while frames && let Ok(Some(length)) = self.socket.receive(&mut buffer) {
                let ethernet = PacketSocket::ethernet(buffer.get(..length).unwrap_or_default());
                if let Some((word, address, mac)) = frame::read(ethernet) {
                    let at = self.socket.received_at().unwrap_or_else(|_| Instant::now());
                    self.note(Sighting { at, word, address, mac });
                }
            }
        }
    }

    /// Waits until something is found.
    fn wait<T>(&self, limit: Duration, find: impl Fn(&[Sighting]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut sightings = self.sightings();
        loop {
            if let Some(found) = find(&sightings) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            (sightings, _) = self.seen.wait_timeout(sightings, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One question per 100 ms; a letter for each who answers it.
    fn dispute(answers: &[&str]) -> u128 {
        measure(answers, longest_dispute)
    }

    fn silence(answers: &[&str]) -> u128 {
        measure(answers, longest_silence)
    }

    fn measure(answers: &[&str], by: fn(&[Sighting], IpAddr, Instant) -> Duration) -> u128 {
        let (start, address) = (Instant::now(), "192.168.1.240".parse().unwrap());
        let mut sightings = Vec::new();
        for (answers, number) in answers.iter().zip(0..) {
            let at = start + Duration::from_millis(100) * number;
            sightings.push(Sighting { at, word: Word::Asked, address, mac: Mac([0; 6]) });
            let by = |name| Sighting { at: at + Duration::from_millis(1), word: Word::Answered, address, mac: Mac([name; 6]) };
            sightings.extend(answers.bytes().map(by));
        }
        by(&sightings, address, start).as_millis()
    }

    #[test]
    fn a_silence_lasts_from_a_question_to_the_next_answer() {
        assert_eq!(silence(&["a", "ab", "b"]), 1);
        assert_eq!(silence(&["a", "", "", "a"]), 201);
        assert_eq!(silence(&["", "", ""]), 200, "to the last question");
    }

    #[test]
    fn a_dispute_lasts_as_long_as_two_answer_every_question() {
        assert_eq!(dispute(&["a", "a", "", "b", "b"]), 0);
        assert_eq!(dispute(&["a", "ab", "b", "b"]), 100);
        assert_eq!(dispute(&["a", "ab", "ab", "b", "ab", "b"]), 200);
        assert_eq!(dispute(&["ab", "bc", "abc", ""]), 300);
        assert_eq!(dispute(&["aa", "bb"]), 0, "an answer that came twice is one");
    }
}
