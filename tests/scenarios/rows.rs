//! The acceptance rows taken from kube-proxy's own tests, by number and by the name of the upstream test: `row_12` finds the
//! twelfth. Rows 23 and 24 are about health endpoints, and the operation counts of `TestSyncProxyRulesRepeated` are asserted beside
//! the plane (docs/testing.md).

mod addressing;
mod policies;
mod terminating;

use crate::fixture::{Checks, Cluster, Expect, Lane, in_lanes};
use addressing::{
    extra_addresses_with_leading_zeros, extra_headless_label_on_the_slice, extra_service_proxy_name,
    extra_two_entries_for_one_endpoint, row_01_cluster_ip_general, row_02_cluster_ip_hairpin, row_03_one_port_in_three_protocols,
    row_04_unknown_ports, row_05_unallocated_address, row_06_no_endpoints_reject, row_22_load_balancer_ingress_ip_mode_proxy,
};
use policies::{
    row_07_load_balancer_source_ranges, row_08_node_ports_have_no_source_ranges, row_11_node_port_addresses,
    row_11_node_ports_on_the_primary_address, row_12_external_traffic_policy_local,
    row_13_external_traffic_policy_local_for_pods, row_14_external_traffic_policy_cluster, row_15_internal_traffic_policy,
};
use sheave_tests::scenario::Scenario;
use terminating::{row_16_terminating_endpoints_local, row_19_terminating_endpoints_cluster, row_20_zone_hints};

pub(crate) fn scenarios() -> Vec<Scenario> {
    in_lanes!("rows":
        row_01_cluster_ip_general;
        row_02_cluster_ip_hairpin;
        row_03_one_port_in_three_protocols;
        row_04_unknown_ports;
        row_05_unallocated_address;
        row_06_no_endpoints_reject;
        row_07_load_balancer_source_ranges;
        row_08_node_ports_have_no_source_ranges;
        row_11_node_ports_on_the_primary_address;
        row_11_node_port_addresses;
        row_12_external_traffic_policy_local;
        row_13_external_traffic_policy_local_for_pods;
        row_14_external_traffic_policy_cluster;
        row_15_internal_traffic_policy;
        row_16_terminating_endpoints_local;
        row_19_terminating_endpoints_cluster;
        row_20_zone_hints;
        row_22_load_balancer_ingress_ip_mode_proxy;
        extra_service_proxy_name;
        extra_headless_label_on_the_slice;
        extra_two_entries_for_one_endpoint;
        extra_addresses_with_leading_zeros;
    )
}

/// Whoever asks at the ClusterIP of the rows, 172.30.0.41, port 80, meets this.
fn everybody_meets(cluster: &Cluster, lanes: &[Lane], expect: &Expect) -> anyhow::Result<()> {
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&cluster.pod, cluster.node(), cluster.client()] {
            checks.ask(lane, from, ("172.30.0.41", 80), expect.clone());
        }
    }
    checks.run()
}
