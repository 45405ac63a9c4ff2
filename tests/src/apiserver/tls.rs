//! TLS before the double, for clients that do not do without: a certificate and a key in PEM, as kube-apiserver takes them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// What a server shows to prove who it is.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or holds something else.
    #[error("reading {0}")]
    File(PathBuf, #[source] pem::Error),
    /// The key is another certificate's, or of a kind that nobody takes.
    #[error("the certificate of {0} does not go with the key")]
    Pair(PathBuf, #[source] rustls::Error),
}

impl Tls {
    /// Reads the certificate, with those that vouch for it, and its key.
    ///
    /// # Errors
    /// If a file holds no such thing, or both do not belong together.
    pub fn read(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |error| TlsError::File(path, error)
        };
        let chain = CertificateDer::pem_file_iter(certificates).and_then(Iterator::collect).map_err(unreadable(certificates))?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
            .map_err(|error| TlsError::Pair(certificates.to_owned(), error))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Takes connections from the listener, for ever, and carries what they say to the double at `to` and back.
    ///
    /// # Errors
    /// If the listener fails; what fails in a connection ends that one.
    pub async fn serve(&self, listener: TcpListener, to: SocketAddr) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (client, _) = listener.accept().await?;
            let acceptor = self.0.clone();
            tokio::spawn(async move {
                if let Err(error) = carry(&acceptor, client, to).await {
                    tracing::debug!(%error, "connection ended");
                }
            });
        }
    }
}

async fn carry(acceptor: &TlsAcceptor, client: TcpStream, to: SocketAddr) -> io::Result<()> {
    // Events are small and must not wait for the acknowledgement of the one before.
    client.set_nodelay(true)?;
    let mut client = acceptor.accept(client).await?;
    let mut double = TcpStream::connect(to).await?;
    double.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut double).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_something_else_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        std::fs::write(&plain, "no key").unwrap();
        for (certificates, key, named) in
            [(Path::new("/nowhere/server.crt"), plain.as_path(), "/nowhere/server.crt"), (&plain, &plain, "plain")]
        {
            let error = Tls::read(certificates, key).err().unwrap().to_string();
            assert!(error.starts_with("reading ") && error.ends_with(named), "{error}");
        }
    }
}
