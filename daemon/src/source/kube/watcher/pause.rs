//! The pause before what follows an attempt that has not failed.

use std::time::Duration;

use super::super::backoff::Backoff;
use super::{Phase, SETTLED};

/// None after what has lasted or has listed everything, but a server that accepts a watch only to end it is not asked again at once.
///
/// A server that was found to have been restored is listed without a pause, and the pauses of its outage are over: what is served is out
/// of date, and the nodes find that out as those pauses have spread them.
pub(super) fn after_success((phase, next): (Phase, Phase), paged: bool, lasted: Duration, backoff: &mut Backoff) -> Duration {
    if (phase, next) == (Phase::Resume, Phase::Begin) || lasted >= SETTLED {
        backoff.reset();
        Duration::ZERO
    } else if phase == Phase::Begin && paged {
        Duration::ZERO
    } else {
        backoff.next()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::connect::Timing;
    use super::*;

    #[test]
    fn a_restored_store_is_listed_at_once_however_long_the_outage_was() {
        let timing = Timing::default();
        let mut backoff = Backoff::new(&timing);
        for _ in 0..10 {
            backoff.next();
        }
        let moment = Duration::from_millis(3);
        let mut after = |phases, paged, lasted| after_success(phases, paged, lasted, &mut backoff);
        let (begin, resume) = (Phase::Begin, Phase::Resume);
        assert!(after((resume, resume), false, moment) >= timing.longest_backoff / 2, "a watch that ends at once");
        assert_eq!(after((begin, resume), true, moment), Duration::ZERO, "pages");
        assert_eq!(after((resume, begin), false, moment), Duration::ZERO);
        assert!(after((begin, resume), false, moment) <= timing.backoff * 2, "the outage is over");
        after((begin, resume), false, moment);
        assert_eq!(after((resume, resume), false, SETTLED), Duration::ZERO);
        assert!(after((resume, resume), false, moment) <= timing.backoff * 2);
    }
}
