//! Connections: connect, ask, be answered, close.
//!
//! The server ends its half first, as HTTP/1.0 does, and the client the rest; the server's namespace keeps no TIME-WAIT
//! (`net.ipv4.tcp_max_tw_buckets` is 0 there), so that no connection meets the remains of another one with its ports.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::exchange::{ANSWER, Backends, PATIENCE, QUESTION, Target, answer_to, first, is_loss, question};
use super::seen::Seen;
use super::source_ports::SourcePorts;

/// One connection after the other, both ends in this thread. The latency is that of `connect`, from SYN to SYN-ACK.
pub(super) fn one(backends: &Backends, target: &mut Target, ports: &mut SourcePorts, until: Duration) -> io::Result<Seen> {
    let mut seen = Seen::begin();
    while seen.goes_on(until)
        && let Some(port) = ports.next()
    {
        let Some(socket) = bound(port)? else { continue };
        seen.count(converse(backends, socket, target.next()?, u64::from(port)), is_loss)?;
    }
    Ok(seen.end())
}

/// As many clients at once, each a thread, and a thread for each endpoint: wake-ups are in it, as with real programs.
pub(super) fn many(backends: &Backends, target: &Target, parts: Vec<SourcePorts>, until: Duration) -> io::Result<Seen> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let done = &done;
        let servers: Vec<_> = backends.tcp.iter().map(|listener| scope.spawn(move || serve(listener, done))).collect();
        let clients: Vec<_> = parts.into_iter().map(|ports| scope.spawn(|| client(target.clone(), ports, until))).collect();
        let mut seen = Seen::nothing();
        let mut result = Ok(());
        for client in clients {
            match client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                Ok(own) => seen.beside(&own),
                Err(error) => result = Err(error),
            }
        }
        done.store(true, Ordering::Relaxed);
        for server in servers {
            result = result.and(server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        result.map(|()| seen)
    })
}

/// Tries once whether the pod answers. Losses are answers as well: `false`.
pub(super) fn answers(backends: &Backends, to: SocketAddr, port: u16, patience: Duration) -> io::Result<bool> {
    let Some(socket) = bound(port)? else { return Ok(false) };
    socket.set_write_timeout(Some(patience))?;
    match converse(backends, socket, to, u64::from(port)) {
        Ok(_) => Ok(true),
        Err(error) if is_loss(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn client(mut target: Target, mut ports: SourcePorts, until: Duration) -> io::Result<Seen> {
    let mut seen = Seen::begin();
    while seen.goes_on(until)
        && let Some(port) = ports.next()
    {
        let Some(socket) = bound(port)? else { continue };
        let to = target.next()?;
        let begun = Instant::now();
        let outcome = connect(socket, to).and_then(|mut stream| {
            let connected = begun.elapsed();
            let question = question(u64::from(port));
            stream.write_all(&question)?;
            expect_answer(&mut stream, &question).map(|()| connected)
        });
        seen.count(outcome, is_loss)?;
    }
    Ok(seen.end())
}

/// Both ends of one connection. Returns how long `connect` took.
fn converse(backends: &Backends, socket: Socket, to: SocketAddr, number: u64) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut client = connect(socket, to)?;
    let connected = begun.elapsed();
    let question = question(number);
    client.write_all(&question)?;
    let server = loop {
        let (mut server, _) = first(&backends.tcp, PATIENCE, TcpListener::accept)?;
        // Another one's client has given up.
        if hear(&mut server).is_ok_and(|asked| asked == question) {
            break server;
        }
    };
    reply(&server, &question)?;
    expect_answer(&mut client, &question)?;
    // Client first: see above.
    drop(client);
    drop(server);
    Ok(connected)
}

fn bound(port: u16) -> io::Result<Option<Socket>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    match socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
        Err(error) => return Err(error),
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(Some(socket))
}

fn connect(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Serves one endpoint: blocking in `accept`, a few milliseconds at most, as no server would spin.
fn serve(listener: &TcpListener, done: &AtomicBool) -> io::Result<()> {
    listener.set_nonblocking(false)?;
    while !done.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else { continue };
        // A client that gave up counts it as lost; here it is none of a server's business.
        let _ = hear(&mut stream).and_then(|question| reply(&stream, &question)).and_then(|()| await_end(&mut stream));
    }
    listener.set_nonblocking(true)
}

fn hear(stream: &mut TcpStream) -> io::Result<[u8; QUESTION]> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut question = [0; QUESTION];
    stream.read_exact(&mut question)?;
    Ok(question)
}

fn reply(mut stream: &TcpStream, question: &[u8]) -> io::Result<()> {
    stream.write_all(&answer_to(question))?;
    stream.shutdown(Shutdown::Write)
}

fn await_end(stream: &mut TcpStream) -> io::Result<()> {
    stream.read(&mut [0]).map(drop)
}

fn expect_answer(stream: &mut TcpStream, question: &[u8]) -> io::Result<()> {
    let mut answer = Vec::with_capacity(ANSWER);
    stream.read_to_end(&mut answer)?;
    if answer == answer_to(question) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
