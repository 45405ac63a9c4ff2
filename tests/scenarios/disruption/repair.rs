//! Somebody else changes the ruleset: it is as before within a second, and established flows never notice.

use super::{
    ruleset::Ruleset,
    traffic::{self, Traffic},
};
use crate::fixture::DETECT_PODS;
use anyhow::ensure;
use sheave_tests::{scenario::Scenario, scenarios};
use std::time::{Duration, Instant};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("disruption":
        a_flush_of_the_whole_ruleset_is_repaired needs ["nftables", "tool:nft"];
    )
    .to_vec()
}

/// Within this the ruleset is whole again.
const REPAIR: Duration = Duration::from_secs(1);

fn a_flush_of_the_whole_ruleset_is_repaired() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    let before = Ruleset::of(&cluster)?;
    let traffic = Traffic::start(&cluster)?;
    let newcomers = traffic::newcomers(&cluster)?;
    for _ in 0..3 {
        newcomers.await_answers(10, Duration::from_secs(10))?;
        let start = Instant::now();
        cluster.flush()?;
        before.await_again(&cluster, REPAIR)?;
        newcomers.await_answers(1, REPAIR)?;
        eprintln!("repaired in {:?}", start.elapsed());
    }
    traffic.finish()?;
    traffic::right(&newcomers.stop())?;
    ensure!(cluster.count_log("table repaired") == 3);
    Ok(())
}
