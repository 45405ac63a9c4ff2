//! Leaving the host's network before anything is done to a network.

use crate::{Error, Result, namespace::loopback_up};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};
use std::{fs, io, path::Path};

/// Moves the process into a network and mount namespace of its own, and, unless it is root, into a user namespace in which it is.
/// To be called first in `main`, while there is one thread. Afterwards the host's interfaces, rules and sysctls are out of reach;
/// mounts are private, `/run` is empty, and loopback is up.
///
/// # Errors
/// [`Error::NotAllowed`], which says what an administrator can do about it; or a failed mount.
pub fn enter_sandbox() -> Result<()> {
    let refused = |call| move |errno: nix::Error| Error::NotAllowed { call, source: errno.into() };
    let network = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        unshare(network).map_err(refused("unshare CLONE_NEWNET|CLONE_NEWNS"))?;
    } else {
        unshare(network | CloneFlags::CLONE_NEWUSER).map_err(refused("unshare CLONE_NEWUSER|CLONE_NEWNET|CLONE_NEWNS"))?;
        // user_namespaces(7): without privilege outside, one line that maps oneself, and setgroups must be denied before.
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(Error::errno("mount --make-rprivate", "/"))?;
    // Sockets and state of daemons under test, side by side in parallel sandboxes.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .map_err(Error::errno("mount tmpfs", "/run"))?;
    loopback_up()
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(Path::new(path), text).map_err(|source: io::Error| Error::NotAllowed { call: "write uid and gid maps", source })
}
