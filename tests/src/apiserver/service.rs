//! What the API server makes of a Service: defaults, families, ClusterIPs, node ports, and what a change may not do.
//!
//! Rules of `pkg/apis/core/v1/defaults.go`, `pkg/registry/core/service/{strategy,storage/alloc}.go` of Kubernetes 1.36, checked
//! against the recordings where these have the case.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::allocator::{Allocator, Claim};
use super::status::Cause;

/// `spec.sessionAffinityConfig.clientIP.timeoutSeconds` where nothing is said: three hours.
const AFFINITY_TIMEOUT: u32 = 10_800;

/// What a Service's admission needs to know of the cluster.
pub(super) struct Admission<'a> {
    /// All ServiceCIDRs, the one named `kubernetes` first: its first network says which family is the cluster's own.
    pub(super) networks: &'a [IpNet],
    pub(super) allocator: &'a mut Allocator,
}

/// Sets a member where it is absent, null or the empty string.
fn default(object: &mut Value, name: &str, value: Value) {
    if is_unset(&object[name]) {
        object[name] = value;
    }
}

fn is_unset(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty)
}

/// The entries of a list, none where it is absent. (Indexing a mutable `Value` would put a null there.)
fn entries<'a>(object: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    object.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

fn remove(object: &mut Value, names: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        for name in names {
            object.remove(*name);
        }
    }
}

fn kind(spec: &Value) -> &str {
    spec["type"].as_str().unwrap_or("ClusterIP")
}

fn wants_node_ports(spec: &Value) -> bool {
    match kind(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != json!(false),
        _ => false,
    }
}

fn wants_health_port(spec: &Value) -> bool {
    kind(spec) == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

fn is_headless(spec: &Value) -> bool {
    spec["clusterIP"] == "None" || spec["clusterIPs"][0] == "None"
}

fn ports(spec: &Value) -> &[Value] {
    spec["ports"].as_array().map_or(&[], Vec::as_slice)
}

/// `IPv4` or `IPv6`.
fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Defaults that need nothing but the object.
pub(super) fn defaults(service: &mut Value) {
    let spec = &mut service["spec"];
    default(spec, "type", "ClusterIP".into());
    default(spec, "sessionAffinity", "None".into());
    if spec["sessionAffinity"] == "ClientIP" && spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() {
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": AFFINITY_TIMEOUT}});
    }
    let external_name = kind(spec) == "ExternalName";
    if matches!(kind(spec), "NodePort" | "LoadBalancer") {
        default(spec, "externalTrafficPolicy", "Cluster".into());
    }
    if kind(spec) == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true.into());
    }
    if !external_name {
        default(spec, "internalTrafficPolicy", "Cluster".into());
    }
    for port in entries(spec, "/ports") {
        default(port, "protocol", "TCP".into());
        if port["targetPort"].is_null() || port["targetPort"] == json!(0) {
            port["targetPort"] = port["port"].clone();
        }
        if port["nodePort"] == json!(0) {
            remove(port, &["nodePort"]);
        }
    }
    default(&mut service["status"], "loadBalancer", json!({}));
    default_ip_mode(service);
}

/// KEP-1860: an ingress with an address and without a mode is `VIP`. An empty list is not printed.
fn default_ip_mode(service: &mut Value) {
    if is_unset(&service["status"]["loadBalancer"]["ingress"]) {
        remove(&mut service["status"]["loadBalancer"], &["ingress"]);
    }
    for ingress in entries(service, "/status/loadBalancer/ingress") {
        if ingress["ip"].as_str().is_some_and(|ip| !ip.is_empty()) {
            default(ingress, "ipMode", "VIP".into());
        }
    }
}

/// Carries over what was allocated where the new object does not name it, and drops what its new type has no use for.
pub(super) fn carry_over(service: &mut Value, old: &Value) {
    let (spec, old) = (&mut service["spec"], &old["spec"]);
    if kind(spec) == "ExternalName" {
        remove(spec, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    } else if kind(old) != "ExternalName" {
        default(spec, "clusterIP", old["clusterIP"].clone());
        for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec["clusterIP"] == old["clusterIP"] {
                default(spec, name, old[name].clone());
            }
        }
    }
    let old_ports = ports(old);
    let (keeps, kept_before) = (wants_node_ports(spec), wants_node_ports(old));
    for port in entries(spec, "/ports") {
        let twin = old_ports.iter().find(|twin| twin["port"] == port["port"] && twin["protocol"] == port["protocol"]);
        match twin.map(|twin| &twin["nodePort"]).filter(|node_port| !node_port.is_null()) {
            Some(node_port) if keeps => default(port, "nodePort", node_port.clone()),
            // The type that wanted the port is gone, and the writer just sent back what he had read.
            Some(node_port) if kept_before && port["nodePort"] == *node_port => remove(port, &["nodePort"]),
            _ => {}
        }
    }
    if wants_health_port(spec) {
        default(spec, "healthCheckNodePort", old["healthCheckNodePort"].clone());
    } else if spec["healthCheckNodePort"] == old["healthCheckNodePort"] {
        remove(spec, &["healthCheckNodePort"]);
    }
    if !matches!(kind(spec), "NodePort" | "LoadBalancer") {
        remove(spec, &["externalTrafficPolicy"]);
    }
    if kind(spec) != "LoadBalancer" {
        remove(spec, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
        service["status"] = json!({"loadBalancer": {}});
    }
}

/// The checks that a data plane's tests lean on; not all that the real server has.
pub(super) fn validate(service: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &service["spec"];
    let mut causes = Vec::new();
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !types.contains(&kind(spec)) {
        causes.push(Cause::unsupported("spec.type", &spec["type"], &types));
    }
    if ports(spec).is_empty() && kind(spec) != "ExternalName" && !is_headless(spec) {
        causes.push(Cause::required("spec.ports"));
    }
    if kind(spec) == "ExternalName" && is_unset(&spec["externalName"]) {
        causes.push(Cause::required("spec.externalName"));
    }
    for (at, port) in ports(spec).iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{at}].{name}");
        if !port["port"].as_u64().is_some_and(|number| (1..=65_535).contains(&number)) {
            causes.push(Cause::invalid(field("port"), &port["port"], "must be between 1 and 65535, inclusive"));
        }
        if !matches!(port["protocol"].as_str(), Some("TCP" | "UDP" | "SCTP")) {
            causes.push(Cause::unsupported(field("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]));
        }
        if ports(spec).len() > 1 && is_unset(&port["name"]) {
            causes.push(Cause::required(field("name")));
        }
        if !port["nodePort"].is_null() && !matches!(kind(spec), "NodePort" | "LoadBalancer") {
            let why = format!("may not be used when `type` is '{}'", kind(spec));
            causes.push(Cause::forbidden(field("nodePort"), &why));
        }
    }
    for (at, address) in spec["externalIPs"].as_array().into_iter().flatten().enumerate() {
        if address.as_str().and_then(|text| text.parse::<IpAddr>().ok()).is_none() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.push(Cause::invalid(format!("spec.externalIPs[{at}]"), address, why));
        }
    }
    if let Some(old) = old.map(|old| &old["spec"]).filter(|old| kind(old) != "ExternalName" && kind(spec) != "ExternalName")
        && old["clusterIP"] != spec["clusterIP"]
        && !is_unset(&old["clusterIP"])
    {
        causes.push(Cause::invalid("spec.clusterIPs[0]", &spec["clusterIPs"][0], "may not change once set"));
    }
    causes
}

impl Admission<'_> {
    /// Families, addresses and node ports, for a Service whose defaults are set. Its old claim has been given back already.
    pub(super) fn allocate(&mut self, service: &mut Value) -> Result<(), Cause> {
        let spec = &mut service["spec"];
        if kind(spec) == "ExternalName" {
            return Ok(());
        }
        self.families(spec)?;
        if is_headless(spec) {
            spec["clusterIP"] = "None".into();
            spec["clusterIPs"] = json!(["None"]);
        } else {
            self.addresses(spec)?;
        }
        self.node_ports(spec)
    }

    fn offers(&self, family_name: &str) -> bool {
        self.networks.iter().any(|network| family(network.addr()) == family_name)
    }

    fn families(&self, spec: &mut Value) -> Result<(), Cause> {
        let own = self.networks.first().map_or("IPv4", |network| family(network.addr()));
        let given: Vec<String> =
            spec["ipFamilies"].as_array().into_iter().flatten().filter_map(|f| f.as_str().map(str::to_owned)).collect();
        let mut families: Vec<String> = if given.is_empty() {
            let addresses = spec["clusterIPs"].as_array().into_iter().flatten().chain(Some(&spec["clusterIP"]));
            let mut families: Vec<String> =
                addresses.filter_map(|ip| ip.as_str()?.parse().ok()).map(|ip| family(ip).to_owned()).collect();
            families.dedup();
            families.truncate(2);
            families
        } else {
            given
        };
        // Endpoints of a headless Service without selector are somebody else's, of whatever family: it gets both.
        let open = is_headless(spec) && spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
        if is_unset(&spec["ipFamilyPolicy"]) {
            let dual = families.len() > 1 || (open && families.is_empty());
            spec["ipFamilyPolicy"] = if dual { "RequireDualStack" } else { "SingleStack" }.into();
        }
        if families.is_empty() {
            families.push(own.to_owned());
        }
        let policy = spec["ipFamilyPolicy"].as_str().unwrap_or_default();
        let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
        if policy == "RequireDualStack" && !open && !(self.offers("IPv4") && self.offers("IPv6")) {
            let why = "this cluster is not configured for dual-stack services";
            return Err(Cause::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], why));
        }
        if policy != "SingleStack" && families.len() == 1 && (open || self.offers(other)) {
            families.push(other.to_owned());
        }
        if policy == "SingleStack" {
            families.truncate(1);
        }
        for (at, name) in families.iter().enumerate() {
            if !open && !self.offers(name) {
                let why = "not configured on this cluster";
                return Err(Cause::invalid(format!("spec.ipFamilies[{at}]"), &name.as_str().into(), why));
            }
        }
        spec["ipFamilies"] = families.into();
        Ok(())
    }

    fn addresses(&mut self, spec: &mut Value) -> Result<(), Cause> {
        let families = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
        let mut given = spec["clusterIPs"].as_array().cloned().unwrap_or_default();
        if given.is_empty() && !is_unset(&spec["clusterIP"]) {
            given.push(spec["clusterIP"].clone());
        }
        // Down to a single stack the second address goes.
        given.truncate(families.len());
        let mut addresses = Vec::new();
        for (at, wanted) in families.iter().enumerate() {
            let address = match given.get(at) {
                Some(text) => {
                    let refuse = |why: String| Cause::invalid("spec.clusterIPs", &json!([text]), why);
                    let address: IpAddr = text
                        .as_str()
                        .and_then(|text| text.parse().ok())
                        .ok_or_else(|| refuse("must be a valid IP address".to_owned()))?;
                    if !self.networks.iter().any(|network| network.contains(&address)) {
                        return Err(refuse(format!(
                            "failed to allocate IP {address}: the provided network does not match the current range"
                        )));
                    }
                    if !self.allocator.is_free(address) {
                        return Err(refuse(format!("failed to allocate IP {address}: provided IP is already allocated")));
                    }
                    address
                }
                None => {
                    let mut networks = self.networks.iter().filter(|network| *wanted == family(network.addr()));
                    networks.find_map(|network| self.allocator.next_address(*network)).ok_or_else(|| {
                        Cause::invalid("spec.clusterIPs", &json!([]), "failed to allocate a serviceIP: range is full")
                    })?
                }
            };
            addresses.push(Value::from(address.to_string()));
        }
        spec["clusterIP"] = addresses.first().cloned().unwrap_or_default();
        spec["clusterIPs"] = addresses.into();
        Ok(())
    }

    fn node_ports(&mut self, spec: &mut Value) -> Result<(), Cause> {
        let allocates = wants_node_ports(spec);
        let mut used: Vec<u16> = Vec::new();
        for (at, port) in entries(spec, "/ports").enumerate() {
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let full = || {
                Cause::invalid(format!("spec.ports[{at}].nodePort"), &json!(0), "failed to allocate a nodePort: range is full")
            };
            let number = match port["nodePort"].as_u64() {
                Some(given) => {
                    let refuse = |why: &str| Cause::invalid(format!("spec.ports[{at}].nodePort"), &given.into(), why);
                    let number = u16::try_from(given).ok().filter(|number| Allocator::in_range(*number));
                    let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                    let number = number.ok_or_else(|| refuse(why))?;
                    if !self.allocator.is_free_port(&protocol, number) {
                        return Err(refuse("provided port is already allocated"));
                    }
                    number
                }
                None if allocates => self.allocator.next_port(&[&protocol], &used).ok_or_else(full)?,
                None => continue,
            };
            used.push(number);
            port["nodePort"] = number.into();
        }
        if wants_health_port(spec) && spec["healthCheckNodePort"].as_u64().unwrap_or(0) == 0 {
            let full = || Cause::invalid("spec.healthCheckNodePort", &json!(0), "failed to allocate a nodePort: range is full");
            spec["healthCheckNodePort"] = self.allocator.next_port(&["TCP"], &used).ok_or_else(full)?.into();
        }
        Ok(())
    }

    /// Takes what the Service now holds.
    pub(super) fn commit(&mut self, service: &Value) {
        self.allocator.take(Claim::of(service));
    }
}
