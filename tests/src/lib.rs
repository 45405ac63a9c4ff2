//! What sheave is tested with: an API server double, and the scenarios that use it.

pub mod apiserver;
