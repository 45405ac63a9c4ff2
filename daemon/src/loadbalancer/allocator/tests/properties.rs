//! Random changes, with everything so small that everything collides.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::model::Problem;

const SERVICES: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];
const POOLS: [&str; 3] = ["a", "b", "c"];
/// Ranges of each pool: of IPv4 across a .255 and a .0, and of IPv6.
const RANGES: [[&str; 4]; 3] = [
    ["10.0.0.254-10.0.1.1", "10.0.1.2-10.0.1.2", "fd00::1-fd00::2", "fd00::8-fd00::8"],
    ["10.1.0.254-10.1.0.255", "10.1.0.1-10.1.0.2", "fd01::1-fd01::2", "fd01::8-fd01::8"],
    ["10.2.0.0-10.2.0.1", "10.2.0.8-10.2.0.8", "fd02::1-fd02::1", "fd02::8-fd02::8"],
];
const ADDRESSES: [&str; 8] = ["10.0.0.254", "10.0.0.255", "10.0.1.1", "10.1.0.1", "10.2.0.0", "fd00::1", "fd01::1", "192.0.2.1"];
const PAIRS: [&str; 3] = ["10.0.0.254,fd00::1", "fd01::1,10.1.0.1", "10.0.1.1,fd01::1"];

#[derive(Clone, Debug)]
enum Step {
    Put(Box<Service>),
    Delete(&'static str),
    Pool(Box<AddressPool>),
    NoPool(&'static str),
    Namespace(&'static str),
    Occupy(&'static str, bool),
    Overwrite(&'static str, Vec<&'static str>),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => a_service().prop_map(|service| Step::Put(service.into())),
        3 => select(&SERVICES[..]).prop_map(Step::Delete),
        4 => a_pool().prop_map(|pool| Step::Pool(pool.into())),
        1 => select(&POOLS[..]).prop_map(Step::NoPool),
        1 => select(&["blue", "red"][..]).prop_map(Step::Namespace),
        1 => (select(&ADDRESSES[..]), any::<bool>()).prop_map(|(ip, there)| Step::Occupy(ip, there)),
        1 => (select(&SERVICES[..]), subsequence(&ADDRESSES[..], 0..3)).prop_map(|(name, ips)| Step::Overwrite(name, ips)),
        2 => Just(Step::Restart),
    ]
}

fn a_pool() -> impl Strategy<Value = AddressPool> {
    let allocation =
        (-1i64..3, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(priority, name, space, own)| ServiceAllocation {
            priority,
            namespaces: Some("other".into()).filter(|_| name).into_iter().collect(),
            namespace_selectors: Some(selector("team", "blue")).filter(|_| space).into_iter().collect(),
            service_selectors: Some(selector("app", "web")).filter(|_| own).into_iter().collect(),
        });
    let flags = (prop::bool::weighted(0.8), any::<bool>(), prop::bool::weighted(0.15));
    (0..POOLS.len(), subsequence(&[0, 1, 2, 3][..], 0..=4).prop_shuffle(), flags, option::weighted(0.4, allocation)).prop_map(
        |(place, ranges, (auto_assign, avoid_buggy_ips, broken), allocation)| {
            let ranges: Vec<_> = ranges.into_iter().map(|range: usize| RANGES[place][range]).collect();
            let problems =
                Some(Problem { field: "spec".into(), reason: "broken".into() }).filter(|_| broken).into_iter().collect();
            AddressPool { auto_assign, avoid_buggy_ips, allocation, problems, ..pool(POOLS[place], &ranges.join(" ")) }
        },
    )
}

fn a_service() -> impl Strategy<Value = Service> {
    let families = select(&[(true, false), (false, true), (true, true)][..]);
    let policy = select(&[IpFamilyPolicy::SingleStack, IpFamilyPolicy::PreferDualStack, IpFamilyPolicy::RequireDualStack][..]);
    let asked = option::weighted(0.3, prop_oneof![select(&ADDRESSES[..]), select(&PAIRS[..])]);
    let wishes = (asked, option::weighted(0.2, select(&POOLS[..])), any::<bool>());
    let terms = (option::weighted(0.6, select(&["k", "l"][..])), 80u16..83, any::<bool>(), select(&["", "app=web"][..]));
    let kind = (prop::bool::weighted(0.9), prop::bool::weighted(0.9), option::of(0i64..3), any::<bool>());
    (select(&SERVICES[..]), families, policy, any::<bool>(), wishes, terms, kind).prop_map(
        |(
            name,
            (v4, v6),
            policy,
            reversed,
            (asked, pool, by_field),
            (sharing_key, port, local, own),
            (balanced, ours, created, web),
        )| {
            service(name, |service, request| {
                let ips = [(v4, "10.96.0.1"), (v6, "fd96::1")].into_iter().filter(|(there, _)| *there);
                service.cluster_ips = ips.map(|(_, ip)| address(ip)).collect();
                service.created = created;
                service.kind = if balanced { ServiceType::LoadBalancer } else { ServiceType::NodePort };
                service.external_traffic_policy = if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
                service.ports = vec![samples::port("", Protocol::Tcp, port)];
                request.families = service.cluster_ips.iter().map(|ip| Family::of(*ip)).collect();
                if reversed {
                    request.families.reverse();
                }
                request.family_policy = policy;
                let single = asked.filter(|asked| by_field && !asked.contains(','));
                request.address = single.map(Into::into);
                request.addresses = asked.filter(|_| single.is_none()).map(Into::into);
                request.pool = pool.map(Into::into);
                request.sharing_key = sharing_key.map(Into::into);
                request.selector = own.into();
                request.class = text("x").filter(|_| !ours);
                request.labels = [("app", if web { "web" } else { "api" })].into_iter().collect();
            })
        },
    )
}

/// A world, and which pools are in force by the text: the last good version of each, as far as this allocator can know.
#[derive(Default)]
struct Trial {
    world: World,
    in_force: naive::InForce,
}

impl Trial {
    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        let before: BTreeMap<&str, String> = SERVICES
            .into_iter()
            .filter(|name| self.world.services.contains_key(&key(name)))
            .map(|name| (name, self.world.status(name)))
            .collect();
        match step {
            Step::Put(service) => return self.put(*service, &before),
            Step::Delete(name) if before.contains_key(name) => self.world.delete(name),
            Step::Delete(_) => {}
            Step::Pool(pool) => {
                if pool.problems.is_empty() {
                    self.in_force.insert(pool.key.name().into(), (*pool).clone());
                }
                let counts = self.world.pools.get(&pool.key).and_then(|known| known.counts);
                self.world.put_pool(AddressPool { counts, ..*pool });
                self.world.settle();
            }
            Step::NoPool(name) => {
                self.in_force.remove(name);
                self.world.drop_pool(name);
                self.world.settle();
            }
            Step::Namespace(team) => {
                let namespace = NamespaceLabels { name: "default".into(), labels: [("team", team)].into_iter().collect() };
                self.world.namespaces.insert("default".into(), namespace.clone());
                self.world.allocator.set_namespace(namespace);
                self.world.settle();
            }
            Step::Occupy(ip, there) => {
                self.world.occupy(ip, Some(Occupant::Node("n".into())).filter(|_| there));
                self.nobody_is_without(&before, "an address in use elsewhere")?;
            }
            Step::Overwrite(name, ips) => {
                if before.contains_key(name) {
                    self.world.edit(name, |_, request| {
                        request.ingress = ips.iter().map(|ip| IngressAddress { ip: address(ip), mode: IpMode::Vip }).collect();
                    });
                }
            }
            Step::Restart => {
                let writes = self.world.writes;
                self.world.restart();
                self.world.settle();
                self.in_force.retain(|name, _| self.world.pools[&pool_key(name)].problems.is_empty());
                prop_assert_eq!(self.world.writes, writes, "a restart writes nothing");
                self.nobody_is_without(&before, "a restart")?;
            }
        }
        Ok(())
    }

    fn put(&mut self, mut service: Service, before: &BTreeMap<&str, String>) -> Result<(), TestCaseError> {
        let name = service.key.name().to_owned();
        let known = self.world.services.get(&service.key).and_then(|known| known.load_balancer.clone());
        let ours = naive::is_ours(&service);
        let families_known = service.load_balancer.as_ref().unwrap().family_policy != IpFamilyPolicy::RequireDualStack
            || service.cluster_ips.len() == 2;
        let Some(known) = known else {
            let expected = naive::expected(&self.world, &self.in_force, &service).filter(|_| ours && families_known);
            self.world.put(service);
            self.world.settle();
            let held = self.world.allocator.held(&key(&name)).map(|held| (held.pool.to_string(), held.addresses.to_vec()));
            prop_assert_eq!(held, expected, "what a new Service gets");
            return self.nobody_is_without(before, "a new Service");
        };
        let request = service.load_balancer.as_mut().unwrap();
        (request.ingress, request.allocated_from) = (known.ingress.clone(), known.allocated_from.clone());
        let changes_request_alone = {
            let mut other = self.world.services[&service.key].clone();
            let was = other.load_balancer.as_mut().unwrap();
            was.address.clone_from(&request.address);
            was.addresses.clone_from(&request.addresses);
            was.pool.clone_from(&request.pool);
            other == service
        };
        self.world.put(service);
        self.world.settle();
        if changes_request_alone && ours && !before[&*name].is_empty() {
            prop_assert_ne!(self.world.status(&name), "", "a wish takes nothing away");
        }
        let others = before.iter().filter(|(other, _)| **other != name).map(|(name, status)| (*name, status.clone())).collect();
        self.nobody_is_without(&others, "another Service's change")
    }

    fn nobody_is_without(&self, before: &BTreeMap<&str, String>, why: &str) -> Result<(), TestCaseError> {
        for (name, status) in before.iter().filter(|(_, status)| !status.is_empty()) {
            let ours = naive::is_ours(&self.world.services[&key(name)]);
            prop_assert!(!ours || !self.world.status(name).is_empty(), "{name} had {status} and lost it to {why}");
        }
        Ok(())
    }

    /// What must be true at any time.
    fn check(&self) -> Result<(), TestCaseError> {
        let World { services, pools, .. } = &self.world;
        for service in services.values() {
            let request = service.load_balancer.as_ref().unwrap();
            let held = self.world.allocator.held(&service.key);
            // Without pools, what is not annotated may be another load balancer's.
            if !naive::is_ours(service) || (pools.is_empty() && request.allocated_from.is_none()) {
                prop_assert_eq!(held, None);
                continue;
            }
            let status: Vec<_> = request.ingress.iter().map(|ingress| ingress.ip).collect();
            prop_assert_eq!(
                &status[..],
                held.map_or(&[][..], |held| &held.addresses),
                "the status is what is held: {:?}",
                service.key
            );
            for &ip in &status {
                let sharing = naive::holders(&self.world, ip);
                prop_assert!(
                    sharing.iter().all(|other| other.key == service.key || naive::may_share(service, other)),
                    "{ip}: {sharing:?}"
                );
                let name = &held.unwrap().pool;
                match self.in_force.get(&**name) {
                    Some(pool) => {
                        prop_assert!(naive::contains(pool, ip) && naive::admits(&self.world, pool, service), "{ip} of {name}");
                    }
                    None => prop_assert!(!pools[&pool_key(name)].problems.is_empty(), "{ip}: only a pool nobody knows leaves it"),
                }
            }
            let ready = request.family_policy != IpFamilyPolicy::RequireDualStack || service.cluster_ips.len() == 2;
            if status.is_empty() && ready {
                prop_assert_eq!(
                    naive::expected(&self.world, &self.in_force, service),
                    None,
                    "it waits for nothing: {:?}",
                    service.key
                );
            }
        }
        for (name, pool) in &self.in_force {
            prop_assert_eq!(pools[&pool_key(name)].counts, Some(naive::counts(&self.world, pool)), "{}", name);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn nothing_twice_nothing_lost(steps in vec(step(), 1..40)) {
        let mut trial = Trial::default();
        trial.world.allocator.complete();
        for step in steps {
            trial.run(step)?;
            trial.check()?;
        }
        trial.run(Step::Restart)?;
        trial.check()?;
    }

    #[test]
    fn pools_in_force_never_overlap(
        steps in vec((select(&["a", "b", "c", "d"][..]), option::weighted(0.9, vec((0u8..40, 0u8..6), 0..3)), any::<bool>(), any::<bool>()), 1..24)
    ) {
        let mut world = World::new([]);
        let mut had = BTreeSet::new();
        for (generation, (name, ranges, broken, settles)) in (1..).zip(steps) {
            match ranges {
                Some(ranges) => {
                    let ranges: Vec<_> = ranges.iter().map(|(first, more)| format!("10.0.0.{first}-10.0.0.{}", first + more)).collect();
                    let problems = Some(Problem { field: "f".into(), reason: "r".into() }).filter(|_| broken).into_iter().collect();
                    world.put_pool(AddressPool { generation, problems, ..pool(name, &ranges.join(" ")) });
                }
                None => {
                    world.drop_pool(name);
                    had.remove(name);
                }
            }
            if !settles {
                continue;
            }
            world.settle();
            let pools = &world.allocator.stock.pools;
            let all: Vec<_> = pools.in_force().flat_map(|own| own.pool.ranges.iter().map(|range| (own.pool.key.clone(), *range))).collect();
            for (place, (_, one)) in all.iter().enumerate() {
                prop_assert!(all[place + 1..].iter().all(|(_, other)| one.overlap(*other).is_none()), "{:?}", all);
            }
            for latest in pools.latest() {
                let name = latest.key.name();
                let own = pools.get(name);
                prop_assert_eq!(pools.faults(&latest.key).is_empty(), own.is_some_and(|own| own.pool.generation == latest.generation));
                prop_assert!(own.is_some() || !had.contains(name), "a pool in force stays in some version");
                had.extend(own.map(|own| own.name().to_owned()));
                for fault in pools.faults(&latest.key) {
                    if let Fault::Overlaps { range, others, pool } = fault {
                        prop_assert!(range.overlap(*others).is_some() && latest.ranges.contains(range));
                        prop_assert!(pools.get(pool).is_some_and(|other| other.pool.ranges.contains(others)), "{:?} is in force", fault);
                    }
                }
            }
        }
    }
}
