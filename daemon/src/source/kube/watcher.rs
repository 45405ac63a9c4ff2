//! One stream: list, then watch, for ever.
//!
//! ```text
//!             +----------------------- 410 --------------------------+
//!             v                                                      |
//!   Begin --streams lists?-- yes --> [streaming list] --bookmark--> [watch] --ends or breaks--> Resume --+
//!             |  ^                       | refused                   ^ ^                                 |
//!             |  +-- remembered <--------+                           | +---------------------------------+
//!             +-- no --> [pages] -- Listed --------------------------+
//! ```
//! A list that breaks in the middle is begun again, with a new [`Change::Listing`]; what was known stays in force until
//! [`Change::Listed`]. A watch that breaks resumes from the last version seen, and nobody downstream notices.
//!
//! A server restored from a backup is behind the last version seen. It accepts a watch from there and says nothing, not even in
//! bookmarks, until it has counted that far (`cacheWatcher.process`); client-go waits with it. Here a watch that says nothing from
//! its beginning is followed by a list, which such a server refuses ("Too large resource version"), and then by one from its store.
//! Somebody who restores a backup stops the server for it: after an outage it is asked first how far it has counted (`restored`).

mod pause;
mod restored;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::connect::{ApiServers, Server, Timing};
use super::failure::Failure;
use super::health::Health;
use super::resource::{Absence, From, Resource};
use super::split::{Items, Lines};
use crate::model::Interner;
use crate::source::decode::field::{Field, Text};
use crate::source::decode::wire::{self, Document, Metadata};
use crate::source::decode::{self, Author, Decoded};
use crate::source::{Change, Mark};

/// A server may ask for more patience than this, and does not get it: a wrong number must not stop a watch for a day.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// A stream that has been quiet for this long after it was opened is open: the refusals come at once.
const SETTLED: Duration = Duration::from_secs(1);
/// Streaming lists that end too early before the server is taken to be one that does not know them.
const UNFINISHED: u32 = 2;
/// Of an error's body, more than this is not read.
const LONGEST_ERROR: usize = 64 << 10;

/// Follows one resource.
pub(super) struct Watcher {
    resource: Resource,
    servers: Arc<ApiServers>,
    health: Arc<Health>,
    changes: Sender<Change>,
    timing: Timing,
    names: Interner,
    /// The version up to which everything has been delivered: of the last complete list, then of the last event or bookmark.
    version: Option<String>,
    /// The last version was refused: the next list must come from the store, or it could be refused again.
    from_store: bool,
    /// Pages have expired while they were read: the next list comes in one piece.
    unpaged: bool,
    /// Streaming lists in a row that ended early.
    unfinished: u32,
    /// A streaming list was refused a moment ago: pages are being tried.
    refused: bool,
    /// A slice of nobody has been warned of. There may be thousands.
    told_of_nobody: bool,
    /// The server was away: it may have come back as an older one.
    was_away: bool,
    /// How often in a row the server has said that it does not have the resource.
    absences: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Everything has to be listed.
    Begin,
    /// Listed: watch from the last version.
    Resume,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The initial events of a streaming list.
    Listing,
    /// Changes as they happen.
    Watching,
}

/// One line of a watch.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow)]
    r#type: Field<Text<'a>>,
    object: Field<Document<'a>>,
}

/// The head of an answer has come.
struct Answer<'s> {
    server: &'s str,
    body: Body,
    silence: Duration,
    /// It has begun as JSON does, or need not.
    judged: bool,
}

impl Watcher {
    pub(super) fn new(
        resource: Resource,
        servers: Arc<ApiServers>,
        health: Arc<Health>,
        changes: Sender<Change>,
        timing: Timing,
    ) -> Self {
        health.register(resource.stream);
        Self {
            resource,
            servers,
            health,
            changes,
            timing,
            names: Interner::default(),
            version: None,
            from_store: false,
            unpaged: false,
            unfinished: 0,
            refused: false,
            told_of_nobody: false,
            was_away: false,
            absences: 0,
        }
    }

    /// Begins with a list that no cache answers, however old.
    pub(super) fn beginning_at_the_store(self) -> Self {
        Self { from_store: true, ..self }
    }

    /// Runs until nobody listens any more. To be dropped to be stopped.
    pub(super) async fn run(mut self) {
        let mut phase = Phase::Begin;
        let mut backoff = Backoff::new(&self.timing);
        let servers = self.servers.clone();
        loop {
            let (place, server) = servers.current();
            let paged = self.refused || server.refuses_streaming.load(Ordering::Relaxed);
            let start = Instant::now();
            let step = match phase {
                Phase::Begin if paged => self.pages(server).await,
                Phase::Begin => self.stream(server, Progress::Listing).await,
                Phase::Resume if self.was_away => self.resume_unless_restored(server).await,
                Phase::Resume => self.stream(server, Progress::Watching).await,
            };
            let listed_in_pages = phase == Phase::Begin && paged;
            let failure = match step {
                Ok(next) => {
                    let pause = pause::after_success((phase, next), paged, start.elapsed(), &mut backoff);
                    phase = next;
                    if listed_in_pages
                        && std::mem::take(&mut self.refused)
                        && !server.refuses_streaming.swap(true, Ordering::Relaxed)
                    {
                        info!("API server {} does not stream lists: it is asked for pages from now on", server.url);
                    }
                    sleep(pause).await;
                    continue;
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Closed => return,
                failure if failure.is_expired() => {
                    debug!("version of {} has expired ({failure}): listing again", self.resource.stream);
                    self.unpaged |= listed_in_pages;
                    self.from_store = true;
                    phase = Phase::Begin;
                    // Once is business as usual and costs no time; a server that always says so is not hurried.
                    sleep(backoff.next_but_first()).await;
                }
                failure if self.resource.absence != Absence::Failure && failure.is_absent() => {
                    let Ok(pause) = self.absent(server).await else { return };
                    phase = Phase::Begin;
                    sleep(pause).await;
                }
                failure if phase == Phase::Begin && !paged && self.refuses_streaming(&failure) => {
                    debug!("streaming list of {} refused ({failure}): trying pages", self.resource.stream);
                    // Only a list that works proves that it was the streaming that was refused.
                    self.refused = true;
                }
                failure => {
                    self.refused = false;
                    if failure.is_the_servers() {
                        self.was_away = true;
                        servers.give_up_on(place);
                    }
                    let failure = server.explain(failure).await;
                    self.health.failed(self.resource.stream, &server.url, &failure);
                    let pause =
                        if self.version.is_none() && failure.is_unreachable() { backoff.next_unlisted() } else { backoff.next() };
                    sleep(pause.max(failure.retry_after().unwrap_or_default().min(LONGEST_RETRY_AFTER))).await;
                }
            }
        }
    }

    fn refuses_streaming(&mut self, failure: &Failure) -> bool {
        if let Failure::Unfinished { .. } = failure {
            self.unfinished += 1;
        }
        failure.refuses_streaming() || self.unfinished >= UNFINISHED
    }

    /// Lists page by page, each object handed on as it arrives.
    async fn pages(&mut self, server: &Server) -> Result<Phase, Failure> {
        self.send(Change::Listing(self.resource.kind)).await?;
        let mut next: Option<String> = None;
        loop {
            let uri = self.resource.list(self.list_from(true), !self.unpaged, next.as_deref());
            let patience = if self.unpaged { self.timing.whole_list } else { self.timing.answer };
            let mut answer = self.ask(server, &uri, patience).await?;
            let mut items = Items::default();
            while let Some(chunk) = answer.chunk().await? {
                let mut changes = Vec::new();
                let mut unreadable = None;
                items.feed(&chunk, |item| match wire::read::<Field<Document<'_>>>(item) {
                    Ok(Field::Is(document)) => changes.extend(self.applied(document)),
                    Ok(_) => {}
                    Err(error) => unreadable = Some(error),
                })?;
                self.send_all(changes).await?;
                // An object missed in a list would be taken for deleted: then rather no list.
                if let Some(error) = unreadable {
                    return Err(Failure::Garbled { reason: format!("an item of the list is not JSON: {error}") });
                }
            }
            let (version, token) = version_and_next_page(items)?;
            if token.is_none() {
                self.listed(version).await?;
                return Ok(Phase::Resume);
            }
            next = token;
        }
    }

    /// Opens a watch and follows it to its end. A watch that breaks after it was listed has only ended.
    async fn stream(&mut self, server: &Server, mut progress: Progress) -> Result<Phase, Failure> {
        let least = self.timing.watch.as_secs().max(1);
        let seconds = rand::random_range(least..=least * 2);
        let uri = match (progress, &self.version) {
            (Progress::Watching, Some(version)) => self.resource.watch(version, seconds),
            _ => self.resource.streaming_list(self.list_from(false), seconds),
        };
        let mut answer = self.ask(server, &uri, self.timing.answer).await?;
        if progress == Progress::Listing {
            self.send(Change::Listing(self.resource.kind)).await?;
        }
        let mut lines = Lines::default();
        let mut settled = false;
        let mut heard = progress == Progress::Listing;
        let patience = self.timing.streaming_list;
        let mut next_object = Instant::now() + patience;
        loop {
            let chunk = if progress == Progress::Listing {
                let unending = |_| Err(Failure::Unending { what: self.resource.stream, after: patience });
                timeout_at(next_object, answer.chunk()).await.unwrap_or_else(unending)
            } else if settled {
                answer.chunk().await
            } else if let Ok(chunk) = timeout(SETTLED, answer.chunk()).await {
                chunk
            } else {
                self.health.live(self.resource.stream);
                settled = true;
                continue;
            };
            let chunk = match chunk {
                Ok(Some(chunk)) => chunk,
                Ok(None) if progress == Progress::Listing => return Err(Failure::Unfinished { what: self.resource.stream }),
                Ok(None) => return Ok(Phase::Resume),
                Err(failure) if progress == Progress::Listing => return Err(failure),
                Err(failure @ Failure::Silent { .. }) if !heard => {
                    debug!("watch of {} has said nothing at all ({failure}): listing again", self.resource.stream);
                    return Ok(Phase::Begin);
                }
                // Somebody else answers in the place of the API server, and no request fails.
                Err(failure @ Failure::NotJson { .. }) => return Err(failure),
                Err(failure) => {
                    debug!("watch of {} broke: {failure}", self.resource.stream);
                    return Ok(Phase::Resume);
                }
            };
            heard = true;
            let mut changes = Vec::new();
            let mut taken = Ok(());
            lines.feed(&chunk, |line| {
                if taken.is_ok() {
                    taken = self.event(line, &mut progress, &mut changes);
                }
            })?;
            let delivered = !changes.is_empty();
            self.send_all(changes).await?;
            taken?;
            if delivered {
                // Counted from when we were ready for more: the loop may have held us up.
                next_object = Instant::now() + patience;
            }
            if progress == Progress::Watching && !settled {
                self.health.live(self.resource.stream);
                settled = true;
            }
        }
    }

    /// What one line of a watch means.
    fn event(&mut self, line: &[u8], progress: &mut Progress, changes: &mut Vec<Change>) -> Result<(), Failure> {
        let event = match wire::read::<Event<'_>>(line) {
            Ok(event) => event,
            // An object missed in a list would be taken for deleted: then rather no list.
            Err(error) if *progress == Progress::Listing => {
                return Err(Failure::Garbled { reason: format!("event is not JSON: {error}") });
            }
            Err(error) => {
                warn!("an event of the watch of {} is not readable: {error}: ignored", self.resource.stream);
                return Ok(());
            }
        };
        let kind = event.r#type.into_value().unwrap_or_default();
        let document = event.object.into_value().unwrap_or_default();
        let metadata = document.metadata.get();
        let version = metadata.and_then(|metadata| metadata.resource_version.get()).map(|version| version.clone().into_owned());
        match kind.as_ref() {
            "ADDED" | "MODIFIED" => changes.extend(self.applied(document)),
            "DELETED" => match decode::key(self.resource.kind, metadata.unwrap_or(&Metadata::default())) {
                Ok(key) => changes.push(Change::Deleted(self.resource.kind, key)),
                Err(error) => warn!("deletion in {}: {error}: ignored", self.resource.stream),
            },
            "BOOKMARK" => return self.bookmark(metadata, version, progress, changes),
            "ERROR" => {
                let code = document.code.get().and_then(|&code| u16::try_from(code).ok()).unwrap_or(500);
                return Err(Failure::of_status(self.resource.stream, code, &document, None));
            }
            other => warn!("event of unknown type {:?} in the watch of {}: ignored", decode::cut(other), self.resource.stream),
        }
        // Initial events come in any order: only the bookmark at their end is a version to resume from.
        if *progress == Progress::Watching && version.is_some() {
            self.version = version;
        }
        Ok(())
    }

    fn bookmark(
        &mut self,
        metadata: Option<&Metadata<'_>>,
        version: Option<String>,
        progress: &mut Progress,
        changes: &mut Vec<Change>,
    ) -> Result<(), Failure> {
        let Some(version) = version.filter(|version| !version.is_empty()) else { return Ok(()) };
        let ends_list = metadata
            .and_then(|metadata| metadata.annotations.get())
            .and_then(|annotations| annotations.initial_events_end.get())
            .is_some_and(|value| value == "true");
        match (*progress, ends_list) {
            (Progress::Listing, true) => {
                *progress = Progress::Watching;
                self.note_going_back(&version);
                changes.push(Change::Listed(self.resource.kind));
                self.note_listed();
            }
            (Progress::Listing, false) => return Ok(()),
            (Progress::Watching, _) => {}
        }
        changes.push(self.mark(&version));
        self.version = Some(version);
        Ok(())
    }

    /// An object that is there. One that is lost as a whole is named in the log, and the stream goes on.
    fn applied(&mut self, document: Document<'_>) -> Option<Change> {
        let kind = self.resource.kind;
        let name = document.metadata.get().and_then(|metadata| decode::key(kind, metadata).ok());
        match decode::object(Author::Server, kind, document, &mut self.names) {
            Ok(Decoded::Object(object)) => Some(Change::Applied(object)),
            // It may have been ours a moment ago.
            Ok(Decoded::NotOurs { key, problems }) => {
                for problem in problems {
                    if !decode::is_of_nobody(&problem) {
                        warn!("{kind} {key}: {problem}");
                    } else if std::mem::replace(&mut self.told_of_nobody, true) {
                        debug!("{kind} {key}: {problem}");
                    } else {
                        warn!("{kind} {key}: {problem} (further ones: level debug)");
                    }
                }
                Some(Change::Deleted(kind, key))
            }
            Err(error) => {
                let name = name.map_or_else(|| "without a name".to_owned(), |key| key.to_string());
                warn!("{kind} {name}: {error}: ignored");
                None
            }
        }
    }

    async fn listed(&mut self, version: String) -> Result<(), Failure> {
        self.note_going_back(&version);
        self.send(Change::Listed(self.resource.kind)).await?;
        self.send(self.mark(&version)).await?;
        self.version = Some(version);
        self.note_listed();
        self.health.live(self.resource.stream);
        Ok(())
    }

    /// A list older than what was known: right, since the server said that it has nothing newer, and worth a line. Versions of one
    /// resource can be compared since 1.35 by the letter (KEP-5504), and always could where etcd counts them.
    fn note_going_back(&self, version: &str) {
        if let Some((before, now)) = self.gone_back_to(version) {
            warn!(
                "the API server has gone back from version {before} of {} to {now}, as one restored from a backup does: what it \
                 lists now is what counts",
                self.resource.stream
            );
        }
    }

    /// Our version and this one, if this one is older.
    fn gone_back_to(&self, version: &str) -> Option<(u64, u64)> {
        let number = |version: &str| version.parse::<u64>().ok();
        self.version.as_deref().and_then(number).zip(number(version)).filter(|(before, now)| now < before)
    }

    fn note_listed(&mut self) {
        self.was_away = false;
        self.absences = 0;
        self.from_store = false;
        self.unpaged = false;
        self.unfinished = 0;
        self.health.listed(self.resource.stream);
    }

    /// The server does not have the resource. When to ask again.
    ///
    /// One that was there a moment ago is not believed to be gone at the first word: a server that has just started says so of all
    /// custom resources until it has read their definitions, and taking that for an empty list would take every VIP from its Service.
    async fn absent(&mut self, server: &Server) -> Result<Duration, Failure> {
        let stream = self.resource.stream;
        self.absences = self.absences.saturating_add(1);
        if self.resource.absence == Absence::Older {
            debug!("API server {} has no {stream}: taken as none", server.url);
            self.nothing_to_list().await?;
            return Ok(self.timing.absent);
        }
        let before = self.version.is_some();
        if before && self.resource.absence == (Absence::NotInstalled { is_end: false }) {
            if self.absences == 1 {
                warn!(
                    "API server {} has no {stream} any more: what is known stays in force until there are some again",
                    server.url
                );
            }
            let least = self.timing.uninstalled;
            return Ok(rand::random_range(least..=least * 2));
        }
        if before && self.absences == 1 {
            warn!("API server {} has no {stream} any more: what is known stays until it has said so twice", server.url);
            return Ok(self.timing.longest_backoff);
        }
        if before || self.absences == 1 {
            let any_more = if before { " any more" } else { "" };
            info!(
                "API server {} has no {stream}{any_more} (metallb.io/v1beta1 is not installed): there are none, and it is asked again \
                 from time to time",
                server.url
            );
            self.version = None;
            self.nothing_to_list().await?;
        }
        let least = self.timing.uninstalled;
        Ok(rand::random_range(least..=least * 2))
    }

    /// A server without the resource has none of it.
    async fn nothing_to_list(&mut self) -> Result<(), Failure> {
        self.send(Change::Listing(self.resource.kind)).await?;
        self.send(Change::Listed(self.resource.kind)).await?;
        self.health.absent(self.resource.stream);
        Ok(())
    }

    fn list_from(&self, cache_will_do: bool) -> From<'_> {
        match &self.version {
            _ if self.from_store => From::Store,
            Some(version) => From::NotOlderThan(version),
            None if cache_will_do => From::Cache,
            None => From::Store,
        }
    }

    fn mark(&self, version: &str) -> Change {
        Change::Mark(Mark { stream: self.resource.stream, point: version.to_owned() })
    }

    async fn send_all(&self, changes: Vec<Change>) -> Result<(), Failure> {
        for change in changes {
            self.send(change).await?;
        }
        Ok(())
    }

    async fn send(&self, change: Change) -> Result<(), Failure> {
        self.changes.send(change).await.map_err(|_| Failure::Closed)
    }

    /// Asks, and waits for the head of a successful answer.
    ///
    /// The client would log an ERROR for every failed attempt; what is to be said of an outage is said once, by [`Health`].
    async fn ask<'s>(&self, server: &'s Server, uri: &str, patience: Duration) -> Result<Answer<'s>, Failure> {
        let what = self.resource.stream;
        let request = Request::get(uri).header(http::header::ACCEPT, "application/json").body(Body::empty());
        let request = request.map_err(|error| Failure::Garbled { reason: format!("request {uri}: {error}") })?;
        let answer = timeout(patience, server.client.send(request).with_subscriber(NoSubscriber::new())).await;
        let answer = answer.map_err(|_| Failure::Silent { server: server.url.clone(), after: patience })?;
        let (head, body) = answer.map_err(|error| Failure::of_client(&server.url, &error))?.into_parts();
        let json = head.status.is_success();
        let mut answer = Answer { server: &server.url, body, silence: self.timing.silence, judged: !json };
        if json {
            return Ok(answer);
        }
        let retry_after = head.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut text = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            text.extend_from_slice(&chunk);
            if text.len() > LONGEST_ERROR {
                break;
            }
        }
        // Not every refusal is a Status: a resource that does not exist, or HTTP where TLS is spoken, is answered in plain text.
        let status: Field<Document<'_>> = serde_json::from_slice(&text).unwrap_or_default();
        let plain = std::str::from_utf8(&text).unwrap_or_default().trim();
        let status = status.into_value().unwrap_or_else(|| Document { message: plain_message(plain), ..Document::default() });
        Err(Failure::of_status(what, head.status.as_u16(), &status, retry_after.map(Duration::from_secs)))
    }
}

/// One line of a person's words; a page of HTML is none.
fn plain_message(text: &str) -> Field<Text<'_>> {
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() || line.starts_with(['<', '{', '[']) { Field::Absent } else { Field::Is(Text::Borrowed(line)) }
}

/// From what a list is around its items.
fn version_and_next_page(list: Items) -> Result<(String, Option<String>), Failure> {
    let garbled = |reason: String| Failure::Garbled { reason };
    let head = list.into_head();
    let head: Field<Document<'_>> =
        serde_json::from_slice(&head).map_err(|error| garbled(format!("list is not JSON: {error}")))?;
    let metadata: Metadata<'_> = head.into_value().and_then(|list| list.metadata.into_value()).unwrap_or_default();
    let said = |text: Field<Text<'_>>| text.into_value().filter(|text| !text.is_empty()).map(Text::into_owned);
    let version = said(metadata.resource_version).ok_or_else(|| garbled("list has no resourceVersion".into()))?;
    Ok((version, said(metadata.r#continue)))
}

impl Answer<'_> {
    /// Whatever an API server answers is an object. A login page, or another server at that address, is told by its first letter.
    fn judge(&mut self, data: &[u8]) -> Result<(), Failure> {
        let begin = data.trim_ascii_start();
        if self.judged || begin.is_empty() {
            return Ok(());
        }
        self.judged = true;
        if begin.starts_with(b"{") {
            return Ok(());
        }
        let line = begin.split(u8::is_ascii_control).next().unwrap_or_default();
        Err(Failure::NotJson { begin: decode::cut(&String::from_utf8_lossy(line)).to_string() })
    }

    /// The next piece of the body; `None` at its end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = timeout(self.silence, self.body.frame().with_subscriber(NoSubscriber::new())).await;
            let frame = frame.map_err(|_| Failure::Silent { server: self.server.to_owned(), after: self.silence })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::of_client(self.server, &error)),
                // Anything but data is a trailer.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.judge(&data)?;
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}
