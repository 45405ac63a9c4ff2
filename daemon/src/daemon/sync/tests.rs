mod deferred;
mod loads;

use std::path::PathBuf;

use super::*;
use crate::config::SourceOptions;

fn options() -> Options {
    Options::new("node".into(), SourceOptions::Manifests(PathBuf::new()))
}

fn outputs() -> Outputs {
    Outputs {
        published: Arc::new(Published::default()),
        marks: watch::Sender::new(Vec::new()),
        reporter: Reporter::default(),
        stale_flows: None,
    }
}
