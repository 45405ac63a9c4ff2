//! One set of objects, whichever way it comes to the cluster.

use std::env;
use std::fs;

use serde_json::{Value, json};

use crate::chart::{Chart, Rendered};
use crate::kustomization::{build, identity};
use crate::{documents, manifests, objects};

/// The overlays that have a rendering.
pub(crate) const OVERLAYS: [&str; 5] = ["default", "kubeadm", "kubeadm-kernel-settings", "k3s", "rollback"];

/// Labels that Helm wants and kustomize has no use for.
const HELM_LABELS: [&str; 2] = ["app.kubernetes.io/instance", "app.kubernetes.io/managed-by"];

/// What can be compared: in one order, without Helm's labels and annotations, configurations read.
fn comparable(objects: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut objects: Vec<_> = objects.into_iter().collect();
    for object in &mut objects {
        if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
            labels.retain(|name, _| !HELM_LABELS.contains(&name.as_str()));
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("annotations");
        }
        if let Some(text) = object["data"]["config.yaml"].as_str() {
            let read: Vec<_> = documents(text).unwrap().into_iter().map(|(_, document)| document).collect();
            object["data"]["config.yaml"] = read.into();
        }
    }
    objects.sort_by_key(|object| identity(object).map(str::to_owned));
    objects
}

fn overlay(name: &str) -> Vec<Value> {
    comparable(build(&manifests(&format!("kustomize/overlays/{name}"))).unwrap())
}

fn chart() -> Chart {
    Chart::open(&manifests("helm/sheave")).unwrap()
}

/// What a release with these values installs.
fn release(values: &Value) -> Vec<Value> {
    let rendered = chart().render(values).unwrap();
    comparable(rendered.into_iter().filter(|rendered| !rendered.is_hook()).map(|rendered| rendered.object))
}

#[test]
fn the_overlays_build_what_is_committed() {
    for name in OVERLAYS {
        let committed = objects(&manifests(&format!("kustomize/rendered/{name}.yaml"))).unwrap();
        assert_eq!(comparable(committed), overlay(name), "`kubectl kustomize` of overlays/{name} is to be committed again");
    }
    for name in ["monitoring", "controller"] {
        let committed = objects(&manifests(&format!("kustomize/rendered/{name}.yaml"))).unwrap();
        assert_eq!(comparable(committed), comparable(build(&manifests(&format!("kustomize/{name}"))).unwrap()), "{name}");
    }
}

#[test]
fn the_chart_renders_what_is_committed() {
    let rendered: String = chart().render(&json!({})).unwrap().iter().map(Rendered::print).collect();
    let path = manifests("helm/rendered/default.yaml");
    if env::var_os("SHEAVE_UPDATE").is_some() {
        fs::write(&path, &rendered).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), rendered, "SHEAVE_UPDATE=1 writes it anew");
}

#[test]
fn the_chart_is_each_overlay() {
    assert_eq!(release(&json!({})), overlay("default"));
    let kubeadm = json!({ "existingConfigMap": "kube-proxy" });
    assert_eq!(release(&json!({ "config": kubeadm })), overlay("kubeadm"));
    assert_eq!(release(&json!({ "config": kubeadm, "kernelSettings": true })), overlay("kubeadm-kernel-settings"));
    let k3s = json!({ "kubeProxy": { "clusterCIDR": "10.42.0.0/16" }, "sheave": { "apiServers": ["https://127.0.0.1:6444"] } });
    assert_eq!(release(&json!({ "config": k3s })), overlay("k3s"));
}

#[test]
fn the_way_back_is_the_same_as_overlay_as_value_and_as_hook() {
    let daemon_sets =
        |objects: Vec<Value>| -> Vec<_> { objects.into_iter().filter(|object| object["kind"] == "DaemonSet").collect() };
    assert_eq!(daemon_sets(release(&json!({ "rollback": { "enabled": true } }))), overlay("rollback"));
    let hooks = chart().render(&json!({})).unwrap().into_iter().filter(Rendered::is_hook);
    assert_eq!(comparable(hooks.map(|rendered| rendered.object)), overlay("rollback"));
    let none = chart().render(&json!({ "rollback": { "onUninstall": false } })).unwrap();
    assert!(!none.iter().any(Rendered::is_hook));
}

#[test]
fn monitoring_is_the_same() {
    let values = json!({
        "config": { "kubeProxy": { "metricsBindAddress": "0.0.0.0:10249" } },
        "monitoring": { "podMonitor": { "enabled": true }, "prometheusRule": { "enabled": true } },
    });
    let of_the_operator = |object: &Value| object["apiVersion"] == "monitoring.coreos.com/v1";
    let release: Vec<_> = release(&values).into_iter().filter(of_the_operator).collect();
    assert_eq!(release, comparable(build(&manifests("kustomize/monitoring")).unwrap()));
}

#[test]
fn the_controller_is_the_same_and_only_there_where_it_is_wanted() {
    let of_the_controller = |object: &Value| object["metadata"]["name"] == "sheave-controller";
    let with = |controller: Value| -> Vec<_> {
        release(&json!({ "controller": controller })).into_iter().filter(of_the_controller).collect()
    };
    assert_eq!(with(json!({ "enabled": true })), comparable(build(&manifests("kustomize/controller")).unwrap()));
    assert!(with(json!({})).is_empty());
    let said = with(json!({
        "enabled": true, "loadBalancerClass": "example.com/lb", "metallbNamespace": "lb", "extraArgs": ["--log=debug"],
    }));
    let deployment = said.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let expected = json!(["controller", "--lb-class=example.com/lb", "--metallb-namespace=lb", "--log=debug"]);
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["args"], expected);
}

#[test]
fn nodes_announce_unless_that_is_not_wanted() {
    let daemon = |objects: &[Value]| -> Value {
        let found = objects.iter().find(|object| object["kind"] == "DaemonSet" && object["metadata"]["name"] == "sheave");
        found.unwrap()["spec"]["template"]["spec"]["containers"][0].clone()
    };
    let of_announcing = |object: &&Value| object["metadata"]["name"] == "sheave-announce";
    let with = release(&json!({}));
    assert_eq!(with.iter().filter(of_announcing).count(), 4, "two roles and their bindings");
    let without = release(&json!({ "loadBalancer": { "enabled": false } }));
    assert_eq!(without.iter().filter(of_announcing).count(), 0);
    let capabilities = &daemon(&without)["securityContext"]["capabilities"];
    assert_eq!(*capabilities, json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] }));
    let arguments = daemon(&without)["args"].clone();
    assert!(arguments.as_array().unwrap().contains(&json!("--no-announcing")), "{arguments}");
    // What the controller is told, nodes are, too.
    let told = release(&json!({ "controller": { "loadBalancerClass": "example.com/lb", "metallbNamespace": "lb" } }));
    let arguments = daemon(&told)["args"].to_string();
    assert!(arguments.contains("--lb-class=example.com/lb") && arguments.contains("--metallb-namespace=lb"), "{arguments}");
}

#[test]
fn another_job_is_that_of_the_series_and_of_the_alerts() {
    let values = json!({
        "config": { "kubeProxy": { "metricsBindAddress": "0.0.0.0:10249" } },
        "monitoring": { "job": "kube-proxy", "podMonitor": { "enabled": true }, "prometheusRule": { "enabled": true } },
    });
    let release = release(&values);
    let spec = |kind: &str| &release.iter().find(|object| object["kind"] == kind).unwrap()["spec"];
    let relabelings = spec("PodMonitor")["podMetricsEndpoints"][0]["relabelings"].as_array().unwrap();
    assert!(relabelings.contains(&json!({ "targetLabel": "job", "replacement": "kube-proxy" })), "{relabelings:?}");
    let rules = spec("PrometheusRule").to_string();
    assert!(rules.contains(r#"{job=\"kube-proxy\"}"#) && !rules.contains(r#"job=\"sheave\""#), "{rules}");
}

/// Helm waits for hooks that are Jobs or Pods and for no other kind; this one need not be waited for, and can ask nobody anything.
#[test]
fn the_hook_that_gives_nodes_back_outlives_the_release() {
    let rendered = chart().render(&json!({})).unwrap();
    let hooks: Vec<_> = rendered.into_iter().filter(Rendered::is_hook).map(|rendered| rendered.object).collect();
    let [hook] = &hooks[..] else { panic!("one hook: {hooks:?}") };
    let annotations = json!({ "helm.sh/hook": "pre-delete", "helm.sh/hook-delete-policy": "before-hook-creation" });
    assert_eq!((&hook["kind"], &hook["metadata"]["annotations"]), (&json!("DaemonSet"), &annotations));
    // What is deleted with the release, account and configuration, is not what it lives on.
    let pod = &hook["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(pod.get("serviceAccountName").is_none() && pod.get("volumes").is_none());
    let container = &pod["initContainers"][0];
    assert_eq!(container["args"], json!(["migrate", "back"]));
    // Its selector takes no pod of the daemon's.
    assert_ne!(hook["spec"]["selector"], json!({ "matchLabels": { "app.kubernetes.io/name": "sheave" } }));
}

#[test]
fn metrics_that_nobody_could_fetch_are_refused() {
    let values = json!({ "monitoring": { "podMonitor": { "enabled": true } } });
    let Err(error) = chart().render(&values) else { panic!("a PodMonitor of metrics on 127.0.0.1") };
    assert!(format!("{error:#}").contains("metricsBindAddress"), "{error:#}");
}

#[test]
fn notes_warn_of_the_cluster_ip_exactly_where_it_is_used() {
    let notes = |values: Value| chart().template("NOTES.txt", &values).unwrap();
    assert!(notes(json!({})).contains("cannot reach it"));
    for config in [
        json!({ "existingConfigMap": "kube-proxy" }),
        json!({ "sheave": { "apiServers": ["https://10.0.0.10:6443"] } }),
        json!({ "kubeProxy": { "clientConnection": { "kubeconfig": "/etc/kubernetes/kube-proxy.conf" } } }),
    ] {
        assert!(!notes(json!({ "config": config })).contains("cannot reach it"));
    }
}
