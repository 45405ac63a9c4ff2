//! What a kube-proxy that is alive says of itself: whether what it knows of the API server is in the kernel.
//!
//! Its rules do not say it: they may be last week's, and it leaves them alone until it has listed every Service. Nor does its
//! `/healthz`, which says 200 from the first moment. Its metrics do: the time of its last sync is there once it has had one, and it has
//! none before it has listed everything (`syncProxyRules` of pkg/proxy/nftables/proxier.go, v1.36).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{block_on, presence};

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Programmed {
    /// Everything that it knows is in the kernel.
    Yes {
        /// Requests to the API server that failed since its start. If they become more, what it knows may be old.
        failed_requests: u64,
    },
    /// Nothing is yet, or changes wait.
    NotYet,
    /// It cannot be asked, and why.
    Unknown(String),
}

/// Asks it, and not too often: what it answers may be long.
#[derive(Debug, Default)]
pub(super) struct Witness {
    last: Option<(Instant, Programmed)>,
}

/// Where kube-proxy has its metrics, if nobody has changed that.
const PORT: u16 = 10249;
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// It answers on this very node, from memory.
const PATIENCE: Duration = Duration::from_secs(2);
const LARGEST: usize = 16 << 20;

const LAST_SYNC: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
const LAST_QUEUED: &str = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds";
const REQUESTS: &str = "rest_client_requests_total";
/// Of every program of Kubernetes'.
const KUBERNETES: &str = "kubernetes_build_info";
/// Of ours, which has kube-proxy's names as well.
const SHEAVE: &str = "sheave_build_info";

impl Witness {
    pub(super) fn asked(&mut self, now: Instant) -> Programmed {
        if let Some((when, said)) = &self.last
            && now.saturating_duration_since(*when) < AGAIN_AFTER
        {
            return said.clone();
        }
        let said = ask().map_or_else(Programmed::Unknown, |text| judge(&text));
        self.last = Some((now, said.clone()));
        said
    }
}

/// Its metrics, or why there are none.
fn ask() -> Result<String, String> {
    let Some(address) = presence::listens_at(PORT) else {
        return Err(format!("nobody listens on port {PORT}, where kube-proxy tells its metrics"));
    };
    let answer = block_on(async { timeout(PATIENCE, get(address)).await }).map_err(|error| error.to_string())?;
    let answer = answer.map_err(|_| anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())).and_then(|answer| answer);
    answer.map_err(|error| format!("http://{address}/metrics: {error}"))
}

async fn get(address: SocketAddr) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/metrics").header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = client.send_request(request).await?;
        anyhow::ensure!(answer.status().is_success(), "{}", answer.status());
        let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| anyhow::anyhow!(error))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    tokio::pin!(exchange);
    tokio::select! {
        text = &mut exchange => text,
        // It may have ended with the answer's last byte.
        ended = connection => { ended?; exchange.await }
    }
}

fn judge(text: &str) -> Programmed {
    if has(text, SHEAVE) {
        return Programmed::Unknown(format!("a sheave answers on port {PORT}, and not kube-proxy"));
    }
    let synced: Vec<(&str, f64)> = samples(text, LAST_SYNC).collect();
    if synced.is_empty() && !has(text, KUBERNETES) {
        return Programmed::Unknown(format!("whoever answers on port {PORT} is not kube-proxy"));
    }
    // A family that was queued and has never synced has no time of a sync.
    let waits = |(labels, queued): (&str, f64)| !synced.iter().any(|(of, last)| *of == labels && *last >= queued);
    if synced.is_empty() || synced.iter().any(|(_, last)| *last <= 0.0) || samples(text, LAST_QUEUED).any(waits) {
        return Programmed::NotYet;
    }
    // Codes are those of HTTP, or `<error>` where there was no answer.
    let failed = samples(text, REQUESTS).filter(|(labels, _)| !labels.contains("code=\"2")).map(|(_, count)| count);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, which is no fraction and not negative")]
    let failed_requests = failed.sum::<f64>() as u64;
    Programmed::Yes { failed_requests }
}

fn has(text: &str, metric: &str) -> bool {
    samples(text, metric).next().is_some()
}

/// Labels and value of every sample of a metric, in the text format of Prometheus.
fn samples<'a>(text: &'a str, metric: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(metric)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        Some((labels, value.split_whitespace().next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: Programmed = Programmed::Yes { failed_requests: 0 };

    fn text(lines: &[&str]) -> String {
        [&["# TYPE kubernetes_build_info gauge", "kubernetes_build_info{git_version=\"v1.36.2\"} 1"], lines].concat().join("\n")
    }

    #[test]
    fn it_has_programmed_what_it_knows_once_it_has_synced_and_nothing_waits() {
        let synced = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 1.7641e+09";
        assert_eq!(judge(&text(&[])), Programmed::NotYet, "no sample before the first sync");
        assert_eq!(judge(&text(&["kubeproxy_sync_proxy_rules_last_timestamp_seconds 0"])), Programmed::NotYet, "before 1.34");
        assert_eq!(judge(&text(&[synced])), YES);
        let queued = |family: &str, at: &str| {
            format!("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{{ip_family=\"{family}\"}} {at}")
        };
        assert_eq!(judge(&text(&[synced, &queued("IPv4", "1.7640e+09")])), YES);
        assert_eq!(judge(&text(&[synced, &queued("IPv4", "1.7642e+09")])), Programmed::NotYet, "a change waits");
        let both = [synced, &queued("IPv4", "1.7640e+09"), &queued("IPv6", "1.7640e+09")];
        assert_eq!(judge(&text(&both)), Programmed::NotYet, "IPv6 has never synced");
        let synced_too = synced.replace("IPv4", "IPv6");
        assert_eq!(judge(&text(&[&both[..], &[synced_too.as_str()]].concat())), YES);
        let requests = [
            "rest_client_requests_total{code=\"200\",host=\"a\",method=\"GET\"} 12",
            "rest_client_requests_total{code=\"<error>\",host=\"a\",method=\"GET\"} 3",
        ];
        assert_eq!(judge(&text(&[synced, requests[0], requests[1]])), Programmed::Yes { failed_requests: 3 });
    }

    #[test]
    fn others_are_no_witnesses() {
        for other in [
            "",
            "sheave_build_info{version=\"1\"} 1\nkubeproxy_sync_proxy_rules_last_timestamp_seconds 5",
            "node_load1 0.5",
            "}{",
        ] {
            assert!(matches!(judge(other), Programmed::Unknown(_)), "{other}");
        }
    }
}
