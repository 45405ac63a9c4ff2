//! `docs/metrics.md`, written from the book.

use std::fmt::Write as _;

use super::Metrics;
use super::book::Entry;

const BEGINNING: &str = "\
# Metrics

Served on `--metrics-bind-address` (127.0.0.1:10249) at `/metrics`, in the Prometheus text format 0.0.4. This page is written from the program's own
descriptions and checked by a test; `UPDATE_DOCS=1 cargo test -p sheave metrics` writes it anew.

A sync of sheave is of both families at once, so `kubeproxy_` metrics with the label `ip_family` get the same value for IPv4 and IPv6 wherever
they are about a sync as a whole.

| name | type | labels | meaning |
|---|---|---|---|
";

const END: &str = "
Of kube-proxy's metrics these are absent, as they are in kube-proxy's own nftables mode, because they are about iptables:
`sync_proxy_rules_iptables_restore_failures_total`, `sync_proxy_rules_iptables_partial_restore_failures_total`, `sync_proxy_rules_iptables_total`,
`sync_proxy_rules_iptables_last`, `iptables_ct_state_invalid_dropped_packets_total`, `iptables_localhost_nodeports_accepted_packets_total`.

Where a meaning differs: `*_changes_pending` counts changes that the kernel does not have yet, where kube-proxy counts the Services they concern; of
several slices of one Service that change in one sync, `network_programming_duration_seconds` observes the one that was triggered first.

Of what Go programs tell beside that, `go_*` and `kubernetes_feature_enabled` have no counterpart; `kubernetes_build_info` is
`sheave_build_info`; `process_network_*_bytes_total` would be the whole node's here, which node_exporter tells. Where client-go measures a
list's latency to the end of the answer, `rest_client_request_duration_seconds` is to its head, and counts watches, too.

What changes with a release: names, types and labels that begin with `kubeproxy_`, `process_` and `rest_client_` are other people's and stay; those
that begin with `sheave_` may change until version 1.0, with a line in the release notes.
";

impl Metrics {
    /// The page.
    #[must_use]
    pub fn reference(&self) -> String {
        let mut page = BEGINNING.to_owned();
        for Entry { name, kind, labels, help } in self.book.entries() {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            // Writing into a string does not fail.
            let _ = writeln!(page, "| `{name}` | {kind} | {} | {} |", labels.join(", "), help.replace('|', "\\|"));
        }
        page + END
    }
}
