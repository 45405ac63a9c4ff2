use super::samples::{self, document};
use super::*;

/// What `kubeadm init` of 1.36 writes into the ConfigMap, with the addresses of the lab's pods.
const KUBEADM: &str = include_str!("../../../tests/fixtures/kubeadm-config.conf");

fn overrides() -> Overrides {
    Overrides { host_name: "Host-1".to_owned(), ..Overrides::default() }
}

fn judge(text: &str) -> Result<Settings, Vec<String>> {
    let told = |errors: &[FieldError]| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    let documents = parse(text).map_err(|error| vec![error.to_string()])?;
    documents.judge(&overrides()).map_err(|errors| told(&errors))
}

fn with(fields: &str) -> Settings {
    judge(&document(fields)).unwrap_or_else(|errors| panic!("{fields}: {errors:?}"))
}

fn errors(fields: &str) -> Vec<String> {
    judge(&document(fields)).err().unwrap_or_default()
}

/// Warnings but that of an empty clusterCIDR, which most examples here have.
fn warnings(fields: &str) -> Vec<String> {
    with(fields).warnings.into_iter().filter(|warning| !warning.contains("clusterCIDR: empty")).collect()
}

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
    } = settings.options;
    assert_eq!((&*node_name, node_name_origin), ("host-1", NodeNameOrigin::HostName));
    let SourceOptions::Kube(kube) = source else { panic!("{source:?}") };
    assert_eq!(kube.kubeconfig, Some("/var/lib/kube-proxy/kubeconfig.conf".into()));
    let cidrs = vec!["10.0.0.0/8".parse().unwrap(), "fd00:10::/32".parse().unwrap()];
    assert_eq!(detect_local, DetectLocal::ClusterCidr(cidrs));
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
    let map = include_str!("../../../manifests/kustomize/overlays/k3s/configmap.yaml");
    let (_, indented) = map.split_once("config.yaml: |\n").unwrap();
    let text: String = indented.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let settings = judge(&text).unwrap();
    assert_eq!((settings.warnings, settings.remarks), (vec![], vec![]));
    assert_eq!(settings.options.detect_local, DetectLocal::ClusterCidr(vec!["10.42.0.0/16".parse().unwrap()]));
    let SourceOptions::Kube(kube) = settings.options.source else { panic!("no API server") };
    assert_eq!(kube.api_servers, ["https://127.0.0.1:6444"]);
}

#[test]
fn the_catalogue_and_the_types_have_the_same_fields() {
    let known = |entries: &[catalogue::Entry]| entries.iter().map(|entry| entry.path.to_owned()).collect::<Vec<_>>();
    let typed = present::paths(catalogue::KUBE_PROXY, &KubeProxyConfiguration::defaults());
    assert_eq!(known(catalogue::KUBE_PROXY), typed);
    assert_eq!(known(catalogue::SHEAVE), present::paths(catalogue::SHEAVE, &SheaveConfiguration::default()));
}

/// docs/configuration.md has a row for every field, and says of it what the program says.
#[test]
fn the_documentation_says_what_the_catalogue_says() {
    let page = include_str!("../../../docs/configuration.md");
    for entry in catalogue::KUBE_PROXY.iter().chain(catalogue::SHEAVE) {
        let when = format!(" {}", entry.change.words());
        let row = format!("| `{}` | {} |{} | {} |", entry.path, entry.effect.word(), when.trim_end(), entry.means);
        assert!(page.contains(&row), "docs/configuration.md lacks this row:\n{row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, catalogue::KUBE_PROXY.len() + catalogue::SHEAVE.len(), "rows of fields that are no more");
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    let text = default_documents();
    let documents = parse(&text).unwrap();
    assert_eq!(documents.warnings, [""; 0]);
    assert_eq!(documents.kube_proxy.as_ref(), Some(&KubeProxyConfiguration::defaults()));
    assert_eq!(documents.sheave, Some(SheaveConfiguration::default()));
    assert_eq!(explained(&Configuration::of(&documents)), [""; 0]);
    assert!(text.lines().all(|line| line.len() <= 120), "a line is too long to be read");
}

#[test]
fn two_documents_in_any_order_and_empty_ones_between() {
    let ours = "apiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration\nmanifests: /m\n";
    for text in [format!("{}---\n{ours}", document("mode: ipvs")), format!("---\n{ours}---\n---\n{}", document("mode: ipvs"))] {
        let documents = parse(&text).unwrap();
        assert_eq!(documents.kube_proxy.as_ref().unwrap().mode, "ipvs");
        assert_eq!(documents.sheave.as_ref().unwrap().manifests, "/m");
        let settings = judge(&text).unwrap();
        assert_eq!(settings.options.source, SourceOptions::Manifests("/m".into()));
    }
    let alone = judge(ours).unwrap();
    assert_eq!(alone.remarks, ["no KubeProxyConfiguration: its defaults, and mode nftables, as without --config"]);
    let mut native = Configuration { kube_proxy: Configuration::native(), sheave: SheaveConfiguration::default() };
    native.kube_proxy.set_defaults();
    let manifests = Overrides { source: Some(SourceChoice::Manifests("/m".into())), ..overrides() };
    assert_eq!(alone.options, interpret(&native, &manifests).unwrap().options, "as without --config");
}

#[test]
fn documents_that_are_not_ours_are_refused() {
    let refused = |text: &str| judge(text).err().unwrap_or_default();
    assert!(refused("")[0].starts_with("document 1: Required value: "));
    assert!(refused("mode: nftables")[0].starts_with("document 1: Required value: apiVersion and kind"));
    assert!(refused("apiVersion: v1\nkind: Pod")[0].starts_with("document 1: Invalid value: \"v1 Pod\": "));
    assert_eq!(refused(&format!("{0}---\n{0}", document(""))), ["document 2: Duplicate value: \"KubeProxyConfiguration\""]);
    assert!(refused("just text")[0].starts_with("document 1: Required value"));
    assert!(refused("a: [")[0].starts_with("not YAML at line "), "{:?}", refused("a: ["));
}

/// Whatever is given as a file is told in words that name it or the place.
#[test]
fn what_is_no_configuration_is_said_to_be_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let told = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let text = match read(&path) {
            Err(error) => error.to_string(),
            Ok(documents) => match documents.judge(&overrides()) {
                Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                Ok(_) => "fine".to_owned(),
            },
        };
        text.replace(&*directory.path().to_string_lossy(), "")
    };
    let aliases = (1..9).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let below = format!("*a{},", level - 1).repeat(10);
        format!("{text}a{level}: &a{level} [{below}]\n")
    });
    let head = document("");
    let none = "document 1: Required value: there is none; kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration or config.sheave.dev/v1alpha1 SheaveConfiguration is wanted";
    for (bytes, expected) in [
        (&b""[..], none),
        (b"---\n# nothing\n---\n", none),
        (b"a: 1\nb: \xe9\n", "/file is not text in UTF-8: line 2 has other bytes"),
        (b"\xff\xfea", "/file is not text in UTF-8: line 1 has other bytes"),
        (&vec![b'#'; 10 << 20], "/file is larger than any configuration (4 MiB)"),
        (format!("{head}conntrack:\n\tmin: 5\n").as_bytes(), "not YAML at line 5, column 2: tabs disallowed"),
        (format!("{head}{}", "- a\n".repeat(300_000)).as_bytes(), "not YAML at line 4, column 3: "),
        (format!("{head}{aliases}").as_bytes(), "more values than any configuration has at line "),
        (
            b"apiVersion: v1\nkind: ConfigMap\n",
            "document 1: Invalid value: \"v1 ConfigMap\": the text of a configuration stands below its data",
        ),
        (
            head.replace("v1alpha1", "v1").as_bytes(),
            "document 1: Invalid value: \"kubeproxy.config.k8s.io/v1 KubeProxyConfiguration\": apiVersion and kind must be ",
        ),
        (
            b"apiVersion: 1\nkind: KubeProxyConfiguration\n",
            "document 1: Invalid value: \"KubeProxyConfiguration\": apiVersion and kind must be ",
        ),
        (head.replace('\n', "\r\n").as_bytes(), "fine"),
        (format!("\u{feff}{head}").as_bytes(), "fine"),
    ] {
        let told = told(bytes);
        assert!(told.starts_with(expected), "found:    {told}\nexpected: {expected}");
        assert!(told.matches(" at line ").count() < 2, "said once: {told}");
    }
    for (path, expected) in [(directory.path().join("none"), "No such file"), (directory.path().to_owned(), "Is a directory")] {
        let error = read(&path).unwrap_err();
        let told = crate::daemon::with_causes(&error);
        assert!(matches!(error, ConfigError::Read { .. }) && told.contains(expected), "{told}");
    }
}

#[test]
fn unknown_and_repeated_fields_are_warnings_by_path() {
    assert_eq!(
        warnings("conntrack: {mni: 1, min: 5, min: 7}\nclusterCidr: 10.0.0.0/8\nmode: nftables\nmode: nftables"),
        [
            "KubeProxyConfiguration.conntrack.min: said twice, the last one counts",
            "KubeProxyConfiguration.mode: said twice, the last one counts",
            "KubeProxyConfiguration.clusterCidr: no such field, ignored; did you mean clusterCIDR?",
            "KubeProxyConfiguration.conntrack.mni: no such field, ignored",
        ]
    );
    assert_eq!(with("conntrack: {min: 5, min: 7}").options.kernel.conntrack.min, 7);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = "conntrack: {min: -1, maxPerCore: -2, udpTimeout: -1s}
clusterCIDR: 10.0.0.0/8,11.0.0.0/8
bindAddress: here
healthzBindAddress: 10.0.0.1:99999
metricsBindAddress: nowhere
mode: userspace
nodePortAddresses: [10.0.0.0]
oomScoreAdj: 1001
detectLocalMode: BridgeInterface
iptables: {masqueradeBit: 32, syncPeriod: 1s, minSyncPeriod: 2s}
logging: {format: xml}";
    assert_eq!(
        errors(text),
        [
            "KubeProxyConfiguration.mode: Unsupported value: \"userspace\": supported values: \"iptables\", \"ipvs\", \"nftables\"",
            "KubeProxyConfiguration.logging.format: Unsupported value: \"xml\": supported values: \"json\", \"text\"",
            "KubeProxyConfiguration.iptables.masqueradeBit: Invalid value: 32: must be within the range [0, 31]",
            "KubeProxyConfiguration.iptables.syncPeriod: Invalid value: \"1s\": must be greater than or equal to KubeProxyConfiguration.iptables.minSyncPeriod",
            "KubeProxyConfiguration.clusterCIDR: Invalid value: \"10.0.0.0/8,11.0.0.0/8\": only one CIDR allowed or a valid DualStack CIDR (e.g. 10.100.0.0/16,fde4:8dba:82e1::/48)",
            "KubeProxyConfiguration.detectLocal.bridgeInterface: Required value: detectLocalMode BridgeInterface needs it",
            "KubeProxyConfiguration.nodePortAddresses[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)",
            "KubeProxyConfiguration.bindAddress: Invalid value: \"here\": not a valid textual representation of an IP address",
            "KubeProxyConfiguration.oomScoreAdj: Invalid value: 1001: must be within the range [-1000, 1000]",
            "KubeProxyConfiguration.conntrack.maxPerCore: Invalid value: -2: must be greater than or equal to 0",
            "KubeProxyConfiguration.conntrack.min: Invalid value: -1: must be greater than or equal to 0",
            "KubeProxyConfiguration.conntrack.udpTimeout: Invalid value: \"-1s\": must be greater than or equal to 0",
            "KubeProxyConfiguration.healthzBindAddress: Invalid value: \"10.0.0.1:99999\": must be a valid port, 0 to 65535",
            "KubeProxyConfiguration.metricsBindAddress: Invalid value: \"nowhere\": must be IP:port",
        ]
    );
}

#[test]
fn values_of_the_wrong_type_are_told_in_words_beside_all_other_mistakes() {
    let text = "conntrack: 5
iptables: {minSyncPeriod: 5, masqueradeAll: maybe, syncPeriod: soon}
nodePortAddresses: [1, 10.0.0.0, null, 10.0.0.0/8]
oomScoreAdj: 5000000000
hostnameOverride: no
featureGates: {A: 1, B: true}
detectLocalMode: BridgeInterface
detectLocal: {bridgeInterface: [cni0]}
logging: {vmodule: [{filePattern: a, verbosity: -1}], flushFrequency: true, options: []}
clientConnection: {qps: fast}
mode: userspace
bindAddress: here";
    assert_eq!(
        errors(text),
        [
            "clientConnection.qps: Invalid value: \"fast\": must be a number, found a string",
            "conntrack: Invalid value: 5: must be an object of maxPerCore, min, tcpBeLiberal, tcpCloseWaitTimeout, tcpEstablishedTimeout, udpStreamTimeout, udpTimeout, found a number",
            "detectLocal.bridgeInterface: Invalid value: [\"cni0\"]: must be a string, found a list",
            "featureGates.A: Invalid value: 1: must be true or false, found a number",
            "hostnameOverride: Invalid value: false: must be a string, found a boolean: put it in quotes",
            "iptables.masqueradeAll: Invalid value: \"maybe\": must be true or false, found a string",
            "iptables.minSyncPeriod: Invalid value: 5: must be a duration such as 30s, 1h30m or 500ms, found a number",
            "iptables.syncPeriod: Invalid value: \"soon\": must be a duration such as 30s, 1h30m or 500ms",
            "logging.flushFrequency: Invalid value: true: must be a duration such as 5s, or a number of nanoseconds, found a boolean",
            "logging.options: Invalid value: []: must be an object of json, text, found a list",
            "logging.vmodule: Invalid value: [{\"filePattern\":\"a\",\"verbosity\":-1}]: must be a list of objects with filePattern and verbosity, found a list",
            "nodePortAddresses[0]: Invalid value: 1: must be a string, found a number: put it in quotes",
            "nodePortAddresses[2]: Invalid value: null: must be a string, found nothing",
            "oomScoreAdj: Invalid value: 5000000000: must be a whole number from -2147483648 to 2147483647",
            "mode: Unsupported value: \"userspace\": supported values: \"iptables\", \"ipvs\", \"nftables\"",
            "nodePortAddresses[1]: Invalid value: \"10.0.0.0\": must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)",
            "bindAddress: Invalid value: \"here\": not a valid textual representation of an IP address",
        ]
        .map(|text| format!("KubeProxyConfiguration.{text}"))
    );
}

#[test]
fn a_value_without_end_is_shown_by_its_beginning() {
    let told = errors(&format!("mode: {0}\nbindAddress: {0}\nconntrack: {0}", "ä".repeat(5_000_000)));
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|error| error.chars().count() < 400 && error.contains("ää...")), "{told:?}");
}

/// Kubernetes reads YAML 1.1.
#[test]
fn old_words_for_booleans_are_booleans() {
    assert!(with("mode: nftables\nnftables: {masqueradeAll: yes}").options.masquerade_all);
    assert_eq!(errors("hostnameOverride: no").len(), 1, "and no strings");
}

#[test]
fn a_section_of_another_mode_is_not_judged_as_in_kube_proxy() {
    let long = "{minSyncPeriod: 60s}";
    assert_eq!(errors(&format!("mode: iptables\nipvs: {long}\nnftables: {long}")), [""; 0]);
    assert_eq!(errors(&format!("mode: ipvs\nipvs: {long}")).len(), 1);
    assert_eq!(errors(&format!("mode: nftables\nnftables: {long}")).len(), 1);
    assert_eq!(errors(&format!("mode: nftables\niptables: {long}")).len(), 1, "iptables' is, always");
}

#[test]
fn an_empty_list_of_node_port_addresses_means_what_it_meant_in_the_mode() {
    let all = NodePortSelection::Cidrs(Vec::new());
    for (mode, expected) in [("\"\"", &all), ("iptables", &all), ("ipvs", &all), ("nftables", &NodePortSelection::Primary)] {
        assert_eq!(&with(&format!("mode: {mode}")).options.node_ports, expected, "{mode}");
    }
    assert_eq!(with("mode: iptables\nnodePortAddresses: [primary]").options.node_ports, NodePortSelection::Primary);
    assert_eq!(errors("nodePortAddresses: [primary, 10.0.0.0/8]").len(), 1);
}

#[test]
fn localhost_serves_node_ports_where_iptables_mode_did() {
    let serves = |fields: &str| with(fields).options.localhost_node_ports;
    assert!(serves("mode: iptables"));
    assert!(serves("nodePortAddresses: [127.0.0.0/8]"));
    assert!(serves("nodePortAddresses: [0.0.0.0/0]"));
    assert!(serves("nodePortAddresses: ['fd00::/8']"), "no IPv4 CIDR: every IPv4 address");
    for fields in [
        "mode: ipvs",
        "mode: nftables",
        "iptables: {localhostNodePorts: false}",
        "nodePortAddresses: [192.168.0.0/16]",
        "nodePortAddresses: [primary]",
    ] {
        assert!(!serves(fields), "{fields}");
    }
}

#[test]
fn masquerading_and_pace_come_from_the_section_of_the_mode() {
    for (mode, section) in [("iptables", "iptables"), ("ipvs", "iptables"), ("nftables", "nftables")] {
        assert!(with(&format!("mode: {mode}\n{section}: {{masqueradeAll: true}}")).options.masquerade_all, "{mode}");
    }
    assert!(!with("mode: nftables\niptables: {masqueradeAll: true}").options.masquerade_all);
    for (mode, period, expected) in
        [("iptables", "0s", 0), ("iptables", "1s", 0), ("iptables", "10s", 10), ("ipvs", "5s", 5), ("nftables", "2s", 2)]
    {
        let settings = with(&format!("mode: {mode}\n{mode}: {{minSyncPeriod: {period}}}"));
        assert_eq!(settings.options.min_sync_period, Duration::from_secs(expected), "{mode} {period}");
    }
}

#[test]
fn kube_proxys_silent_traps_are_warnings() {
    for (fields, expected) in [
        (
            "mode: nftables\niptables: {masqueradeAll: true}",
            "iptables.masqueradeAll: true is not read in mode \"nftables\"; nftables.masqueradeAll is",
        ),
        ("nftables: {masqueradeAll: true}", "nftables.masqueradeAll: true is not read in mode \"\"; iptables.masqueradeAll is"),
        (
            "mode: ipvs\nnftables: {masqueradeAll: true}",
            "nftables.masqueradeAll: true is not read in mode \"ipvs\"; iptables.masqueradeAll is",
        ),
        (
            "mode: ipvs\niptables: {minSyncPeriod: 3s}",
            "iptables.minSyncPeriod: \"3s\" is not read in mode \"ipvs\"; ipvs.minSyncPeriod is",
        ),
        ("mode: ipvs\nipvs: {scheduler: lc}", "ipvs.scheduler: \"lc\" has no effect: there is no IPVS plane"),
        ("enableProfiling: true", "enableProfiling: true has no effect: there is no Go runtime"),
        ("portRange: 1-2", "portRange: \"1-2\" has no effect: kube-proxy ignores it as well"),
        ("clientConnection: {qps: 50}", "clientConnection.qps: 50.0 has no effect"),
        ("featureGates: {WinDSR: true}", "featureGates.WinDSR: no such gate here"),
        ("nodePortAddresses: [10.0.0.0/8]", "nodePortAddresses: no IPv6 CIDR, so NodePorts are served at every IPv6 address"),
        (
            "detectLocalMode: NodeCIDR\nclusterCIDR: 10.0.0.0/8",
            "clusterCIDR: \"10.0.0.0/8\" is read in detectLocalMode ClusterCIDR only",
        ),
    ] {
        let found = warnings(fields);
        let expected = format!("KubeProxyConfiguration.{expected}");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{fields}\nfound:    {found:?}\nexpected: {expected}");
    }
    assert!(with("").warnings[0].starts_with("KubeProxyConfiguration.clusterCIDR: empty"));
}

/// Every field that claims an effect has to be read somewhere: with another value, options or the log are other ones.
#[test]
fn every_field_that_has_an_effect_has_one() {
    for (entry, before, after) in samples::changes() {
        let outcome = |text: &str| judge(text).map(|settings| (settings.options, settings.log));
        assert_ne!(outcome(&before), outcome(&after), "{}", entry.path);
    }
}

#[test]
fn our_own_document_is_judged_as_well() {
    let ours = |fields: &str| judge(&format!("apiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration\n{fields}"));
    assert_eq!(
        ours("plane: ipvs\napiServers: ['https://10.0.0.1:6443', 10.0.0.2]").err().unwrap_or_default(),
        [
            "SheaveConfiguration.apiServers[1]: Invalid value: \"10.0.0.2\": must be a URL such as https://10.0.0.1:6443",
            "SheaveConfiguration.plane: Unsupported value: \"ipvs\": supported values: \"auto\", \"nftables\"",
        ]
    );
}

#[test]
fn the_family_of_the_bind_address_is_that_of_the_servers() {
    let settings = with("bindAddress: 'fd00::7'");
    assert_eq!(settings.options.node_ip, Some("fd00::7".parse().unwrap()));
    assert_eq!(settings.options.servers.healthz, Some("[::]:10256".parse().unwrap()));
    assert_eq!(settings.options.servers.metrics, Some("[::1]:10249".parse().unwrap()));
    let settings = with("bindAddress: '::'\nhealthzBindAddress: 10.0.0.7\nmetricsBindAddress: '::1'");
    assert_eq!(settings.options.node_ip, None);
    assert_eq!(settings.options.servers.healthz, Some("10.0.0.7:10256".parse().unwrap()));
    assert_eq!(settings.options.servers.metrics, Some("[::1]:10249".parse().unwrap()));
}

#[test]
fn two_servers_do_not_share_an_address() {
    let told =
        |healthz: &str, metrics: &str| errors(&format!("healthzBindAddress: '{healthz}'\nmetricsBindAddress: '{metrics}'"));
    for (healthz, metrics) in [
        ("127.0.0.1:7", "127.0.0.1:7"),
        ("0.0.0.0:7", "127.0.0.1:7"),
        ("127.0.0.1:7", "0.0.0.0:7"),
        ("[::]:7", "127.0.0.1:7"),
        ("0.0.0.0:7", "[::]:7"),
        ("", "0.0.0.0:10256"),
    ] {
        let told = told(healthz, metrics);
        assert_eq!(told.len(), 1, "{healthz} {metrics}: {told:?}");
        let expected = format!(
            "KubeProxyConfiguration.metricsBindAddress: Invalid value: \"{metrics}\": must not be that of KubeProxyConfiguration.healthzBindAddress, "
        );
        assert!(told[0].starts_with(&expected), "{told:?}");
    }
    for (healthz, metrics) in [
        ("127.0.0.1:7", "127.0.0.1:8"),
        ("127.0.0.1:7", "127.0.0.2:7"),
        ("0.0.0.0:7", "[::1]:7"),
        ("[::1]:7", "127.0.0.1:7"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ] {
        assert_eq!(told(healthz, metrics), [""; 0], "{healthz} {metrics}");
    }
}

#[test]
fn the_command_line_goes_before_the_file() {
    let text = format!(
        "{}---\napiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration\napiServers: ['https://a:1']\nplane: auto\n",
        document("hostnameOverride: ' File '")
    );
    let configuration = Configuration::of(&parse(&text).unwrap());
    let plain = interpret(&configuration, &overrides()).unwrap().options;
    assert_eq!(&*plain.node_name, "file");
    let flags = Overrides {
        node_name: Some("Flag".to_owned()),
        plane: Some("nftables".to_owned()),
        api_servers: vec!["https://b:1".to_owned()],
        ..overrides()
    };
    let options = interpret(&configuration, &flags).unwrap().options;
    assert_eq!(&*options.node_name, "flag");
    assert_eq!((plain.node_name_origin, options.node_name_origin), (NodeNameOrigin::File, NodeNameOrigin::CommandLine));
    let servers = |options: &Options| match &options.source {
        SourceOptions::Kube(kube) => kube.api_servers.clone(),
        SourceOptions::Manifests(_) => Vec::new(),
    };
    assert_eq!((servers(&plain), servers(&options)), (vec!["https://a:1".to_owned()], vec!["https://b:1".to_owned()]));
    let manifests = Overrides { source: Some(SourceChoice::Manifests("/m".into())), ..overrides() };
    assert_eq!(interpret(&configuration, &manifests).unwrap().options.source, SourceOptions::Manifests("/m".into()));
}

/// `/configz` is what is in force: defaults filled in, and the command line over the file.
#[test]
fn what_is_in_force_is_told_with_defaults_and_flags() {
    let text = format!(
        "{}---\napiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration\nmanifests: /file\n",
        document("hostnameOverride: File\nlogging: {verbosity: 2}")
    );
    let documents = parse(&text).unwrap();
    let flags = Overrides {
        node_name: Some(" Flag ".to_owned()),
        plane: Some("auto".to_owned()),
        source: Some(SourceChoice::Kube),
        api_servers: vec!["https://b:1".to_owned()],
        verbosity: Some(4),
        log_format: Some(LogFormat::Json),
        ..overrides()
    };
    let settings = documents.judge(&flags).unwrap();
    assert_eq!(settings.log, LogDefaults { format: LogFormat::Json, verbosity: 4 });
    let theirs = &settings.configz["kubeproxy.config.k8s.io"];
    let ours = &settings.configz["config.sheave.dev"];
    assert_eq!(theirs["hostnameOverride"], "flag");
    assert_eq!(theirs["logging"]["verbosity"], 4);
    assert_eq!(theirs["logging"]["format"], "json");
    assert_eq!(theirs["oomScoreAdj"], -999);
    assert_eq!(ours["plane"], "auto");
    assert_eq!(ours["manifests"], "");
    assert_eq!(ours["apiServers"], serde_json::json!(["https://b:1"]));
    let plain = parse(&document("")).unwrap().judge(&overrides()).unwrap();
    assert_eq!(plain.configz["kubeproxy.config.k8s.io"]["hostnameOverride"], "host-1", "the name in force");
    let manifests = Overrides { source: Some(SourceChoice::Manifests("/flag".into())), ..overrides() };
    assert_eq!(documents.judge(&manifests).unwrap().configz["config.sheave.dev"]["manifests"], "/flag");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        _ = judge(&text);
        _ = judge(&document(&text));
    }

    #[test]
    fn no_value_panics(place in 0..catalogue::KUBE_PROXY.len(), value in "[-0-9a-zA-Z\\[\\]{}:,./ ]{0,20}") {
        let field = samples::field(catalogue::KUBE_PROXY[place].path, &value);
        let told = judge(&document(&field)).err().unwrap_or_default();
        proptest::prop_assert!(!told.iter().any(|error| error.starts_with("KubeProxyConfiguration: ")), "serde's words: {:?}", told);
    }
}
