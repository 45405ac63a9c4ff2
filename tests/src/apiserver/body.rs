//! Answers as they go out: whole, object by object, or for as long as a watch lasts.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::store::Stored;

/// A response body.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Option<Bytes>),
    Items(Box<Items>),
    Stream(mpsc::Receiver<Result<Bytes, Broken>>),
}

/// A stream is to end in the middle of a chunk, so that the client sees a broken connection.
#[derive(Debug, thiserror::Error)]
#[error("the stream was cut by a fault")]
pub(super) struct Broken;

/// A list, object by object: the objects' own bytes are handed to the socket.
#[derive(Debug)]
pub(super) struct Items {
    left: std::vec::IntoIter<Arc<Stored>>,
    first: bool,
    packer: Packer,
    /// What comes after the last object.
    closing: Option<&'static str>,
}

/// Gathers small pieces into frames of a good size and lets large ones through as they are.
#[derive(Debug, Default)]
pub(super) struct Packer {
    small: BytesMut,
    ready: VecDeque<Bytes>,
}

/// A piece of this size is worth a frame of its own; below it, copying is cheaper than another chunk and iovec.
const LARGE: usize = 8 << 10;

/// A frame of small pieces goes out at this size.
const FULL: usize = 64 << 10;

/// Go's server sends a Content-Length where the whole answer fits into its buffer of this size.
const WHOLE: usize = 2048;

impl Packer {
    pub(super) fn push(&mut self, text: &str) {
        self.small.extend_from_slice(text.as_bytes());
    }

    pub(super) fn push_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < LARGE {
            self.small.extend_from_slice(bytes);
        } else {
            self.flush();
            self.ready.push_back(bytes.clone());
        }
        if self.small.len() >= FULL {
            self.flush();
        }
    }

    /// Makes what is gathered a frame.
    pub(super) fn flush(&mut self) {
        if !self.small.is_empty() {
            self.ready.push_back(self.small.split().freeze());
        }
    }

    pub(super) fn has_frame(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next complete frame.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }
}

impl Body {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self::Whole(Some(text.into()))
    }

    /// A list: `opening`, the objects with commas between, `]}`.
    pub(super) fn list(opening: &str, objects: Vec<Arc<Stored>>) -> Self {
        let small =
            objects.len() < 16 && objects.iter().map(|object| object.rest().len() + 64).sum::<usize>() + opening.len() < WHOLE;
        let mut packer = Packer::default();
        packer.push(opening);
        let mut items = Items { left: objects.into_iter(), first: true, packer, closing: Some("]}\n") };
        if small {
            let mut whole = BytesMut::new();
            while let Some(frame) = items.next_frame() {
                whole.extend_from_slice(&frame);
            }
            return Self::Whole(Some(whole.freeze()));
        }
        Self::Items(Box::new(items))
    }
}

impl Items {
    fn next_frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.packer.pop() {
                return Some(frame);
            }
            if let Some(object) = self.left.next() {
                let comma = if std::mem::take(&mut self.first) { "" } else { "," };
                self.packer.push(comma);
                self.packer.push(&Stored::head("", object.version));
                self.packer.push_shared(object.rest());
            } else {
                self.packer.push(self.closing.take()?);
                self.packer.flush();
            }
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Items(items) => Poll::Ready(items.next_frame().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(frames) => frames.poll_recv(context).map(|next| next.map(|frame| frame.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Items(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}
