//! What one member knows of another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::facts::Facts;
use super::lateness::Lateness;
use super::options::{KERNEL_FRESH, KNOCK, Options};
use super::seal::{Opener, Session, Window};
use super::transfer::{Incoming, Outgoing};
use super::verdict::{Evidence, State};
use super::wire::{Report, Says};

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: Arc<str>,
    pub(super) address: SocketAddr,
    pub(super) state: State,

    /// The life of it that we believe, and how to open what that sends.
    pub(super) session: Option<(Session, Opener)>,
    pub(super) window: Window,
    /// What another life of it would have to answer; 0 while none knocked.
    pub(super) challenge: u64,
    /// What it wants answered; 0 for nothing.
    pub(super) respond: u64,
    /// It was answered without proof last.
    knocked: Option<Instant>,

    /// It was heard last.
    pub(super) heard: Option<Instant>,
    /// It promised to be heard again within this.
    pub(super) interval: Duration,
    pub(super) lateness: Lateness,
    /// While it is silent: when it may be asked again.
    pub(super) ask_at: Option<Instant>,
    /// What its kernel said last, since it is silent.
    pub(super) kernel: Option<(Evidence, Instant)>,
    /// We accuse it, since.
    pub(super) silent: Option<Instant>,
    /// Somebody does, since.
    pub(super) accused: Option<Instant>,
    /// What it says about others.
    pub(super) reports: Vec<Report>,

    /// What it told of itself, and the version of that; the version may be a later one while pieces are missing.
    pub(super) facts: Option<Arc<Facts>>,
    pub(super) facts_version: u32,
    pub(super) incoming: Incoming,
    /// What it remembers of our last life, as far as it has arrived.
    pub(super) memory: Incoming,
    pub(super) outgoing: Outgoing,

    /// It gets a beat then.
    pub(super) beat_at: Instant,
}

impl Peer {
    pub(super) fn new(name: Arc<str>, address: SocketAddr, heartbeat: Duration, now: Instant) -> Self {
        Self {
            name,
            address,
            state: State::Unheard,
            session: None,
            window: Window::default(),
            challenge: 0,
            respond: 0,
            knocked: None,
            heard: None,
            interval: heartbeat,
            lateness: Lateness::default(),
            ask_at: None,
            kernel: None,
            silent: None,
            accused: None,
            reports: Vec::new(),
            facts: None,
            facts_version: 0,
            incoming: Incoming::default(),
            memory: Incoming::default(),
            outgoing: Outgoing::default(),
            beat_at: now,
        }
    }

    /// It has begun a new life, which is proved. What the old one told of itself stands until the new one tells.
    pub(super) fn adopt(&mut self, session: Session, opener: Opener) {
        self.session = Some((session, opener));
        self.window = Window::default();
        self.challenge = 0;
        self.lateness = Lateness::default();
        self.facts_version = 0;
        self.incoming = Incoming::default();
        self.outgoing = Outgoing::default();
    }

    /// Nothing of what it told counts any more: our beats ask for all of it.
    pub(super) fn forget_facts(&mut self) {
        self.facts = None;
        self.facts_version = 0;
        self.incoming = Incoming::default();
    }

    /// Whether a session that has proved nothing is answered now: a recording must not make us send more than it did.
    pub(super) fn may_answer_unproven(&mut self, now: Instant) -> bool {
        let pause_over = self.knocked.is_none_or(|last| now >= last + KNOCK);
        if pause_over {
            self.knocked = Some(now);
        }
        pause_over
    }

    /// It was heard.
    pub(super) fn is_heard(&mut self, now: Instant) {
        self.heard = Some(now);
        self.ask_at = None;
        self.kernel = None;
        self.silent = None;
    }

    /// Whether it was heard so lately that it lives, whatever others say.
    pub(super) fn is_vouched_for(&self, options: &Options, now: Instant) -> bool {
        self.vouched_until(options).is_some_and(|until| now < until)
    }

    /// Until when it counts as living by what we heard.
    pub(super) fn vouched_until(&self, options: &Options) -> Option<Instant> {
        Some(self.heard? + Options::suspect_after(options.heartbeat, self.lateness.get()))
    }

    /// When it is asked next, if it is not heard before.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        let first = self.heard? + Options::suspect_after(self.interval, self.lateness.get());
        Some(self.ask_at.map_or(first, |again| again.max(first)))
    }

    /// When it is accused, likewise.
    pub(super) fn accuse_at(&self) -> Option<Instant> {
        Some(self.heard? + Options::accuse_after(self.interval, self.lateness.get()))
    }

    /// What we say about it, as one who hears it, or does not.
    pub(super) fn word(&self, options: &Options, now: Instant) -> Option<Says> {
        if self.silent.is_none() {
            // Only its watchers speak for it: everybody else hears it too seldom to say anything but yesterday's news.
            let watched = self.interval <= options.heartbeat;
            return (watched && self.accused.is_some() && self.is_vouched_for(options, now)).then_some(Says::Heard);
        }
        let patience = KERNEL_FRESH + self.lateness.get() * 2;
        Some(match self.kernel {
            Some((evidence, at)) if now < at + patience => match evidence {
                Evidence::Refuses => Says::Refuses,
                Evidence::KernelAnswers => Says::KernelAnswers,
            },
            _ => Says::Mute,
        })
    }

    /// Our own timer was late by this: what the peer sent meanwhile may still be on its way to us.
    pub(super) fn forgive(&mut self, stall: Duration, now: Instant) {
        self.heard = self.heard.map(|heard| (heard + stall).min(now));
        self.kernel = self.kernel.map(|(evidence, at)| (evidence, (at + stall).min(now)));
        self.silent = None;
        self.ask_at = None;
    }
}
