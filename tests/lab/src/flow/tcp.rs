//! One TCP connection with a steady stream of bytes and a verified echo.

use super::{Flow, Shared};
use crate::{Error, Host, Outcome, Protocol, Request, Result, client::Identity};
use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    time::{Duration, Instant},
};

/// A running TCP connection.
#[derive(Debug)]
pub struct TcpFlow(Flow<TcpReport>);

/// What a TCP flow has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpReport {
    /// Who is at the other end; empty until it has said so.
    pub by: String,
    /// Bytes handed to the kernel.
    pub sent: u64,
    /// Bytes that came back, each of them the right one.
    pub echoed: u64,
    /// The longest time in which bytes were out and none came back.
    pub longest_stall: Duration,
    /// What ended the connection before it was told to stop.
    pub broken: Option<Outcome>,
    /// A byte that came back was not the one sent at that place: the place.
    pub wrong_byte_at: Option<u64>,
}

/// How often bytes are sent and progress is looked at.
const TICK: Duration = Duration::from_millis(5);
/// How long a stopped flow waits for the rest of its echo.
const GRACE: Duration = Duration::from_secs(2);
/// The period of the pattern: a prime, so that no loss of a whole buffer goes unnoticed.
const PERIOD: usize = 251;
/// The most that is sent or received at once.
const MOST: usize = 65_536;
/// The stream, as much of it as is ever needed at once. A table: ten flows of a megabyte per second, byte by byte, are half a
/// processor in an unoptimised build.
static STREAM: [u8; MOST + PERIOD] = {
    let mut bytes = [0; MOST + PERIOD];
    let mut place = 0;
    while place < bytes.len() {
        bytes[place] = (place % PERIOD).to_le_bytes()[0];
        place += 1;
    }
    bytes
};

impl TcpFlow {
    /// Connects to `to` and sends this many bytes per second. Returns when the other end has said who it is.
    ///
    /// # Errors
    /// If the connection does not come about.
    pub fn start(host: &Host, to: &str, bytes_per_second: u32) -> Result<Self> {
        let request = Request::new(Protocol::Tcp, to)?;
        let flow = Self(Flow::start(host, move |shared| {
            if let Err(error) = converse(&request, bytes_per_second, shared) {
                shared.update(|report| report.broken = Some(Outcome::of(&error)));
            }
        })?);
        let first = flow.0.wait_until("a TCP flow's first answer", Duration::from_secs(5), |report| {
            !report.by.is_empty() || report.broken.is_some()
        })?;
        match first.broken {
            Some(outcome) if first.by.is_empty() => Err(Error::NoAnswer(Box::new(outcome))),
            _ => Ok(flow),
        }
    }

    /// What it has seen so far.
    #[must_use]
    pub fn report(&self) -> TcpReport {
        self.0.shared.report().clone()
    }

    /// Waits until so many more bytes have come back.
    ///
    /// # Errors
    /// If they do not within the limit.
    pub fn await_progress(&self, bytes: u64, limit: Duration) -> Result<TcpReport> {
        let goal = self.report().echoed + bytes;
        self.0.wait_until("progress of a TCP flow", limit, |report| report.echoed >= goal)
    }

    /// Waits for what is still on its way, closes the connection and reports. Nothing went wrong if
    /// [`is_whole`](TcpReport::is_whole).
    #[must_use]
    pub fn stop(mut self) -> TcpReport {
        self.0.stop()
    }
}

impl TcpReport {
    /// Whether every byte sent came back, and the connection was there to the end.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.broken.is_none() && self.wrong_byte_at.is_none() && self.sent == self.echoed
    }
}

fn converse(request: &Request, bytes_per_second: u32, shared: &Shared<TcpReport>) -> io::Result<()> {
    let mut socket = request.connect()?;
    socket.set_read_timeout(Some(TICK))?;
    socket.set_write_timeout(Some(TICK))?;
    let _ = socket.set_tcp_nodelay(true);
    socket.write_all(b"?\n")?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
            Ok(_) => line.push(byte[0]),
            Err(error) if is_tick(&error) && !shared.stopped() => {}
            Err(error) => return Err(error),
        }
    }
    let by = Identity::parse(&line).map_or("a stranger", |identity| identity.by).to_owned();
    shared.update(|report| report.by = by);
    stream(&mut socket, bytes_per_second, shared)
}

fn stream(socket: &mut socket2::Socket, bytes_per_second: u32, shared: &Shared<TcpReport>) -> io::Result<()> {
    let mut paced = Instant::now();
    let (mut sent, mut echoed) = (0_u64, 0_u64);
    let mut progress = paced;
    let mut stopped_at = None;
    let mut buffer = vec![0; MOST];
    loop {
        if shared.stopped() && stopped_at.is_none() {
            stopped_at = Some(Instant::now());
        }
        if stopped_at.is_some_and(|at| echoed == sent || at.elapsed() > GRACE) {
            return Ok(());
        }
        // A tick's worth at a time: a byte as soon as it is due would be a thousand packets for each of ours. A machine that cannot
        // keep up is not made busier by making up for what is lost.
        let elapsed = paced.elapsed().min(4 * TICK);
        let due = if elapsed < TICK { 0 } else { u128::from(bytes_per_second) * elapsed.as_micros() / 1_000_000 };
        let due = usize::try_from(due).unwrap_or(MOST).min(MOST);
        if due > 0 && stopped_at.is_none() {
            paced = Instant::now();
            if sent == echoed {
                progress = paced;
            }
            sent += tick(socket.write(pattern(sent, due)))? as u64;
        }
        let length = match socket.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
            other => tick(other)?,
        };
        let (came, expected) = (&buffer[..length], pattern(echoed, length));
        let wrong = if came == expected {
            None
        } else {
            (echoed..).zip(came.iter().zip(expected)).find(|(_, (came, expected))| came != expected).map(|(place, _)| place)
        };
        let stall = if echoed < sent { progress.elapsed() } else { Duration::ZERO };
        if length > 0 {
            progress = Instant::now();
        }
        echoed += length as u64;
        shared.update(|report| {
            report.sent = sent;
            report.echoed = echoed;
            report.longest_stall = report.longest_stall.max(stall);
            report.wrong_byte_at = report.wrong_byte_at.or(wrong);
        });
    }
}

/// The bytes of the stream from a place on.
fn pattern(place: u64, length: usize) -> &'static [u8] {
    let start = usize::try_from(place % PERIOD as u64).unwrap_or_default();
    &STREAM[start..start + length]
}

/// A timeout of one tick is no error: nothing was read or written.
fn tick(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if is_tick(&error) => Ok(0),
        other => other,
    }
}

fn is_tick(error: &io::Error) -> bool {
    // ETIMEDOUT, unlike EAGAIN, is the connection's end: retransmission gave up.
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
