//! A configuration file that changes while the daemon runs.
//!
//! kube-proxy ends with an error and waits to be started again. Here most of a change is taken over by the loop as it runs; the rest
//! takes the daemon's inside down and builds it anew in the same process. Rules stay in force meanwhile, as with any restart.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::kernel_settings::{self, Sysctls};
use super::report::with_causes;
use super::sync::Control;
use crate::config::{ConfigFile, Options, Settings};
use crate::source::manifests::PathWatch;

/// What a change asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// The loop can take it over.
    Live,
    /// Other sources, another name or other servers: from the beginning.
    Restart,
}

fn change(now: &Options, next: &Options) -> Change {
    if now == next {
        Change::Nothing
    } else if (&now.node_name, &now.source, &now.addresses) == (&next.node_name, &next.source, &next.addresses) {
        Change::Live
    } else {
        Change::Restart
    }
}

/// Follows the file, and hands what can be taken over to the loop. Returns with a change that cannot be.
pub(super) async fn follow(file: &ConfigFile, mut now: Arc<Options>, control: mpsc::Sender<Control>) -> Settings {
    let mut watch = PathWatch::new(file.path.clone());
    let mut refused = None;
    loop {
        watch.arm();
        watch.arm_links();
        match file.load() {
            Ok(settings) => {
                refused = None;
                match change(&now, &settings.options) {
                    Change::Nothing => {}
                    Change::Live => {
                        tracing::info!("the configuration has changed: taken over");
                        settings.tell();
                        let next = Arc::new(settings.options);
                        if next.kernel != now.kernel {
                            kernel_settings::apply(&next, &Sysctls::default());
                        }
                        now = next;
                        // A loop that is gone ends the process anyway.
                        _ = control.send(Control::Options(now.clone())).await;
                    }
                    Change::Restart => {
                        tracing::info!("the configuration has changed: starting again with it, the rules stay in place");
                        return settings;
                    }
                }
            }
            // The same mistake is told once, however often the file is touched.
            Err(error) => {
                let text = with_causes(&error);
                if refused.as_ref() != Some(&text) {
                    tracing::error!("the configuration has changed and cannot be used, what was in force stays: {text}");
                    refused = Some(text);
                }
            }
        }
        watch.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Configuration, Overrides, interpret, parse};

    fn options(fields: &str) -> Options {
        let text = format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{fields}");
        let overrides = Overrides { host_name: "n".to_owned(), ..Overrides::default() };
        interpret(&Configuration::of(&parse(&text).unwrap()), &overrides).unwrap().options
    }

    #[test]
    fn a_change_is_live_unless_it_moves_what_the_daemon_is_built_around() {
        let now = options("");
        for (fields, expected) in [
            ("mode: iptables", Change::Nothing),
            ("clusterCIDR: 10.0.0.0/8", Change::Live),
            ("nodePortAddresses: [primary]", Change::Live),
            ("iptables: {masqueradeAll: true}", Change::Live),
            ("conntrack: {min: 7}", Change::Live),
            ("hostnameOverride: other", Change::Restart),
            ("clientConnection: {kubeconfig: /etc/other}", Change::Restart),
            ("metricsBindAddress: 127.0.0.1:1", Change::Restart),
        ] {
            assert_eq!(change(&now, &options(fields)), expected, "{fields}");
        }
    }
}
