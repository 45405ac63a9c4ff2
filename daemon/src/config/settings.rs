//! What goes into the judgement of a configuration beside it, and what comes out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;

use super::{ControllerChoice, Options};

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
    /// `--no-announcing`.
    pub no_announcing: bool,
    /// `--source`.
    pub source: Option<SourceChoice>,
    /// `--api-server`, `--master`.
    pub api_servers: Vec<String>,
    /// Several CIDRs of a family are let pass as the pods', which kube-proxy's configuration has no room for.
    pub several_cidrs: bool,
    /// `-v`.
    pub verbosity: Option<u32>,
    /// `--log-format`, `--logging-format`.
    pub log_format: Option<LogFormat>,
    /// `--log` is given: the file's verbosity decides nothing.
    pub log_filter: bool,
    /// `--streaming-list-patience`.
    pub streaming_list: Option<Duration>,
    /// `--controller`.
    pub controller: Option<ControllerChoice>,
    /// `--admin-socket`; none: there is none.
    pub admin_socket: Option<PathBuf>,
    /// `--lb-class`.
    pub class: Option<CompactString>,
    /// `--metallb-namespace`.
    pub metallb_namespace: Option<Arc<str>>,
    /// `--namespace`.
    pub namespace: Option<Arc<str>>,
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
    /// Says in the log what a reader of the configuration should know, each thing once while it holds: `said` is what held before.
    pub fn tell(&self, said: &mut BTreeSet<String>) {
        for remark in self.remarks.iter().filter(|text| !said.contains(*text)) {
            tracing::info!("configuration: {remark}");
        }
        for warning in self.warnings.iter().filter(|text| !said.contains(*text)) {
            tracing::warn!("configuration: {warning}");
        }
        *said = self.remarks.iter().chain(&self.warnings).cloned().collect();
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

impl LogDefaults {
    /// The filter that the verbosity stands for. The filter knows klog's numbers up to 10; more are no more.
    #[must_use]
    pub fn filter(self) -> String {
        self.verbosity.min(10).to_string()
    }
}

impl LogFormat {
    /// The other way round.
    pub(super) fn of(word: &str) -> Option<Self> {
        [Self::Text, Self::Json].into_iter().find(|format| format.word() == word)
    }

    /// As `logging.format` has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
