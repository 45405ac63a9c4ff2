//! Properties of the whole: random sequences of source changes through index, policy, table and plane, as the sync loop does it.
//!
//! ```text
//!  events ─► Reconciler ─► Delta ─► NftablesPlane ─► fake, or kernel ─► read back
//!     │           │                                                        ║
//!     │           ╚═ the table, filled at once from the same objects       ║
//!     │           ╚═ policy's text, read a second time (policy::naive)     ║
//!     └──────────── a second plane, loaded once ───────────────────────────╝
//! ```
//! `model` compares after every event; `fake` too, the nf_tables in memory of two planes; `kernel` lets stock `nft` read back two
//! namespaces, mostly at the end of a sequence; `affinity` puts entries into the kernel's affinity map and looks who is moved.
//!
//! Every run prints its seed. `SHEAVE_SEED` repeats a run, `SHEAVE_SEQUENCE` one sequence of it, `SHEAVE_SEQUENCES` says how many.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod affinity;
mod fake;
mod history;
mod kernel;
mod listing;
mod model;
mod run;
