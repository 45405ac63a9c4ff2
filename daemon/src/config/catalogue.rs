//! What every field means to this daemon. One table behind `sheave config default`, `sheave config check`, the warnings of
//! `sheave run` and docs/configuration.md; a test holds it against the types, so that neither can gain a field alone.

use super::takes::Takes::{self, Duration, DurationOrNanoseconds, Flag, Gates, Modules, Number, Quantity, Text, Texts, Whole};

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its path below the document's kind: `conntrack.min`.
    pub(crate) path: &'static str,
    /// What its value has to be.
    pub(crate) takes: Takes,
    pub(crate) effect: Effect,
    pub(crate) change: Change,
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

/// What becomes of another value in a file that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It has no effect, and so has the change.
    None,
    /// Taken over while everything runs.
    Live,
    /// The daemon's inside is built anew with it, and the log says so.
    Restart,
    /// It waits for the next start of the process, and the log says so.
    NextStart,
}

impl Change {
    /// In a few words, for a table.
    #[cfg(test)]
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Live => "live",
            Self::Restart => "restart",
            Self::NextStart => "next start",
        }
    }

    /// What to know beside a field, if anything.
    pub(crate) fn remark(self) -> &'static str {
        match self {
            Self::None | Self::Live => "",
            Self::Restart => ". A change begins anew inside of the process",
            Self::NextStart => ". A change waits for the next start of the process",
        }
    }
}

impl Entry {
    const fn restarts(self) -> Self {
        Self { change: Change::Restart, ..self }
    }

    const fn waits(self) -> Self {
        Self { change: Change::NextStart, ..self }
    }
}

/// The entry of a path, if there is such a field.
pub(crate) fn find(catalogue: &'static [Entry], path: &str) -> Option<&'static Entry> {
    catalogue.iter().find(|entry| entry.path == path)
}

const fn same(path: &'static str, takes: Takes, means: &'static str) -> Entry {
    Entry { path, takes, effect: Effect::Same, change: Change::Live, means }
}

const fn differs(path: &'static str, takes: Takes, means: &'static str) -> Entry {
    Entry { path, takes, effect: Effect::Differs, change: Change::Live, means }
}

const fn none(path: &'static str, takes: Takes, means: &'static str) -> Entry {
    Entry { path, takes, effect: Effect::None, change: Change::None, means }
}

const INT32: Takes = Whole(-2_147_483_648, 2_147_483_647);
const UINT32: Takes = Whole(0, 4_294_967_295);
const WINDOWS: &str = "of kube-proxy on Windows";
const NO_MARKS: &str = "packets are masqueraded by what they were addressed to, no mark is used";
const PERIOD_IPTABLES: &str = "in mode iptables: a change that waits for the kernel for twice as long turns /healthz and /livez to 503. Nothing is synced by it: damage is repaired when it is done, and a failed commit is tried again after half a second, then ever later up to 30 s";
const PERIOD_IPVS: &str = "in mode ipvs: as in mode iptables";
const PERIOD_NFTABLES: &str = "in mode nftables: as in mode iptables";
const NO_IPVS: &str = "there is no IPVS plane: the nftables plane serves mode ipvs, which has no virtual servers";

/// Fields of KubeProxyConfiguration.
pub(crate) const KUBE_PROXY: &[Entry] = &[
    same(
        "bindAddress",
        Text,
        "binds nothing: a specific address takes the place of the Node's IP of its family; its family is that of the default healthz and metrics addresses",
    ),
    same(
        "bindAddressHardFail",
        Flag,
        "whether a healthz or metrics port that is taken ends the process; otherwise it is tried again",
    )
    .restarts(),
    none("clientConnection.acceptContentTypes", Text, "JSON is spoken with the API server"),
    none("clientConnection.burst", INT32, "a node has five watches, and its Events have a limit of their own"),
    none("clientConnection.contentType", Text, "JSON is spoken with the API server"),
    same("clientConnection.kubeconfig", Text, "server and credentials; empty: those of the pod").restarts(),
    none("clientConnection.qps", Number, "a node has five watches, and its Events have a limit of their own"),
    same(
        "clusterCIDR",
        Text,
        "the pods' addresses: one CIDR, or one of each family. What is local in detectLocalMode ClusterCIDR; in every mode what others have to accept at forward",
    ),
    none("configSyncPeriod", Duration, "an object is applied when it changes; nothing is synced again by the clock"),
    same(
        "conntrack.maxPerCore",
        INT32,
        "net.netfilter.nf_conntrack_max for each CPU, 1048576 in all at most; 0 leaves it alone. Only where the kernel lets this network namespace write it",
    ),
    same(
        "conntrack.min",
        INT32,
        "the least net.netfilter.nf_conntrack_max; not looked at where maxPerCore x CPUs is above 1048576, or maxPerCore is 0",
    ),
    same("conntrack.tcpBeLiberal", Flag, "sets net.netfilter.nf_conntrack_tcp_be_liberal; false leaves it alone"),
    same("conntrack.tcpCloseWaitTimeout", Duration, "net.netfilter.nf_conntrack_tcp_timeout_close_wait; 0s leaves it alone"),
    same("conntrack.tcpEstablishedTimeout", Duration, "net.netfilter.nf_conntrack_tcp_timeout_established; 0s leaves it alone"),
    same("conntrack.udpStreamTimeout", Duration, "net.netfilter.nf_conntrack_udp_timeout_stream; 0s leaves it alone"),
    same("conntrack.udpTimeout", Duration, "net.netfilter.nf_conntrack_udp_timeout; 0s leaves it alone"),
    same("detectLocal.bridgeInterface", Text, "the pods' bridge, for detectLocalMode BridgeInterface"),
    same(
        "detectLocal.interfaceNamePrefix",
        Text,
        "how the names of the pods' interfaces begin, for detectLocalMode InterfaceNamePrefix",
    ),
    differs(
        "detectLocalMode",
        Text,
        "how traffic from pods is told from any other: ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix. All CIDRs of a family count, and podCIDRs that change are followed",
    ),
    none("enableProfiling", Flag, "there is no Go runtime to be profiled"),
    differs("featureGates", Gates, "AllowServiceExternalIPs: false leaves externalIPs unserved; other gates have no effect"),
    same("healthzBindAddress", Text, "where /healthz and /livez are served").restarts(),
    same("hostnameOverride", Text, "the name of this node's Node; empty: the host name. --hostname-override goes before")
        .restarts(),
    differs(
        "iptables.localhostNodePorts",
        Flag,
        "in mode iptables: NodePorts are served at 127.0.0.1 too, to the node itself; sets net.ipv4.conf.all.route_localnet, and drops what comes from elsewhere to 127.0.0.0/8",
    ),
    same("iptables.masqueradeAll", Flag, "in modes iptables and ipvs: masquerade all traffic to ClusterIPs"),
    none("iptables.masqueradeBit", INT32, NO_MARKS),
    differs(
        "iptables.minSyncPeriod",
        Duration,
        "in mode iptables: the least time between two commits. 0s and 1s, which kube-proxy cannot tell apart, mean that a change is committed at once",
    ),
    differs("iptables.syncPeriod", Duration, PERIOD_IPTABLES),
    none("ipvs.excludeCIDRs", Texts, NO_IPVS),
    differs(
        "ipvs.minSyncPeriod",
        Duration,
        "in mode ipvs: the least time between two commits. 0s and 1s mean that a change is committed at once",
    ),
    none("ipvs.scheduler", Text, NO_IPVS),
    none("ipvs.strictARP", Flag, "no Service address is put on an interface, so the node answers ARP for none"),
    differs("ipvs.syncPeriod", Duration, PERIOD_IPVS),
    none("ipvs.tcpFinTimeout", Duration, NO_IPVS),
    none("ipvs.tcpTimeout", Duration, NO_IPVS),
    none("ipvs.udpTimeout", Duration, NO_IPVS),
    none("logging.flushFrequency", DurationOrNanoseconds, "every line is written at once"),
    same("logging.format", Text, "text or json; --log-format goes before").waits(),
    none("logging.options.json.infoBufferSize", Quantity, "every line is written at once"),
    none("logging.options.json.splitStream", Flag, "all lines go to standard error"),
    none("logging.options.text.infoBufferSize", Quantity, "every line is written at once"),
    none("logging.options.text.splitStream", Flag, "all lines go to standard error"),
    differs("logging.verbosity", UINT32, "0 to 3: info; 4 and 5: debug; more: trace. -v and --log go before"),
    none("logging.vmodule", Modules, "it names Go files; --log takes directives such as info,sheave::source=debug"),
    same("metricsBindAddress", Text, "where /metrics is served").restarts(),
    differs(
        "mode",
        Text,
        "empty, iptables and ipvs are served by the nftables plane as well; they decide which section is read, and where NodePorts are served if nodePortAddresses is empty",
    ),
    same("nftables.masqueradeAll", Flag, "in mode nftables: masquerade all traffic to ClusterIPs"),
    none("nftables.masqueradeBit", INT32, NO_MARKS),
    differs(
        "nftables.minSyncPeriod",
        Duration,
        "in mode nftables: the least time between two commits. 0s and 1s, which kube-proxy cannot tell apart, mean that a change is committed at once",
    ),
    differs("nftables.syncPeriod", Duration, PERIOD_NFTABLES),
    same(
        "nodePortAddresses",
        Texts,
        "where NodePorts are served: CIDRs, or the one word primary. Empty: every local address in modes iptables and ipvs, primary in mode nftables",
    ),
    same("oomScoreAdj", INT32, "how late the kernel kills this process when memory runs out, -1000 to 1000"),
    none("portRange", Text, "kube-proxy ignores it as well"),
    none("showHiddenMetricsForVersion", Text, "no metric is hidden"),
    none("windowsRunAsService", Flag, WINDOWS),
    none("winkernel.enableDSR", Flag, WINDOWS),
    none("winkernel.forwardHealthCheckVip", Flag, WINDOWS),
    none("winkernel.networkName", Text, WINDOWS),
    none("winkernel.rootHnsEndpointName", Text, WINDOWS),
    none("winkernel.sourceVip", Text, WINDOWS),
];

/// Fields of SheaveConfiguration.
pub(crate) const SHEAVE: &[Entry] = &[
    same(
        "apiServers",
        Texts,
        "URLs of API servers, tried in turn, in place of the one of the kubeconfig or of the pod; --api-server goes before",
    )
    .restarts(),
    same(
        "loadBalancer.class",
        Text,
        "announce and give addresses to Services of this spec.loadBalancerClass alone; empty: to those without one; --lb-class goes before",
    )
    .restarts(),
    same(
        "loadBalancer.daemonRestartGrace",
        Duration,
        "for so long a node whose kernel answers keeps its VIPs while its daemon does not, as when it is restarted; 0s: 3s",
    )
    .restarts(),
    same(
        "loadBalancer.ignoreExcludeLabel",
        Flag,
        "nodes labelled node.kubernetes.io/exclude-from-external-load-balancers announce VIPs all the same (MetalLB's --ignore-exclude-lb)",
    )
    .restarts(),
    same(
        "loadBalancer.interfacesExcluded",
        Text,
        "a file of MetalLB's, excludel2.yaml: patterns of the names of interfaces that announce nothing; empty: MetalLB's own list",
    )
    .restarts(),
    same(
        "loadBalancer.membershipPort",
        Whole(0, 65_535),
        "the UDP port at which announcing nodes hear each other; the same on all of them; 0: 7946, as MetalLB's speakers",
    )
    .restarts(),
    same(
        "loadBalancer.metallbNamespace",
        Text,
        "the namespace whose IPAddressPools and L2Advertisements count; empty: where there are pools; --metallb-namespace goes before",
    )
    .restarts(),
    same(
        "loadBalancer.moveFromCordoned",
        Flag,
        "a node that is cordoned announces nothing: its VIPs move before it is drained",
    )
    .restarts(),
    same(
        "loadBalancer.periodicAnnouncement",
        Duration,
        "how often all VIPs are announced again, for switches that forget; 0s: only when something changes",
    )
    .restarts(),
    same(
        "manifests",
        Text,
        "serve a directory or file of ordinary YAML, watched, instead of an API server's objects; --source goes before",
    )
    .restarts(),
    Entry {
        change: Change::None,
        ..same("plane", Text, "what carries the traffic: auto or nftables; empty: what mode says; --plane goes before")
    },
];
