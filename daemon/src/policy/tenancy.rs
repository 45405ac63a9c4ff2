//! What announcing a Service's VIPs takes to know (MetalLB v0.16.1, `speaker/layer2_controller.go`).

use super::service;
use crate::model::load_balancer::Hosting;
use crate::model::{EndpointSlice, Family, Service, ServiceType, TrafficPolicy};
use crate::table::Tenancy;

/// Of a Service of type LoadBalancer that has a VIP; of all others nothing. Whose VIPs they are is not asked here.
#[expect(clippy::needless_pass_by_value, reason = "callers have an iterator; a reference to one would only be cloned here")]
pub fn tenancy<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice> + Clone) -> Option<Tenancy> {
    let request = service.load_balancer.as_ref()?;
    if service.kind != ServiceType::LoadBalancer || service.vips.is_empty() {
        return None;
    }
    let hosting = |family| {
        let has_it = service.vips.iter().any(|vip| Family::of(*vip) == family);
        if has_it { Hosting::of(slices.clone(), family) } else { Hosting::default() }
    };
    Some(Tenancy {
        uid: service.uid.clone(),
        labels: request.labels.clone(),
        class: request.class.clone(),
        vips: service.vips.clone(),
        local: service::external_policy(service) == TrafficPolicy::Local,
        hosting_v4: hosting(Family::V4),
        hosting_v6: hosting(Family::V6),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load_balancer::LoadBalancerRequest;
    use crate::model::{Conditions, Endpoint, ObjectKey, samples};

    fn balanced(vips: &[&str]) -> Service {
        let service = samples::service(ObjectKey::new("default", "web"), [10, 96, 0, 9].into());
        Service {
            kind: ServiceType::LoadBalancer,
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            load_balancer: Some(Box::new(LoadBalancerRequest::default())),
            ..service
        }
    }

    fn slice() -> EndpointSlice {
        let at = |last: u8, node: &str, ready, serving| Endpoint {
            node: Some(node.into()),
            conditions: Conditions { ready, serving, terminating: !ready },
            ..samples::endpoint([10, 180, 0, last].into())
        };
        let endpoints = [at(1, "a", true, true), at(2, "b", false, true), at(3, "c", false, false)];
        samples::slice(ObjectKey::new("default", "web-1"), ObjectKey::new("default", "web"), endpoints)
    }

    #[test]
    fn where_it_can_be_served_is_told_of_each_family_that_has_a_vip() {
        let slices = [slice()];
        let tenancy = tenancy(&balanced(&["192.168.0.240", "fd00::240"]), slices.iter()).unwrap();
        let nodes: Vec<&str> = tenancy.hosting_v4.nodes.iter().map(|node| &**node).collect();
        assert_eq!((tenancy.hosting_v4.any, nodes), (true, vec!["a", "b"]), "who still serves counts");
        assert_eq!(tenancy.hosting_v6, Hosting::default(), "there is no slice of that family");
        assert_eq!(tenancy.hosting(Family::V4), &tenancy.hosting_v4);
    }

    #[test]
    fn services_of_other_types_or_without_a_vip_are_nothing_to_announce() {
        let slices = [slice()];
        let another_type = Service { kind: ServiceType::NodePort, ..balanced(&["192.168.0.240"]) };
        for service in [balanced(&[]), another_type] {
            assert_eq!(tenancy(&service, slices.iter()), None);
        }
    }
}
