//! Numbered datagrams at a steady rate, each expected back once.

use super::{Flow, Shared};
use crate::{Error, Host, Protocol, Request, Result, client::Identity};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind, Read as _},
    time::{Duration, Instant},
};

/// A running UDP flow: one socket, so one flow to the kernel's connection tracking.
#[derive(Debug)]
pub struct UdpFlow(Flow<UdpReport>);

/// What a UDP flow has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpReport {
    /// Datagrams sent, refused ones included. They are numbered from 0.
    pub sent: u64,
    /// How many different ones were answered.
    pub answered: u64,
    /// Numbers not answered. While the flow runs, the last ones may just be on their way.
    pub missing: BTreeSet<u64>,
    /// Answers beyond the first to the same datagram.
    pub duplicated: u64,
    /// Answers that came after the answer to a later datagram.
    pub overtaken: u64,
    /// Answers per server. More than one is a flow that moved.
    pub by: BTreeMap<String, u64>,
    /// ICMP errors and local refusals.
    pub refused: u64,
    /// The longest time between two answers, or up to the first.
    pub longest_gap: Duration,
}

/// How long a stopped flow waits for answers that are still on their way.
const GRACE: Duration = Duration::from_millis(500);
/// How far it may be behind its pace and still catch up.
const LATE: Duration = Duration::from_millis(50);

impl UdpFlow {
    /// Sends this many datagrams per second to `to`, at once and until stopped.
    ///
    /// # Errors
    /// If the address is none.
    pub fn start(host: &Host, to: &str, packets_per_second: u32) -> Result<Self> {
        Self::start_limited(host, to, packets_per_second, u64::MAX)
    }

    /// As [`start`](Self::start), but sends no more than `count` datagrams.
    ///
    /// # Errors
    /// If the address is none, or the socket cannot be had.
    pub fn start_limited(host: &Host, to: &str, packets_per_second: u32, count: u64) -> Result<Self> {
        let request = Request::new(Protocol::Udp, to)?;
        // Without a route the kernel says so here, and not to a thread nobody hears.
        let socket = host.run(|| request.connect())?.map_err(Error::call("connect to", to))?;
        let pause = Duration::from_secs(1) / packets_per_second.max(1);
        Ok(Self(Flow::start(host, move |shared| send_and_receive(&socket, pause, count, shared))?))
    }

    /// What it has seen so far.
    #[must_use]
    pub fn report(&self) -> UdpReport {
        self.0.shared.report().clone()
    }

    /// Waits until so many more datagrams have been answered.
    ///
    /// # Errors
    /// If they are not within the limit.
    pub fn await_answers(&self, count: u64, limit: Duration) -> Result<UdpReport> {
        let goal = self.report().answered + count;
        self.0.wait_until("answers to a UDP flow", limit, |report| report.answered >= goal)
    }

    /// Waits until the report satisfies a condition.
    ///
    /// # Errors
    /// If it does not within the limit.
    pub fn await_report(&self, limit: Duration, enough: impl Fn(&UdpReport) -> bool) -> Result<UdpReport> {
        self.0.wait_until("what was expected of a UDP flow", limit, enough)
    }

    /// Waits until so many datagrams have been sent in all.
    ///
    /// # Errors
    /// If they are not within the limit.
    pub fn await_sent(&self, count: u64, limit: Duration) -> Result<UdpReport> {
        self.0.wait_until("datagrams of a UDP flow", limit, |report| report.sent >= count)
    }

    /// Waits for answers on their way and reports.
    #[must_use]
    pub fn stop(mut self) -> UdpReport {
        self.0.stop()
    }
}

impl UdpReport {
    /// Whether every datagram was answered once, all by the same server.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.duplicated == 0 && self.refused == 0 && self.by.len() == 1
    }
}

fn send_and_receive(socket: &socket2::Socket, pause: Duration, count: u64, shared: &Shared<UdpReport>) {
    let start = Instant::now();
    let mut next = start;
    let mut last_answer = start;
    let mut latest = None;
    let mut stopped_at = None;
    let mut sent = 0;
    loop {
        let now = Instant::now();
        if shared.stopped() && stopped_at.is_none() {
            stopped_at = Some(now);
        }
        match stopped_at {
            Some(at) if now.duration_since(at) > GRACE || shared.report().missing.is_empty() => return,
            None if now >= next && sent < count => {
                // What a busy machine has missed is not made up for: a burst of answers would not fit into the socket's buffer.
                next = (next + pause).max(now.checked_sub(LATE).unwrap_or(now));
                let refused = socket.send(format!("{sent}\n").as_bytes()).is_err();
                shared.update(|report| {
                    report.missing.insert(sent);
                    report.sent += 1;
                    report.refused += u64::from(refused);
                });
                sent += 1;
                continue;
            }
            _ => {}
        }
        let limit = if stopped_at.is_none() && sent < count { next.saturating_duration_since(now) } else { pause };
        let answer = match receive(socket, limit.clamp(Duration::from_micros(100), Duration::from_millis(20))) {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                // A gap that never ends is a gap, too; but not one after the last answer that could come.
                if !shared.report().missing.is_empty() {
                    let gap = last_answer.elapsed();
                    shared.update(|report| report.longest_gap = report.longest_gap.max(gap));
                }
                continue;
            }
            Err(_) => {
                shared.update(|report| report.refused += 1);
                continue;
            }
        };
        let gap = last_answer.elapsed();
        last_answer = Instant::now();
        shared.update(|report| {
            report.longest_gap = report.longest_gap.max(gap);
            *report.by.entry(answer.by).or_default() += 1;
            if report.missing.remove(&answer.number) {
                report.answered += 1;
            } else {
                report.duplicated += 1;
            }
            report.overtaken += u64::from(latest.is_some_and(|latest| answer.number < latest));
        });
        latest = latest.max(Some(answer.number));
    }
}

/// A server's answer to one numbered datagram.
struct Numbered {
    number: u64,
    by: String,
}

/// The next answer; `None` if none comes in time. An error is an ICMP error.
fn receive(mut socket: &socket2::Socket, limit: Duration) -> io::Result<Option<Numbered>> {
    socket.set_read_timeout(Some(limit))?;
    let mut buffer = [0; 1024];
    let length = match socket.read(&mut buffer) {
        Ok(length) => length,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(None),
        Err(error) => return Err(error),
    };
    let answer = &buffer[..length];
    // What is not in the servers' words is nobody's answer.
    let by = Identity::parse(answer).map(|identity| identity.by.to_owned());
    let number = answer.split(|&byte| byte == b'\n').nth(1).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    Ok(by.zip(number).map(|(by, number)| Numbered { number, by }))
}
