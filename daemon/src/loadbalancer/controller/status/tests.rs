use super::*;
use crate::model::ObjectKey;
use crate::model::load_balancer::IngressAddress;

fn object() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "annotations": { "a": "b" } },
        "spec": { "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{ "port": 80 }], "new": 1 },
        "status": { "loadBalancer": {}, "conditions": [{ "type": "Theirs" }] },
    })
}

fn change(addresses: &[(&str, IpMode)], pool: Option<&str>) -> StatusChange {
    let ingress = addresses.iter().map(|(ip, mode)| IngressAddress { ip: ip.parse().expect("an address"), mode: *mode });
    let wanted = WantedStatus { ingress: ingress.collect(), pool: pool.map(Into::into) };
    StatusChange { service: ObjectKey::new("default", "web"), uid: "u".into(), wanted }
}

fn edited(object: &Value, change: &StatusChange) -> Value {
    let known = service(object).expect("a Service");
    match edit_service(object.clone(), change, &known) {
        Edit::Write(object) => object,
        other => panic!("{other:?}"),
    }
}

#[test]
fn address_and_annotation_are_written_and_everything_else_stays() {
    let wanted = change(&[("10.0.0.240", IpMode::Vip), ("fd00::1", IpMode::Vip)], Some("lan"));
    let mut expected = object();
    expected["status"]["loadBalancer"] =
        json!({ "ingress": [{ "ip": "10.0.0.240", "ipMode": "VIP" }, { "ip": "fd00::1", "ipMode": "VIP" }] });
    expected["metadata"]["annotations"][ALLOCATED_FROM] = "lan".into();
    let written = edited(&object(), &wanted);
    assert_eq!(written, expected);
    // What is there by meaning is not written again.
    let known = service(&written).expect("a Service");
    assert_eq!(edit_service(written.clone(), &wanted, &known), Edit::Nothing);
    let mut without_mode = written.clone();
    without_mode["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "10.0.0.240" }, { "ip": "fd00::1" }]);
    assert_eq!(edit_service(without_mode, &wanted, &known), Edit::Nothing);
    // And back.
    assert_eq!(edited(&written, &change(&[], None)), object());
}

#[test]
fn what_others_say_of_an_address_that_stays_is_kept() {
    let mut before = object();
    before["status"]["loadBalancer"] = json!({ "ingress": [{ "ip": "10.0.0.240", "ipMode": "Proxy", "ports": [{ "port": 80, "protocol": "TCP" }] }, { "hostname": "h" }] });
    let written = edited(&before, &change(&[("10.0.0.240", IpMode::Proxy)], Some("lan")));
    let ingress = &before["status"]["loadBalancer"]["ingress"];
    assert_eq!(written["status"]["loadBalancer"]["ingress"], json!([ingress[0]]));
}

#[test]
fn nothing_is_written_about_another_object_or_on_another_question() {
    let known = service(&object()).expect("a Service");
    let wanted = change(&[("10.0.0.240", IpMode::Vip)], Some("lan"));
    let mut another = object();
    another["metadata"]["uid"] = "v".into();
    assert_eq!(edit_service(another, &wanted, &known), Edit::Gone);
    let changes: [(&str, Value); 3] = [
        ("/spec/ports/0/port", json!(81)),
        ("/metadata/annotations", json!({ "metallb.io/loadBalancerIPs": "10.0.0.250" })),
        ("/status/loadBalancer", json!({ "ingress": [{ "ip": "10.0.0.9" }] })),
    ];
    for (pointer, value) in changes {
        let mut changed = object();
        *changed.pointer_mut(pointer).expect("it is there") = value;
        assert_eq!(edit_service(changed, &wanted, &known), Edit::Stale, "{pointer}");
    }
    // What decides nothing holds nothing up.
    let mut labelled = object();
    labelled["metadata"]["annotations"]["c"] = "d".into();
    assert!(matches!(edit_service(labelled, &wanted, &known), Edit::Write(_)));
}

#[test]
fn an_answer_of_nonsense_is_no_reason_to_panic() {
    let known = service(&object()).expect("a Service");
    let wanted = change(&[("10.0.0.240", IpMode::Vip)], Some("lan"));
    for nonsense in [json!(null), json!([]), json!("x"), json!({ "metadata": 7 })] {
        assert_eq!(edit_service(nonsense.clone(), &wanted, &known), Edit::Stale, "{nonsense}");
        assert!(matches!(edit_pool(nonsense, PoolCounts::default()), Edit::Write(_)));
    }
    let mut odd = object();
    odd["metadata"]["annotations"] = json!([]);
    odd["status"] = json!("none");
    let known = service(&odd).expect("a Service");
    let Edit::Write(written) = edit_service(odd, &wanted, &known) else { panic!("it is the same question") };
    assert_eq!(written["metadata"]["annotations"], json!({ ALLOCATED_FROM: "lan" }));
}

#[test]
fn a_pool_tells_its_counts_once() {
    let pool = json!({ "metadata": { "name": "lan", "namespace": "metallb-system" }, "spec": { "addresses": ["10.0.0.0/24"] } });
    let counts = PoolCounts { assigned_v4: 1, assigned_v6: 0, available_v4: 255, available_v6: i64::MAX };
    let Edit::Write(written) = edit_pool(pool, counts) else { panic!("it has none") };
    assert_eq!(
        written["status"],
        json!({ "assignedIPv4": 1, "assignedIPv6": 0, "availableIPv4": 255, "availableIPv6": i64::MAX })
    );
    assert_eq!(edit_pool(written, counts), Edit::Nothing);
}
