//! When an address is announced without a question: five times in five seconds, as MetalLB does, and after that once a period if one is
//! set. Pure: the time is an argument.
//!
//! The bursts are 1,100 ms apart because a Linux neighbour ignores a change within a second of the last one
//! (`net.ipv4.neigh.*.locktime`): whoever did not believe the first believes the second.
//!
//! A node that takes over has to be heard at once, and a switch has to live through it. So a bucket paces: of the first
//! announcements, a few hundred go at once and 8,000 a second follow (1,000 addresses within 125 ms); repetitions have
//! only what those leave, at a quarter of their rate. A storm of repetitions makes itself late, never a first announcement.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between two bursts of an address.
const INTERVAL: Duration = Duration::from_millis(1100);
/// Bursts of an address: at 0, 1.1, 2.2, 3.3 and 4.4 seconds.
const BURSTS: u32 = 5;
/// What an announcement takes out of the bucket: the time it fills in.
const FIRST: Duration = Duration::from_micros(125);
const REPETITION: Duration = Duration::from_micros(500);
/// How far the bucket may be ahead of the time.
const AHEAD: Duration = Duration::from_millis(32);
/// The same for repetitions: what a thread that slept to the millisecond makes up for.
const REPETITIONS_AHEAD: Duration = Duration::from_millis(4);

/// The announcements to come.
#[derive(Debug)]
pub struct Schedule {
    period: Option<Duration>,
    addresses: HashMap<IpAddr, Plan>,
    /// By when they are due; those of one queue are those of `addresses` whose `sent` is 0, or is not.
    firsts: BTreeSet<(Instant, IpAddr)>,
    repetitions: BTreeSet<(Instant, IpAddr)>,
    /// When the bucket will be empty.
    filled_until: Option<Instant>,
}

/// An announcement to be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Of this address.
    pub address: IpAddr,
    /// It is the first one since [`Schedule::start`].
    pub first: bool,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    due: Instant,
    sent: u32,
}

impl Schedule {
    /// Nothing to announce. After its bursts an address is announced again each `period`, if there is one; not more often than in
    /// its bursts.
    #[must_use]
    pub fn new(period: Option<Duration>) -> Self {
        Self { period, addresses: HashMap::new(), firsts: BTreeSet::new(), repetitions: BTreeSet::new(), filled_until: None }
    }

    /// Begins the bursts of an address, from the start if they are under way: there is something new to say.
    pub fn start(&mut self, address: IpAddr, now: Instant) {
        // Who waits for a first announcement keeps the place.
        if self.addresses.get(&address).is_some_and(|plan| plan.sent == 0) {
            return;
        }
        self.stop(address);
        self.addresses.insert(address, Plan { due: now, sent: 0 });
        self.firsts.insert((now, address));
    }

    /// Nothing more of this address.
    pub fn stop(&mut self, address: IpAddr) {
        if let Some(Plan { due, sent }) = self.addresses.remove(&address) {
            self.queue(sent).remove(&(due, address));
        }
    }

    /// The next announcement that is due and has room. Whoever asks makes it.
    pub fn next(&mut self, now: Instant) -> Option<Due> {
        let (address, first) = match (self.firsts.first(), self.repetitions.first()) {
            (Some((due, address)), _) if *due <= now && self.has_room(now, AHEAD) => (*address, true),
            (_, Some((due, address))) if *due <= now && self.has_room(now, REPETITIONS_AHEAD) => (*address, false),
            _ => return None,
        };
        self.filled_until = Some(self.filled_until.map_or(now, |until| until.max(now)) + if first { FIRST } else { REPETITION });
        let plan = *self.addresses.get(&address)?;
        self.queue(plan.sent).remove(&(plan.due, address));
        let sent = plan.sent.saturating_add(1);
        let pause = if sent < BURSTS { Some(INTERVAL) } else { self.period };
        match pause.and_then(|pause| now.checked_add(pause)) {
            Some(due) => {
                self.addresses.insert(address, Plan { due, sent });
                self.repetitions.insert((due, address));
            }
            None => drop(self.addresses.remove(&address)),
        }
        Some(Due { address, first })
    }

    /// When to ask again; `None` if nothing is to come.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let at = |queue: &BTreeSet<(Instant, IpAddr)>, ahead| {
            let due = queue.first()?.0;
            let room = self.filled_until.and_then(|until| until.checked_sub(ahead));
            Some(room.map_or(due, |room| room.max(due)))
        };
        [at(&self.firsts, AHEAD), at(&self.repetitions, REPETITIONS_AHEAD)].into_iter().flatten().min()
    }

    fn has_room(&self, now: Instant, ahead: Duration) -> bool {
        self.filled_until.is_none_or(|until| until <= now + ahead)
    }

    fn queue(&mut self, sent: u32) -> &mut BTreeSet<(Instant, IpAddr)> {
        if sent == 0 { &mut self.firsts } else { &mut self.repetitions }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    /// Asks when the schedule says so, as a thread does that sleeps to the millisecond; returns who was announced, and when.
    fn run(schedule: &mut Schedule, start: Instant, until: Duration) -> Vec<(Duration, Due)> {
        let mut announced = Vec::new();
        let mut now = start;
        while now <= start + until {
            while let Some(due) = schedule.next(now) {
                announced.push((now - start, due));
            }
            let Some(deadline) = schedule.deadline() else { break };
            let step = deadline.saturating_duration_since(now).as_micros().div_ceil(1000).max(1);
            now += Duration::from_millis(u64::try_from(step).unwrap());
        }
        announced
    }

    fn milliseconds(announced: &[(Duration, Due)]) -> Vec<u128> {
        announced.iter().map(|(at, _)| at.as_millis()).collect()
    }

    #[test]
    fn an_address_is_announced_five_times_and_then_rests() {
        let now = Instant::now();
        let mut schedule = Schedule::new(None);
        schedule.start(address(1), now);
        let announced = run(&mut schedule, now, Duration::from_secs(100));
        assert_eq!(milliseconds(&announced), [0, 1100, 2200, 3300, 4400]);
        let firsts: Vec<bool> = announced.iter().map(|(_, due)| due.first).collect();
        assert_eq!(firsts, [true, false, false, false, false]);
        assert_eq!((schedule.deadline(), schedule.addresses.len()), (None, 0));
    }

    #[test]
    fn with_a_period_it_is_announced_for_ever() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Some(Duration::from_secs(60)));
        schedule.start(address(1), now);
        let announced = run(&mut schedule, now, Duration::from_secs(130));
        assert_eq!(milliseconds(&announced), [0, 1100, 2200, 3300, 4400, 64_400, 124_400]);
        schedule.stop(address(1));
        assert_eq!(schedule.deadline(), None);
    }

    #[test]
    fn news_begin_the_bursts_again() {
        let now = Instant::now();
        let mut schedule = Schedule::new(None);
        schedule.start(address(1), now);
        assert_eq!(milliseconds(&run(&mut schedule, now, Duration::from_millis(1500))), [0, 1100]);
        let then = now + Duration::from_millis(1500);
        schedule.start(address(1), then);
        assert_eq!(milliseconds(&run(&mut schedule, then, Duration::from_secs(10))), [0, 1100, 2200, 3300, 4400]);
    }

    #[test]
    fn a_thousand_addresses_are_heard_within_a_quarter_of_a_second_and_the_rest_is_paced() {
        let now = Instant::now();
        let mut schedule = Schedule::new(None);
        for number in 0..1000 {
            schedule.start(address(number), now);
        }
        let announced = run(&mut schedule, now, Duration::from_secs(20));
        let firsts: Vec<_> = announced.iter().filter(|(_, due)| due.first).collect();
        assert_eq!((firsts.len(), announced.len()), (1000, 5000));
        assert!(firsts.iter().all(|(at, _)| *at <= Duration::from_millis(250)), "{:?}", firsts.last());
        // In no hundred milliseconds more than the bucket's rate and what it may be ahead.
        let repetitions: Vec<Duration> = announced.iter().filter(|(_, due)| !due.first).map(|(at, _)| *at).collect();
        let most = repetitions
            .iter()
            .map(|from| repetitions.iter().filter(|at| (*from..*from + Duration::from_millis(100)).contains(at)).count());
        assert!(most.max().unwrap() <= 210);
        assert!(announced.last().unwrap().0 <= Duration::from_secs(6), "{:?}", announced.last());
    }

    #[test]
    fn who_takes_over_does_not_wait_for_repetitions() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Some(Duration::from_millis(1)));
        for number in 0..3000 {
            schedule.start(address(number), now);
        }
        run(&mut schedule, now, Duration::from_secs(10)); // from now on more is due than there is room for
        let then = now + Duration::from_secs(11);
        run(&mut schedule, then, Duration::from_millis(100));
        let then = then + Duration::from_millis(101);
        schedule.start(address(9999), then);
        let announced = run(&mut schedule, then, Duration::from_millis(20));
        assert_eq!(
            announced.iter().find(|(_, due)| due.first).map(|(at, due)| (at.as_millis(), due.address)),
            Some((0, address(9999)))
        );
        assert!(announced.len() > 5, "and they go on");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whoever was started and not stopped has been announced five times since; nobody else is ever announced.
        #[test]
        fn nobody_is_forgotten(steps in prop::collection::vec((0..6_u32, 0..3_u8, 0..3000_u64), 1..30)) {
            let mut now = Instant::now();
            let mut schedule = Schedule::new(None);
            let mut owed: HashMap<IpAddr, u32> = HashMap::new();
            for (number, what, wait) in steps {
                let address = address(number);
                if what == 0 {
                    schedule.stop(address);
                    owed.remove(&address);
                } else {
                    schedule.start(address, now);
                    owed.insert(address, BURSTS);
                }
                for (_, due) in run(&mut schedule, now, Duration::from_millis(wait)) {
                    let left = owed.get_mut(&due.address).expect("it was started");
                    prop_assert_eq!(due.first, *left == BURSTS);
                    *left -= 1;
                }
                now += Duration::from_millis(wait + 1);
            }
            for (_, due) in run(&mut schedule, now, Duration::from_secs(20)) {
                *owed.get_mut(&due.address).expect("it was started") -= 1;
            }
            prop_assert!(owed.values().all(|left| *left == 0), "{:?}", owed);
        }
    }
}
