//! Objects of a [`Shape`], as a source decodes them: from the very JSON that the API server double serves.

use std::ops::Range;

use anyhow::{Context as _, Result, bail};
use sheave::model::{Family, Interner, ObjectKey};
use sheave::source::decode::{self, Decoded};
use sheave::source::{Change, Kind, Object};
use sheave_tests::apiserver::load::{EndpointAddress, Shape};

/// One object before it is decoded.
pub(super) struct Document {
    kind: Kind,
    json: String,
}

/// A decoder that has seen what went through it: names are shared, as in the daemon.
#[derive(Default)]
pub(super) struct Decoder {
    names: Interner,
}

impl Document {
    /// A Service and all its EndpointSlices.
    pub(super) fn of_service(shape: Shape, number: u32) -> impl Iterator<Item = Self> {
        let slices = shape.families().flat_map(move |family| (0..shape.parts()).map(move |part| (family, part)));
        std::iter::once(Self::service(shape, number))
            .chain(slices.map(move |(family, part)| Self::slice(shape, number, family, part, Some)))
    }

    pub(super) fn service(shape: Shape, number: u32) -> Self {
        Self { kind: Kind::Service, json: shape.service_document(number) }
    }

    /// An EndpointSlice, each endpoint of which is what `change` makes of it.
    pub(super) fn slice(
        shape: Shape,
        number: u32,
        family: Family,
        part: u32,
        change: impl FnMut(EndpointAddress) -> Option<EndpointAddress>,
    ) -> Self {
        let endpoints = shape.places(part).map(|place| shape.first_endpoint(number, place, family)).filter_map(change);
        let endpoints: Vec<_> = endpoints.collect();
        Self { kind: Kind::EndpointSlice, json: shape.slice_document(number, family, part, endpoints.into_iter()) }
    }

    /// An IPv4 slice with other endpoints at some of its places: the `nth` replacement and on.
    pub(super) fn replacing(shape: Shape, number: u32, part: u32, places: &Range<u32>, nth: u32) -> Self {
        let mut place = shape.places(part).start;
        Self::slice(shape, number, Family::V4, part, |there| {
            let at = place;
            place += 1;
            let replaced = places.contains(&at).then(|| shape.replacement(number, at, Family::V4, nth + at - places.start));
            Some(replaced.unwrap_or(there))
        })
    }

    /// What it was called when it went.
    pub(super) fn deletion(&self, decoder: &mut Decoder) -> Result<Change> {
        Ok(Change::Deleted(self.kind, decoder.object(self)?.1))
    }
}

impl Decoder {
    pub(super) fn change(&mut self, document: &Document) -> Result<Change> {
        Ok(Change::Applied(self.object(document)?.0))
    }

    fn object(&mut self, Document { kind, json }: &Document) -> Result<(Object, ObjectKey)> {
        let decoded = decode::from_json(*kind, json.as_bytes(), &mut self.names).context("decoding an object of the load")?;
        match decoded {
            Decoded::Object(object) => {
                let key = match &object {
                    Object::Service(service) => service.key.clone(),
                    Object::EndpointSlice(slice) => slice.key.clone(),
                    _ => bail!("a load has Services and EndpointSlices only: {object:?}"),
                };
                Ok((object, key))
            }
            other => bail!("an object of the load is none of ours: {other:?}"),
        }
    }
}
