//! From text to documents, and what is wrong with either.

use super::*;

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
        (
            format!("{head}conntrack:\n\tmin: 5\n").as_bytes(),
            "not YAML at line 5, column 1: a tab cannot indent YAML, use spaces",
        ),
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

/// In words for whoever wrote it: none of the parser's grammar, none of Rust's types.
#[test]
fn what_is_no_yaml_is_told_with_its_place_and_a_plain_reason() {
    let tab = "a tab cannot indent YAML, use spaces";
    for (text, place, expected) in [
        ("\t:", (1, 1), tab),
        ("a:\n\tb: 1\n", (2, 1), tab),
        ("a:\n  b: 1\n\tc: 2\n", (3, 1), tab),
        ("a:\n  - b\n\n \t- c\n", (4, 2), tab),
        ("a: \"x\n\ty\"\n", (2, 1), tab),
        ("a: [\n\tb\n", (2, 1), tab),
        ("a: |\n\tx\n", (2, 1), tab),
        (":", (1, 1), "no name of a field before the ':'"),
        ("a: 1\n: 2", (2, 1), "no name of a field before the ':'"),
        ("[a]: 1", (1, 1), "the name of a field must be a word"),
        ("a: b: c\n", (1, 5), "there is a second ': ' where one value ends, or the indentation is wrong"),
        ("a:\tb: c\n", (1, 5), "there is a second ': ' where one value ends, or the indentation is wrong"),
        ("  a: 1\n b: 2\n", (2, 2), "the indentation does not fit that of the lines before"),
        ("a: @x\n", (1, 4), "no value begins with this character: put it in quotes"),
        ("a: 'x", (1, 4), "unclosed quote"),
        ("a: .nan", (1, 4), "not a finite number"),
    ] {
        let told = parse(text).unwrap_err().to_string();
        let expected = format!("not YAML at line {}, column {}: {expected}", place.0, place.1);
        assert!(told.starts_with(&expected), "{text:?}\nfound:    {told}\nexpected: {expected}");
    }
}

#[test]
fn what_a_file_says_of_the_log_is_known_though_it_cannot_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let told = |text: &str| {
        std::fs::write(&path, text).unwrap();
        log_defaults(&path).map(|log| (log.format, log.verbosity))
    };
    let json = "logging: {format: json, verbosity: 4}\n";
    assert_eq!(told(&document(&format!("oomScoreAdj: x\nmode: none\n{json}"))), Some((LogFormat::Json, 4)));
    assert_eq!(told(&format!("apiVersion: v1\nkind: Pod\n---\n{}", document(json))), Some((LogFormat::Json, 4)));
    assert_eq!(told(&document("logging: {format: xml}")), None);
    assert_eq!(told(&document(&format!("{json}a: ["))), None);
    assert_eq!(log_defaults(&directory.path().join("none")), None);
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

/// As sigs.k8s.io/yaml reads them for kube-proxy: a leading zero means octal where the digits allow it, and what has no fraction is whole.
#[test]
fn whole_numbers_are_those_of_kube_proxy_however_they_are_written() {
    for (written, expected) in
        [("010", 8), ("-010", -8), ("08", 8), ("1e2", 100), ("-1.0e+2", -100), ("7.0", 7), ("0x10", 16), ("0", 0), ("-0.0", 0)]
    {
        assert_eq!(with(&format!("oomScoreAdj: {written}")).options.kernel.oom_score_adj, expected, "{written}");
    }
    assert_eq!(warnings("logging: {flushFrequency: 5e9}").len(), 1, "5 s in nanoseconds: taken, and without effect");
    for (written, shown) in [("1.5", "1.5"), ("5e9", "5000000000"), ("1e30", "1e+30"), ("0x1p", "\"0x1p\"")] {
        let told = errors(&format!("oomScoreAdj: {written}"));
        let expected = format!("KubeProxyConfiguration.oomScoreAdj: Invalid value: {shown}: must be a whole number from ");
        assert!(told.len() == 1 && told[0].starts_with(&expected), "{told:?}");
    }
}
