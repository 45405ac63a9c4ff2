use crate::model::{Family, Protocol, TrafficPolicy};
use crate::table::fixtures::{at, id, ip, key, port, reasons, service};
use crate::table::{AddressUse, FrontendAddress, FrontendKind, Notice, Scope, ServiceTable, Subject};

mod properties;

const VIP: &str = "192.0.2.1";

#[test]
fn the_older_service_keeps_a_contested_frontend() {
    let old = || service(1, [port("old", "").external_ip(VIP, 80)]);
    let young = || service(2, [port("young", "").cluster_ip("10.96.0.2", 80).external_ip(VIP, 80)]);

    let mut table = ServiceTable::default();
    let committed = table.put([("young", young())]);
    assert_eq!(table.held_by(at(VIP, 80)), Some("young"));
    assert_eq!(committed.notices_raised, []);

    let committed = table.put([("old", old())]);
    assert_eq!(table.held_by(at(VIP, 80)), Some("old"));
    let conflict = Notice {
        service: key("young"),
        reason: "FrontendConflict",
        subject: Some(Subject::Held(at(VIP, 80), id("old", ""))),
        message:
            "spec.externalIPs: 192.0.2.1:80/TCP belongs to default/old/TCP (IPv4), which is older; choose another address or port"
                .to_owned(),
    };
    assert_eq!(committed.notices_raised, std::slice::from_ref(&conflict));
    assert_eq!(table.port(&id("young", "")).unwrap().frontends.len(), 1, "the loser keeps everything else");
    assert_eq!(committed.delta.ports.len(), 2);
    assert_eq!(committed.delta.addresses.len(), 0, "the address is in use before and after");

    let committed = table.put([("young", young())]);
    assert_eq!(committed.notices_raised, [], "a notice is raised once");
    assert!(committed.delta.is_empty());

    let committed = table.put([("old", None)]);
    assert_eq!(table.held_by(at(VIP, 80)), Some("young"), "the next in line has it in the same commit");
    assert_eq!(committed.notices_cleared, [conflict]);
}

#[test]
fn kind_goes_before_age_and_name_decides_between_twins() {
    let of = |name: &str, kind, created| service(created, [port(name, "").frontend(kind, at(VIP, 80), TrafficPolicy::Cluster)]);
    let mut table = ServiceTable::default();
    table.put([
        ("a", of("a", FrontendKind::ExternalIp, 1)),
        ("c", of("c", FrontendKind::LoadBalancer, 2)),
        ("d", of("d", FrontendKind::PoolVip, 3)),
        ("b", of("b", FrontendKind::PoolVip, 3)),
    ]);
    for holder in ["b", "d", "c", "a"] {
        assert_eq!(table.held_by(at(VIP, 80)), Some(holder));
        table.put([(holder, None)]);
    }
    assert_eq!(table.held_by(at(VIP, 80)), None);
}

#[test]
fn a_change_of_holder_changes_the_losers_notice() {
    let of = |name: &str, created| service(created, [port(name, "").external_ip(VIP, 80)]);
    let mut table = ServiceTable::default();
    table.put([("b", of("b", 2)), ("c", of("c", 3))]);
    let committed = table.put([("a", of("a", 1))]);
    assert_eq!(reasons(&committed.notices_cleared), [("c", "FrontendConflict")]);
    assert_eq!(reasons(&committed.notices_raised), [("b", "FrontendConflict"), ("c", "FrontendConflict")]);
    assert!(table.notices_of(&key("c"))[0].message.contains("default/a/TCP"));
    assert_eq!(committed.delta.ports.len(), 2, "nothing changed for c but its notice");
}

/// Three Services that want the same, in every order of coming and going; and one that wants another's ClusterIP as its externalIP.
#[test]
fn a_loser_is_told_who_holds_what_it_wants_whoever_comes_and_goes() {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    // The names run against the ages: an order by name would be seen.
    const CLAIMANTS: [(&str, i64); 3] = [("a", 3), ("b", 2), ("c", 1)];
    let contested = "10.96.0.10";
    let by_cluster_ip = |(name, created)| service(created, [port(name, "").cluster_ip(contested, 80)]);
    let by_external_ip = |(name, created)| service(created, [port(name, "").external_ip(VIP, 80)]);
    let outsider = service(0, [port("outsider", "").external_ip(contested, 80).external_ip(contested, 443).external_ip(VIP, 80)]);
    let check = |table: &ServiceTable, present: &[usize], what: &str| {
        let oldest = present.iter().map(|&place| CLAIMANTS[place]).min_by_key(|(_, created)| *created);
        let messages = |name: &str| table.notices_of(&key(name)).iter().map(|notice| notice.message.clone()).collect::<Vec<_>>();
        let told = messages("outsider");
        match oldest {
            Some((oldest, _)) => {
                let expected = format!("{contested} is the ClusterIP of default/{oldest} and stays with it");
                assert!(told.iter().any(|message| message.contains(&expected)), "{what}: {expected:?} in {told:?}");
            }
            None => assert!(told.is_empty(), "{what}: {told:?}"),
        }
        for (name, _) in
            present.iter().map(|&place| CLAIMANTS[place]).filter(|(name, _)| oldest.is_none_or(|(oldest, _)| oldest != *name))
        {
            let (told, holder) = (messages(name), oldest.map_or("", |(oldest, _)| oldest));
            assert!(told.iter().all(|message| message.contains(&format!("belongs to default/{holder}/TCP"))), "{what}: {told:?}");
            assert_eq!(told.len(), 1, "{what}: {told:?}");
        }
    };
    for coming in ORDERS {
        for going in ORDERS {
            let mut table = ServiceTable::default();
            table.put([("outsider", outsider.clone())]);
            let mut present = Vec::new();
            for place in coming {
                table.put([(CLAIMANTS[place].0, by_cluster_ip(CLAIMANTS[place]))]);
                present.push(place);
                check(&table, &present, &format!("{coming:?} {going:?} with {present:?}"));
            }
            for place in going {
                table.put([(CLAIMANTS[place].0, None)]);
                present.retain(|other| *other != place);
                check(&table, &present, &format!("{coming:?} {going:?} with {present:?}"));
            }
        }
    }

    // One that is made anew under its name is younger, and no longer the one to name.
    let mut table = ServiceTable::default();
    table.put([("outsider", outsider), ("b", by_cluster_ip(("b", 2))), ("c", by_cluster_ip(("c", 1)))]);
    table.put([("c", by_cluster_ip(("c", 9)))]);
    assert!(table.notices_of(&key("outsider"))[0].message.contains("ClusterIP of default/b"));
    assert!(table.notices_of(&key("c"))[0].message.contains("belongs to default/b/TCP"));

    // The same of externalIPs, with nobody's ClusterIP in it.
    for coming in ORDERS {
        let mut table = ServiceTable::default();
        for place in coming {
            table.put([(CLAIMANTS[place].0, by_external_ip(CLAIMANTS[place]))]);
        }
        for loser in ["a", "b"] {
            assert!(table.notices_of(&key(loser))[0].message.contains("belongs to default/c/TCP"), "{coming:?}");
        }
        table.put([("c", None)]);
        assert!(table.notices_of(&key("a"))[0].message.contains("belongs to default/b/TCP"), "{coming:?}");
        assert_eq!(table.notices_of(&key("b")), []);
    }
}

#[test]
fn two_ports_of_a_service_may_want_the_same_frontend() {
    let mut table = ServiceTable::default();
    let committed =
        table.put([("web", service(1, [port("web", "a").external_ip(VIP, 80), port("web", "b").external_ip(VIP, 80)]))]);
    assert_eq!(table.holder(&at(VIP, 80)).unwrap().id, id("web", "a"));
    assert!(committed.notices_raised[0].message.contains("another port of this Service"));
    assert_eq!(table.ports().len(), 1, "a port without a frontend is not in the table");

    table.put([("web", service(1, [port("web", "b").external_ip(VIP, 80)]))]);
    assert_eq!(table.holder(&at(VIP, 80)).unwrap().id, id("web", "b"));
    assert_eq!(table.notices_of(&key("web")), []);
}

#[test]
fn an_older_service_recreated_becomes_the_younger() {
    let of = |name: &str, created| service(created, [port(name, "").external_ip(VIP, 80)]);
    let mut table = ServiceTable::default();
    table.put([("a", of("a", 1)), ("b", of("b", 2))]);
    table.put([("a", of("a", 3))]);
    assert_eq!(table.held_by(at(VIP, 80)), Some("b"));
}

#[test]
fn a_cluster_ip_is_never_taken_over_on_any_port() {
    let dns = || service(9, [port("dns", "").cluster_ip("10.96.0.10", 53)]);
    let evil = || service(1, [port("evil", "").external_ip("10.96.0.10", 443).external_ip(VIP, 443)]);
    let refused = "spec.externalIPs: 10.96.0.10 is the ClusterIP of default/dns and stays with it; remove it here";

    for evil_first in [true, false] {
        let mut table = ServiceTable::default();
        if evil_first {
            table.put([("evil", evil())]);
            assert_eq!(table.held_by(at("10.96.0.10", 443)), Some("evil"));
            table.put([("dns", dns())]);
        } else {
            table.put([("dns", dns())]);
            table.put([("evil", evil())]);
        }
        assert_eq!(table.held_by(at("10.96.0.10", 443)), None);
        assert_eq!(table.held_by(at(VIP, 443)), Some("evil"));
        assert_eq!(table.notices_of(&key("evil"))[0].message, refused);
        assert_eq!(table.address(ip("10.96.0.10")), AddressUse { service: true, cluster_ip: true, ..AddressUse::default() });

        let committed = table.put([("dns", None)]);
        assert_eq!(table.held_by(at("10.96.0.10", 443)), Some("evil"), "nobody's ClusterIP any more");
        assert_eq!(reasons(&committed.notices_cleared), [("evil", "AddressRefused")]);
        assert_eq!(table.address(ip("10.96.0.10")), AddressUse { service: true, ..AddressUse::default() });
    }
}

/// Sharing a VIP; an address that is a VIP for one Service and an externalIP of another; a pool that comes and goes.
#[test]
fn an_address_is_a_pools_vip_while_one_frontend_at_it_is() {
    let of = |name: &str, kind, number| service(1, [port(name, "").frontend(kind, at(VIP, number), TrafficPolicy::Cluster)]);
    let is_vip = |table: &ServiceTable| table.address(ip(VIP)).pool_vip;
    let mut table = ServiceTable::default();
    table.put([("a", of("a", FrontendKind::LoadBalancer, 80)), ("b", of("b", FrontendKind::ExternalIp, 81))]);
    assert!(!is_vip(&table));

    let committed = table.put([("a", of("a", FrontendKind::PoolVip, 80))]);
    assert!(is_vip(&table));
    let [change] = &committed.delta.addresses[..] else { panic!("{:?}", committed.delta.addresses) };
    let served = AddressUse { service: true, ..AddressUse::default() };
    assert_eq!((change.before, change.after), (served, AddressUse { pool_vip: true, ..served }));

    let committed = table.put([("c", of("c", FrontendKind::PoolVip, 82)), ("a", None)]);
    assert_eq!(committed.delta.addresses, [], "the other one shares it");
    table.put([("c", of("c", FrontendKind::LoadBalancer, 82))]);
    assert_eq!(table.address(ip(VIP)), served);

    // Asked for is not held: where it is a ClusterIP it is that alone.
    let cluster_ip = service(1, [port("d", "").cluster_ip(VIP, 80)]);
    table.put([("d", cluster_ip), ("c", of("c", FrontendKind::PoolVip, 82))]);
    assert!(!is_vip(&table));
}

#[test]
fn the_cluster_ip_of_another_proxys_service_is_refused_and_remembered() {
    let mut table = ServiceTable::default();
    table.put([("evil", service(1, [port("evil", "").external_ip("10.96.0.20", 80)]))]);
    table.set_foreign(key("theirs"), vec![ip("10.96.0.20"), ip("10.96.0.20")]);
    let committed = table.commit();
    assert_eq!(reasons(&committed.notices_raised), [("evil", "AddressRefused")]);
    assert_eq!(table.address(ip("10.96.0.20")), AddressUse { foreign: true, ..AddressUse::default() });
    assert_eq!(table.ports().len(), 0);

    table.set_foreign(key("theirs"), vec![ip("10.96.0.21")]);
    let committed = table.commit();
    assert_eq!(table.held_by(at("10.96.0.20", 80)), Some("evil"));
    assert_eq!(committed.delta.addresses.len(), 2);
}

#[test]
fn ten_ports_at_a_refused_address_are_one_notice() {
    let mut table = ServiceTable::default();
    let ports = [port("web", "a").external_ip("10.96.0.1", 80), port("web", "b").external_ip("10.96.0.1", 443)];
    table.put([("api", service(1, [port("api", "").cluster_ip("10.96.0.1", 443)])), ("web", service(1, ports))]);
    assert_eq!(table.notices_of(&key("web")).len(), 1);
}

#[test]
fn a_set_is_kept_only_while_a_frontend_uses_it() {
    let node_port = FrontendAddress::NodePort { family: Family::V4, protocol: Protocol::Tcp, port: 30080 };
    let of = |name: &str, created| {
        let wish = port(name, "").cluster_ip("10.96.0.1", 80 + u16::try_from(created).unwrap());
        let wish = wish.frontend(FrontendKind::NodePort, node_port, TrafficPolicy::Local);
        service(created, [wish.to(&["10.0.0.1:80", "10.0.0.2:80*"]).locally_to(&["10.0.0.2:80*"])])
    };
    let mut table = ServiceTable::default();
    table.put([("a", of("a", 1)), ("b", of("b", 2))]);
    let b = table.port(&id("b", "")).unwrap();
    assert_eq!(b.addresses(Scope::Cluster), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(b.addresses(Scope::Local), [""; 0], "its NodePort, the only user of that scope, belongs to a");

    let committed = table.put([("a", None)]);
    let change = committed.delta.ports.iter().find(|change| change.after.is_some()).unwrap();
    assert_eq!(change.after.as_ref().unwrap().addresses(Scope::Local), ["10.0.0.2:80"]);
    assert!(change.cluster.is_empty());
    assert_eq!(change.local.added.len(), 1);
}

#[test]
fn hairpins_follow_the_last_use_of_an_address() {
    let of = |name: &str, address, to: &[&str]| service(1, [port(name, "").cluster_ip(address, 80).to(to)]);
    let mut table = ServiceTable::default();
    let hairpin = ip("10.0.0.1");
    let committed = table.put([("a", of("a", "10.96.0.1", &["10.0.0.1:80*", "10.0.0.1:81*"]))]);
    assert_eq!(committed.delta.hairpins, [(hairpin, true)]);
    assert!(table.put([("b", of("b", "10.96.0.2", &["10.0.0.1:80*"]))]).delta.hairpins.is_empty());
    assert!(table.put([("a", None)]).delta.hairpins.is_empty());

    let committed = table.put([("b", of("b", "10.96.0.2", &["10.0.0.1:80"]))]);
    assert_eq!(committed.delta.hairpins, [(hairpin, false)], "it is no longer local");
    assert_eq!(committed.delta.ports.len(), 1, "readers see the new flag");
    assert!(committed.delta.ports[0].cluster.is_empty(), "planes have nothing to write");
}

#[test]
fn what_policy_refused_is_raised_and_cleared_too() {
    let message = "spec.externalIPs: 127.0.0.1".to_owned();
    let notice = Notice { service: key("web"), reason: "AddressRefused", subject: None, message };
    let mut table = ServiceTable::default();
    let mut staged = service(1, []);
    staged.as_mut().unwrap().0.notices.push(notice.clone());
    let committed = table.put([("web", staged.clone())]);
    assert_eq!(committed.notices_raised, std::slice::from_ref(&notice));
    assert_eq!(committed.delta.generation, 0, "nothing changed for the planes");
    assert_eq!(table.put([("web", staged)]), Default::default());
    assert_eq!(table.put([("web", None)]).notices_cleared, [notice]);
}

#[test]
fn an_idle_commit_is_empty_and_no_generation() {
    let web = || service(1, [port("web", "").cluster_ip("10.96.0.1", 80).to(&["10.0.0.1:80"])]);
    let mut table = ServiceTable::default();
    assert_eq!(table.put([("web", web())]).delta.generation, 1);
    let before = table.port(&id("web", "")).unwrap().clone();
    let node = (**table.node()).clone();
    table.set_node(node);
    let committed = table.put([("web", web()), ("nobody", None)]);
    assert!(committed.delta.is_empty());
    assert_eq!(table.generation(), 1);
    assert!(std::sync::Arc::ptr_eq(&before, table.port(&id("web", "")).unwrap()));
}

#[test]
fn lists_out_of_order_are_put_in_order() {
    let mut wish = port("web", "").external_ip(VIP, 81).external_ip(VIP, 80).external_ip(VIP, 80);
    wish = wish.to(&["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"]);
    let mut table = ServiceTable::default();
    table.put([("web", service(1, [wish.clone(), wish]))]);
    let web = table.port(&id("web", "")).unwrap();
    assert_eq!(web.frontends.len(), 2);
    assert_eq!(web.addresses(Scope::Cluster), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(table.notices_of(&key("web")), []);
}
