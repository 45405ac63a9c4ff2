mod deferred;
mod flows;
mod loads;
mod telling;

use std::path::PathBuf;

use super::*;
use crate::config::SourceOptions;
use crate::health::STALE_AFTER;

fn options() -> Options {
    Options::new("node".into(), SourceOptions::Manifests(PathBuf::new()))
}

fn outputs() -> Outputs {
    Outputs {
        published: Arc::new(Published::default()),
        marks: watch::Sender::new(Vec::new()),
        reporter: Reporter::default(),
        stale_flows: None,
        metrics: Arc::default(),
        health: Arc::new(ProxyHealth::new(STALE_AFTER, false)),
    }
}
