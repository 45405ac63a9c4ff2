//! What can go wrong between the daemon and an API server. Whatever it is, traffic goes on, and what changed meanwhile arrives when it
//! is over.

use super::served::{ApiCluster, WATCHED, eventually};
use crate::{
    disruption::{
        ruleset::Ruleset,
        traffic::{self, Traffic},
    },
    fixture::{DETECT_PODS, Endpoint, Service},
};
use anyhow::{Context as _, ensure};
use sheave_lab::Protocol;
use sheave_tests::{
    apiserver::{Cut, Effect, Fault, Refusal, Verb},
    scenario::Scenario,
    scenarios,
};
use std::time::Duration;

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("kube":
        an_api_server_that_is_gone_is_waited_for needs ["nftables"], within 120 s;
        errors_and_overload_are_waited_out needs ["nftables"], waiting 120 s;
        broken_streams_are_resumed needs ["nftables"];
        expired_versions_are_listed_again needs ["nftables"], waiting 120 s;
        stale_caches_never_turn_time_back needs ["nftables"], within 120 s;
        refused_streaming_lists_end_in_pages needs ["nftables"];
        streaming_lists_without_an_end_become_pages needs ["nftables"];
        until_both_lists_are_complete_nothing_is_removed needs ["nftables", "tool:nft"];
        an_outage_makes_no_hot_loop needs ["nftables"];
    )
    .to_vec()
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster under traffic, with a Service whose backend tells which version of it is in force.
struct Outage {
    served: ApiCluster,
    traffic: Traffic,
    newcomers: sheave_lab::FreshFlows,
    version: usize,
}

/// The backends of the versions.
const BACKENDS: [(&str, &str); 2] = [("10.180.0.1", "local"), ("10.180.2.1", "remote")];
const MARKER: &str = "172.30.0.70:80";

impl Outage {
    fn start() -> anyhow::Result<Self> {
        let served = ApiCluster::start()?;
        served.await_watches()?;
        let traffic = Traffic::start(&served)?;
        let newcomers = traffic::newcomers(&served)?;
        let mut outage = Self { served, traffic, newcomers, version: 0 };
        outage.change()?;
        outage.arrived()?;
        Ok(outage)
    }

    /// A change that has to arrive some time.
    fn change(&mut self) -> anyhow::Result<()> {
        self.version += 1;
        let (address, _) = BACKENDS[self.version % 2];
        let marker = Service::new("marker", "172.30.0.70").only(Protocol::Tcp, 80, 80).endpoint(Endpoint::at(address));
        self.served.services([&marker])
    }

    /// The last change is in the kernel.
    fn arrived(&self) -> anyhow::Result<()> {
        let (_, name) = BACKENDS[self.version % 2];
        self.served.await_answer(MARKER, &[name]).with_context(|| format!("version {} of the marker", self.version))
    }

    /// Watches that hold for a second are taken to be well again; before that, pauses go on growing.
    fn settle(&self) -> anyhow::Result<()> {
        self.newcomers.await_answers(75, PATIENCE)?;
        Ok(())
    }

    /// The version before the last change is what packets still get.
    fn stands_still(&self) -> anyhow::Result<()> {
        let (_, name) = BACKENDS[(self.version - 1) % 2];
        let outcome = self.served.pod.tcp(MARKER)?;
        ensure!(outcome.by() == Some(name), "{outcome}: expected {name}, as before the outage");
        self.newcomers.await_answers(20, PATIENCE)?;
        self.traffic.go_on()
    }

    fn finish(self) -> anyhow::Result<()> {
        self.traffic.finish()?;
        traffic::welcomed(&self.newcomers.stop())
    }
}

fn an_api_server_that_is_gone_is_waited_for() -> anyhow::Result<()> {
    let mut outage = Outage::start()?;
    outage.served.api.refuse_connections()?;
    outage.served.api.cut_connections();
    eventually("no watch is left", || Ok(outage.served.api.open_watches("services") == 0))?;
    outage.change()?;
    outage.stands_still()?;
    outage.served.api.accept_connections()?;
    outage.arrived()?;
    outage.change()?;
    outage.arrived()?;
    outage.finish()
}

fn errors_and_overload_are_waited_out() -> anyhow::Result<()> {
    let mut outage = Outage::start()?;
    for effect in
        [Effect::Answer { code: 500, retry_after: None }, Effect::Answer { code: 429, retry_after: Some(1) }, Effect::HangUp]
    {
        let what = format!("{effect:?}");
        outage.served.api.inject(Fault::new(effect));
        outage.served.api.cut_streams(None, Cut::Abrupt);
        eventually("no watch is left", || Ok(outage.served.api.open_watches("endpointslices") == 0))?;
        outage.change()?;
        outage.stands_still().with_context(|| what.clone())?;
        outage.served.api.clear_faults();
        outage.arrived().with_context(|| what.clone())?;
    }
    outage.finish()
}

fn broken_streams_are_resumed() -> anyhow::Result<()> {
    let mut outage = Outage::start()?;
    let lists = || WATCHED.map(|resource| outage.served.api.requests(Verb::List, resource));
    let before = lists();
    for how in [Cut::Clean, Cut::Abrupt, Cut::Clean, Cut::Abrupt] {
        outage.served.api.cut_streams(None, how);
        outage.change()?;
        outage.arrived().with_context(|| format!("{how:?}"))?;
        outage.settle()?;
    }
    let lists = WATCHED.map(|resource| outage.served.api.requests(Verb::List, resource));
    assert_eq!(before, lists, "a watch that ends is resumed where it was, nothing is listed again");
    outage.finish()
}

fn expired_versions_are_listed_again() -> anyhow::Result<()> {
    let mut outage = Outage::start()?;
    for expired in [Fault::new(Effect::ExpireWatch).times(2), Fault::new(Effect::ExpireContinue)] {
        outage.served.api.inject(expired);
        outage.served.api.cut_streams(None, Cut::Clean);
        outage.served.api.compact();
        // Seen by nobody: what is deleted while the past is forgotten.
        let passing = Service::new("passing", "172.30.0.71").only(Protocol::Tcp, 80, 80).endpoint(Endpoint::at("10.180.0.1"));
        outage.served.services([&passing])?;
        outage.served.await_answer("172.30.0.71:80", &["local"])?;
        outage.served.api.refuse_connections()?;
        outage.served.api.cut_connections();
        outage.served.delete_service("passing")?;
        outage.change()?;
        outage.served.api.compact();
        outage.served.api.accept_connections()?;
        outage.arrived()?;
        outage.served.await_outcome(&outage.served.pod, "172.30.0.71:80", "nothing at a deleted Service", |outcome| {
            outcome.by().is_none()
        })?;
        outage.served.api.clear_faults();
        outage.settle()?;
    }
    outage.finish()
}

fn stale_caches_never_turn_time_back() -> anyhow::Result<()> {
    let mut outage = Outage::start()?;
    let version = outage.served.api.revision();
    outage.change()?;
    outage.arrived()?;
    // Relisting from a server whose cache is behind: what is in force must not go back to what it was.
    outage.served.api.inject(Fault::new(Effect::RefuseStreamingLists(Refusal::Invalid)));
    outage.served.api.inject(Fault::new(Effect::Stale { version }).times(6));
    for resource in ["services", "endpointslices"] {
        outage.served.api.inject(Fault::new(Effect::ExpireWatch).on(Verb::Watch, resource).times(1));
    }
    outage.served.api.cut_streams(None, Cut::Abrupt);
    eventually("both kinds were listed in pages", || {
        Ok(["services", "endpointslices"].iter().all(|resource| outage.served.api.requests(Verb::List, resource) >= 1))
    })?;
    outage.served.api.clear_faults();
    outage.served.api.cut_streams(None, Cut::Abrupt);
    outage.arrived()?;
    outage.change()?;
    outage.arrived()?;
    outage.finish()
}

fn refused_streaming_lists_end_in_pages() -> anyhow::Result<()> {
    for refusal in [
        Effect::RefuseStreamingLists(Refusal::ErrorEvent),
        Effect::RefuseStreamingLists(Refusal::Invalid),
        Effect::RefuseStreamingLists(Refusal::BadRequest),
    ] {
        let what = format!("{refusal:?}");
        let mut served = ApiCluster::new()?;
        served.api.inject(Fault::new(refusal));
        let url = served.api.url();
        served.start_on_api(&url, &DETECT_PODS)?;
        served.await_answer("172.30.0.41:80", &traffic::BACKENDS).with_context(|| what.clone())?;
        ensure!(served.api.requests(Verb::List, "services") >= 1, "{what}: listed in pages");
        served.services([&traffic::web().with_endpoints([Endpoint::at("10.180.0.9")])])?;
        served.await_answer("172.30.0.41:80", &["decoy"]).with_context(|| what.clone())?;
    }
    Ok(())
}

/// The bookmark that ends the initial events never comes, while others do, so that the stream is never silent.
fn streaming_lists_without_an_end_become_pages() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    served.api.inject(Fault::new(Effect::DropInitialEventsEnd));
    let url = served.api.url();
    let arguments = [&DETECT_PODS[..], &["--streaming-list-patience", "1s"]].concat();
    served.start_on_api(&url, &arguments)?;
    served.await_answer("172.30.0.41:80", &traffic::BACKENDS)?;
    for resource in ["services", "endpointslices"] {
        ensure!(served.api.requests(Verb::List, resource) >= 1, "{resource} were listed in pages");
    }
    served.services([&traffic::web().with_endpoints([Endpoint::at("10.180.0.9")])])?;
    served.await_answer("172.30.0.41:80", &["decoy"])
}

fn until_both_lists_are_complete_nothing_is_removed() -> anyhow::Result<()> {
    let mut served = ApiCluster::start()?;
    let passing = Service::new("passing", "172.30.0.71").only(Protocol::Tcp, 80, 80).endpoint(Endpoint::at("10.180.0.1"));
    served.services([&passing])?;
    served.await_answer("172.30.0.71:80", &["local"])?;
    let traffic = Traffic::start(&served)?;
    let newcomers = traffic::newcomers(&served)?;
    let before = Ruleset::of(&served)?;
    for stalled in ["endpointslices", "services"] {
        served.terminate()?;
        for verb in [Verb::List, Verb::Watch] {
            served.api.inject(Fault::new(Effect::Delay(Duration::from_secs(600))).on(verb, stalled));
        }
        let other = if stalled == "services" { "endpointslices" } else { "services" };
        let (asked, listed) = (served.api.requests(Verb::Watch, stalled), served.api.requests(Verb::Watch, other));
        served.launch()?;
        eventually("one kind is listed and the other asked for", || {
            let other_open = served.api.open_watches(other) > 0 && served.api.requests(Verb::Watch, other) > listed;
            Ok(other_open && served.api.requests(Verb::Watch, stalled) > asked)
        })?;
        newcomers.await_answers(20, PATIENCE)?;
        ensure!(served.pod.tcp("172.30.0.71:80")?.by() == Some("local"), "{stalled} stall");
        ensure!(Ruleset::of(&served)? == before, "{stalled} stall, and the ruleset changes");
        served.api.clear_faults();
    }
    // One more start without faults, with a Service that went meanwhile: then it goes.
    served.terminate()?;
    served.delete_service("passing")?;
    served.launch()?;
    served.await_outcome(&served.pod, "172.30.0.71:80", "nothing at a deleted Service", |outcome| outcome.by().is_none())?;
    traffic.finish()?;
    traffic::welcomed(&newcomers.stop())
}

fn an_outage_makes_no_hot_loop() -> anyhow::Result<()> {
    let outage = Outage::start()?;
    let before = outage.served.requests();
    outage.served.api.inject(Fault::new(Effect::Answer { code: 503, retry_after: None }));
    outage.served.api.cut_connections();
    // Three seconds, told by a client that connects fifty times in each.
    outage.newcomers.await_answers(150, PATIENCE)?;
    let during = outage.served.requests() - before;
    // Five streams, each at once, then after 0.8 to 1.6 s, then after the double.
    ensure!((5..=25).contains(&during), "{during} requests in three seconds");
    outage.served.api.clear_faults();
    outage.arrived()?;
    outage.finish()
}
