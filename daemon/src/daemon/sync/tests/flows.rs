//! Which UDP flows are looked for after the kernel refused something.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::*;
use super::telling::Stubborn;
use super::{options, outputs};
use crate::model::{ObjectKey, Protocol, Service, samples};
use crate::source::{Kind, Object};

fn at(host: u8) -> SocketAddr {
    (Ipv4Addr::new(10, 96, 0, host), 53).into()
}

fn dns(host: u8) -> ObjectKey {
    ObjectKey::new("default", &format!("dns-{host}"))
}

/// A loop whose kernel has two UDP Services, and how often it is to refuse from here on.
fn with_two_services() -> (SyncLoop, Arc<AtomicU32>) {
    let refusals = Arc::new(AtomicU32::new(0));
    let plane = Stubborn { refusals: Arc::clone(&refusals) };
    let mut sync_loop = SyncLoop::new(Arc::new(options()), Box::new(plane), outputs());
    for host in [1, 2] {
        let service = samples::service(dns(host), at(host).ip());
        let service = Service { ports: vec![samples::port("", Protocol::Udp, 53)], ..service };
        sync_loop.take_one(Change::Applied(Object::Service(Box::new(service))));
    }
    for kind in [Kind::Node, Kind::ServiceCidr, Kind::ForeignService, Kind::Service, Kind::EndpointSlice] {
        sync_loop.take_one(Change::Listed(kind));
    }
    sync_loop.sync();
    assert_eq!(sync_loop.kernel, Kernel::Current);
    // Nothing asked for yet.
    sync_loop.outputs.stale_flows = Some(StaleFlows::idle());
    (sync_loop, refusals)
}

fn delete(sync_loop: &mut SyncLoop, host: u8) {
    sync_loop.take_one(Change::Deleted(Kind::Service, dns(host)));
    sync_loop.sync();
}

fn looked_for(sync_loop: &SyncLoop, host: u8) -> bool {
    sync_loop.outputs.stale_flows.as_ref().is_some_and(|flows| flows.alive_at(at(host)).is_some())
}

#[test]
fn flows_of_a_service_that_went_with_a_refused_change_are_looked_for() {
    let (mut sync_loop, refusals) = with_two_services();
    refusals.store(1, Ordering::Relaxed);
    delete(&mut sync_loop, 1);
    assert_eq!(sync_loop.kernel, Kernel::Current, "the load was taken");
    assert!(looked_for(&sync_loop, 1), "it is not in the table that was loaded");
    assert!(looked_for(&sync_loop, 2), "rules may have been missing");
}

#[test]
fn flows_of_services_that_went_while_the_kernel_refused_everything_are_looked_for_when_it_does_not() {
    let (mut sync_loop, refusals) = with_two_services();
    refusals.store(3, Ordering::Relaxed);
    // Change and load are refused, and then, with another Service gone, the next load.
    delete(&mut sync_loop, 1);
    sync_loop.retry_at = None;
    delete(&mut sync_loop, 2);
    assert_eq!((sync_loop.kernel, refusals.load(Ordering::Relaxed)), (Kernel::Doubtful, 0));
    assert!(!looked_for(&sync_loop, 1), "the old rules are in force");
    sync_loop.retry_at = None;
    sync_loop.sync();
    assert!(looked_for(&sync_loop, 1) && looked_for(&sync_loop, 2));
}
