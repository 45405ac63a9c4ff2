//! Defaults and checks of the kinds other than Service, and of metadata.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::resource::{Resource, Rules};
use super::status::Cause;

/// What the server adds to an object before it checks it.
pub(super) fn defaults(resource: &Resource, object: &mut Value, now: &str) {
    match resource.rules {
        Rules::Service => super::service::defaults(object),
        Rules::EndpointSlice => slice_defaults(object),
        Rules::Node => node_defaults(object),
        Rules::Namespace => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
        }
        Rules::ServiceCidr => {
            // The status is its controller's; here it is ready at once.
            if object["status"]["conditions"].is_null() {
                let message = "Kubernetes default Service CIDR is ready";
                object["status"] = json!({"conditions":
                    [{"type": "Ready", "status": "True", "lastTransitionTime": now, "reason": "", "message": message}]});
            }
        }
        Rules::None => {
            if let Some(schema) = &resource.schema {
                schema.prune(object);
            }
        }
    }
}

/// What admission does to a new object only.
pub(super) fn on_create(resource: &Resource, object: &mut Value) {
    if resource.rules == Rules::Node {
        // Plugin TaintNodesByCondition: until the kubelet reports, nothing is scheduled.
        let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        match object["spec"]["taints"].as_array_mut() {
            Some(taints) if taints.contains(&taint) => {}
            Some(taints) => taints.push(taint),
            None => object["spec"]["taints"] = json!([taint]),
        }
    }
}

fn slice_defaults(slice: &mut Value) {
    for name in ["endpoints", "ports"] {
        if slice[name].is_null() {
            slice[name] = if name == "endpoints" { json!([]) } else { Value::Null };
        }
    }
    for port in slice["ports"].as_array_mut().into_iter().flatten() {
        if port["name"].is_null() {
            port["name"] = "".into();
        }
        if port["protocol"].is_null() {
            port["protocol"] = "TCP".into();
        }
    }
    for endpoint in slice["endpoints"].as_array_mut().into_iter().flatten() {
        if endpoint["conditions"].is_null() {
            endpoint["conditions"] = json!({});
        }
    }
}

fn node_defaults(node: &mut Value) {
    if node["spec"].is_null() {
        node["spec"] = json!({});
    }
    let status = &mut node["status"];
    if status["daemonEndpoints"].is_null() {
        status["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": 0}});
    }
    for name in [
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeletVersion",
        "kubeProxyVersion",
        "operatingSystem",
        "architecture",
    ] {
        if status["nodeInfo"][name].is_null() {
            status["nodeInfo"][name] = "".into();
        }
    }
}

/// What is wrong with an object whose defaults are set.
pub(super) fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes: Vec<Cause> = validate_name(resource, &object["metadata"]["name"]).into_iter().collect();
    match resource.rules {
        Rules::Service => causes.extend(super::service::validate(object, old)),
        Rules::EndpointSlice => causes.extend(validate_slice(object, old)),
        Rules::Node | Rules::Namespace | Rules::ServiceCidr | Rules::None => {}
    }
    causes.extend(resource.schema.iter().flat_map(|schema| schema.judge(object, old)));
    causes
}

/// RFC 1123: one label for Services and Namespaces, labels with dots between for everything else.
fn validate_name(resource: &Resource, name: &Value) -> Option<Cause> {
    const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with \
         an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
         and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let text = name.as_str().unwrap_or_default();
    if text.is_empty() {
        return Some(Cause::required("metadata.name"));
    }
    let is_label = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ends = part.bytes().next().is_some_and(inner) && part.bytes().next_back().is_some_and(inner);
        ends && part.bytes().all(|b| inner(b) || b == b'-')
    };
    if matches!(resource.rules, Rules::Service | Rules::Namespace) {
        let valid = is_label(text) && text.len() <= 63;
        (!valid).then(|| Cause::invalid("metadata.name", name, LABEL))
    } else {
        let valid = text.split('.').all(is_label) && text.len() <= 253;
        (!valid).then(|| Cause::invalid("metadata.name", name, SUBDOMAIN))
    }
}

fn validate_slice(slice: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let types = ["FQDN", "IPv4", "IPv6"];
    match slice["addressType"].as_str().unwrap_or_default() {
        "" => causes.push(Cause::required("addressType")),
        other if !types.contains(&other) => causes.push(Cause::unsupported("addressType", &slice["addressType"], &types)),
        _ => {}
    }
    if old.is_some_and(|old| old["addressType"] != slice["addressType"]) {
        causes.push(Cause::invalid("addressType", &slice["addressType"], "field is immutable"));
    }
    for (at, endpoint) in slice["endpoints"].as_array().into_iter().flatten().enumerate() {
        let addresses = endpoint["addresses"].as_array().map_or(&[][..], Vec::as_slice);
        if addresses.is_empty() {
            causes.push(Cause::required(format!("endpoints[{at}].addresses")));
        }
        for (nth, address) in addresses.iter().enumerate() {
            let ip: Option<IpAddr> = address.as_str().and_then(|text| text.parse().ok());
            let field = format!("endpoints[{at}].addresses[{nth}]");
            match (slice["addressType"].as_str(), ip) {
                (Some("IPv4"), ip) if !ip.is_some_and(|ip| ip.is_ipv4()) => {
                    causes.push(Cause::invalid(field, address, "must be a valid IPv4 address"));
                }
                (Some("IPv6"), ip) if !ip.is_some_and(|ip| ip.is_ipv6()) => {
                    causes.push(Cause::invalid(field, address, "must be a valid IPv6 address"));
                }
                _ => {}
            }
        }
    }
    causes
}
