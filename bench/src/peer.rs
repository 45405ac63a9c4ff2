//! kube-proxy, if one was given: how it is asked for, and how it is told to serve.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::program::{self, kubernetes_version};
use crate::scratch;

/// Which one, on the command line of whatever compares with it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Peer {
    /// A kube-proxy to measure beside sheave, on the same objects. A script that starts one should end in `exec`: memory and processor
    /// time are those of this program, and all that it starts ends with it
    #[arg(long, value_name = "FILE")]
    pub(crate) kube_proxy: Option<PathBuf>,

    /// Its mode
    #[arg(long, value_name = "MODE", default_value = "nftables", requires = "kube_proxy")]
    pub(crate) kube_proxy_mode: Mode,
}

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

/// As on the command line.
const OPTION: &str = "--kube-proxy";

impl Peer {
    /// Whether there is such a program, if one was asked for.
    ///
    /// # Errors
    /// If it cannot be run.
    pub(crate) fn ensure_runnable(&self) -> Result<()> {
        self.kube_proxy.iter().try_for_each(|program| program::ensure_runnable(OPTION, program))
    }

    /// Asks it who it is.
    ///
    /// # Errors
    /// If it is not there, cannot be run, does not answer, or is something else.
    pub(crate) fn identify(&self) -> Result<Option<KubeProxy>> {
        let Some(program) = &self.kube_proxy else { return Ok(None) };
        let (program, version) = program::identify(OPTION, program, "kube-proxy", kubernetes_version)?;
        Ok(Some(KubeProxy { program, version, mode: self.kube_proxy_mode }))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Peer, String> {
        crate::tests::parse(arguments)
    }

    #[test]
    fn a_mode_is_one_of_a_kube_proxy() {
        assert!(parse(&["--kube-proxy-mode", "iptables"]).unwrap_err().contains("--kube-proxy"));
        assert!(parse(&["--kube-proxy", "/x", "--kube-proxy-mode", "userspace"]).is_err());
        assert_eq!(parse(&["--kube-proxy", "/x", "--kube-proxy-mode", "ipvs"]).unwrap().kube_proxy_mode, Mode::Ipvs);
    }

    #[test]
    fn what_is_not_there_is_said_to_be_missing() {
        let error = parse(&["--kube-proxy", "/nowhere/kube-proxy"]).unwrap().ensure_runnable().unwrap_err();
        assert_eq!(error.to_string(), "--kube-proxy /nowhere/kube-proxy: there is no such file");
        parse(&[]).unwrap().ensure_runnable().unwrap();
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
