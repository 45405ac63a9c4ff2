//! The command line: one file per subcommand. Flags keep kube-proxy's names where kube-proxy has the thing.
//!
//! Exit codes: 0 yes, done; 1 no, differs or failed; 2 wrong usage; 3 the other side (kernel, API server, daemon) cannot be reached.

mod cleanup;
mod config;
mod controller;
mod demo;
mod get;
mod migrate;
mod run;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{GoDuration, LogDefaults, LogFormat as Format};
use crate::daemon::with_causes;
use crate::log_filter::LogFilter;

/// Kubernetes Services in the kernel of this node, explained.
#[derive(Debug, Parser)]
#[command(name = "sheave", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    log: LogOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve this node: watch Services and EndpointSlices and keep the kernel in step with them
    ///
    /// Stops on SIGTERM or SIGINT and leaves its rules in place, so that a restart cuts nothing. `sheave cleanup` removes them.
    Run(Box<run::Arguments>),
    /// Give addresses of MetalLB's pools to Services of type LoadBalancer: one for the cluster, or several of which one leads
    ///
    /// Needs no privilege on its machine. Stops on SIGTERM or SIGINT, and releases its Lease; addresses stay as they are.
    Controller(Box<controller::Arguments>),
    /// Print the default configuration, or say what a configuration file comes to
    Config(config::Arguments),
    /// Remove everything sheave put into this kernel, and nothing else
    Cleanup(cleanup::Arguments),
    /// Come from kube-proxy, and go back
    Migrate(migrate::Arguments),
    /// Ask the daemon of this node what it does, and why
    Get(get::Arguments),
    /// Watch a Service being load-balanced, in network namespaces that vanish afterwards
    Demo(demo::Arguments),
}

/// How to talk.
#[derive(Clone, Debug, clap::Args)]
struct LogOptions {
    /// What to log: a level (error, warn, info, debug, trace), or directives such as `info,sheave::source=debug` [default: info]
    #[arg(long, global = true, value_name = "FILTER", env = "SHEAVE_LOG", help_heading = "Logging")]
    log: Option<String>,

    /// One line for people, or one JSON object per line [default: text]
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Logging")]
    log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// Why a command ends with something other than 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The answer is no, or the work failed: exit code 1.
    No(anyhow::Error),
    /// The arguments make no sense together: exit code 2.
    Usage(String),
    /// Kernel, API server or daemon cannot be reached: exit code 3.
    Unreachable(anyhow::Error),
    /// The same with this exit code; the log has said what.
    Told(u8),
}

impl Cli {
    /// Runs the command.
    #[must_use]
    pub fn execute(self) -> ExitCode {
        let Self { command, log } = self;
        let outcome = match command {
            // Its log may be told by a file how to look.
            Command::Run(arguments) => arguments.run(log),
            Command::Controller(arguments) => log.start(None).and_then(|_| controller::controller(*arguments)),
            Command::Config(arguments) => log.start(None).and_then(|_| config::config(arguments)),
            Command::Cleanup(arguments) => log.start(None).and_then(|_| cleanup::cleanup(&arguments)),
            Command::Migrate(arguments) => log.start(None).and_then(|_| migrate::migrate(&arguments)),
            Command::Get(arguments) => log.start(None).and_then(|_| get::get(&arguments)),
            Command::Demo(arguments) => log.start(None).and_then(|_| demo::demo(&arguments)),
        };
        outcome.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
    }
}

impl LogOptions {
    /// Whether the command line says what to log.
    fn filter_given(&self) -> bool {
        self.log.is_some()
    }

    /// How lines look, if the command line says.
    fn format(&self) -> Option<Format> {
        self.log_format.map(Format::from)
    }

    /// Opens the log. What was not said on the command line is as the configuration has it; the filter can be changed later.
    fn start(&self, defaults: Option<LogDefaults>) -> Result<LogFilter, Failure> {
        let filter = self.log.clone().or(defaults.map(LogDefaults::filter)).unwrap_or_else(|| "info".to_owned());
        let (filter, reload) = LogFilter::new(&filter).map_err(|error| Failure::Usage(format!("--log: {error}")))?;
        let registry = tracing_subscriber::registry().with(reload);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        match self.format_under(defaults) {
            Format::Json => registry.with(lines.json().flatten_event(true).with_current_span(false)).init(),
            Format::Text => {
                let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
                registry.with(lines.with_ansi(colours).with_target(false)).init();
            }
        }
        Ok(filter)
    }

    /// How lines look in the end.
    fn format_under(&self, defaults: Option<LogDefaults>) -> Format {
        self.format().or(defaults.map(|defaults| defaults.format)).unwrap_or(Format::Text)
    }

    /// Says a failure in the log if that is JSON: whoever reads it takes every line for an object, the last one as well. A filter that
    /// lets no error through is no reason to end without a word.
    fn tell(&self, defaults: Option<LogDefaults>, failure: Failure) -> Failure {
        match self.format_under(defaults) {
            Format::Json if tracing::enabled!(tracing::Level::ERROR) => {
                tracing::error!("{}", failure.text());
                Failure::Told(failure.code())
            }
            Format::Json | Format::Text => failure,
        }
    }

    /// The same of a failure that comes before the log is open, or is why it does not open.
    fn tell_unopened(&self, defaults: Option<LogDefaults>, failure: Failure) -> Failure {
        if self.format_under(defaults) == Format::Text {
            return failure;
        }
        let any_filter = Self { log: None, ..self.clone() };
        match self.start(defaults).or_else(|_| any_filter.start(defaults)) {
            Ok(_) => self.tell(defaults, failure),
            Err(_) => failure,
        }
    }
}

/// A duration as Kubernetes' own tools take it. No time is negative.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = GoDuration::parse(text)?;
    if duration.is_negative() { Err(format!("{text:?} is negative")) } else { Ok(duration.to_std()) }
}

/// The name of an object or of a namespace: an RFC 1123 subdomain.
fn object_name(text: &str) -> Result<String, String> {
    let name = crate::config::node_name(text).filter(|name| name == text);
    name.ok_or_else(|| "expected lower case letters, digits, '-' and '.', beginning and ending with a letter or digit".to_owned())
}

impl Failure {
    #[expect(clippy::print_stderr, reason = "the last word of a command that failed goes to the person who typed it")]
    fn report(&self) -> ExitCode {
        match self {
            Self::No(_) | Self::Unreachable(_) => eprintln!("sheave: {}", self.text()),
            Self::Usage(text) => eprintln!("sheave: {text}\n\nFor more information, try '--help'."),
            Self::Told(_) => {}
        }
        ExitCode::from(self.code())
    }

    fn text(&self) -> String {
        match self {
            Self::No(error) | Self::Unreachable(error) => with_causes(error.as_ref()),
            Self::Usage(text) => text.clone(),
            Self::Told(_) => String::new(),
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::No(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Told(code) => *code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_kubectl() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "5", "-5s", "soon", "5 min", "PT5S"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
