use super::*;
use crate::model::Labels;
use crate::model::load_balancer::Hosting;
use crate::table::fixtures::{at, key, port, service};

fn publish<const N: usize>(
    published: &Published,
    table: &mut ServiceTable,
    services: [(&str, crate::table::fixtures::Staged); N],
) -> Committed {
    let committed = table.put(services);
    published.publish(&committed, table);
    committed
}

#[test]
fn only_changed_services_are_published() {
    let (published, mut table) = (Published::new(), ServiceTable::default());
    let of = |name: &str, address, to: &[&str]| service(1, [port(name, "").cluster_ip(address, 80).to(to)]);
    publish(&published, &mut table, [("a", of("a", "10.96.0.1", &[])), ("b", of("b", "10.96.0.2", &[]))]);
    let (a, b) = (published.service(&key("a")).unwrap(), published.service(&key("b")).unwrap());

    publish(&published, &mut table, [("b", of("b", "10.96.0.2", &["10.0.0.1:80"]))]);
    assert!(Arc::ptr_eq(&a, &published.service(&key("a")).unwrap()));
    let changed = published.service(&key("b")).unwrap();
    assert_eq!((b.generation, changed.generation, published.generation()), (1, 2, 2));
    assert_eq!(changed.ports[0].cluster.len(), 1);
    assert!(b.ports[0].cluster.is_empty(), "who holds the old state keeps it");

    publish(&published, &mut table, [("a", None)]);
    assert_eq!(published.service(&key("a")), None);
}

#[test]
fn a_loser_that_is_not_staged_is_published_with_its_notice() {
    let (published, mut table) = (Published::new(), ServiceTable::default());
    let of = |name: &str, created| service(created, [port(name, "").external_ip("192.0.2.1", 80)]);
    publish(&published, &mut table, [("young", of("young", 2))]);
    publish(&published, &mut table, [("old", of("old", 1))]);
    let young = published.service(&key("young")).unwrap();
    assert!(young.ports.is_empty());
    assert_eq!(young.notices[0].reason, "FrontendConflict");
    assert_eq!(published.service(&key("old")).unwrap().ports[0].frontends[0].address, at("192.0.2.1", 80));
}

#[test]
fn subscribers_are_woken_by_news_and_only_by_news() {
    let (published, mut table) = (Published::new(), ServiceTable::default());
    let mut subscription = published.subscribe();
    let of = |name: &str, created| service(created, [port(name, "").external_ip("192.0.2.1", 80)]);
    publish(&published, &mut table, [("b", of("b", 2))]);
    assert!(subscription.has_changed().unwrap());
    assert_eq!(*subscription.borrow_and_update(), 1);

    publish(&published, &mut table, [("b", of("b", 2))]);
    assert!(!subscription.has_changed().unwrap());

    let committed = publish(&published, &mut table, [("c", of("c", 3))]);
    assert!(committed.delta.is_empty(), "c gets nothing but a notice");
    assert!(subscription.has_changed().unwrap());
    assert_eq!(*subscription.borrow_and_update(), 1);
}

#[test]
fn the_whole_is_read_while_it_changes() {
    let (published, mut table) = (Published::new(), ServiceTable::default());
    let names: Vec<String> = (0..500).map(|n| format!("s{n}")).collect();
    let of = |name: &str, n: usize| {
        let address = format!("10.96.{}.{}", n / 250, n % 250);
        service(1, [port(name, "").cluster_ip(&address, 80)])
    };
    for (n, name) in names.iter().enumerate() {
        table.set_service(key(name), of(name, n));
    }
    published.publish(&table.commit(), &table);

    let held: Vec<PublishedShard> = published.shards().collect();
    for (n, name) in names.iter().enumerate() {
        publish(&published, &mut table, [(name, if n % 2 == 0 { None } else { of(name, n) })]);
    }
    let count = |shards: &[PublishedShard]| shards.iter().map(|shard| shard.services().len()).sum::<usize>();
    assert_eq!(count(&held), 500, "a reader's shards stay as they were");
    assert!(held.iter().all(|shard| shard.generation == 1));
    let now: Vec<PublishedShard> = published.shards().collect();
    assert_eq!(count(&now), 250);
    assert!(now.iter().all(|shard| shard.generation == table.generation()));
}

fn check(local: u32) -> HealthCheck {
    HealthCheck { port: 30_999.try_into().unwrap(), uid: "uid".into(), local_v4: Some(local), local_v6: None }
}

#[test]
fn a_health_check_is_published_when_it_changes_and_only_then() {
    let (published, mut table) = (Published::new(), ServiceTable::default());
    let staged = |table: &mut ServiceTable, check| {
        table.set_health_check(&key("a"), check);
        let committed = publish(&published, table, []);
        (committed.health_checks.len(), committed.delta.is_empty())
    };
    let of = |name: &str| service(1, [port(name, "").cluster_ip("10.96.0.1", 80)]);
    publish(&published, &mut table, [("a", of("a"))]);
    assert_eq!(staged(&mut table, Some(check(2))), (1, true), "no plane has to do with it");
    let state = published.service(&key("a")).unwrap();
    assert_eq!(state.health_check, Some(check(2)));
    assert_eq!(staged(&mut table, Some(check(2))), (0, true));
    assert!(Arc::ptr_eq(&state, &published.service(&key("a")).unwrap()));

    publish(&published, &mut table, [("a", of("a"))]);
    assert_eq!(published.service(&key("a")).unwrap().health_check, Some(check(2)), "a change of ports leaves it alone");
    assert_eq!(staged(&mut table, None), (1, true));
    assert_eq!(published.service(&key("a")).unwrap().health_check, None);
    assert_eq!(staged(&mut table, None), (0, true));
}

#[test]
fn what_announcing_takes_to_know_is_published_when_it_changes_and_only_then() {
    let (published, mut table) = (Published::new(), ServiceTable::default());
    let tenancy = |local| Tenancy {
        uid: "uid".into(),
        labels: Labels::default(),
        class: None,
        vips: vec!["192.168.0.240".parse().unwrap()],
        local,
        hosting_v4: Hosting::default(),
        hosting_v6: Hosting::default(),
    };
    for (staged, changes) in
        [(Some(tenancy(false)), 1), (Some(tenancy(false)), 0), (Some(tenancy(true)), 1), (None, 1), (None, 0)]
    {
        table.set_tenancy(&key("a"), staged.clone());
        let committed = publish(&published, &mut table, []);
        assert_eq!((committed.tenancies.len(), committed.delta.is_empty()), (changes, true), "no plane has to do with it");
        let known = published.service(&key("a")).and_then(|state| state.tenancy.clone());
        assert_eq!(known.as_deref(), staged.as_ref());
    }
    assert!(published.service(&key("a")).is_none(), "nothing of it is left");
}

#[tokio::test]
async fn a_follower_hears_of_the_wanted_services_alone_and_of_their_end() {
    let (published, mut table) = (Published::new(), ServiceTable::default());
    let of = |name: &str, address| service(1, [port(name, "").cluster_ip(address, 80)]);
    table.set_health_check(&key("before"), Some(check(1)));
    publish(&published, &mut table, [("before", of("before", "10.96.0.1")), ("other", of("other", "10.96.0.2"))]);

    let follower = published.follow(|state| state.health_check.is_some());
    assert_eq!(follower.changed().await, BTreeSet::from([key("before")]), "it begins with what there is");

    table.set_health_check(&key("new"), Some(check(1)));
    publish(&published, &mut table, [("new", of("new", "10.96.0.3")), ("other", None)]);
    table.set_health_check(&key("before"), None);
    publish(&published, &mut table, [("before", None)]);
    assert_eq!(follower.changed().await, BTreeSet::from([key("before"), key("new")]), "what is not taken in time is merged");

    publish(&published, &mut table, [("other", of("other", "10.96.0.2"))]);
    // Asked once, not waited for.
    let nothing = tokio::time::timeout(std::time::Duration::ZERO, follower.changed()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    drop(follower);
    drop(published.follow(|_| true));
    assert_eq!(lock(&published.followers).len(), 1, "who is gone is forgotten at the next occasion");
}

#[test]
fn who_is_woken_by_a_change_reads_its_generation() {
    let (published, mut table) = (Arc::new(Published::new()), ServiceTable::default());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (asked, told) = (Arc::downgrade(&published), heard.clone());
    let _follower = published.follow(move |state| {
        let now = asked.upgrade().map(|published| published.generation());
        lock(&told).push((now, state.generation));
        true
    });
    let of = |address| service(1, [port("a", "").cluster_ip(address, 80)]);
    publish(&published, &mut table, [("a", of("10.96.0.1"))]);
    publish(&published, &mut table, [("a", of("10.96.0.2"))]);
    publish(&published, &mut table, [("a", None)]);
    // Wanted before is enough: what is after is not asked.
    assert_eq!(*lock(&heard), [(Some(1), 1), (Some(2), 1), (Some(3), 2)]);
}
