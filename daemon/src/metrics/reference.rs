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

`sheave controller` serves those that begin with `metallb_allocator_`, `metallb_k8s_client_`, `sheave_controller_`, `sheave_watch_`, `rest_client_`
and `process_`, and `sheave_build_info`, on its own `--metrics-bind-address` (port 7472, as MetalLB before v0.16; plain HTTP). Elsewhere the
first three are of `--controller`. `metallb_speaker_` and `metallb_layer2_` are of a node that announces (docs/loadbalancer.md).

| name | type | labels | meaning |
|---|---|---|---|
";

const END: &str = "
Of kube-proxy's metrics these are absent, as they are in kube-proxy's own nftables mode, because they are about iptables:
`sync_proxy_rules_iptables_restore_failures_total`, `sync_proxy_rules_iptables_partial_restore_failures_total`, `sync_proxy_rules_iptables_total`,
`sync_proxy_rules_iptables_last`, `iptables_ct_state_invalid_dropped_packets_total`, `iptables_localhost_nodeports_accepted_packets_total`.

Where a meaning differs: `*_changes_pending` counts changes that the kernel does not have yet, where kube-proxy counts the Services they concern; of
several slices of one Service that change in one sync, `network_programming_duration_seconds` observes the one that was triggered first;
`sync_*_duration_seconds` observe syncs that the kernel took and that changed anything, kube-proxy's also those that failed or had nothing to do.
Where client-go measures a list's latency to the end of the answer, `rest_client_request_duration_seconds` is to its head, and counts watches, too.

What every Kubernetes component tells beside that, and sheave does not:

| name | why not |
|---|---|
| `kubernetes_build_info` | it is `sheave_build_info`: alerts such as KubeVersionMismatch compare `git_version` over all components of a cluster |
| `go_*` | there is no Go runtime |
| `process_network_receive_bytes_total`, `process_network_transmit_bytes_total` | they would be the whole node's here, which node_exporter tells |
| `rest_client_rate_limiter_duration_seconds` | requests wait for no limiter |
| `rest_client_request_retries_total` | a failed attempt is a request of its own, and in `sheave_watch_failures_total` |
| `rest_client_dns_resolution_duration_seconds`, `rest_client_request_size_bytes`, `rest_client_response_size_bytes`, `rest_client_transport_cache_entries`, `rest_client_transport_create_calls_total` | the client library does not tell; a node has five watches, which the API server's own metrics measure |
| `rest_client_exec_plugin_call_total`, `rest_client_exec_plugin_ttl_seconds`, `rest_client_exec_plugin_certificate_rotation_age` | as client-go's without a credential plugin: nothing to tell |
| `registered_metrics_total`, `hidden_metrics_total`, `disabled_metrics_total` | no metric is hidden or disabled |
| `kubernetes_healthcheck`, `kubernetes_healthchecks_total` (at `/metrics/slis`) | of the metrics port's `/healthz` alone, which always says ok; of the node's own, `kubeproxy_proxy_healthz_total` |

What changes with a release: names, types and labels that begin with `kubeproxy_`, `metallb_`, `process_` and `rest_client_` are other people's and stay; those
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
