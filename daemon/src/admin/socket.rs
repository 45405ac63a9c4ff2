//! A unix socket that only its owner can open, in place of one that a dead daemon left behind.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// Queue of the kernel for connections that are not accepted yet.
const BACKLOG: i32 = 16;
/// Others than the owner may neither look nor enter.
const DIRECTORY: u32 = 0o700;
/// Others than the owner may not connect.
const SOCKET: u32 = 0o600;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Its directory is not there and cannot be made, or cannot be used.
    #[error("directory {}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Who may write to the directory could put another socket in place of ours.
    #[error("directory {} belongs to user {owner} and has mode {mode:03o}; it has to be ours, and writable for us alone", path.display())]
    Open {
        /// Which one.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// A file, a link, a directory: it is left alone.
    #[error("{} is there and is no socket", path.display())]
    Foreign {
        /// Which one.
        path: PathBuf,
    },
    /// Somebody accepts connections there.
    #[error("another daemon answers at {}", path.display())]
    Lives {
        /// Where.
        path: PathBuf,
    },
    /// A call failed.
    #[error("{call} {}", path.display())]
    Call {
        /// What was tried.
        call: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A socket of ours in the file system. Dropped, it is gone from there, unless somebody has put another in its place.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    /// Device and number of the file.
    identity: (u64, u64),
}

impl Bound {
    /// Listens there. Whoever connects finds a listener that only the owner of this process may use, at every moment: the socket gets
    /// its mode before it listens, and its name last.
    pub(super) fn at(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let failed = |call| move |source: io::Error| SocketError::Call { call, path: path.to_owned(), source };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let held = enter(directory)?;
        // One who begins at the same moment waits until the socket is there, and finds that it lives.
        let _alone = Flock::lock(held, FlockArg::LockExclusive)
            .map_err(|(_, errno)| SocketError::Directory { path: directory.to_owned(), source: errno.into() })?;
        make_way(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = directory.join(format!(".{name}.{}", std::process::id()));
        // Of a process of our number that died half way.
        let _ = fs::remove_file(&draft);
        let listen = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
            socket.bind(&SockAddr::unix(&draft)?)?;
            fs::set_permissions(&draft, Permissions::from_mode(SOCKET))?;
            socket.listen(BACKLOG)?;
            let metadata = fs::symlink_metadata(&draft)?;
            fs::rename(&draft, path)?;
            Ok((UnixListener::from_std(StdListener::from(std::os::fd::OwnedFd::from(socket)))?, metadata))
        };
        let (listener, metadata) = listen().map_err(|error: io::Error| {
            let _ = fs::remove_file(&draft);
            failed("listen at")(error)
        })?;
        Ok((Self { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) }, listener))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the admin socket is left behind");
        }
    }
}

/// The directory, made if it is not there; one that others may write to is not used.
fn enter(directory: &Path) -> Result<File, SocketError> {
    let failed = |source| SocketError::Directory { path: directory.to_owned(), source };
    match DirBuilder::new().mode(DIRECTORY).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let held = File::open(directory).map_err(failed)?;
    let metadata = held.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.uid() != geteuid().as_raw() || mode & 0o022 != 0 {
        return Err(SocketError::Open { path: directory.to_owned(), owner: metadata.uid(), mode });
    }
    Ok(held)
}

/// Whether what is there may be replaced: nothing, or a socket at which nobody listens.
fn make_way(path: &Path) -> Result<(), SocketError> {
    let failed = |call| move |source: io::Error| SocketError::Call { call, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::Foreign { path: path.to_owned() }),
        Ok(_) => {}
    }
    let connect = || {
        // It must not wait: a full queue is a sign of life as well.
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    match connect() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(()) => Err(SocketError::Lives { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::Lives { path: path.to_owned() }),
        Err(error) => Err(failed("connect to")(error)),
    }
}
