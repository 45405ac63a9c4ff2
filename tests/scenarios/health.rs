//! What load balancers, autoscalers, kubelets and scrapers ask the daemon, and what they are told.

mod ask;
mod checks;
mod metrics;
mod probes;

use crate::fixture::Cluster;
use anyhow::Context as _;
use sheave_tests::{scenario::Scenario, scenarios};
use std::net::Ipv4Addr;

use self::checks::{
    a_busy_health_check_port_is_an_event_and_served_when_it_is_free, local_endpoints_come_and_go,
    only_load_balancers_with_policy_local_are_asked,
};
use self::metrics::{metrics_follow_what_happens, the_metrics_port_answers_on_the_node_alone};
use self::probes::{
    a_busy_port_costs_no_packet_and_is_taken_when_it_is_free, a_busy_port_is_the_end_where_that_was_asked_for,
    a_node_that_is_not_there_is_told_until_it_is, a_node_that_will_go_is_told_by_healthz_alone,
    an_outage_of_the_api_server_is_told_and_costs_no_health, bodies_headers_and_codes, nothing_is_healthy_before_the_first_sync,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("health":
        bodies_headers_and_codes needs ["nftables"];
        nothing_is_healthy_before_the_first_sync needs ["nftables"];
        a_node_that_will_go_is_told_by_healthz_alone needs ["nftables"];
        a_node_that_is_not_there_is_told_until_it_is needs ["nftables"];
        an_outage_of_the_api_server_is_told_and_costs_no_health needs ["nftables"];
        a_busy_port_costs_no_packet_and_is_taken_when_it_is_free needs ["nftables"];
        a_busy_port_is_the_end_where_that_was_asked_for needs ["nftables"];
        local_endpoints_come_and_go needs ["nftables"];
        only_load_balancers_with_policy_local_are_asked needs ["nftables"];
        a_busy_health_check_port_is_an_event_and_served_when_it_is_free needs ["nftables"];
        the_metrics_port_answers_on_the_node_alone needs ["nftables"];
        metrics_follow_what_happens needs ["nftables"];
    )
    .to_vec()
}

/// What one of the daemon's servers says to somebody on the node.
pub(crate) fn body(cluster: &Cluster, port: u16, path: &str) -> anyhow::Result<String> {
    let answer = ask::get(cluster.node(), (Ipv4Addr::LOCALHOST.into(), port), path)?;
    Ok(answer.context("nobody listens there")?.body)
}
