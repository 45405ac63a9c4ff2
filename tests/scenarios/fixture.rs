//! What the scenarios about Services share: lanes, objects, a cluster with pods in it, and questions with expected answers.

mod check;
mod cluster;
mod lane;
mod objects;
mod ping;
mod redirects;

pub(crate) use check::{Checks, Expect, eventually, scenarios};
pub(crate) use cluster::{Cluster, DETECT_PODS, Pods};
pub(crate) use lane::{Family, Lane, SCTP, TCP_UDP};
pub(crate) use objects::{Endpoint, Service, dual, node, node_in_zone, service_cidr};
pub(crate) use ping::{Pong, ping};
pub(crate) use redirects::Redirects;

/// A scenario for TCP and UDP, and the same once more for SCTP, each in both families.
///
/// `in_lanes!("rows": row_01_general, row_02_hairpin within 90 s)` makes `rows::row_01_general`, `rows::row_01_general_sctp`, and so on.
macro_rules! in_lanes {
    ($group:literal: $($scenario:ident $(needs $need:literal)* $(, within $seconds:literal s)?);+ $(;)?) => {
        vec![$(
            sheave_tests::scenario::Scenario::new(concat!($group, "::", stringify!($scenario)), || $scenario(&crate::fixture::TCP_UDP))
                .needs(&["nftables", $($need),*])$(.within(std::time::Duration::from_secs($seconds)))?,
            sheave_tests::scenario::Scenario::new(concat!($group, "::", stringify!($scenario), "_sctp"), || $scenario(&crate::fixture::SCTP))
                .needs(&["nftables", "sctp", $($need),*])$(.within(std::time::Duration::from_secs($seconds)))?,
        )+]
    };
}

/// One scenario for each family and protocol: `per_lane!("truth_table::defaults", defaults)` makes `truth_table::defaults::ipv4_tcp` and so on.
macro_rules! per_lane {
    ($name:literal, $run:expr $(, needs $need:literal)*) => {
        per_lane!(@ $name, $run, [$($need),*],
            "ipv4_tcp" V4 Tcp [], "ipv4_udp" V4 Udp [], "ipv4_sctp" V4 Sctp ["sctp"],
            "ipv6_tcp" V6 Tcp [], "ipv6_udp" V6 Udp [], "ipv6_sctp" V6 Sctp ["sctp"])
    };
    (@ $name:literal, $run:expr, $needs:tt, $($lane:literal $family:ident $protocol:ident $more:tt),+) => {
        vec![$(
            sheave_tests::scenario::Scenario::new(concat!($name, "::", $lane), || {
                $run(crate::fixture::Lane {
                    family: crate::fixture::Family::$family,
                    protocol: sheave_lab::Protocol::$protocol,
                })
            })
            .needs(per_lane!(@needs $needs $more)),
        )+]
    };
    (@needs [$($need:literal),*] [$($more:literal),*]) => { &["nftables", $($need,)* $($more),*] };
}

pub(crate) use {in_lanes, per_lane};
