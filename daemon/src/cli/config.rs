//! `sheave config`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::Failure;
use crate::config::{self, Configuration, Documents, FieldError, Options, Overrides, Settings, SourceOptions};
use crate::daemon::with_causes;
use crate::source::kube::look_at;

/// What to do with a configuration.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the default configuration, both documents, with a word about each field
    Default,
    /// Say what a configuration comes to: what it changes, what has no effect, what is wrong
    ///
    /// The kubeconfig that it names is looked at, too; that it is not on this machine is a warning. Nothing is run or asked for it, and
    /// a command in it that gives credentials is only named. Exit code 0: it can be used; 1: it is
    /// wrong; 2: it cannot be read.
    Check {
        /// The file; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub(super) fn config(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Default => {
            print!("{}", config::default_documents());
            Ok(())
        }
        Command::Check { file } => check(&file),
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn check(file: &Path) -> Result<(), Failure> {
    let is_piped = file.as_os_str() == "-";
    let read =
        if is_piped { config::read_from(std::io::stdin().lock(), Path::new("standard input")) } else { config::read(file) };
    let documents = match read {
        Ok(documents) => documents,
        Err(error @ config::ConfigError::Read { .. }) => return Err(Failure::Usage(with_causes(&error))),
        Err(error) => return Err(Failure::No(error.into())),
    };
    // The host's name is not the file's business.
    let overrides = Overrides { host_name: "this-node".to_owned(), ..Overrides::default() };
    let settings = documents.judge(&overrides).map_err(|errors| refused(&documents, &errors))?;
    let Kubeconfig { is_missing, mistake, not_run } = kubeconfig(&settings.options)?;
    let Settings { warnings, remarks, .. } = &settings;
    for warning in warnings {
        println!("warning: {warning}");
    }
    // What comes through a pipe, or names what is not here, is meant for another machine.
    let is_elsewhere = is_piped || is_missing;
    if let Some(mistake) = &mistake {
        println!("{}: {mistake}", if is_elsewhere { "warning" } else { "error" });
    }
    if let Some(not_run) = &not_run {
        println!("note: {not_run}");
    }
    for remark in remarks {
        println!("note: {remark}");
    }
    let changed = config::explained(&Configuration::of(&documents));
    if changed.is_empty() {
        println!("everything is as it is by default (`sheave config default`)");
    } else {
        println!("otherwise than by default:");
        for line in changed {
            println!("  {line}");
        }
    }
    match mistake {
        Some(_) if !is_elsewhere => Err(Failure::No(anyhow::anyhow!("1 error"))),
        _ => Ok(()),
    }
}

/// What there is to say of the kubeconfig that a configuration names.
#[derive(Debug, Default)]
struct Kubeconfig {
    /// There is no such file on this machine.
    is_missing: bool,
    /// Why `sheave run` would refuse it on this machine.
    mistake: Option<String>,
    /// A command in it is for `sheave run` alone: whoever only looks at a file does not want it to act, or to wait for a login.
    not_run: Option<String>,
}

fn kubeconfig(options: &Options) -> Result<Kubeconfig, Failure> {
    const FIELD: &str = "KubeProxyConfiguration.clientConnection.kubeconfig";
    let SourceOptions::Kube(kube) = &options.source else { return Ok(Kubeconfig::default()) };
    let Some(path) = &kube.kubeconfig else { return Ok(Kubeconfig::default()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("starting a runtime to read the kubeconfig").map_err(Failure::No)?;
    let (mistake, not_run) = match runtime.block_on(look_at(kube)) {
        Ok(command) => {
            (None, command.map(|field| format!("{FIELD}: {field} is not run here: whether it gives credentials is not known")))
        }
        Err(error) => (Some(format!("{FIELD}: {}", with_causes(&error))), None),
    };
    Ok(Kubeconfig { is_missing: !path.exists(), mistake, not_run })
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn refused(documents: &Documents, errors: &[FieldError]) -> Failure {
    for warning in &documents.warnings {
        println!("warning: {warning}");
    }
    for error in errors {
        println!("error: {error}");
    }
    let count = errors.len();
    Failure::No(anyhow::anyhow!("{count} {}", if count == 1 { "error" } else { "errors" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_that_run_would_refuse_is_an_error_where_it_counts() {
        let directory = tempfile::tempdir().unwrap();
        let (file, kubeconfig) = (directory.path().join("config.conf"), directory.path().join("kubeconfig"));
        let write = |ours: &str| {
            let text = format!(
                "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclientConnection: {{kubeconfig: {}}}\n---\n\
                 apiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration\n{ours}\n",
                kubeconfig.display()
            );
            std::fs::write(&file, text).unwrap();
        };
        let is_refused = || matches!(check(&file), Err(Failure::No(_)));
        write("");
        assert!(check(&file).is_ok(), "it is on the node, and this is somebody's own machine");
        std::fs::write(&kubeconfig, "current-context: none\n").unwrap();
        assert!(is_refused(), "there is no such context");
        let whole = "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
                     clusters: [{name: k, cluster: {server: 'http://10.0.0.1:6443'}}]\nusers: [{name: u, user: {}}]\n";
        std::fs::write(&kubeconfig, whole).unwrap();
        assert!(check(&file).is_ok());
        let ran = directory.path().join("ran");
        let user = "exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: touch, args";
        let whole = whole.replace("user: {}", &format!("user: {{{user}: ['{}']}}}}", ran.display()));
        std::fs::write(&kubeconfig, &whole).unwrap();
        assert!(check(&file).is_ok() && !ran.exists(), "who only looks at it runs no command");
        std::fs::write(&kubeconfig, whole.replace("10.0.0.1", "10.0.0.1:9:9")).unwrap();
        assert!(is_refused() && !ran.exists(), "everything else counts");
        std::fs::remove_file(&kubeconfig).unwrap();
        write("manifests: /m");
        assert!(check(&file).is_ok(), "nobody reads it");
    }
}
