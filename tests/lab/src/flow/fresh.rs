//! New flows, one after the other: what a client that keeps connecting sees.

use super::{Flow, Shared};
use crate::{Host, Outcome, Request, Result};
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

/// A client that asks again and again, each time from a socket of its own.
#[derive(Debug)]
pub struct FreshFlows(Flow<FreshReport>);

/// What it has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreshReport {
    /// Answers per server.
    pub by: BTreeMap<String, u64>,
    /// How many questions were answered.
    pub answered: u64,
    /// The other outcomes, each with when its question was asked, counted from the start.
    pub failed: Vec<(Duration, Outcome)>,
    /// The longest time without an answer.
    pub longest_gap: Duration,
}

impl FreshFlows {
    /// Asks so many times per second at most; a question that takes longer delays the next.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn start(host: &Host, request: &Request, per_second: u32) -> Result<Self> {
        let (request, pause) = (request.clone(), Duration::from_secs(1) / per_second.max(1));
        Ok(Self(Flow::start(host, move |shared| ask_on(&request, pause, shared))?))
    }

    /// What it has seen so far.
    #[must_use]
    pub fn report(&self) -> FreshReport {
        self.0.shared.report().clone()
    }

    /// Waits until so many more questions have been answered.
    ///
    /// # Errors
    /// If they are not within the limit.
    pub fn await_answers(&self, count: u64, limit: Duration) -> Result<FreshReport> {
        let goal = self.report().answered + count;
        self.0.wait_until("answers to new flows", limit, |report| report.answered >= goal)
    }

    /// Waits for the outcome of the last question and reports.
    #[must_use]
    pub fn stop(mut self) -> FreshReport {
        self.0.stop()
    }
}

fn ask_on(request: &Request, pause: Duration, shared: &Shared<FreshReport>) {
    let start = Instant::now();
    let (mut next, mut last_answer) = (start, start);
    while !shared.stopped() {
        let asked = start.elapsed();
        let outcome = match request.ask() {
            Ok(outcome) => outcome,
            // No socket to be had: a fault of the lab, and one that a scenario must not take for silence.
            Err(_) => Outcome::Unreachable(libc::EMFILE),
        };
        let gap = last_answer.elapsed();
        if matches!(outcome, Outcome::Answered(_)) {
            last_answer = Instant::now();
        }
        shared.update(|report| {
            report.longest_gap = report.longest_gap.max(gap);
            match outcome {
                Outcome::Answered(answer) => {
                    report.answered += 1;
                    *report.by.entry(answer.by).or_default() += 1;
                }
                other => report.failed.push((asked, other)),
            }
        });
        next += pause;
        // A pace, not a wait for anything. What was missed is not made up for.
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next = next.max(Instant::now());
    }
}
