mod distributions;
mod documents;

use super::samples::{self, document};
use super::*;

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
fn a_section_of_another_mode_is_not_judged_as_in_kube_proxy() {
    let long = "{minSyncPeriod: 60s}";
    assert_eq!(errors(&format!("mode: iptables\nipvs: {long}\nnftables: {long}")), [""; 0]);
    assert_eq!(errors(&format!("mode: ipvs\nipvs: {long}")).len(), 1);
    assert_eq!(errors(&format!("mode: nftables\nnftables: {long}")).len(), 1);
    assert_eq!(errors(&format!("mode: nftables\niptables: {long}")).len(), 1, "iptables' is, always");
}

/// Nothing would match such a name, and kube-proxy says nothing.
#[test]
fn interfaces_have_names_that_the_kernel_gives() {
    for (mode, field) in [("BridgeInterface", "bridgeInterface"), ("InterfaceNamePrefix", "interfaceNamePrefix")] {
        let told = |name: &str| errors(&format!("detectLocalMode: {mode}\ndetectLocal: {{{field}: {name:?}}}"));
        for fine in ["cni0", "veth", "eth0.100", "abcdefghijklmno", "brücke"] {
            assert_eq!(told(fine), [""; 0], "{fine}");
        }
        for wrong in ["a/b c", "a/b", "a b", "a:1", " cni", "cni\t", "abcdefghijklmnop"] {
            let told = told(wrong);
            let expected = format!("KubeProxyConfiguration.detectLocal.{field}: Invalid value: {wrong:?}: must be ");
            assert!(told.len() == 1 && told[0].starts_with(&expected), "{told:?}");
        }
    }
}

#[test]
fn how_vips_are_announced_is_read_and_judged() {
    let judged = |fields: &str| {
        let text = format!("apiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration\nloadBalancer: {fields}");
        parse(&text).unwrap().judge(&overrides())
    };
    let given = judged("{interfacesExcluded: /e.yaml, periodicAnnouncement: 1m}").unwrap().options.announcing;
    let minute = Some(Duration::from_secs(60));
    assert_eq!(given, Announcing { interfaces_excluded: Some("/e.yaml".into()), period: minute, ..Announcing::default() });
    assert_eq!(judged("{}").unwrap().options.announcing, Announcing::default());
    let who =
        judged("{class: a/b, metallbNamespace: lb, membershipPort: 7947, daemonRestartGrace: 5s}").unwrap().options.announcing;
    assert_eq!((who.class.as_deref(), who.metallb_namespace.as_deref()), (Some("a/b"), Some("lb")));
    assert_eq!((who.port, who.daemon_restart_grace), (7947, Duration::from_secs(5)));
    for (field, value, why) in [
        ("periodicAnnouncement", "-1s", "must be greater than or equal to 0"),
        ("daemonRestartGrace", "-1s", "must be greater than or equal to 0"),
        ("metallbNamespace", "a/b", "must be the name of a namespace"),
    ] {
        let errors = judged(&format!("{{{field}: {value}}}")).unwrap_err();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, [format!("SheaveConfiguration.loadBalancer.{field}: Invalid value: \"{value}\": {why}")]);
    }
}

#[test]
fn servers_beside_manifests_are_told_to_be_of_no_use() {
    let text = |fields: &str| format!("apiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration\n{fields}");
    let warnings = |fields: &str, overrides: &Overrides| {
        let warnings = parse(&text(fields)).unwrap().judge(overrides).unwrap().warnings;
        warnings.into_iter().filter(|warning| warning.contains("manifests")).collect::<Vec<_>>()
    };
    let servers = "apiServers: ['https://a:1', 'https://b:1']\n";
    let not_used = "https://a:1, https://b:1 not used, objects come from the manifests at /m";
    let manifests = Overrides { source: Some(SourceChoice::Manifests("/m".into())), ..overrides() };
    let expected = format!("SheaveConfiguration.apiServers: {not_used}");
    assert_eq!(warnings(&format!("{servers}manifests: /m"), &overrides()), [&*expected]);
    assert_eq!(warnings(servers, &manifests), [&*expected]);
    let flag = Overrides { api_servers: vec!["https://a:1".to_owned(), "https://b:1".to_owned()], ..manifests };
    assert_eq!(warnings("", &flag), [format!("--api-server: {not_used}")]);
    let kube = Overrides { source: Some(SourceChoice::Kube), ..overrides() };
    assert_eq!(warnings(&format!("{servers}manifests: /m"), &kube), [""; 0]);
    assert_eq!(warnings(servers, &overrides()), [""; 0]);
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
            "clusterCIDR: \"10.0.0.0/8\" says what is local in detectLocalMode ClusterCIDR only, and what others have to accept at forward in every mode; it is NodeCIDR",
        ),
        (
            "clusterCIDR: 10.0.0.0/8\ndetectLocal: {bridgeInterface: cni0}",
            "detectLocal.bridgeInterface: \"cni0\" says what is local in detectLocalMode BridgeInterface only; it is ClusterCIDR",
        ),
    ] {
        let found = warnings(fields);
        let expected = format!("KubeProxyConfiguration.{expected}");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{fields}\nfound:    {found:?}\nexpected: {expected}");
    }
    assert!(with("").warnings[0].starts_with("KubeProxyConfiguration.clusterCIDR: empty"));
}

#[test]
fn an_address_of_a_family_that_the_cluster_has_not_is_told() {
    let told = |fields: &str| warnings(&format!("mode: nftables\n{fields}"));
    let of = |text: &str| format!("KubeProxyConfiguration.{text}");
    let follows = "by default it has the family of bindAddress, ";
    assert_eq!(
        told("clusterCIDR: 10.0.0.0/8\nbindAddress: '::'"),
        [of(&format!("metricsBindAddress: [::1]:10249 is IPv6, and clusterCIDR has IPv4 alone; {follows}::"))]
    );
    assert_eq!(
        told("clusterCIDR: 'fd00::/48'"),
        [of(&format!("metricsBindAddress: 127.0.0.1:10249 is IPv4, and clusterCIDR has IPv6 alone; {follows}0.0.0.0"))]
    );
    assert_eq!(
        told("clusterCIDR: 10.0.0.0/8\nbindAddress: 'fd00::7'\nmetricsBindAddress: 127.0.0.1"),
        [of("bindAddress: fd00::7 is IPv6, and clusterCIDR has IPv4 alone")]
    );
    assert_eq!(
        told("clusterCIDR: 10.0.0.0/8\nhealthzBindAddress: '[fd00::7]:1'"),
        [of("healthzBindAddress: [fd00::7]:1 is IPv6, and clusterCIDR has IPv4 alone")]
    );
    for fields in [
        "bindAddress: '::'",
        "clusterCIDR: '10.0.0.0/8,fd00::/48'\nbindAddress: '::'",
        "clusterCIDR: 10.0.0.0/8\nbindAddress: 10.0.0.1",
    ] {
        assert_eq!(told(fields), [""; 0], "{fields}");
    }
}

/// kube-proxy skips loopback addresses with a line in its log, and a family that had nothing else has no NodePorts any more.
#[test]
fn node_ports_at_loopback_addresses_are_told_where_nobody_serves_them() {
    let told = |fields: &str| {
        let about = |text: &String| text.contains("nodePortAddresses") && !text.contains("is meant");
        warnings(fields).into_iter().filter(about).collect::<Vec<_>>()
    };
    let nftables = "loopback, where NodePorts are not served in mode \"nftables\"";
    let no_v4 = "there is no other IPv4 CIDR, so no NodePort is served in IPv4";
    let no_v6 = "there is no other IPv6 CIDR, so no NodePort is served in IPv6";
    for (fields, expected) in [
        ("mode: nftables\nnodePortAddresses: [127.0.0.0/8, '::/0']", format!("127.0.0.0/8: {nftables}; {no_v4}")),
        ("mode: nftables\nnodePortAddresses: [127.0.0.0/8]", format!("127.0.0.0/8: {nftables}; {no_v4}")),
        ("mode: nftables\nnodePortAddresses: [0.0.0.0/0, '::1/128']", format!("::1/128: {nftables}; {no_v6}")),
        (
            "mode: nftables\nnodePortAddresses: [10.0.0.0/8, 127.0.0.1/32, 127.0.0.2/32, '::/0']",
            format!("127.0.0.1/32, 127.0.0.2/32: {nftables}; the other IPv4 CIDRs alone count"),
        ),
        (
            "mode: ipvs\nnodePortAddresses: [127.0.0.0/8, '::/0']",
            format!("127.0.0.0/8: loopback, where NodePorts are not served in mode \"ipvs\"; {no_v4}"),
        ),
        (
            "iptables: {localhostNodePorts: false}\nnodePortAddresses: [127.0.0.0/8, '::/0']",
            format!("127.0.0.0/8: loopback, and iptables.localhostNodePorts is false; {no_v4}"),
        ),
        (
            "nodePortAddresses: [127.0.0.2/32, '::/0']",
            format!("127.0.0.2/32: of loopback addresses 127.0.0.1 alone serves NodePorts; {no_v4}"),
        ),
        (
            "nodePortAddresses: [0.0.0.0/0, '::1/128']",
            format!("::1/128: loopback, where NodePorts are not served in IPv6; {no_v6}"),
        ),
    ] {
        assert_eq!(told(fields), [format!("KubeProxyConfiguration.nodePortAddresses: {expected}")], "{fields}");
    }
    for fields in [
        "nodePortAddresses: [127.0.0.0/8, '::/0']",
        "mode: nftables\nnodePortAddresses: [0.0.0.0/0, '::/0']",
        "mode: nftables\nnodePortAddresses: [10.0.0.0/8, 'fd00::/8']",
    ] {
        assert_eq!(told(fields), [""; 0], "{fields}");
    }
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

#[test]
fn a_warning_is_told_once_while_it_holds() {
    let (log, _until) = crate::captured_log::Log::capture();
    let mut said = std::collections::BTreeSet::new();
    let of = |fields: &str| with(&format!("mode: nftables\nclusterCIDR: 10.0.0.0/8\n{fields}"));
    let mut lines = |settings: &Settings| {
        settings.tell(&mut said);
        log.lines().len()
    };
    assert_eq!(lines(&of("portRange: 1-2")), 1);
    assert_eq!(lines(&of("portRange: 1-2\nconntrack: {min: 7}")), 1);
    assert_eq!(lines(&of("portRange: 1-2\nenableProfiling: true")), 2);
    assert_eq!(lines(&of("enableProfiling: true")), 2);
    assert_eq!(lines(&of("portRange: 1-2")), 3, "again, after it was gone");
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
