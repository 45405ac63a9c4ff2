//! kube's own client and watcher, which the daemon uses, against the double.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use serde_json::json;
use sheave::source::kube::{KubeOptions, KubeSource, Timing, Watches, connect};
use sheave::source::{Change, Object};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, service, start};
use crate::apiserver::{Cut, Effect, Fault, Refusal, Verb};

#[tokio::test]
async fn typed_objects_go_there_and_back() {
    let (server, client) = start();
    let services: Api<Service> = Api::default_namespaced(client.0.clone());
    let made = services.create(&PostParams::default(), &serde_json::from_value(service("web")).unwrap()).await.unwrap();
    let spec = made.spec.clone().unwrap();
    assert!(spec.cluster_ip.is_some_and(|ip| ip.starts_with("10.96.")));
    let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    let refused = services.patch_status("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 422));
    assert_eq!(services.list(&ListParams::default().labels("!x").fields("metadata.name=web")).await.unwrap().items.len(), 1);
    services.delete("web", &Default::default()).await.unwrap();
    assert!(services.get_opt("web").await.unwrap().is_none());
    // And the handle takes typed objects.
    let slice: EndpointSlice =
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "default"}, "addressType": "IPv4",
        "endpoints": []}))
        .unwrap();
    assert_eq!(server.apply(&slice).unwrap()["kind"], "EndpointSlice");
}

/// Follows a watcher until it knows these names; faults on the way are its business.
async fn follow(client: &kube::Client, config: watcher::Config, wanted: &[&str]) -> usize {
    let events = kube::runtime::WatchStreamExt::default_backoff(watcher::watcher(Api::<Service>::all(client.clone()), config));
    let mut events = std::pin::pin!(events);
    let (mut known, mut errors, mut complete) = (BTreeSet::new(), 0, false);
    let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let followed = async {
        while !complete || known != wanted {
            match events.next().await.unwrap() {
                Ok(Event::Init) => known.clear(),
                Ok(Event::InitDone) => complete = true,
                Ok(Event::InitApply(object) | Event::Apply(object)) => drop(known.insert(object.name_any())),
                Ok(Event::Delete(object)) => drop(known.remove(&object.name_any())),
                Err(_) => errors += 1,
            }
        }
    };
    tokio::time::timeout(PATIENCE, followed).await.unwrap_or_else(|_| panic!("stuck"));
    errors
}

#[tokio::test]
async fn a_watcher_gets_there_through_every_fault() {
    let (server, client) = start();
    for name in ["a", "b"] {
        server.apply(&service(name)).unwrap();
    }
    let all = ["a", "b", "kubernetes"];
    let streaming = || watcher::Config::default().streaming_lists();
    assert_eq!(follow(&client.0, watcher::Config::default(), &all).await, 0);
    assert_eq!(follow(&client.0, streaming(), &all).await, 0);
    for effect in [
        Effect::Answer { code: 500, retry_after: None },
        Effect::CutAfter { events: 1, how: Cut::Abrupt },
        Effect::CutAfter { events: 2, how: Cut::Clean },
        Effect::RefuseStreamingLists(Refusal::ErrorEvent),
        Effect::RefuseStreamingLists(Refusal::Invalid),
    ] {
        server.inject(Fault::new(effect.clone()).on(Verb::Watch, "services").times(1));
        follow(&client.0, streaming(), &all).await;
    }
}

#[tokio::test]
async fn a_watcher_sees_changes_through_a_cut_and_an_expired_version() {
    let (server, client) = start();
    let (sender, mut names) = mpsc::unbounded_channel();
    let services = Api::<Service>::all(client.0.clone());
    let following = tokio::spawn(async move {
        let events = kube::runtime::WatchStreamExt::default_backoff(watcher::watcher(services, watcher::Config::default()));
        let applied = events.filter_map(|event| async { event.ok() }).map(Ok::<_, ()>);
        let _ = applied
            .try_for_each(|event| {
                if let Event::Apply(object) | Event::InitApply(object) = event {
                    let _ = sender.send(object.name_any());
                }
                async { Ok(()) }
            })
            .await;
    });
    let mut until = async |name: &str| {
        let found = async { while names.recv().await.unwrap() != name {} };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("never heard of {name}"));
    };
    until("kubernetes").await;
    server.wait_for("a watch", PATIENCE, |server| (server.open_watches("services") == 1).then_some(())).await.unwrap();
    server.apply(&service("a")).unwrap();
    until("a").await;
    // Behind the client's back the past is forgotten: it has to list again.
    server.refuse_connections().unwrap();
    server.cut_connections();
    server.apply(&service("b")).unwrap();
    server.compact();
    let lists = server.requests(Verb::List, "services");
    server.accept_connections().unwrap();
    until("b").await;
    assert!(server.requests(Verb::List, "services") > lists);
    following.abort();
}

/// As `IPAddressPool metallb-system/first`.
fn name_of(object: &Object) -> String {
    match object {
        Object::Service(service) => format!("Service {}", service.key),
        Object::Peer(peer) => format!("Node {}", peer.name),
        Object::Namespace(namespace) => format!("Namespace {}", namespace.name),
        Object::AddressPool(pool) => format!("IPAddressPool {}", pool.key),
        Object::Advertisement(advertisement) => format!("L2Advertisement {}", advertisement.key),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn the_load_balancers_watches_see_everything_and_what_is_installed_later() {
    let (server, _) = start();
    for (name, labels) in [("lb", json!({})), ("theirs", json!({"service.kubernetes.io/service-proxy-name": "x"}))] {
        let mut object = service(name);
        object["metadata"]["labels"] = labels;
        object["spec"]["type"] = "LoadBalancer".into();
        server.apply(&object).unwrap();
    }
    server.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}})).unwrap();
    let timing = Timing { uninstalled: Duration::from_millis(20), ..Timing::default() };
    let options = KubeOptions { api_servers: vec![server.url()], node_name: "node-b".into(), timing, ..KubeOptions::default() };
    let servers = Arc::new(connect(&options).await.unwrap());
    for watches in [Watches::Controller, Watches::Announcer, Watches::Peers] {
        let (sender, mut changes) = mpsc::channel(4);
        let cancel = CancellationToken::new();
        let source = KubeSource::of(watches, servers.clone(), options.clone());
        let task = tokio::spawn(source.run(sender, cancel.clone()));
        let mut listed = BTreeSet::new();
        let metallbs = &["IPAddressPool metallb-system/first", "L2Advertisement metallb-system/all"][..];
        let nodes = &["Node node-a"][..];
        let mut wanted = match watches {
            Watches::Announcer => metallbs.to_vec(),
            Watches::Peers => nodes.to_vec(),
            _ => [metallbs, nodes, &["Service default/lb", "Service default/theirs", "Namespace default"]].concat(),
        };
        let seen = async {
            while !wanted.is_empty() {
                match changes.recv().await.unwrap() {
                    Change::Applied(object) => {
                        let name = name_of(&object);
                        wanted.retain(|wanted| *wanted != name);
                    }
                    Change::Listed(kind) => drop(listed.insert(kind.to_string())),
                    _ => {}
                }
                // Until here there was none of it, and nothing waited.
                if listed.contains("IPAddressPool") && listed.contains("L2Advertisement") {
                    server.install_metallb();
                    for (kind, name, spec) in [
                        ("IPAddressPool", "first", json!({"addresses": ["192.0.2.0/24"]})),
                        ("L2Advertisement", "all", json!({})),
                    ] {
                        let metadata = json!({"name": name, "namespace": "metallb-system"});
                        let object =
                            json!({"apiVersion": "metallb.io/v1beta1", "kind": kind, "metadata": metadata, "spec": spec});
                        server.apply(&object).unwrap();
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{watches:?} never saw the rest"));
        cancel.cancel();
        task.await.unwrap();
    }
}
