//! kube-proxy, if one was given: whether it is one, and how it is told to serve.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::json;
use sheave_lab::Namespace;
use tempfile::NamedTempFile;

use crate::scratch;

/// A program that says that it is kube-proxy.
#[derive(Clone, Debug)]
pub(crate) struct KubeProxy {
    program: PathBuf,
    /// As it says it itself: "v1.36.2".
    pub(crate) version: String,
    pub(crate) mode: Mode,
}

/// Its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Nftables,
    Iptables,
    Ipvs,
}

/// How a proxy reaches its API server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access<'a> {
    /// The double at this URL, which speaks HTTP and JSON.
    Double(&'a str),
    /// What this file says.
    Kubeconfig(&'a Path),
}

/// For printing a version.
const PATIENCE: Duration = Duration::from_secs(10);

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        }
    }
}

impl KubeProxy {
    /// Asks the program who it is, in a namespace of its own: nobody knows yet what it does.
    ///
    /// # Errors
    /// If it is not there, cannot be run, does not answer, or is something else.
    pub(crate) fn identify(program: &Path, mode: Mode) -> Result<Self> {
        let version = ask("--kube-proxy", program, "kube-proxy", kubernetes_version)?;
        Ok(Self { program: program.to_owned(), version, mode })
    }

    /// The command that serves a node, and the configuration file that it reads; the file must stay until it has ended.
    ///
    /// Its requests to the API server double are told to be JSON, which is what that one speaks. The limits on conntrack are left
    /// alone: they are the machine's.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn command(&self, access: Access<'_>, node: &str, cluster_cidr: &str) -> Result<(Command, NamedTempFile)> {
        let connection = match access {
            Access::Double(_) => json!({"acceptContentTypes": "application/json", "contentType": "application/json"}),
            Access::Kubeconfig(file) => json!({"kubeconfig": file}),
        };
        let configuration = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self.mode.name(),
            "clusterCIDR": cluster_cidr,
            "hostnameOverride": node,
            "clientConnection": connection,
            "conntrack": {"maxPerCore": 0, "min": 0},
        });
        // JSON is YAML.
        let mut file = scratch::file().context("making kube-proxy's configuration")?;
        writeln!(file, "{configuration}").context("writing kube-proxy's configuration")?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(file.path());
        if let Access::Double(url) = access {
            command.args(["--master", url]);
        }
        command.args(["--hostname-override", node]);
        Ok((command, file))
    }
}

/// Asks a program for its version, in a namespace of its own: nobody knows yet what it does. `option` named it, `version` finds it in
/// what it should print.
///
/// # Errors
/// If it is not there, cannot be run, does not answer, or is something else.
pub(crate) fn ask(option: &str, program: &Path, name: &str, version: fn(&str) -> Option<String>) -> Result<String> {
    let shown = format!("{option} {}", program.display());
    ensure!(program.is_file(), "{shown}: there is no such file");
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let place = Namespace::new("peer")?;
    let mut process = place.spawn(command).with_context(|| format!("{shown}: it cannot be run"))?;
    let status = process.wait(PATIENCE).with_context(|| format!("{shown}: `--version` does not end"))?;
    let output = process.child().stdout.take().context("the program's output")?;
    let said = std::io::read_to_string(output).unwrap_or_default();
    match version(&said) {
        Some(version) if status.success() => Ok(version),
        _ => bail!("{shown} is not {name}: `--version` printed {:?} ({status})", said.lines().next().unwrap_or_default()),
    }
}

/// "Kubernetes v1.36.2" is what every component of Kubernetes prints.
pub(crate) fn kubernetes_version(said: &str) -> Option<String> {
    let version = said.trim().strip_prefix("Kubernetes ")?;
    (version.starts_with('v') && !version.contains(char::is_whitespace)).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_kubernetes_own_and_nothing_else() {
        assert_eq!(kubernetes_version("Kubernetes v1.36.2\n").as_deref(), Some("v1.36.2"));
        for other in ["", "sheave 0.1.0", "Kubernetes", "Kubernetes 1.36", "Kubernetes v1 and more", "v1.36.2"] {
            assert_eq!(kubernetes_version(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_there_is_said_to_be_missing() {
        let error = KubeProxy::identify(Path::new("/nowhere/kube-proxy"), Mode::Nftables).unwrap_err();
        assert_eq!(error.to_string(), "--kube-proxy /nowhere/kube-proxy: there is no such file");
    }

    #[test]
    fn the_configuration_names_mode_and_master() {
        let peer = KubeProxy { program: "/bin/true".into(), version: "v1.36.2".into(), mode: Mode::Iptables };
        let (command, file) = peer.command(Access::Double("http://127.0.0.1:1"), "test-node", "10.128.0.0/9").unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let configuration: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&configuration["mode"], &configuration["clusterCIDR"]), (&json!("iptables"), &json!("10.128.0.0/9")));
        let arguments: Vec<_> = command.get_args().filter_map(|argument| argument.to_str()).collect();
        assert!(arguments.windows(2).any(|pair| pair == ["--master", "http://127.0.0.1:1"]), "{arguments:?}");
    }

    #[test]
    fn a_kubeconfig_takes_the_place_of_the_master() {
        let peer = KubeProxy { program: "/bin/true".into(), version: "v1.36.2".into(), mode: Mode::Ipvs };
        let (command, file) = peer.command(Access::Kubeconfig(Path::new("/k")), "test-node", "10.128.0.0/9").unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let configuration: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&configuration["mode"], &configuration["clientConnection"]), (&json!("ipvs"), &json!({"kubeconfig": "/k"})));
        assert!(command.get_args().all(|argument| argument != "--master"));
    }
}
