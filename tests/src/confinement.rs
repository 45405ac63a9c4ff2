//! What a container runtime does to a process before it starts it, as far as it takes something away.

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{chdir, chroot},
};
use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

/// Capabilities: `linux/capability.h`.
const CAP_NET_ADMIN: libc::c_ulong = 12;
const CAP_NET_RAW: libc::c_ulong = 13;

/// A pod of the DaemonSet, as its process sees it: a root file system of its own that it cannot write to, `/proc` read-only, no
/// capability but `CAP_NET_ADMIN`, with announcing `CAP_NET_RAW` too, and no way to more.
///
/// A runtime's seccomp profile and its masks over `/proc` are not here: both differ from runtime to runtime.
#[derive(Clone, Debug)]
pub struct Confinement {
    root: CString,
    proc: CString,
    /// Directories of the machine, and where they are mounted.
    volumes: Vec<(CString, CString)>,
    capabilities: Vec<libc::c_ulong>,
}

impl Confinement {
    /// Confines to this directory, in which `/proc` is mounted.
    ///
    /// # Errors
    /// If it has no room for a mount point.
    pub fn new(root: &Path) -> io::Result<Self> {
        let proc = root.join("proc");
        fs::create_dir_all(&proc)?;
        Ok(Self { root: text(root)?, proc: text(&proc)?, volumes: Vec::new(), capabilities: vec![CAP_NET_ADMIN] })
    }

    /// With `CAP_NET_RAW` as well, which announcing takes.
    #[must_use]
    pub fn with_net_raw(mut self) -> Self {
        self.capabilities.push(CAP_NET_RAW);
        self
    }

    /// With a directory of the machine, at the same path inside, as a ConfigMap is mounted.
    ///
    /// # Errors
    /// If the root has no room for a mount point.
    pub fn with_volume(mut self, directory: &Path) -> io::Result<Self> {
        let inside = directory.strip_prefix("/").unwrap_or(directory);
        let inside = Path::new(OsStr::from_bytes(self.root.to_bytes())).join(inside);
        fs::create_dir_all(&inside)?;
        self.volumes.push((text(directory)?, text(&inside)?));
        Ok(self)
    }

    /// Confines a command, whose program is a path inside, and takes away its environment: a runtime hands on nothing of its own, where
    /// cargo, for one, names certificates of this machine in `SSL_CERT_FILE`. The command must be started as root of its user namespace.
    pub(crate) fn confine(&self, command: &mut Command) {
        let confinement = self.clone();
        command.env_clear();
        // SAFETY: between fork and exec only system calls are made, with strings that are there already.
        unsafe {
            command.pre_exec(move || confinement.enter());
        }
    }

    fn enter(&self) -> io::Result<()> {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(Some(self.root.as_c_str()), self.root.as_c_str(), none, MsFlags::MS_BIND, none)?;
        mount(Some(c"/proc"), self.proc.as_c_str(), none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        for (directory, inside) in &self.volumes {
            mount(Some(directory.as_c_str()), inside.as_c_str(), none, MsFlags::MS_BIND, none)?;
        }
        self.make_read_only()?;
        chroot(self.root.as_c_str())?;
        chdir(c"/")?;
        // Of what is not in the bounding set, a program executed as root gets nothing: capabilities(7).
        for capability in (0..64).filter(|capability| !self.capabilities.contains(capability)) {
            // SAFETY: a plain system call. It fails for the numbers that the kernel has no capability for.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        nix::sys::prctl::set_no_new_privs()?;
        Ok(())
    }

    /// The whole tree of mounts, which `mount(2)` cannot do at once.
    fn make_read_only(&self) -> io::Result<()> {
        // SAFETY: every field of it may be zero.
        let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
        attributes.attr_set = libc::MOUNT_ATTR_RDONLY;
        // SAFETY: the path ends in a zero, and the structure is as long as is said.
        let done = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                self.root.as_ptr(),
                libc::AT_RECURSIVE,
                &raw mut attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
