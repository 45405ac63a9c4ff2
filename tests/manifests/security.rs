//! What the pods may do, and that they are what the release is.

use serde_json::{Value, json};

use crate::kustomization::build;
use crate::{manifests, repository, same::OVERLAYS};

/// Every workload of every overlay.
fn workloads() -> Vec<Value> {
    let all = OVERLAYS.iter().flat_map(|name| build(&manifests(&format!("kustomize/overlays/{name}"))).unwrap());
    let workloads: Vec<_> = all.filter(|object| object["spec"]["template"].is_object()).collect();
    assert_eq!(workloads.len(), OVERLAYS.len());
    workloads
}

fn containers(workload: &Value) -> impl Iterator<Item = &Value> {
    let pod = &workload["spec"]["template"]["spec"];
    [&pod["initContainers"], &pod["containers"]].into_iter().filter_map(Value::as_array).flatten()
}

#[test]
fn containers_have_net_admin_the_daemon_net_raw_and_nothing_else() {
    for workload in workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"], json!({ "seccompProfile": { "type": "RuntimeDefault" } }));
        assert!(pod.get("hostPID").is_none() && pod.get("hostIPC").is_none());
        for container in containers(&workload) {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true);
            // The one exception, which somebody has to ask for: it writes to /proc/sys and ends.
            if container["name"] == "kernel-settings" {
                assert!(container["args"].as_array().unwrap().contains(&json!("--init-only")));
                continue;
            }
            let ours = container["image"].as_str().unwrap().starts_with("sheave:");
            let mut capabilities = json!({ "drop": ["ALL"] });
            if container["name"] == "sheave" {
                // For ARP and neighbour discovery.
                capabilities["add"] = json!(["NET_ADMIN", "NET_RAW"]);
            } else if ours {
                capabilities["add"] = json!(["NET_ADMIN"]);
            }
            assert_eq!(context["capabilities"], capabilities, "{}", container["name"]);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert!(context.get("privileged").is_none());
        }
        let volumes = pod["volumes"].as_array().cloned().unwrap_or_default();
        // Nothing of the node's; and room for the admin socket.
        let harmless =
            |volume: &Value| volume.get("configMap").is_some() || (volume["name"] == "run" && volume.get("emptyDir").is_some());
        assert!(volumes.iter().all(harmless), "a volume that is no configuration: {volumes:?}");
    }
}

/// A port that is listed is reserved by the scheduler: beside MetalLB's speakers, which list UDP 7946, no pod of ours would start.
#[test]
fn the_port_of_the_membership_is_not_reserved() {
    for workload in workloads() {
        for container in containers(&workload) {
            let ports = container["ports"].as_array().into_iter().flatten();
            let ports: Vec<_> = ports.map(|port| (port["containerPort"].as_u64(), port["protocol"].as_str())).collect();
            assert!(
                ports.iter().all(|port| [(Some(10256), Some("TCP")), (Some(10249), Some("TCP"))].contains(port)),
                "{ports:?}"
            );
        }
    }
}

/// Whoever may write the status of every Service need be able to do nothing on the node it runs on.
#[test]
fn the_controller_has_no_privilege_on_its_node() {
    let built = build(&manifests("kustomize/controller")).unwrap();
    let deployment = built.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    assert!(["hostNetwork", "hostPID", "hostIPC", "volumes"].iter().all(|name| pod.get(*name).is_none()));
    assert_eq!((&pod["securityContext"]["runAsNonRoot"], &pod["securityContext"]["runAsUser"]), (&json!(true), &json!(65534)));
    for container in containers(deployment) {
        let context = &container["securityContext"];
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!((&context["readOnlyRootFilesystem"], &context["allowPrivilegeEscalation"]), (&json!(true), &json!(false)));
        assert!(container["ports"].as_array().unwrap().iter().all(|port| port.get("hostPort").is_none()));
    }
}

#[test]
fn pods_come_first_and_everywhere() {
    for workload in workloads() {
        assert_eq!(workload["kind"], "DaemonSet");
        assert_eq!(workload["metadata"]["namespace"], "kube-system");
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["priorityClassName"], "system-node-critical");
        assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
        assert_eq!(pod["nodeSelector"], json!({ "kubernetes.io/os": "linux" }));
        // Not by way of a Service that this pod itself makes work.
        assert_eq!((&pod["hostNetwork"], &pod["dnsPolicy"]), (&json!(true), &json!("Default")));
        // Limits would stop it in the middle of its work; requests keep a place for it.
        for container in containers(&workload) {
            assert!(container["resources"]["requests"]["memory"].is_string() && container["resources"].get("limits").is_none());
        }
    }
}

#[test]
fn versions_agree() {
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"')).unwrap();
    let chart = crate::chart::Chart::open(&manifests("helm/sheave")).unwrap().metadata().unwrap();
    assert_eq!((chart["version"].as_str(), chart["appVersion"].as_str()), (Some(version), Some(version)));
    let controller =
        build(&manifests("kustomize/controller")).unwrap().into_iter().filter(|object| object["kind"] == "Deployment");
    for workload in workloads().into_iter().chain(controller) {
        let images = containers(&workload).filter_map(|container| container["image"].as_str());
        assert!(images.filter(|image| image.starts_with("sheave:")).all(|image| image == format!("sheave:{version}")));
    }
}
