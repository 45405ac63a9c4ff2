//! The membership of whole clusters in virtual time.

mod facts;
mod faults;
mod hostile;
mod world;
