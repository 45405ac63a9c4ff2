//! `sheave-bench` from its command line, with programs that stand in for others.

mod compare;
mod daemon;
mod leftovers;
mod packets;
mod report;
mod stand_in;
mod sync;
