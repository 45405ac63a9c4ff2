//! Every request to an API server, told to whoever counts them: lists, watches and Events alike.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use kube::client::Body;
use tower::{Layer, Service};

/// Counts requests.
pub trait Meter: Send + Sync {
    /// A request has its answer's head, or none: it failed, or nobody waited any longer.
    fn asked(&self, request: &Asked<'_>);
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'r> {
    /// `GET`, ...
    pub method: &'r str,
    /// Host and port of the API server.
    pub host: &'r str,
    /// Status code of the answer, if there was one.
    pub code: Option<u16>,
    /// Until the head of the answer, a connection included.
    pub took: Duration,
}

/// Where a meter can be hung up. Clones are the same place.
#[derive(Clone, Default)]
pub(super) struct MeterPlace(Arc<OnceLock<Arc<dyn Meter>>>);

/// Puts [`Metered`] around a client's requests.
pub(super) struct MeterLayer {
    pub(super) host: Arc<str>,
    pub(super) place: MeterPlace,
}

/// A client whose requests are told.
#[derive(Clone)]
pub(super) struct Metered<S> {
    inner: S,
    host: Arc<str>,
    place: MeterPlace,
}

/// A request under way. Told when it is dropped: then it has its answer, or will have none.
struct UnderWay {
    method: Method,
    host: Arc<str>,
    place: MeterPlace,
    began: Instant,
    code: Option<u16>,
}

impl MeterPlace {
    /// The first meter stays.
    pub(super) fn hang_up(&self, meter: Arc<dyn Meter>) {
        let _ = self.0.set(meter);
    }
}

impl<S> Layer<S> for MeterLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Metered { inner, host: self.host.clone(), place: self.place.clone() }
    }
}

impl<S, B> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (host, place) = (self.host.clone(), self.place.clone());
        let mut under_way = UnderWay { method: request.method().clone(), host, place, began: Instant::now(), code: None };
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            under_way.answered(answer.as_ref().ok());
            answer
        }
        .boxed()
    }
}

impl UnderWay {
    /// By a method: of a field alone, the future would have a copy.
    fn answered<B>(&mut self, answer: Option<&Response<B>>) {
        self.code = answer.map(|answer| answer.status().as_u16());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(meter) = self.place.0.get() {
            let Self { method, host, code, .. } = self;
            meter.asked(&Asked { method: method.as_str(), host, code: *code, took: self.began.elapsed() });
        }
    }
}

impl fmt::Debug for MeterPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeterPlace").field(&self.0.get().is_some()).finish()
    }
}
