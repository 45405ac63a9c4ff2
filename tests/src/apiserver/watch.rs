//! Watches: one task per stream, with a cursor in the history and nothing of its own to fill up.

use std::future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use super::Shared;
use super::body::{Body, Broken, Packer};
use super::fault::{Cut, Effect, Refusal};
use super::list::stale_version;
use super::resource::Resource;
use super::route::Query;
use super::selector::Selector;
use super::status::Status;
use super::store::{Event, Store, Stored, Table, TableId, type_meta};

/// Frames between a watch and its socket. A client that does not read stops its watch here.
const FRAMES: usize = 16;

/// Changes read under one lock.
const BATCH: usize = 256;

/// `timeoutSeconds` where the client says nothing: the real server draws 30 to 60 minutes.
const DEFAULT_TIMEOUT: u64 = 45 * 60;

/// How long before its end the real server sends a watch a last bookmark (`bookmarkBeforeDeadline` of the watch cache).
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// An order to end streams: of one table, or of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutOrder {
    pub(super) table: Option<TableId>,
    pub(super) how: Cut,
}

/// One running watch.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    table: TableId,
    resource: Arc<Resource>,
    type_meta: String,
    namespace: String,
    selector: Selector,
    /// All changes up to here have been sent.
    cursor: u64,
    /// Objects to send first, as ADDED.
    initial: Vec<Arc<Stored>>,
    /// A bookmark says that the initial objects are complete.
    marks_initial_end: bool,
    bookmarks: bool,
    deadline: Instant,
    next_bookmark: Instant,
    cut_after: Option<(usize, Cut)>,
    changed: watch::Receiver<u64>,
    packer: Packer,
    out: mpsc::Sender<Result<bytes::Bytes, Broken>>,
}

/// Why a watch is over.
enum End {
    Done,
    Cut(Cut),
}

/// What a query asks for, once it is known to be allowed.
struct Start {
    cursor: u64,
    initial: Vec<Arc<Stored>>,
    marks_initial_end: bool,
}

/// Answers a watch request: the body of the stream, which a task of its own fills.
///
/// # Errors
/// What the real server says with an HTTP status; whatever it says inside of the stream is in the body.
pub(super) fn start(
    shared: &Arc<Shared>,
    table: TableId,
    namespace: &str,
    query: &Query,
    effects: &[Effect],
) -> Result<Body, Status> {
    let (out, body) = mpsc::channel(FRAMES);
    let streaming = query.flag("sendInitialEvents");
    let cluster = shared.cluster();
    let store = &cluster.store;
    let rows = store.table(table);
    let selector = Selector::parse(&rows.resource, query.get("labelSelector"), query.get("fieldSelector"))?;
    check_options(query)?;
    let started = match refusal(effects) {
        Some(Refusal::Invalid) => {
            let why = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
            return Err(Status::invalid_options("sendInitialEvents", why));
        }
        Some(Refusal::BadRequest) => return Err(Status::bad_request("sendInitialEvents is not supported")),
        Some(Refusal::ErrorEvent) => {
            let why =
                "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled";
            Err(Status::new(500, "InternalError", why))
        }
        None => begin(store, table, namespace, &selector, query, effects),
    };
    let Start { cursor, initial, marks_initial_end } = match started {
        Ok(start) => start,
        // A watch that cannot begin still answers 200: the refusal is its only event. One that asks for the state of a version that
        // is not there yet is told so in the same way (`newErrWatcher` of the watch cache).
        Err(status) if matches!(status.code, 410 | 500 | 504) => {
            let line = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status.to_json());
            return Ok(Body::text(line));
        }
        Err(status) => return Err(status),
    };
    let now = Instant::now();
    let timeout =
        query.number("timeoutSeconds").filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_TIMEOUT).min(DEFAULT_TIMEOUT * 2);
    let deadline = now + Duration::from_secs(timeout);
    let running = Watch {
        table,
        resource: rows.resource.clone(),
        type_meta: type_meta(&rows.resource),
        namespace: namespace.to_owned(),
        selector,
        cursor,
        initial,
        marks_initial_end: marks_initial_end && streaming && !effects.contains(&Effect::DropInitialEventsEnd),
        bookmarks: query.flag("allowWatchBookmarks") && !effects.contains(&Effect::DropBookmarks),
        deadline,
        next_bookmark: now,
        cut_after: effects
            .iter()
            .find_map(|e| if let Effect::CutAfter { events, how } = e { Some((*events, *how)) } else { None }),
        changed: rows.subscribe(),
        packer: Packer::default(),
        out,
        shared: shared.clone(),
    };
    drop(cluster);
    shared.watch_began(table);
    tokio::spawn(running.run(shared.cuts.subscribe()));
    Ok(Body::Stream(body))
}

fn refusal(effects: &[Effect]) -> Option<Refusal> {
    effects.iter().find_map(|effect| if let Effect::RefuseStreamingLists(how) = effect { Some(*how) } else { None })
}

fn check_options(query: &Query) -> Result<(), Status> {
    let matching = query.get("resourceVersionMatch");
    let said = !query.get("sendInitialEvents").is_empty();
    if said && matching != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(Status::invalid_options("resourceVersionMatch", why));
    }
    if !said && !matching.is_empty() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        return Err(Status::invalid_options("resourceVersionMatch", why));
    }
    Ok(())
}

/// Where a watch begins, and what it has to send first.
fn begin(
    store: &Store,
    id: TableId,
    namespace: &str,
    selector: &Selector,
    query: &Query,
    effects: &[Effect],
) -> Result<Start, Status> {
    let table = store.table(id);
    let current = store.revision();
    let text = query.get("resourceVersion");
    let version: u64 = if text.is_empty() {
        0
    } else {
        text.parse().map_err(|_| Status::bad_request(format!("invalid resource version {text:?}")))?
    };
    if effects.contains(&Effect::ExpireWatch) {
        return Err(Status::expired_watch(version, current));
    }
    let streaming = query.flag("sendInitialEvents");
    if streaming && version > current {
        return Err(Status::too_large_version(version, current));
    }
    let wants_state = streaming || (version == 0 && query.get("sendInitialEvents") != "false");
    if !wants_state {
        let cursor = if version == 0 { current } else { version };
        let told = cursor >= table.oldest();
        return if told {
            Ok(Start { cursor, initial: Vec::new(), marks_initial_end: false })
        } else {
            Err(Status::expired_watch(cursor, table.oldest()))
        };
    }
    let shown =
        stale_version(effects).filter(|stale| *stale >= version.max(table.oldest()) && *stale < current).unwrap_or(current);
    let select = |objects| -> Vec<Arc<Stored>> {
        Table::range(objects, namespace, "").map(|(_, object)| object.clone()).filter(|object| selector.matches(object)).collect()
    };
    let initial = if shown == current {
        select(&table.objects)
    } else {
        select(&table.at(shown).ok_or_else(|| Status::expired_watch(shown, table.oldest()))?)
    };
    Ok(Start { cursor: shown, initial, marks_initial_end: streaming })
}

impl Watch {
    async fn run(mut self, mut cuts: broadcast::Receiver<CutOrder>) {
        let (table, out) = (self.table, self.out.clone());
        let end = {
            let mut stream = pin!(self.send_all());
            loop {
                tokio::select! {
                    biased;
                    order = cuts.recv() => match order {
                        Ok(order) if order.table.is_some_and(|other| other != table) => {}
                        Ok(order) => break End::Cut(order.how),
                        // Orders were missed or the server is gone: either way this stream was to end.
                        Err(_) => break End::Cut(Cut::Abrupt),
                    },
                    // The client hung up.
                    () = out.closed() => break End::Done,
                    end = &mut stream => break end.err().unwrap_or(End::Done),
                }
            }
        };
        // Events are packed whole, so that what is left ends at an event's end. A client that is gone is told nothing.
        let _ = self.flush().await;
        if let End::Cut(Cut::Abrupt) = end {
            // On an error hyper drops what it has not written yet. All frames taken, and one turn of the connection's task, and
            // what came before the cut is with the client.
            if let Ok(places) = out.reserve_many(FRAMES).await {
                drop(places);
                tokio::task::yield_now().await;
            }
            let _ = out.send(Err(Broken)).await;
        }
        self.shared.watch_ended(table);
    }

    async fn send_all(&mut self) -> Result<(), End> {
        for object in std::mem::take(&mut self.initial) {
            self.object("ADDED", object.version, &object)?;
            self.flush_ready().await?;
        }
        if self.marks_initial_end {
            self.bookmark(r#","annotations":{"k8s.io/initial-events-end":"true"}"#)?;
        }
        self.flush().await?;
        self.schedule_bookmark();
        loop {
            self.changed.borrow_and_update();
            let batch = self.read()?;
            let drained = batch.len() < BATCH;
            for event in batch {
                self.event(&event)?;
                self.flush_ready().await?;
            }
            self.flush().await?;
            if drained {
                self.wait().await?;
            }
        }
    }

    /// The next changes. Moves the cursor to the store's own version when there are no more, so that a bookmark can say so.
    fn read(&mut self) -> Result<Vec<Arc<Event>>, End> {
        let shared = self.shared.clone();
        let cluster = shared.cluster();
        let table = cluster.store.table(self.table);
        let Some(batch) = table.after(self.cursor, BATCH) else {
            let status = Status::expired_watch(self.cursor, table.oldest());
            drop(cluster);
            self.line(&format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status.to_json()));
            return Err(End::Done);
        };
        self.cursor = match batch.last() {
            Some(last) if batch.len() == BATCH => last.version,
            // A watch from a version in the future stays there.
            _ => self.cursor.max(cluster.store.revision()),
        };
        Ok(batch)
    }

    /// Until there is something to read. Bookmarks go out from here, where everything before them has been sent.
    async fn wait(&mut self) -> Result<(), End> {
        loop {
            let bookmark = self.bookmarks.then_some(self.next_bookmark);
            tokio::select! {
                biased;
                changed = self.changed.changed() => return changed.map_err(|_| End::Cut(Cut::Abrupt)),
                () = tokio::time::sleep_until(self.deadline) => return Err(End::Done),
                () = async { match bookmark { Some(at) => tokio::time::sleep_until(at).await, None => future::pending().await } } => {
                    // Changes of other resources count: that is what keeps a quiet watch from falling out of the window.
                    let before = self.read()?;
                    for event in before {
                        self.event(&event)?;
                    }
                    // To a watch from a version in the future nothing is said until the store is there (`cacheWatcher.process`).
                    if self.cursor <= self.revision() {
                        self.bookmark("")?;
                        self.flush().await?;
                    }
                    self.schedule_bookmark();
                }
            }
        }
    }

    fn revision(&self) -> u64 {
        self.shared.cluster().store.revision()
    }

    /// The next regular one, or the one before the end, whichever is first.
    fn schedule_bookmark(&mut self) {
        let now = Instant::now();
        let regular = now + self.shared.bookmark_interval;
        let last = self.deadline.checked_sub(LAST_BOOKMARK).filter(|last| *last > now);
        self.next_bookmark = last.map_or(regular, |last| last.min(regular));
    }

    fn event(&mut self, event: &Event) -> Result<(), End> {
        let inside = self.namespace.is_empty() || event.key.namespace() == self.namespace;
        let selected = |object: &Option<Arc<Stored>>| object.clone().filter(|object| inside && self.selector.matches(object));
        match (selected(&event.old), selected(&event.new)) {
            (None, None) => Ok(()),
            (None, Some(new)) => self.object("ADDED", event.version, &new),
            (Some(_), Some(new)) => self.object("MODIFIED", event.version, &new),
            // Deleted, or out of the selector: the body of before under the version of now.
            (Some(old), None) => self.object("DELETED", event.version, &old),
        }
    }

    fn object(&mut self, change: &str, version: u64, object: &Stored) -> Result<(), End> {
        self.spend_event()?;
        let head = Stored::head(&self.type_meta, version);
        self.packer.push(&format!("{{\"type\":\"{change}\",\"object\":{head}"));
        self.packer.push_shared(object.rest());
        self.packer.push("}\n");
        Ok(())
    }

    fn bookmark(&mut self, annotations: &str) -> Result<(), End> {
        self.spend_event()?;
        let head = Stored::head(&self.type_meta, self.cursor);
        let empty = self.resource.empty;
        self.line(&format!("{{\"type\":\"BOOKMARK\",\"object\":{head}{annotations}}}{empty}}}}}\n"));
        Ok(())
    }

    fn line(&mut self, line: &str) {
        self.packer.push(line);
    }

    fn spend_event(&mut self) -> Result<(), End> {
        match &mut self.cut_after {
            Some((0, how)) => Err(End::Cut(*how)),
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        self.packer.flush();
        self.flush_ready().await
    }

    async fn flush_ready(&mut self) -> Result<(), End> {
        while self.packer.has_frame() {
            // A place first, then the frame: a cut in between must not lose it.
            let place = self.out.reserve().await.map_err(|_| End::Done)?;
            if let Some(frame) = self.packer.pop() {
                place.send(Ok(frame));
            }
        }
        Ok(())
    }
}
