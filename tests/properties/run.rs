//! A run: many sequences, each from a seed of its own, on as many threads as there are processors.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::history::{Sequence, sequence};

/// What a run tells: which sequences to make, and from what.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    from: u32,
    to: u32,
}

/// Sequences in a run, unless the environment says otherwise.
pub(crate) const SEQUENCES: u32 = 1_000;

/// How long is spent on making a failing sequence shorter.
const SHORTEN: Duration = Duration::from_secs(20);

impl Plan {
    fn from_environment() -> Self {
        let number =
            |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}: not a number")));
        let seed = number("SHEAVE_SEED").unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos()) ^ now.as_secs()
        });
        let narrow = |number: u64| u32::try_from(number).unwrap();
        match number("SHEAVE_SEQUENCE").map(narrow) {
            Some(one) => Self { seed, from: one, to: one + 1 },
            None => Self { seed, from: 0, to: number("SHEAVE_SEQUENCES").map_or(SEQUENCES, narrow) },
        }
    }

    /// All randomness of one sequence.
    fn rng(self, sequence: u32) -> TestRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..12].copy_from_slice(&sequence.to_le_bytes());
        TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
    }
}

/// Plays every sequence of the run through `play`, which panics where the property does not hold and is given the number of the
/// sequence; the first failure is made shorter and told. Each thread has a player of its own, made by `player`; what the players know
/// in the end is returned, with whether the run was a whole one.
pub(crate) fn run<P>(name: &str, player: impl Fn() -> P + Sync, play: impl Fn(&mut P, u32, &Sequence) + Sync) -> (Vec<P>, bool)
where
    P: Send,
{
    let plan = Plan::from_environment();
    eprintln!("{name}: seed={} sequences={}..{}", plan.seed, plan.from, plan.to);
    let started = Instant::now();
    // A failing sequence is played hundreds of times to make it shorter; what counts is told once, at the end.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicU32::new(plan.from);
    let failed = AtomicBool::new(false);
    let failure: Mutex<Option<String>> = Mutex::new(None);
    let worker = || {
        let mut player = player();
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.to {
                break;
            }
            if let Err(told) = one(plan, number, &mut player, &play) {
                failed.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(told);
            }
        }
        player
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let players = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    std::panic::set_hook(told);
    if let Some(told) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        panic!("{told}");
    }
    eprintln!("{name}: {} sequences in {:.1?}", plan.to - plan.from, started.elapsed());
    (players, plan.to - plan.from >= SEQUENCES)
}

fn one<P>(plan: Plan, number: u32, player: &mut P, play: &impl Fn(&mut P, u32, &Sequence)) -> Result<(), String> {
    let mut runner = TestRunner::new_with_rng(Config::default(), plan.rng(number));
    let sequence = sequence().new_tree(&mut runner).map_err(|reason| reason.to_string())?.current();
    let mut fails = |sequence: &Sequence| {
        let outcome = catch_unwind(AssertUnwindSafe(|| play(player, number, sequence)));
        outcome.err().map(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "panicked".to_owned())
        })
    };
    let Some(reason) = fails(&sequence) else { return Ok(()) };
    // PROPTEST_MAX_SHRINK_ITERS=0: somebody wants to know only whether it holds.
    let wanted = Config::default().max_shrink_iters > 0;
    let (reason, shortest) = if wanted { shorten(sequence, reason, fails) } else { (reason, sequence) };
    Err(format!(
        "sequence {number}: {reason}\n\nshortest sequence found:\n{shortest}\nagain: SHEAVE_SEED={} SHEAVE_SEQUENCE={number}",
        plan.seed
    ))
}

/// Leaves out steps, many at once and then one by one, as long as what is left fails. The steps themselves stay as they are: fewer of
/// them is what helps most, and quickest.
fn shorten(mut sequence: Sequence, mut reason: String, mut fails: impl FnMut(&Sequence) -> Option<String>) -> (String, Sequence) {
    let until = Instant::now() + SHORTEN;
    let mut many = sequence.steps.len() / 2;
    while many > 0 {
        let mut from = 0;
        while from < sequence.steps.len() && Instant::now() < until {
            let mut fewer = sequence.clone();
            fewer.steps.drain(from..(from + many).min(sequence.steps.len()));
            match fails(&fewer) {
                Some(why) => (sequence, reason) = (fewer, why),
                None => from += many,
            }
        }
        many /= 2;
    }
    (reason, sequence)
}
