//! Several nodes on one LAN: who announces a VIP, and who takes over. Asserted by what the LAN sees: frames with their times, whose
//! hardware address answers, and real requests.

mod elected;
mod faults;
mod itself;
mod parted;
mod planned;
mod quiet;
mod requests;
mod stage;

use sheave_tests::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    [
        itself::scenarios(),
        elected::scenarios(),
        faults::scenarios(),
        planned::scenarios(),
        parted::scenarios(),
        quiet::scenarios(),
    ]
    .concat()
}
