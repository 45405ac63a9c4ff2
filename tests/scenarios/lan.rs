//! Several nodes on one LAN: who announces a VIP, and who takes over. Asserted by what the LAN sees: frames with their times, whose
//! hardware address answers, and real requests.

mod itself;

use sheave_tests::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    [itself::scenarios()].concat()
}
