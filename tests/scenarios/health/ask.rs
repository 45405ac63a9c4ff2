//! A question over HTTP, as curl asks it.

use anyhow::Context as _;
use serde_json::Value;
use sheave_lab::Host;
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may take: somebody who is there answers at once.
const CONNECT: Duration = Duration::from_secs(2);

/// GET. `None` if nobody listens there.
pub(super) fn get(from: &Host, to: (IpAddr, u16), path: &str) -> anyhow::Result<Option<Answer>> {
    request(from, to, "GET", path, "")
}

/// Any method, with a body.
pub(super) fn request(from: &Host, to: (IpAddr, u16), method: &str, path: &str, body: &str) -> anyhow::Result<Option<Answer>> {
    let to = SocketAddr::from(to);
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    let text = from.run(|| -> anyhow::Result<Option<String>> {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, CONNECT) else { return Ok(None) };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("{method} http://{to}{path}"))?;
        Ok(Some(answer))
    })??;
    text.map(|text| Answer::read(&text).with_context(|| format!("{method} http://{to}{path}: {text:?}"))).transpose()
}

impl Answer {
    fn read(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Some(Self { status, headers: headers.collect(), body: body.to_owned() })
    }

    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }
}
