//! The metrics port of `sheave controller`.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::allocator::AllocatorMetrics;
use super::book::Book;
use super::process::ProcessMetrics;
use super::{ClientMetrics, WatchMetrics, build_info, exposition};
use crate::http_server::{Answer, Reply, Request, reply, text};
use crate::source::kube::{Asked, Meter};

/// All metrics of a process that is the controller and nothing else.
#[derive(Debug)]
pub struct ControllerMetrics {
    allocator: Arc<AllocatorMetrics>,
    watches: WatchMetrics,
    client: ClientMetrics,
    process: ProcessMetrics,
    book: Book,
}

/// Answers `/metrics`.
pub(crate) struct ControllerScrapes(pub(crate) Arc<ControllerMetrics>);

impl ControllerMetrics {
    /// All of them, at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut book = Book::default();
        let allocator = Arc::new(AllocatorMetrics::new(&mut book));
        let watches = WatchMetrics::new(&mut book);
        let client = ClientMetrics::new(&mut book);
        let process = ProcessMetrics::new(&mut book);
        build_info(&mut book);
        Self { allocator, watches, client, process, book }
    }

    /// Those of the allocation.
    #[must_use]
    pub fn allocator(&self) -> Arc<AllocatorMetrics> {
        self.allocator.clone()
    }

    /// Everything as of now, in the Prometheus text format 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        self.process.refresh();
        match self.allocator.watches() {
            Some(health) => self.watches.tell(&health),
            None => self.watches.clear(),
        }
        self.book.text()
    }
}

impl Default for ControllerMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter for ControllerMetrics {
    fn asked(&self, request: &Asked<'_>) {
        self.client.asked(request);
    }
}

impl Answer for ControllerScrapes {
    fn answer(&self, request: &Request<'_>) -> Reply {
        match (request.method, request.path) {
            (&Method::GET | &Method::HEAD, "/metrics") => reply(StatusCode::OK, exposition::CONTENT_TYPE, self.0.text()),
            (&Method::GET | &Method::HEAD, _) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
        }
    }
}
