//! What the recordings have no case of.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Client, PATIENCE, service, start};
use crate::apiserver::{ApiServer, Config, Resource, Verb, Window};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const KUBERNETES: &str = "/api/v1/namespaces/default/services/kubernetes";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn bad_input_is_refused_with_a_status_and_harms_nobody() {
    let (server, client) = start();
    for (method, path, content_type, body, expected) in [
        ("POST", SERVICES, "application/json", "{not json", 400),
        ("POST", SERVICES, "application/json", "", 400),
        ("POST", SERVICES, "application/json", "[1,2]", 400),
        ("POST", SERVICES, "application/json", "{\"metadata\": 7}", 400),
        ("POST", SERVICES, "application/json", "{\"kind\": \"Node\", \"metadata\": {\"name\": \"x\"}}", 400),
        ("POST", SERVICES, "application/json", "{\"metadata\": {\"name\": \"x\", \"namespace\": \"other\"}}", 400),
        ("POST", SERVICES, "application/vnd.kubernetes.protobuf", "k8s", 415),
        ("POST", SERVICES, "application/json", "{}", 422),
        ("POST", SERVICES, "application/json", "{\"metadata\": {\"name\": \"x\"}, \"spec\": {\"ports\": 5}}", 400),
        ("POST", SERVICES, "application/json", "{\"metadata\": {\"name\": \"x\"}, \"spec\": 5}", 400),
        ("POST", SERVICES, "application/json", "{\"metadata\": {\"name\": \"x\", \"labels\": [1]}}", 400),
        ("POST", SLICES, "application/json", "{\"metadata\": {\"name\": \"x\"}, \"endpoints\": [7]}", 400),
        ("POST", SLICES, "application/json", "{\"metadata\": {\"name\": \"x\"}, \"ports\": [\"http\"]}", 400),
        ("POST", SLICES, "application/json", "{\"metadata\": {\"name\": \"x\"}, \"addressType\": \"IPv5\"}", 422),
        ("PUT", KUBERNETES, "application/json", "{\"metadata\": {\"name\": \"kubernetes\"}, \"spec\": {\"ports\": [5]}}", 400),
        ("PATCH", KUBERNETES, "application/merge-patch+json", "{\"spec\": {\"ports\": [5]}}", 422),
        ("PATCH", KUBERNETES, "application/merge-patch+json", "{\"spec\": 5}", 422),
        (
            "POST",
            SERVICES,
            "application/json",
            "{\"metadata\": {\"name\": \"x\"}, \"spec\": {\"ports\": [{\"port\": 70000}]}}",
            422,
        ),
        ("PATCH", "/api/v1/namespaces/default/services/kubernetes", "application/json-patch+json", "[]", 415),
        ("PATCH", "/api/v1/namespaces/default/services/kubernetes", "application/merge-patch+json", "{", 400),
        ("PATCH", "/api/v1/namespaces/default/services/kubernetes", "application/merge-patch+json", "7", 400),
        ("PUT", "/api/v1/namespaces/default/services/nope", "application/json", "{}", 404),
        ("POST", "/api/v1/namespaces/nowhere/configmaps", "application/json", "{\"metadata\": {\"name\": \"x\"}}", 404),
        ("POST", "/api/v1/services", "application/json", "{}", 405),
        ("DELETE", "/api/v1/services/x", "", "", 405),
        ("GET", "/api/v1/namespaces/default/services/x/scale", "", "", 405),
        ("GET", "/api/v1/services?labelSelector=a%20b", "", "", 400),
        ("GET", "/api/v1/services?fieldSelector=spec.nope%3Dx", "", "", 400),
        ("GET", "/api/v1/services?resourceVersion=x", "", "", 400),
        ("GET", "/api/v1/services?resourceVersion=99999999", "", "", 504),
        ("GET", "/api/v1/services?resourceVersionMatch=Exact", "", "", 422),
        ("GET", "/api/v1/services?continue=junk", "", "", 400),
        ("GET", "/api/v1/services?watch=1&sendInitialEvents=true", "", "", 422),
        ("GET", "/api/v2/services", "", "", 404),
        ("GET", "/", "", "", 404),
    ] {
        let response = client.send(method, path, content_type, body).await.unwrap();
        let code = response.status().as_u16();
        let text = super::text_of(response).await;
        assert_eq!(code, expected, "{method} {path} {body}: {text}");
        if !text.starts_with("404") {
            let status: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(expected)), "{text}");
        }
    }
    let huge = format!("{{\"metadata\": {{\"name\": \"{}\"}}}}", "x".repeat(4 << 20));
    // The server answers before it has read all of it, and some clients then see only the end of the connection.
    if let Ok(response) = client.send("POST", SERVICES, "application/json", &huge).await {
        assert_eq!(response.status(), 413);
    }
    assert_eq!(server.list("services").len(), 1);
}

/// Whatever stands wherever: an answer, and no panic of the server's thread, which would close the connection.
#[tokio::test]
async fn no_value_anywhere_in_an_object_goes_without_an_answer() {
    let (server, _client) = start();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-a", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}, "annotations": {"a": "b"},
            "finalizers": ["example.com/a"]},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "a", "hints": {"forZones": [{"name": "z"}]}}]
    });
    let mut whole = service("web");
    whole["metadata"]["namespace"] = json!("default");
    whole["spec"] = json!({"type": "LoadBalancer", "clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"], "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack", "externalIPs": ["1.2.3.4"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}},
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080, "targetPort": 8080}]});
    whole["status"] = json!({"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}]}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "labels": {"a": "b"}},
        "spec": {"podCIDR": "10.0.0.0/24", "taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "nodeInfo": {"architecture": "x"}, "capacity": {"cpu": 4}}});
    for good in [slice, whole, node] {
        server.apply(&good).expect("it is good");
        let mut paths = Vec::new();
        pointers(&good, "", &mut paths);
        for path in paths {
            for wrong in [
                json!({"x": [1]}),
                json!([[], {}, null]),
                json!(true),
                json!(-1.5),
                json!(u64::MAX),
                json!(null),
                json!("\u{1F6A2}"),
            ] {
                let mut bad = good.clone();
                *bad.pointer_mut(&path).expect("it is there") = wrong;
                // As an update; then as a new object, if it still has a name.
                let _ = server.apply(&bad);
                if let Some(metadata) = bad["metadata"].as_object_mut() {
                    metadata.insert("name".to_owned(), json!("another"));
                    let _ = server.apply(&bad);
                }
            }
        }
        server.apply(&good).expect("it is as good as before");
    }
}

fn pointers(value: &Value, at: &str, paths: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(items) => items.iter().enumerate().map(|(place, value)| (place.to_string(), value)).collect(),
        _ => return,
    };
    for (name, child) in children {
        let path = format!("{at}/{name}");
        pointers(child, &path, paths);
        paths.push(path);
    }
}

/// A list waits for it and is refused; a watch is let in and hears nothing until it is reached; a watch that asks for the state is
/// refused by an event.
#[tokio::test]
async fn a_version_in_the_future_is_refused_to_lists_and_awaited_by_watches() {
    let (server, client) = start();
    let revision: u64 = server.revision();
    let later = revision + 2;
    for query in [format!("resourceVersion={later}"), format!("resourceVersion={later}&resourceVersionMatch=NotOlderThan")] {
        let (code, status) = client.get(&format!("/api/v1/services?{query}")).await;
        assert_eq!((code, &status["reason"]), (504, &json!("Timeout")), "{status}");
        assert_eq!(status["message"], format!("Timeout: Too large resource version: {later}, current: {revision}"));
        assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    }
    let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = client.watch(&format!("/api/v1/services?watch=1&{streaming}&resourceVersion={later}")).await;
    let event = lines.next().await.unwrap().expect("an event");
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(504)), "{event}");
    assert_eq!(lines.next().await.unwrap(), None);

    let mut lines = client.watch(&format!("/api/v1/services?watch=1&resourceVersion={later}&allowWatchBookmarks=true")).await;
    for name in ["early", "as-said", "after"] {
        server.apply(&service(name)).unwrap();
    }
    let event = lines.next().await.unwrap().expect("an event");
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("after")), "{event}");
}

#[tokio::test]
async fn clients_that_hang_up_or_talk_nonsense_leave_nothing_behind() {
    let (server, client) = start();
    for sent in [
        "GET /api/v1/services?watch=true HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /api/v1/namespaces/default/services HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"metadata\"",
        "\u{0}\u{1}\u{2} nonsense\r\n\r\n",
        "GET /api/v1/serv",
    ] {
        let mut socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        socket.write_all(sent.as_bytes()).await.unwrap();
        if sent.contains("watch") {
            assert!(socket.read(&mut [0; 100]).await.unwrap() > 0);
            server.wait_for("the watch", PATIENCE, |server| (server.open_watches("services") == 1).then_some(())).await.unwrap();
        }
    }
    server
        .wait_for("the end of the watch", PATIENCE, |server| (server.open_watches("services") == 0).then_some(()))
        .await
        .unwrap();
    assert_eq!(client.get("/readyz").await, (200, json!("ok")));
}

#[tokio::test]
async fn addresses_and_ports_are_allocated_once_and_given_back() {
    let (server, client) = start();
    let with = |name: &str, spec: Value| {
        let mut object = service(name);
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        object
    };
    let (code, first) = client.json("POST", SERVICES, &with("a", json!({"clusterIP": "10.96.7.7", "type": "NodePort"}))).await;
    assert_eq!(code, 201, "{first}");
    let port = first["spec"]["ports"][0]["nodePort"].clone();
    let (code, refused) = client.json("POST", SERVICES, &with("b", json!({"clusterIP": "10.96.7.7"}))).await;
    assert_eq!(code, 422, "{refused}");
    let taken = json!([{"port": 80, "nodePort": port}]);
    let (code, refused) = client.json("POST", SERVICES, &with("b", json!({"type": "NodePort", "ports": taken}))).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("spec.ports[0].nodePort")), "{refused}");
    let (code, _) = client.json("POST", SERVICES, &with("b", json!({"clusterIP": "192.0.2.1"}))).await;
    assert_eq!(code, 422, "outside of every ServiceCIDR");

    // A refused change of what is held leaves it held.
    let (code, _) = client.json("PATCH", &format!("{SERVICES}/a"), &json!({"spec": {"clusterIP": "10.96.7.8"}})).await;
    assert_eq!(code, 422);
    assert_eq!(client.json("POST", SERVICES, &with("b", json!({"clusterIP": "10.96.7.7"}))).await.0, 422);
    server.delete("services", "default", "a").unwrap();
    let (code, again) =
        client.json("POST", SERVICES, &with("b", json!({"clusterIP": "10.96.7.7", "type": "NodePort", "ports": taken}))).await;
    assert_eq!(code, 201, "{again}");
}

#[tokio::test]
async fn a_change_of_type_takes_along_what_the_new_type_has_no_use_for() {
    let (server, client) = start();
    let mut object = service("a");
    object["spec"]["type"] = "LoadBalancer".into();
    object["spec"]["externalTrafficPolicy"] = "Local".into();
    let created = server.apply(&object).unwrap();
    assert!(created["spec"]["healthCheckNodePort"].as_u64().unwrap() >= 30_000);
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example.org"}]}}});
    let patched = server.patch("services/status", "default", "a", status.clone()).unwrap();
    let ingress = json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "lb.example.org"}]);
    assert_eq!(patched["status"]["loadBalancer"]["ingress"], ingress);

    // A write of the object leaves the status alone; of the status, the object.
    let touched = json!({"metadata": {"labels": {"a": "b"}}, "status": {"loadBalancer": {}}});
    assert_eq!(server.patch("services", "default", "a", touched).unwrap()["status"], patched["status"]);
    let both =
        json!({"spec": {"type": "ClusterIP"}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2", "ipMode": "Proxy"}]}}});
    let patched = server.patch("services/status", "default", "a", both).unwrap();
    assert_eq!(
        (&patched["spec"]["type"], &patched["status"]["loadBalancer"]["ingress"][0]["ipMode"]),
        (&json!("LoadBalancer"), &json!("Proxy"))
    );

    let (code, plain) = client.json("PATCH", &format!("{SERVICES}/a"), &json!({"spec": {"type": "ClusterIP"}})).await;
    assert_eq!(code, 200, "{plain}");
    let mut fields: Vec<_> = plain["spec"].as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        ["clusterIP", "clusterIPs", "internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy", "ports", "sessionAffinity", "type"]
    );
    assert!(plain["spec"]["ports"][0]["nodePort"].is_null());
    assert_eq!(plain["status"], json!({"loadBalancer": {}}));
    assert_eq!(server.patch("services/status", "default", "a", status).unwrap_err().code, 422, "not a LoadBalancer any more");
}

#[tokio::test]
async fn dual_stack_follows_the_networks_of_the_cluster() {
    let service_cidrs = vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()];
    let server = ApiServer::start(Config { service_cidrs, ..Config::default() }).unwrap();
    let with = |name: &str, policy: &str, families: Value| {
        let mut object = service(name);
        object["spec"]["ipFamilyPolicy"] = policy.into();
        object["spec"]["ipFamilies"] = families;
        server.apply(&object).unwrap()["spec"].clone()
    };
    let both = with("a", "PreferDualStack", Value::Null);
    assert_eq!(both["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert!(both["clusterIPs"][1].as_str().unwrap().starts_with("fd00:96::"));
    let six = with("b", "SingleStack", json!(["IPv6"]));
    assert!(six["clusterIP"].as_str().unwrap().starts_with("fd00:96::") && six["clusterIPs"].as_array().unwrap().len() == 1);
    assert_eq!(with("c", "RequireDualStack", json!(["IPv6"]))["ipFamilies"], json!(["IPv6", "IPv4"]));
    let single = ApiServer::start(Config::default()).unwrap();
    let mut object = service("a");
    object["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
    assert_eq!(single.apply(&object).unwrap_err().code, 422);
}

#[tokio::test]
async fn manifests_bring_the_network_of_their_dual_stack_services_in_whatever_order() {
    let dir = tempfile::tempdir().unwrap();
    let service = "{apiVersion: v1, kind: Service, metadata: {name: both}, spec: {ports: [{port: 80}], \
        clusterIP: 10.96.0.7, clusterIPs: ['10.96.0.7', 'fd00:99::7'], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack}}\n";
    let network =
        "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: six}, spec: {cidrs: ['fd00:99::/112']}}\n";
    std::fs::write(dir.path().join("a.yaml"), service).unwrap();
    std::fs::write(dir.path().join("b.yaml"), network).unwrap();
    let server = ApiServer::start(Config::default()).unwrap();
    assert_eq!(server.apply_manifests(dir.path()).unwrap(), 2);
    let both = server.get("services", "default", "both").unwrap();
    assert_eq!(both["spec"]["clusterIPs"], json!(["10.96.0.7", "fd00:99::7"]));
}

#[tokio::test]
async fn an_unchanged_write_makes_no_version_and_a_generation_counts_specs() {
    let (server, _) = start();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s", "namespace": "default"},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]});
    let first = server.apply(&slice).unwrap();
    assert_eq!((&first["ports"], &first["endpoints"][0]["conditions"]), (&Value::Null, &json!({})));
    let version = server.revision();
    assert_eq!(server.apply(&slice).unwrap(), first);
    assert_eq!(server.revision(), version);
    let labelled = server.patch("endpointslices", "default", "s", json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
    assert_eq!(labelled["metadata"]["generation"], 1);
    let changed = server.patch("endpointslices", "default", "s", json!({"endpoints": []})).unwrap();
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(
        server.patch("endpointslices", "default", "s", json!({"endpoints": [{"addresses": ["x"]}]})).unwrap_err().code,
        422
    );
}

#[tokio::test]
async fn finalizers_hold_an_object_and_namespaces_take_theirs_along() {
    let (server, client) = start();
    let mut object = service("held");
    object["metadata"]["finalizers"] = json!(["service.kubernetes.io/load-balancer-cleanup"]);
    server.apply(&object).unwrap();
    let (code, pending) = client.json("DELETE", &format!("{SERVICES}/held"), &Value::Null).await;
    assert_eq!(code, 200);
    assert!(pending["metadata"]["deletionTimestamp"].is_string());
    server.patch("services", "default", "held", json!({"metadata": {"finalizers": null}})).unwrap();
    assert_eq!(server.get("services", "default", "held"), None);

    server
        .apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "made-on-the-way"}}))
        .unwrap();
    let (code, gone) = client.json("DELETE", "/api/v1/namespaces/made-on-the-way", &Value::Null).await;
    assert_eq!((code, &gone["status"]), (200, &json!("Success")));
    assert!(server.list("configmaps").is_empty());
}

#[tokio::test]
async fn custom_resources_are_served_once_registered() {
    let (server, client) = start();
    let pools = "/apis/metallb.io/v1beta1/namespaces/default/ipaddresspools";
    assert_eq!(client.get(pools).await, (404, json!("404 page not found\n")));
    server.register(Resource::custom("metallb.io", "v1beta1", "ipaddresspools", "IPAddressPool", true, true));
    let pool = json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"generateName": "pool-"},
        "spec": {"addresses": ["192.0.2.0/24"]}, "status": {"ignored": "at creation"}});
    let (code, made) = client.json("POST", pools, &pool).await;
    assert_eq!((code, &made["metadata"]["generation"], &made["status"]), (201, &json!(1), &Value::Null));
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("pool-") && name.len() == 10);
    let (code, refused) = client.json("PUT", &format!("{pools}/{name}"), &pool).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("metadata.resourceVersion")), "{refused}");
    let (code, updated) =
        client.json("PATCH", &format!("{pools}/{name}/status"), &json!({"status": {"assignedIPv4": 3}, "spec": {}})).await;
    assert_eq!((code, &updated["status"]["assignedIPv4"], &updated["metadata"]["generation"]), (200, &json!(3), &json!(1)));
    let (_, discovery) = client.get("/apis/metallb.io/v1beta1").await;
    assert_eq!(discovery["resources"][1]["name"], "ipaddresspools/status");
}

const POOLS: &str = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools";
const L2_STATUSES: &str = "/apis/metallb.io/v1beta1/namespaces/metallb-system/servicel2statuses";

fn with_metallb() -> (ApiServer, Client) {
    let server = ApiServer::start(Config { metallb: true, ..Config::default() }).unwrap();
    let client = Client::of(&server);
    server.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "metallb-system"}})).unwrap();
    (server, client)
}

#[tokio::test]
async fn metallbs_objects_are_not_there_until_they_are_installed() {
    let (server, client) = start();
    for path in
        ["/apis/metallb.io/v1beta1/ipaddresspools", "/apis/metallb.io/v1beta1/l2advertisements?watch=1", POOLS, L2_STATUSES]
    {
        assert_eq!(client.get(path).await, (404, json!("404 page not found\n")), "{path}");
    }
    server.install_metallb();
    server.install_metallb();
    assert_eq!(client.get("/apis/metallb.io/v1beta1/ipaddresspools").await.1["kind"], "IPAddressPoolList");
    let (_, discovery) = client.get("/apis/metallb.io/v1beta1").await;
    assert_eq!(discovery["resources"].as_array().unwrap().len(), 8, "four, each with a status");
}

#[tokio::test]
async fn a_pool_has_defaults_loses_what_its_schema_does_not_have_and_counts_its_specs() {
    let (_server, client) = with_metallb();
    let pool = json!({"metadata": {"name": "first", "labels": {"a": "b"}}, "unknown": 1,
        "spec": {"addresses": ["192.0.2.0/24"], "unknown": 2, "serviceAllocation": {"serviceSelectors": [{"matchLabels": {"app": "web"}, "unknown": 3}]}}});
    let (code, made) = client.json("POST", POOLS, &pool).await;
    let selectors = json!([{"matchLabels": {"app": "web"}}]);
    let spec = json!({"addresses": ["192.0.2.0/24"], "autoAssign": true, "avoidBuggyIPs": false,
        "serviceAllocation": {"serviceSelectors": selectors}});
    assert_eq!((code, &made["spec"], &made["unknown"]), (201, &spec, &Value::Null), "{made}");
    let status = json!({"assignedIPv4": 1, "assignedIPv6": 0, "availableIPv4": 255, "availableIPv6": 0});
    let written = json!({"metadata": {"labels": {"a": "c"}}, "status": status, "spec": {"addresses": []}});
    let (code, updated) = client.json("PATCH", &format!("{POOLS}/first/status"), &written).await;
    assert_eq!((code, &updated["status"], &updated["spec"]), (200, &status, &spec));
    let metadata = &updated["metadata"];
    assert_eq!(
        (&metadata["labels"]["a"], &metadata["generation"]),
        (&json!("b"), &json!(1)),
        "metadata is not the status writer's"
    );
    let (_, changed) = client.json("PATCH", &format!("{POOLS}/first"), &json!({"spec": {"autoAssign": false}})).await;
    assert_eq!((&changed["metadata"]["generation"], &changed["status"]), (&json!(2), &status));

    for (path, body, field) in [
        ("", json!({"spec": {"addresses": "192.0.2.0/24"}}), "spec.addresses"),
        ("", json!({"spec": {"addresses": [5]}}), "spec.addresses[0]"),
        ("", json!({"spec": {"addresses": null}}), "spec.addresses"),
        ("/status", json!({"status": {"assignedIPv4": null}}), "status.assignedIPv4"),
        ("/status", json!({"status": {"assignedIPv4": "1"}}), "status.assignedIPv4"),
    ] {
        let (code, refused) = client.json("PATCH", &format!("{POOLS}/first{path}"), &body).await;
        assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!(field)), "{body}: {refused}");
    }
    // A stale version is refused, of the object and of its status.
    let stale = json!({"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "status": {"assignedIPv4": 9}});
    for path in ["", "/status"] {
        assert_eq!(client.json("PATCH", &format!("{POOLS}/first{path}"), &stale).await.0, 409, "{path}");
    }
}

#[tokio::test]
async fn a_service_l2_status_keeps_its_owner_and_what_it_is_about() {
    let (_server, client) = with_metallb();
    let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "sheave-x", "uid": "9223de7e-9667-490c-9e94-bca8d73333ae"}]);
    let object = json!({"metadata": {"generateName": "l2-", "labels": {"metallb.io/node": "node-a"}, "ownerReferences": owners}});
    let (code, made) = client.json("POST", L2_STATUSES, &object).await;
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(code == 201 && name.starts_with("l2-") && made["metadata"]["ownerReferences"] == owners, "{made}");
    let status = json!({"node": "node-a", "serviceName": "web", "serviceNamespace": "default", "interfaces": [{"name": "eth0"}]});
    let path = format!("{L2_STATUSES}/{name}/status");
    let (code, written) = client.json("PATCH", &path, &json!({"status": status})).await;
    assert_eq!((code, &written["status"]), (200, &status));
    let (code, refused) = client.json("PATCH", &path, &json!({"status": {"node": "node-b"}})).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("status.node")), "{refused}");
    let (code, _) = client.json("PATCH", &path, &json!({"status": {"interfaces": null}})).await;
    assert_eq!(code, 200, "the interfaces may change");
    let selected = client.get(&format!("{L2_STATUSES}?labelSelector=metallb.io%2Fnode%3Dnode-a")).await.1;
    assert_eq!(names(&selected), [name]);
}

/// `serviceStatusStrategy`: the spec is put back, metadata is not.
#[tokio::test]
async fn a_status_of_a_service_is_written_with_its_annotation_in_one_request() {
    let (server, client) = start();
    let mut object = service("lb");
    object["spec"]["type"] = "LoadBalancer".into();
    let mut seen = server.apply(&object).unwrap();
    seen["metadata"]["annotations"] = json!({"metallb.io/ip-allocated-from-pool": "first"});
    seen["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    seen["spec"]["type"] = "ClusterIP".into();
    let path = format!("{SERVICES}/lb/status");
    let (code, written) = client.json("PUT", &path, &seen).await;
    assert_eq!((code, &written["metadata"]["annotations"]), (200, &seen["metadata"]["annotations"]), "{written}");
    let ingress = json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]);
    assert_eq!((&written["status"]["loadBalancer"]["ingress"], &written["spec"]["type"]), (&ingress, &json!("LoadBalancer")));
    assert_eq!(client.json("PUT", &path, &seen).await.0, 409, "written from an object that has changed since");
    let cleared = json!({"metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": null}}, "status": {"loadBalancer": {"ingress": null}}});
    let (code, empty) = client.json("PATCH", &path, &cleared).await;
    assert_eq!(
        (code, &empty["status"], &empty["metadata"]["annotations"]),
        (200, &json!({"loadBalancer": {}}), &json!({})),
        "{empty}"
    );
}

#[tokio::test]
async fn leases_and_secrets_are_one_writers_at_a_time() {
    let (_server, client) = start();
    let (leases, secrets) = ("/apis/coordination.k8s.io/v1/namespaces/default/leases", "/api/v1/namespaces/default/secrets");
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 5}});
    let secret = json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"secretkey": "c2VjcmV0"}});
    for (path, name, object) in [(leases, "l", lease), (secrets, "s", secret)] {
        let (code, made) = client.json("POST", path, &object).await;
        assert_eq!(code, 201, "{made}");
        let (code, refused) = client.json("POST", path, &object).await;
        assert_eq!((code, &refused["reason"]), (409, &json!("AlreadyExists")), "{refused}");
        let mut mine = made.clone();
        mine["metadata"]["labels"] = json!({"by": "me"});
        assert_eq!(client.json("PUT", &format!("{path}/{name}"), &mine).await.0, 200);
        let mut theirs = made;
        theirs["metadata"]["labels"] = json!({"by": "them"});
        let (code, refused) = client.json("PUT", &format!("{path}/{name}"), &theirs).await;
        assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")), "{refused}");
        assert_eq!(client.get(&format!("{path}/{name}")).await.1["metadata"]["labels"]["by"], "me");
        assert_eq!(client.get(&format!("{path}/other")).await.0, 404);
    }
}

#[tokio::test]
async fn server_side_apply_creates_and_merges() {
    let (server, client) = start();
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l?fieldManager=x&force=true";
    let apply = |body: &'static str| client.send("PATCH", path, "application/apply-patch+yaml", body);
    let body =
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: l}\nspec: {holderIdentity: a, leaseTransitions: 1}\n";
    assert_eq!(apply(body).await.unwrap().status(), 201);
    let body = "{\"apiVersion\":\"coordination.k8s.io/v1\",\"kind\":\"Lease\",\"spec\":{\"holderIdentity\":\"b\"}}";
    assert_eq!(apply(body).await.unwrap().status(), 200);
    let spec = server.get("leases", "default", "l").unwrap()["spec"].clone();
    assert_eq!(spec, json!({"holderIdentity": "b", "leaseTransitions": 1}));
}

#[tokio::test]
async fn pages_are_of_one_version_whatever_happens_between() {
    let (server, client) = start();
    for n in 0..10 {
        server.apply(&service(&format!("s{n}"))).unwrap();
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let (code, page) = client.get(&format!("{SERVICES}?limit=3{token}")).await;
        assert_eq!(code, 200, "{page}");
        seen.extend(names(&page).into_iter().map(str::to_owned));
        server.delete("services", "default", &format!("s{}", 9 - server.requests(Verb::List, "services"))).unwrap();
        server.apply(&service(&format!("t{}", seen.len()))).unwrap();
        let Some(next) = page["metadata"]["continue"].as_str() else { break };
        token = format!("&continue={}", next.replace(':', "%3A").replace('/', "%2F"));
    }
    assert_eq!(seen, ["kubernetes", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"]);
}

#[tokio::test]
async fn a_watch_that_is_overrun_is_told_so() {
    let window = Window { events: 5, ..Window::default() };
    let server = ApiServer::start(Config { window, ..Config::default() }).unwrap();
    let client = Client::of(&server);
    let old = server.revision();
    for n in 0..10 {
        server.apply(&service(&format!("s{n}"))).unwrap();
    }
    let event = client.watch(&format!("/api/v1/services?watch=true&resourceVersion={old}")).await.next().await.unwrap().unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    let recent = server.revision() - 3;
    let mut lines = client.watch(&format!("/api/v1/services?watch=true&resourceVersion={recent}&timeoutSeconds=1")).await;
    assert_eq!(lines.rest().await, ["ADDED s7", "ADDED s8", "ADDED s9"]);
}

#[tokio::test]
async fn objects_come_into_a_selector_and_leave_it() {
    let (server, client) = start();
    let path = format!("{SERVICES}?watch=true&labelSelector=app%3Dweb&timeoutSeconds=1&resourceVersion={}", server.revision());
    let mut lines = client.watch(&path).await;
    let mut other = service("other-namespace");
    other["metadata"]["namespace"] = "kube-system".into();
    other["metadata"]["labels"] = json!({"app": "web"});
    server.apply(&other).unwrap();
    server.apply(&service("a")).unwrap();
    for label in [json!("web"), json!("web"), Value::Null, json!("web")] {
        server.patch("services", "default", "a", json!({"metadata": {"labels": {"app": label}}})).unwrap();
    }
    server.delete("services", "default", "a").unwrap();
    assert_eq!(lines.rest().await, ["ADDED a", "DELETED a", "ADDED a", "DELETED a"]);
}

#[tokio::test]
async fn a_node_and_nonsense_are_stored_as_the_test_wants_them() {
    let (server, _) = start();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    assert_eq!(server.apply(&node).unwrap()["status"]["addresses"][0]["address"], "192.0.2.1");
    let broken = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b", "namespace": "default"},
        "spec": {"clusterIP": "not an address", "ports": [{"port": -1}]}});
    server.apply_unchecked(&broken).unwrap();
    assert_eq!(server.get("services", "default", "b").unwrap()["spec"], broken["spec"]);
}

/// A listener that was bound elsewhere, as a test binds one inside of a network namespace.
#[tokio::test]
async fn a_given_listener_is_used_and_freed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = ApiServer::start(Config { listener: Some(listener), ..Config::default() }).unwrap();
    assert_eq!(server.url(), format!("http://{address}"));
    assert_eq!(Client::of(&server).get("/version").await.1["major"], "1");
    drop(server);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
