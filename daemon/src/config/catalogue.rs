//! What every field means to this daemon. One table behind `sheave config default`, `sheave config check`, the warnings of
//! `sheave run` and docs/configuration.md; a test holds it against the types, so that neither can gain a field alone.

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its path below the document's kind: `conntrack.min`.
    pub(crate) path: &'static str,
    pub(crate) effect: Effect,
    /// What it means; why nothing, where it has no effect.
    pub(crate) means: &'static str,
}

/// How far a field is honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// As in kube-proxy.
    Same,
    /// Otherwise than in kube-proxy, or in part.
    Differs,
    /// Not at all: a value that is not the default is worth a warning.
    None,
}

impl Effect {
    /// In one word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Same => "honoured",
            Self::Differs => "differs",
            Self::None => "no effect",
        }
    }
}

/// The entry of a path, if there is such a field.
pub(crate) fn find(catalogue: &'static [Entry], path: &str) -> Option<&'static Entry> {
    catalogue.iter().find(|entry| entry.path == path)
}

const fn same(path: &'static str, means: &'static str) -> Entry {
    Entry { path, effect: Effect::Same, means }
}

const fn differs(path: &'static str, means: &'static str) -> Entry {
    Entry { path, effect: Effect::Differs, means }
}

const fn none(path: &'static str, means: &'static str) -> Entry {
    Entry { path, effect: Effect::None, means }
}

const WINDOWS: &str = "of kube-proxy on Windows";
const NO_MARKS: &str = "packets are masqueraded by what they were addressed to, no mark is used";
const NO_PERIOD: &str =
    "damage is repaired when it is done, and a failed commit is tried again after half a second, then ever later up to 30 s";
const NO_IPVS: &str = "there is no IPVS plane: the nftables plane serves mode ipvs, which has no virtual servers";

/// Fields of KubeProxyConfiguration.
pub(crate) const KUBE_PROXY: &[Entry] = &[
    same(
        "bindAddress",
        "binds nothing: a specific address takes the place of the Node's IP of its family; its family is that of the default healthz and metrics addresses",
    ),
    same("bindAddressHardFail", "whether a healthz or metrics port that is taken ends the process; otherwise it is tried again"),
    none("clientConnection.acceptContentTypes", "JSON is spoken with the API server"),
    none("clientConnection.burst", "a node has five watches, and its Events have a limit of their own"),
    none("clientConnection.contentType", "JSON is spoken with the API server"),
    same("clientConnection.kubeconfig", "server and credentials; empty: those of the pod"),
    none("clientConnection.qps", "a node has five watches, and its Events have a limit of their own"),
    same("clusterCIDR", "the pods' addresses, for detectLocalMode ClusterCIDR: one CIDR, or one of each family"),
    none("configSyncPeriod", "an object is applied when it changes; nothing is synced again by the clock"),
    same(
        "conntrack.maxPerCore",
        "net.netfilter.nf_conntrack_max for each CPU, 1048576 in all at most; 0 leaves it alone. Only where the kernel lets this network namespace write it",
    ),
    same(
        "conntrack.min",
        "the least net.netfilter.nf_conntrack_max; not looked at where maxPerCore x CPUs is above 1048576, or maxPerCore is 0",
    ),
    same("conntrack.tcpBeLiberal", "sets net.netfilter.nf_conntrack_tcp_be_liberal; false leaves it alone"),
    same("conntrack.tcpCloseWaitTimeout", "net.netfilter.nf_conntrack_tcp_timeout_close_wait; 0s leaves it alone"),
    same("conntrack.tcpEstablishedTimeout", "net.netfilter.nf_conntrack_tcp_timeout_established; 0s leaves it alone"),
    same("conntrack.udpStreamTimeout", "net.netfilter.nf_conntrack_udp_timeout_stream; 0s leaves it alone"),
    same("conntrack.udpTimeout", "net.netfilter.nf_conntrack_udp_timeout; 0s leaves it alone"),
    same("detectLocal.bridgeInterface", "the pods' bridge, for detectLocalMode BridgeInterface"),
    same(
        "detectLocal.interfaceNamePrefix",
        "how the names of the pods' interfaces begin, for detectLocalMode InterfaceNamePrefix",
    ),
    differs(
        "detectLocalMode",
        "how traffic from pods is told from any other: ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix. All CIDRs of a family count, and podCIDRs that change are followed",
    ),
    none("enableProfiling", "there is no Go runtime to be profiled"),
    differs("featureGates", "AllowServiceExternalIPs: false leaves externalIPs unserved; other gates have no effect"),
    same("healthzBindAddress", "where /healthz and /livez are served"),
    same("hostnameOverride", "the name of this node's Node; empty: the host name. --hostname-override goes before"),
    differs(
        "iptables.localhostNodePorts",
        "in mode iptables: NodePorts are served at 127.0.0.1 too, to the node itself; sets net.ipv4.conf.all.route_localnet, and drops what comes from elsewhere to 127.0.0.0/8",
    ),
    same("iptables.masqueradeAll", "in modes iptables and ipvs: masquerade all traffic to ClusterIPs"),
    none("iptables.masqueradeBit", NO_MARKS),
    differs(
        "iptables.minSyncPeriod",
        "in mode iptables: the least time between two commits. 0s and 1s, which kube-proxy cannot tell apart, mean that a change is committed at once",
    ),
    none("iptables.syncPeriod", NO_PERIOD),
    none("ipvs.excludeCIDRs", NO_IPVS),
    differs(
        "ipvs.minSyncPeriod",
        "in mode ipvs: the least time between two commits. 0s and 1s mean that a change is committed at once",
    ),
    none("ipvs.scheduler", NO_IPVS),
    none("ipvs.strictARP", "no Service address is put on an interface, so the node answers ARP for none"),
    none("ipvs.syncPeriod", NO_PERIOD),
    none("ipvs.tcpFinTimeout", NO_IPVS),
    none("ipvs.tcpTimeout", NO_IPVS),
    none("ipvs.udpTimeout", NO_IPVS),
    none("logging.flushFrequency", "every line is written at once"),
    same("logging.format", "text or json; --log-format goes before"),
    none("logging.options.json.infoBufferSize", "every line is written at once"),
    none("logging.options.json.splitStream", "all lines go to standard error"),
    none("logging.options.text.infoBufferSize", "every line is written at once"),
    none("logging.options.text.splitStream", "all lines go to standard error"),
    differs("logging.verbosity", "0 to 3: info; 4 and 5: debug; more: trace. -v and --log go before"),
    none("logging.vmodule", "it names Go files; --log takes directives such as info,sheave::source=debug"),
    same("metricsBindAddress", "where /metrics is served"),
    differs(
        "mode",
        "empty, iptables and ipvs are served by the nftables plane as well; they decide which section is read, and where NodePorts are served if nodePortAddresses is empty",
    ),
    same("nftables.masqueradeAll", "in mode nftables: masquerade all traffic to ClusterIPs"),
    none("nftables.masqueradeBit", NO_MARKS),
    differs(
        "nftables.minSyncPeriod",
        "in mode nftables: the least time between two commits. 0s and 1s, which kube-proxy cannot tell apart, mean that a change is committed at once",
    ),
    none("nftables.syncPeriod", NO_PERIOD),
    same(
        "nodePortAddresses",
        "where NodePorts are served: CIDRs, or the one word primary. Empty: every local address in modes iptables and ipvs, primary in mode nftables",
    ),
    same("oomScoreAdj", "how late the kernel kills this process when memory runs out, -1000 to 1000"),
    none("portRange", "kube-proxy ignores it as well"),
    none("showHiddenMetricsForVersion", "no metric is hidden"),
    none("windowsRunAsService", WINDOWS),
    none("winkernel.enableDSR", WINDOWS),
    none("winkernel.forwardHealthCheckVip", WINDOWS),
    none("winkernel.networkName", WINDOWS),
    none("winkernel.rootHnsEndpointName", WINDOWS),
    none("winkernel.sourceVip", WINDOWS),
];

/// Fields of SheaveConfiguration.
pub(crate) const SHEAVE: &[Entry] = &[
    same(
        "apiServers",
        "URLs of API servers, tried in turn, in place of the one of the kubeconfig or of the pod; --api-server goes before",
    ),
    same(
        "manifests",
        "serve a directory or file of ordinary YAML, watched, instead of an API server's objects; --source goes before",
    ),
    same("plane", "what carries the traffic: auto or nftables; empty: what mode says; --plane goes before"),
];
