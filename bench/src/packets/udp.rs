//! Questions over UDP.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use super::exchange::{ANSWER, Backends, PATIENCE, QUESTION, Target, answer_to, first, is_loss, question};
use super::seen::Seen;
use super::source_ports::SourcePorts;

/// A flow for each question, as resolvers do: what is timed runs from `connect` to the answer, so every packet of it is a first one.
pub(super) fn fresh(backends: &Backends, target: &mut Target, ports: &mut SourcePorts, until: Duration) -> io::Result<Seen> {
    let mut seen = Seen::begin();
    while seen.goes_on(until)
        && let Some(port) = ports.next()
    {
        let Some(socket) = bound(port)? else { continue };
        let begun = Instant::now();
        let asked = socket.connect(target.next()?).and_then(|()| ask(backends, &socket, u64::from(port)));
        seen.count(asked.map(|()| begun.elapsed()), is_loss)?;
    }
    Ok(seen.end())
}

/// One flow for all questions.
pub(super) fn established(
    backends: &Backends,
    target: &mut Target,
    ports: &mut SourcePorts,
    until: Duration,
) -> io::Result<Seen> {
    let socket = ports.by_ref().find_map(|port| bound(port).transpose()).ok_or(io::ErrorKind::AddrInUse)??;
    socket.connect(target.next()?)?;
    // The first one makes the flow, and is not one of an established flow.
    let _ = ask(backends, &socket, 0);
    let mut seen = Seen::begin();
    let mut number = 0;
    while seen.goes_on(until) {
        number += 1;
        let begun = Instant::now();
        let asked = ask(backends, &socket, number);
        seen.count(asked.map(|()| begun.elapsed()), is_loss)?;
    }
    Ok(seen.end())
}

/// A client's socket, or `None` if somebody else has the port.
fn bound(port: u16) -> io::Result<Option<UdpSocket>> {
    match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(socket) => socket.set_read_timeout(Some(PATIENCE)).map(|()| Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

/// From question to answer.
fn ask(backends: &Backends, client: &UdpSocket, number: u64) -> io::Result<()> {
    let question = question(number);
    client.send(&question)?;
    let mut asked = [0; QUESTION];
    first(&backends.udp, PATIENCE, |server| {
        let (length, from) = server.recv_from(&mut asked)?;
        // Another one is of a question that was given up.
        if asked[..length] == question {
            server.send_to(&answer_to(&asked), from).map(drop)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    })?;
    let mut answer = [0; ANSWER];
    loop {
        let length = client.recv(&mut answer)?;
        if answer[..length] == answer_to(&question) {
            return Ok(());
        }
    }
}
