//! SIGKILL in the middle of syncs, with an API server as the source: lists and watches are cut off at any byte, and begun again.

use super::served::{ApiCluster, eventually};
use crate::disruption::{
    restart::{passing, say_seed},
    ruleset::Ruleset,
    traffic::{self, Traffic},
};
use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sheave_tests::{scenario::Scenario, scenarios};
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("kube":
        fifteen_kills_in_the_middle_of_syncs needs ["nftables", "tool:nft"], within 120 s;
    )
    .to_vec()
}

const KILLS: usize = 15;
/// For a load on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Services that come and go.
const PASSING: std::ops::RangeInclusive<usize> = 1..=6;
/// A start, its lists and the syncs after them.
const LONGEST_LIFE: Duration = Duration::from_millis(200);

fn fifteen_kills_in_the_middle_of_syncs() -> anyhow::Result<()> {
    let seed = std::env::var("SHEAVE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    say_seed(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut served = ApiCluster::start()?;
    let traffic = Traffic::start(&served)?;
    let newcomers = traffic::newcomers(&served)?;
    let mut there = BTreeSet::new();
    for _ in 0..KILLS {
        let life = random.random_range(Duration::ZERO..LONGEST_LIFE);
        let born = Instant::now();
        while born.elapsed() < life {
            let number = random.random_range(PASSING);
            if there.remove(&number) {
                served.delete_service(&format!("passing-{number}"))?;
            } else {
                there.insert(number);
                served.services([&passing(number)])?;
            }
            // The moment to kill is random by intent, and no event.
            let pause = random.random_range(Duration::ZERO..Duration::from_millis(8));
            thread::sleep(pause.min(life.saturating_sub(born.elapsed())));
        }
        served.kill()?;
        served.launch()?;
    }
    let settled = |served: &ApiCluster| {
        for number in PASSING {
            let to = format!("172.30.1.{number}:80");
            let expected = there.contains(&number);
            let what = format!("passing-{number} {} {there:?}", if expected { "of" } else { "not of" });
            served.await_outcome(&served.pod, &to, &what, |outcome| outcome.by().is_some() == expected)?;
        }
        Ok::<_, anyhow::Error>(())
    };
    served.await_log("synced", PATIENCE)?;
    settled(&served)?;
    traffic.finish().with_context(|| format!("SHEAVE_SEED={seed}"))?;
    traffic::welcomed(&newcomers.stop())?;

    // What is there is what a daemon makes that finds nothing: no debris of half a load or of half a twin.
    let found = Ruleset::of(&served)?;
    let unused = Ruleset::unused_sets(&served)?;
    served.terminate()?;
    let cleaned = served.sheave(&["cleanup"])?;
    ensure!(cleaned.status.success(), "{cleaned:?}");
    served.restart()?;
    served.await_log("synced", PATIENCE)?;
    settled(&served)?;
    eventually("the ruleset is what it was", || Ok(found == Ruleset::of(&served)?))?;
    assert_eq!(unused, Ruleset::unused_sets(&served)?);
    Ok(())
}
