//! From kube-proxy and back: rules as kube-proxy writes them in each of its modes, and traffic that notices nothing.

mod adopt;
mod back;
mod check;
mod first_boot;
mod ipvs;
mod replica;

use sheave_tests::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    [adopt::scenarios(), back::scenarios(), check::scenarios(), first_boot::scenarios(), ipvs::scenarios()].concat()
}
