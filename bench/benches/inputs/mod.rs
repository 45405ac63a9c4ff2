//! What both harnesses measure: the hot rooms on their way from JSON to the bytes of a transaction, and what each is given.
//!
//! Everything follows from the numbers of the load generator (no random numbers), runs on one thread and never meets a kernel: what is
//! measured in it is ours. Inputs come ready-made, and results are handed back, so that neither is paid for by the room.

mod door;

use sheave::dataplane::nftables::NftablesPlane;
use sheave::dataplane::{Commit, Dataplane as _};
use sheave::model::{EndpointSlice, Family, Interner, Service};
use sheave::policy::{self, Context, Desired, Seniority};
use sheave::reconciler::{Purpose, Reconciled, Reconciler};
use sheave::source::decode::{self, Decoded};
use sheave::source::{Change, Kind, Object};
use sheave::table::{Committed, NodePortAddresses, NodeState, ServiceTable};
use sheave_tests::apiserver::load::{Mix, Shape};

use door::Nowhere;

/// The kernel-free measure of the project: Services of 50 endpoints, half a slice each.
const PLAIN: Shape = Shape { services: 100, endpoints_per_service: 50, mix: Mix::Plain, dual_stack: false, nodes: 100 };
/// A thousand Services as clusters have them, in both families.
const REALISTIC: Shape = Shape { services: 1_000, endpoints_per_service: 10, mix: Mix::Realistic, dual_stack: true, nodes: 100 };
/// A Service that fills its slice.
const FULL_SLICE: Shape = Shape { services: 1, endpoints_per_service: 100, ..PLAIN };

/// A Service and its slices, decoded.
pub(crate) type Objects = (Service, Vec<EndpointSlice>);

/// Objects before they are decoded, and a decoder that has seen the names in them, as it has after its first list.
pub(crate) struct Documents {
    texts: Vec<String>,
    names: Interner,
}

/// Services that policy is to decide.
pub(crate) struct Services {
    services: Vec<Objects>,
    context: Context,
}

/// A table, and what is going to be staged in it.
pub(crate) struct Staging {
    table: ServiceTable,
    services: Vec<(Service, Desired)>,
}

/// A reconciler that has the realistic mix, and a changed slice.
pub(crate) struct Event {
    reconciler: Reconciler,
    change: Change,
}

/// A plane and a table that it has not seen, or not as it is now.
pub(crate) struct Rendering {
    plane: NftablesPlane,
    table: ServiceTable,
    committed: Committed,
}

// === Decode ===

/// The EndpointSlices of a hundred Services.
pub(crate) fn list_of_slices() -> Documents {
    Documents::of((0..PLAIN.services).map(|number| slice_text(PLAIN, number, Family::V4, None)))
}

/// One EndpointSlice of a hundred endpoints, as a watch sends it again when one of them has changed.
pub(crate) fn changed_slice() -> Documents {
    Documents::of(std::iter::once(slice_text(FULL_SLICE, 0, Family::V4, Some(7))))
}

/// Decodes all of them.
pub(crate) fn decode_all(mut documents: Documents) -> (Documents, Vec<Object>) {
    let Documents { texts, names } = &mut documents;
    let objects = texts.iter().map(|text| object(Kind::EndpointSlice, text, names)).collect();
    (documents, objects)
}

// === Policy ===

/// One Service of 50 endpoints.
pub(crate) fn one_service() -> Services {
    Services::of(PLAIN, 0..1)
}

/// The realistic mix.
pub(crate) fn realistic_services() -> Services {
    Services::of(REALISTIC, 0..REALISTIC.services)
}

/// Takes all of them through policy.
pub(crate) fn decide_all(services: Services) -> (Services, Vec<Desired>) {
    let desired = services.services.iter().map(|objects| desired(objects, &services.context)).collect();
    (services, desired)
}

// === Table ===

/// A table of the realistic mix, about to be filled.
pub(crate) fn empty_table() -> Staging {
    let Services { services, context } = realistic_services();
    let wanted = services.into_iter().map(|objects| {
        let desired = desired(&objects, &context);
        (objects.0, desired)
    });
    Staging { table: ServiceTable::default(), services: wanted.collect() }
}

/// A table of a hundred Services, one of which has another endpoint.
pub(crate) fn changed_service() -> Staging {
    let context = context();
    Staging { table: plain_table(&context), services: vec![replaced(&context)] }
}

/// Stages and commits.
pub(crate) fn commit(staging: Staging) -> (ServiceTable, Committed) {
    let Staging { mut table, services } = staging;
    for (service, desired) in services {
        table.set_service(service.key.clone(), Some((desired, Seniority::of(&service))));
    }
    let committed = table.commit();
    (table, committed)
}

// === Index, policy and table as one piece ===

/// The realistic mix, listed and reconciled; then a slice with another endpoint.
pub(crate) fn changed_endpoint() -> Event {
    const KINDS: [Kind; 5] = [Kind::Node, Kind::ServiceCidr, Kind::ForeignService, Kind::Service, Kind::EndpointSlice];
    let mut reconciler = Reconciler::new(context());
    reconciler.set_node(context(), node());
    KINDS.into_iter().for_each(|kind| reconciler.apply(Change::Listing(kind)));
    let mut names = Interner::default();
    for number in 0..REALISTIC.services {
        let (service, slices) = objects(REALISTIC, number, &mut names);
        reconciler.apply(Change::Applied(Object::Service(Box::new(service))));
        for slice in slices {
            reconciler.apply(Change::Applied(Object::EndpointSlice(Box::new(slice))));
        }
    }
    KINDS.into_iter().for_each(|kind| reconciler.apply(Change::Listed(kind)));
    let dirty = reconciler.take_dirty();
    reconciler.reconcile(dirty, Purpose::Load, |_, _| {});
    let text = slice_text(REALISTIC, 500, Family::V4, Some(3));
    Event { reconciler, change: Change::Applied(object(Kind::EndpointSlice, &text, &mut names)) }
}

/// From the change to the delta.
pub(crate) fn reconcile(event: Event) -> (Reconciler, Reconciled) {
    let Event { mut reconciler, change } = event;
    reconciler.apply(change);
    let dirty = reconciler.take_dirty();
    let reconciled = reconciler.reconcile(dirty, Purpose::Delta, |_, _| {});
    (reconciler, reconciled)
}

// === Encode ===

/// A plane that has loaded a hundred Services, and the delta of another endpoint.
pub(crate) fn delta() -> Rendering {
    let context = context();
    let table = plain_table(&context);
    let mut plane = NftablesPlane::new(Box::new(Nowhere));
    plane.load(&table).expect("nobody refuses");
    let (table, committed) = commit(Staging { table, services: vec![replaced(&context)] });
    Rendering { plane, table, committed }
}

/// Writes the transaction of a delta.
pub(crate) fn encode_delta(mut rendering: Rendering) -> (Rendering, Commit) {
    let commit = rendering.plane.apply(&rendering.committed.delta, &rendering.table).expect("nobody refuses");
    (rendering, commit)
}

/// A plane that has loaded nothing, and 5,000 endpoints: what fills one transaction of a cold start.
pub(crate) fn cold_chunk() -> Rendering {
    let plane = NftablesPlane::new(Box::new(Nowhere));
    Rendering { plane, table: plain_table(&context()), committed: Committed::default() }
}

/// Writes the transactions of a load: skeleton, elements, turn-over.
pub(crate) fn encode_load(mut rendering: Rendering) -> (Rendering, Commit) {
    let commit = rendering.plane.load(&rendering.table).expect("nobody refuses");
    (rendering, commit)
}

// === Objects of a shape ===

impl Documents {
    fn of(texts: impl Iterator<Item = String>) -> Self {
        let (texts, mut names) = (texts.collect::<Vec<_>>(), Interner::default());
        for text in &texts {
            object(Kind::EndpointSlice, text, &mut names);
        }
        Self { texts, names }
    }
}

impl Services {
    fn of(shape: Shape, numbers: std::ops::Range<u32>) -> Self {
        let mut names = Interner::default();
        Self { services: numbers.map(|number| objects(shape, number, &mut names)).collect(), context: context() }
    }
}

/// A node of the load: one endpoint in a hundred is local.
fn context() -> Context {
    Context { node_name: "node-00000".into(), zone: Some("zone-a".into()), ..Context::default() }
}

fn node() -> NodeState {
    let everywhere = NodePortAddresses { match_all: true, ..NodePortAddresses::default() };
    NodeState { node_ports_v4: everywhere.clone(), node_ports_v6: everywhere, ..NodeState::default() }
}

fn plain_table(context: &Context) -> ServiceTable {
    let Services { services, .. } = Services::of(PLAIN, 0..PLAIN.services);
    let mut table = ServiceTable::default();
    table.set_node(node());
    for objects in services {
        let desired = desired(&objects, context);
        table.set_service(objects.0.key.clone(), Some((desired, Seniority::of(&objects.0))));
    }
    table.commit();
    table
}

/// The fiftieth Service of the plain load with another endpoint in its middle.
fn replaced(context: &Context) -> (Service, Desired) {
    let mut names = Interner::default();
    let (service, _) = objects(PLAIN, 50, &mut names);
    let slice = slice(&slice_text(PLAIN, 50, Family::V4, Some(25)), &mut names);
    let objects = (service, vec![slice]);
    let desired = desired(&objects, context);
    (objects.0, desired)
}

fn desired((service, slices): &Objects, context: &Context) -> Desired {
    policy::desired(service, slices.iter(), context)
}

fn objects(shape: Shape, number: u32, names: &mut Interner) -> Objects {
    let Object::Service(service) = object(Kind::Service, &shape.service_document(number), names) else {
        unreachable!("a Service was asked for")
    };
    let slices = shape.families().map(|family| slice(&slice_text(shape, number, family, None), names));
    (*service, slices.collect())
}

fn slice(text: &str, names: &mut Interner) -> EndpointSlice {
    let Object::EndpointSlice(slice) = object(Kind::EndpointSlice, text, names) else {
        unreachable!("an EndpointSlice was asked for")
    };
    *slice
}

/// The first slice of a Service as an API server serves it, with an endpoint that was never there at place `replaced`.
fn slice_text(shape: Shape, number: u32, family: Family, replaced: Option<u32>) -> String {
    let endpoints = shape.places(0).map(|place| match replaced {
        Some(replaced) if replaced == place => shape.replacement(number, place, family, 1),
        _ => shape.first_endpoint(number, place, family),
    });
    let endpoints: Vec<_> = endpoints.collect();
    shape.slice_document(number, family, 0, endpoints.into_iter())
}

fn object(kind: Kind, text: &str, names: &mut Interner) -> Object {
    match decode::from_json(kind, text.as_bytes(), names).expect("the load is readable") {
        Decoded::Object(object) => object,
        Decoded::NotOurs { key, .. } => unreachable!("{key} is of the load"),
    }
}
