//! Sizes at which a walk over a pool, or over all who wait for every Service, would not come to an end here.

use super::*;

const SERVICES: u32 = 5_000;

fn numbered(place: u32) -> Service {
    service(&format!("s{place}"), |service, request| {
        dual(IpFamilyPolicy::PreferDualStack)(service, request);
        service.created = Some(place.into());
    })
}

fn fill(allocator: &mut Allocator, ranges: &str) -> Settled {
    allocator.set_pool(Arc::new(pool("a", ranges)));
    (0..SERVICES).for_each(|place| allocator.set_service(Arc::new(numbered(place))));
    allocator.complete();
    allocator.settle()
}

#[test]
fn five_thousand_services_one_by_one_in_a_large_pool() {
    let mut allocator = Allocator::default();
    let settled = fill(&mut allocator, "10.0.0.0-10.0.255.255 fd00::-fd00::ffff:ffff:ffff:ffff");
    assert_eq!(settled.services.len(), 5_000);
    for place in 0..SERVICES {
        allocator.remove_service(&key(&format!("s{place}")));
        allocator.set_service(Arc::new(numbered(place)));
        assert_eq!(allocator.settle().services.len(), 1);
    }
    let last = &allocator.held(&key("s4999")).unwrap().addresses;
    assert_eq!(last[..], [address("10.0.19.135"), address("fd00::1387")]);
}

#[test]
fn a_thousand_that_wait() {
    let mut allocator = Allocator::default();
    let settled = fill(&mut allocator, "10.0.0.0-10.0.15.159 fd00::-fd00::f9f");
    assert_eq!(settled.services.len(), 4_000);
    assert_eq!(settled.events.len(), 5_000);
    for place in 0..100 {
        allocator.remove_service(&key(&format!("s{place}")));
        let settled = allocator.settle();
        assert_eq!(settled.services.len(), 1);
        assert_eq!(settled.services[0].service, key(&format!("s{}", 4_000 + place)), "the oldest that waits");
    }
}
