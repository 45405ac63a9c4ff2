//! The API server double by hand: `cargo run -p sheave-tests --bin apiserver -- --manifests DIR`, then curl or kubectl.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use ipnet::IpNet;
use sheave_tests::apiserver::load::{Load, Mix, Shape};
use sheave_tests::apiserver::{ApiServer, Config, Resource, Tls};

/// A Kubernetes API server for trying things out: no controllers, nothing on disk.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// File or directory of manifests to apply.
    #[arg(long)]
    manifests: Option<PathBuf>,
    /// Networks of the ServiceCIDR `kubernetes`; the first one's family is the cluster's own.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = "10.96.0.0/16,fd00:10:96::/108")]
    service_cidr: Vec<IpNet>,
    /// Bearer token that clients must send.
    #[arg(long, env = "APISERVER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Certificate to serve with, and those that vouch for it, in PEM. Without, it is plain HTTP.
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// The certificate's key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Custom resource to serve, as group/version/plural/Kind; namespaced, with a status. May be repeated.
    #[arg(long, value_parser = custom_resource)]
    resource: Vec<Resource>,
    /// Serve MetalLB's objects, as if manifests/crds had been applied.
    #[arg(long)]
    metallb: bool,
    /// Services to generate.
    #[arg(long, default_value_t = 0)]
    services: u32,
    /// Endpoints of each generated Service.
    #[arg(long, default_value_t = 50)]
    endpoints: u32,
    /// Generate a realistic mix of Service types instead of ClusterIPs only.
    #[arg(long)]
    realistic: bool,
    /// Generate dual-stack Services.
    #[arg(long)]
    dual_stack: bool,
}

fn custom_resource(text: &str) -> Result<Resource, String> {
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [group, version, plural, kind] => Ok(Resource::custom(group, version, plural, kind, true, true)),
        _ => Err("expected group/version/plural/Kind".to_owned()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments {
        listen,
        manifests,
        service_cidr,
        token,
        tls_cert_file,
        tls_private_key_file,
        resource,
        metallb,
        services,
        endpoints,
        realistic,
        dual_stack,
    } = Arguments::parse();
    let tls = tls_cert_file.zip(tls_private_key_file).map(|(certificates, key)| Tls::read(&certificates, &key)).transpose()?;
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    // With TLS, the double itself listens on a port of its own behind.
    let (front, listener) = if tls.is_some() { (Some(listener), None) } else { (None, Some(listener)) };
    let config = Config { listener, token, service_cidrs: service_cidr, resources: resource, metallb, ..Config::default() };
    let server = ApiServer::start(config)?;
    if let Some(path) = manifests {
        server.apply_manifests(&path)?;
    }
    if services > 0 {
        let mix = if realistic { Mix::Realistic } else { Mix::Plain };
        Load::fill(&server, Shape { services, endpoints_per_service: endpoints, mix, dual_stack, ..Shape::default() })?;
    }
    let (url, front) = match tls.zip(front) {
        Some((tls, front)) => (format!("https://{}", front.local_addr()?), Some((tls, front))),
        None => (server.url(), None),
    };
    // For people and for scripts that wait for it.
    writeln!(std::io::stdout(), "{url}")?;
    if let Some((tls, front)) = front {
        tokio::select! {
            served = tls.serve(front, server.address()) => served?,
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
    } else {
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}
