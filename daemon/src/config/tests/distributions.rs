//! Configurations as others write them.

use super::*;

/// What `kubeadm init` of 1.36 writes into the ConfigMap, with the addresses of the lab's pods.
const KUBEADM: &str = include_str!("../../../../tests/fixtures/kubeadm-config.conf");

#[test]
fn the_configmap_of_kubeadm_means_kube_proxys_defaults_and_no_warning() {
    let settings = judge(KUBEADM).unwrap();
    assert_eq!(settings.warnings, [""; 0]);
    assert_eq!(settings.remarks, ["mode \"\" is served by the nftables plane, with the iptables section of the configuration"]);
    let Options {
        node_name,
        node_name_origin,
        source,
        detect_local,
        cluster_cidrs,
        masquerade_all,
        node_ports,
        localhost_node_ports,
        node_ip,
        external_ips_denied,
        adopt,
        min_sync_period,
        kernel,
        servers,
        stale_after,
        controller: _,
        announces: _,
        announcing: _,
    } = settings.options;
    assert_eq!((&*node_name, node_name_origin), ("host-1", NodeNameOrigin::HostName));
    let SourceOptions::Kube(kube) = source else { panic!("{source:?}") };
    assert_eq!(kube.kubeconfig, Some("/var/lib/kube-proxy/kubeconfig.conf".into()));
    let cidrs = vec!["10.0.0.0/8".parse().unwrap(), "fd00:10::/32".parse().unwrap()];
    assert_eq!((&cluster_cidrs, detect_local), (&cidrs, DetectLocal::ClusterCidr(cidrs.clone())));
    assert!(!masquerade_all && !external_ips_denied && !adopt && localhost_node_ports);
    assert_eq!(node_ports, NodePortSelection::Cidrs(Vec::new()), "every local address, as in iptables mode");
    assert_eq!((node_ip, min_sync_period), (None, Duration::ZERO));
    assert_eq!(kernel.oom_score_adj, -999);
    let conntrack = ConntrackSettings {
        max_per_core: 32_768,
        min: 131_072,
        tcp_established: Duration::from_secs(86_400),
        tcp_close_wait: Duration::from_secs(3_600),
        ..ConntrackSettings::default()
    };
    assert_eq!(kernel.conntrack, conntrack);
    assert_eq!(servers.healthz, Some("0.0.0.0:10256".parse().unwrap()));
    assert_eq!(servers.metrics, Some("127.0.0.1:10249".parse().unwrap()));
    assert!(!servers.bind_address_hard_fail);
    assert_eq!(stale_after, Duration::from_secs(60), "twice syncPeriod");
}

/// Another line in the ConfigMap of kubeadm, as `kubeadm init --config` writes it.
fn kubeadm(changes: &[(&str, &str)]) -> Settings {
    let text = changes.iter().fold(KUBEADM.to_owned(), |text, (before, after)| {
        assert_eq!(text.matches(before).count(), 1, "{before}");
        text.replace(before, after)
    });
    judge(&text).unwrap_or_else(|errors| panic!("{changes:?}: {errors:?}"))
}

#[test]
fn the_configmap_of_kubeadm_in_its_variants_is_taken_as_it_is() {
    let (v4, v6): (IpNet, IpNet) = ("10.244.0.0/16".parse().unwrap(), "fd00:10:244::/56".parse().unwrap());
    for (cidrs, expected) in [("10.244.0.0/16", vec![v4]), ("10.244.0.0/16,fd00:10:244::/56", vec![v4, v6])] {
        let settings = kubeadm(&[("clusterCIDR: 10.0.0.0/8,fd00:10::/32", &format!("clusterCIDR: {cidrs}"))]);
        assert_eq!(settings.options.detect_local, DetectLocal::ClusterCidr(expected));
        assert_eq!(settings.warnings, [""; 0]);
    }
    let ipvs = kubeadm(&[("mode: \"\"", "mode: ipvs"), ("strictARP: false", "strictARP: true")]);
    assert!(!ipvs.options.localhost_node_ports);
    assert_eq!(ipvs.warnings.len(), 1, "{:?}", ipvs.warnings);
    assert!(ipvs.warnings[0].starts_with("KubeProxyConfiguration.ipvs.strictARP: true has no effect: no Service address is put"));
    let iptables = "iptables:\n  localhostNodePorts: null\n  masqueradeAll: ";
    let all = [("mode: \"\"", "mode: iptables"), (&*format!("{iptables}false"), &*format!("{iptables}true"))];
    let all = kubeadm(&all);
    assert!(all.options.masquerade_all && all.warnings.is_empty(), "{:?}", all.warnings);
    let some = kubeadm(&[("nodePortAddresses: null", "nodePortAddresses:\n- 192.168.0.0/16\n- fd00::/8")]);
    assert_eq!(
        some.options.node_ports,
        NodePortSelection::Cidrs(vec!["192.168.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()])
    );
    assert_eq!(some.warnings, [""; 0]);
    let windows = kubeadm(&[
        ("enableDSR: false", "enableDSR: true"),
        ("networkName: \"\"", "networkName: vxlan0"),
        ("showHiddenMetricsForVersion: \"\"\n", "showHiddenMetricsForVersion: \"\"\nwindowsRunAsService: true\n"),
    ]);
    assert_eq!(windows.warnings.len(), 3, "{:?}", windows.warnings);
    assert!(windows.warnings.iter().all(|warning| warning.ends_with("has no effect: of kube-proxy on Windows")));
}

/// The configuration of the k3s overlay, as it is committed.
#[test]
fn the_configuration_for_k3s_means_its_pods_and_its_api_server() {
    let map = include_str!("../../../../manifests/kustomize/overlays/k3s/configmap.yaml");
    let (_, indented) = map.split_once("config.yaml: |\n").unwrap();
    let text: String = indented.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let settings = judge(&text).unwrap();
    assert_eq!((settings.warnings, settings.remarks), (vec![], vec![]));
    assert_eq!(settings.options.detect_local, DetectLocal::ClusterCidr(vec!["10.42.0.0/16".parse().unwrap()]));
    let SourceOptions::Kube(kube) = settings.options.source else { panic!("no API server") };
    assert_eq!(kube.api_servers, ["https://127.0.0.1:6444"]);
}
