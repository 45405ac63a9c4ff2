//! What goes into the judgement of a configuration beside it, and what comes out.

use std::path::PathBuf;
use std::time::Duration;

use super::Options;

/// What the command line says over the head of a file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--node-name`, `--hostname-override`.
    pub node_name: Option<String>,
    /// The host's name, for when nobody gives another.
    pub host_name: String,
    /// `--plane`.
    pub plane: Option<String>,
    /// `--adopt`.
    pub adopt: bool,
    /// `--source`.
    pub source: Option<SourceChoice>,
    /// `--api-server`, `--master`.
    pub api_servers: Vec<String>,
    /// Several CIDRs of a family are let pass as the pods', which kube-proxy's configuration has no room for.
    pub several_cidrs: bool,
    /// `--streaming-list-patience`.
    pub streaming_list: Option<Duration>,
}

/// `--source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// An API server.
    Kube,
    /// Manifests.
    Manifests(PathBuf),
}

/// What a configuration comes to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For the daemon.
    pub options: Options,
    /// Everything in force, as `/configz` tells it: the documents by their API groups.
    pub configz: serde_json::Value,
    /// For the log, unless the command line says otherwise.
    pub log: LogDefaults,
    /// What is served otherwise than a reader of the file might think, as it should be.
    pub remarks: Vec<String>,
    /// What has no effect, or most likely not the one that was meant.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Says in the log what a reader of the configuration should know.
    pub fn tell(&self) {
        for remark in &self.remarks {
            tracing::info!("configuration: {remark}");
        }
        for warning in &self.warnings {
            tracing::warn!("configuration: {warning}");
        }
    }
}

/// `logging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogDefaults {
    /// How lines look.
    pub format: LogFormat,
    /// klog's verbosity.
    pub verbosity: u32,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}
