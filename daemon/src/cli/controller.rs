//! `sheave controller`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::Failure;
use crate::loadbalancer::controller::{self, ControllerError, ControllerOptions, ControllerServers, LeaseTiming};
use crate::source::kube::KubeOptions;

/// Flags of `sheave controller`. Those that MetalLB's controller or other components of Kubernetes have are called as theirs.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Credentials and API server from this file [default: the pod's service account]
    #[arg(long, value_name = "FILE", help_heading = "API server")]
    kubeconfig: Option<PathBuf>,

    /// API server to use, several to be tried in turn [default: the kubeconfig's, else the one of the pod's environment]
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = "API server")]
    api_server: Vec<String>,

    /// Serve only Services of this spec.loadBalancerClass [default: those without one]
    #[arg(long, value_name = "CLASS", value_parser = NonEmptyStringValueParser::new())]
    lb_class: Option<String>,

    /// The namespace whose IPAddressPools and L2Advertisements count [default: where there are pools; metallb-system, if several
    /// namespaces have some]
    #[arg(long, value_name = "NAME", value_parser = super::object_name)]
    metallb_namespace: Option<String>,

    /// The namespace of the Lease and of the announcers' Secret
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "kube-system", value_parser = super::object_name)]
    namespace: String,

    /// Name of the Lease that the replica that leads holds
    #[arg(long, value_name = "NAME", default_value = controller::LEASE, value_parser = super::object_name, help_heading = "Leader election")]
    leader_elect_resource_name: String,

    /// Another replica takes over when it has seen no renewal for so long
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = super::duration, help_heading = "Leader election")]
    leader_elect_lease_duration: Duration,

    /// The replica that leads writes nothing any more when it could not renew for so long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::duration, help_heading = "Leader election")]
    leader_elect_renew_deadline: Duration,

    /// Between two attempts to renew, or to take over
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = super::duration, help_heading = "Leader election")]
    leader_elect_retry_period: Duration,

    /// Where /healthz and /readyz are answered; `none`: nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:17472", value_parser = address)]
    healthz_bind_address: Bind,

    /// Where /metrics is answered; `none`: nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:7472", value_parser = address)]
    metrics_bind_address: Bind,
}

/// An address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bind(Option<SocketAddr>);

pub(super) fn controller(arguments: Arguments) -> Result<(), Failure> {
    let servers = ControllerServers { health: arguments.healthz_bind_address.0, metrics: arguments.metrics_bind_address.0 };
    Ok(controller::serve(arguments.options()?, servers)?)
}

impl Arguments {
    fn options(self) -> Result<ControllerOptions, Failure> {
        let timing = LeaseTiming {
            duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
        };
        timing.check().map_err(|error| Failure::Usage(format!("--leader-elect-*: {error}")))?;
        let host = nix::unistd::gethostname().context("reading the host name").map_err(Failure::No)?;
        Ok(ControllerOptions {
            kube: KubeOptions {
                kubeconfig: self.kubeconfig,
                api_servers: self.api_server,
                serves_itself: false,
                metallb_namespace: self.metallb_namespace.map(Into::into),
                ..KubeOptions::default()
            },
            class: self.lb_class.map(Into::into),
            namespace: self.namespace.into(),
            lease: self.leader_elect_resource_name,
            timing,
            identity: ControllerOptions::identity_at(&host.to_string_lossy()),
            // In a Deployment it is on the network of pods.
            prober: None,
        })
    }
}

impl From<ControllerError> for Failure {
    fn from(error: ControllerError) -> Self {
        if error.is_usage() { Self::Usage(crate::daemon::with_causes(&error)) } else { Self::No(error.into()) }
    }
}

fn address(text: &str) -> Result<Bind, String> {
    match text {
        "none" => Ok(Bind(None)),
        // As Go programs take it: all addresses.
        text if text.starts_with(':') => address(&format!("[::]{text}")),
        text => text
            .parse()
            .map(|address| Bind(Some(address)))
            .map_err(|_| "expected an address such as 127.0.0.1:7472, or none".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn options(flags: &[&str]) -> Result<ControllerOptions, String> {
        let program = Program::try_parse_from(["controller"].iter().chain(flags)).map_err(|error| error.to_string())?;
        program.arguments.options().map_err(|failure| failure.text())
    }

    #[test]
    fn flags_say_what_they_do_and_defaults_are_those_of_every_component() {
        let usual = options(&["--namespace=kube-system"]).expect("nothing must be said");
        assert_eq!((usual.timing, &*usual.lease, &usual.class), (LeaseTiming::default(), "sheave-controller", &None));
        assert_eq!((&*usual.namespace, usual.kube.metallb_namespace), ("kube-system", None));
        let flags = ["--lb-class=example.com/lb", "--metallb-namespace=lb", "--leader-elect-lease-duration=30s"];
        let given = options(&flags).expect("fine");
        assert_eq!(given.class.as_deref(), Some("example.com/lb"));
        assert_eq!(given.kube.metallb_namespace.as_deref(), Some("lb"));
        assert_eq!(given.timing.duration, Duration::from_secs(30));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_flag() {
        for (flag, expected) in [
            ("--leader-elect-renew-deadline=15s", "--leader-elect-*: the lease duration must be longer than the renew deadline"),
            ("--metallb-namespace=a/b", "--metallb-namespace <NAME>': expected lower case letters"),
            ("--lb-class=", "--lb-class <CLASS>"),
            ("--healthz-bind-address=here", "expected an address"),
        ] {
            let error = options(&[flag]).expect_err(flag);
            assert!(error.contains(expected), "{flag}: {error}");
        }
        assert_eq!(address(":17472"), Ok(Bind(Some("[::]:17472".parse().expect("an address")))));
        assert_eq!(address("none"), Ok(Bind(None)));
    }
}
