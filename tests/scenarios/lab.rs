//! The lab itself: what every other scenario takes for granted.

use anyhow::{Context as _, ensure};
use sheave_lab::{BadLink, Lab, Outcome, Port, Protocol, Request, TcpFlow, UdpFlow};
use sheave_tests::{scenario::Scenario, scenarios, world::nft};
use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) fn scenarios() -> impl AsRef<[Scenario]> + Slice {
    scenarios!("lab":
        machines_reach_each_other_in_both_families;
        sctp_answers needs ["sctp"];
        refusals_silence_and_lost_ways_are_told_apart needs ["nftables", "tool:nft"];
        a_service_of_plain_nft_rules_works needs ["nftables", "tool:nft"];
        bridged_pods_talk;
        hosts_of_the_lan_are_neighbours;
        web_clients_are_answered needs ["tool:curl"];
        a_bad_link_loses_the_same_packets_for_the_same_seed;
        a_bad_link_carries_whole_tcp_streams;
        flows_count_what_is_lost;
        a_stopped_server_breaks_a_tcp_flow;
        machines_that_are_cut_off_come_back;
        nothing_outlives_a_killed_process;
    )
}
