//! A network namespace, held by a descriptor.

use crate::{Error, Finished, Process, Result, process};
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::{self, File},
    os::fd::{AsRawFd as _, RawFd},
    panic::resume_unwind,
    path::Path,
    process::Command,
    sync::Arc,
    thread,
};

/// A network namespace. Clones share it; the kernel frees it, with its interfaces, when the last clone, socket and process in it
/// are gone. It has no name in the file system.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: Arc<str>,
    /// `/proc/thread-self/ns/net` of the thread that made it. Descriptors close by themselves, even after SIGKILL.
    handle: Arc<File>,
}

impl Namespace {
    /// Makes an empty namespace with loopback up. IPv6 duplicate address detection and router discovery are off, so that
    /// addresses are usable at once and nothing configures itself; reverse path filtering is off in both families' defaults.
    ///
    /// # Errors
    /// If the process may not make namespaces: see [`enter_sandbox`](crate::enter_sandbox).
    pub fn new(name: &str) -> Result<Self> {
        // A thread of its own: unshare moves the calling thread, and the caller wants to stay where it is.
        let handle = on_thread(name, || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::NotAllowed { call: "unshare CLONE_NEWNET", source: errno.into() })?;
            loopback_up()?;
            File::open("/proc/thread-self/ns/net").map_err(Error::call("open", "/proc/thread-self/ns/net"))
        })??;
        let namespace = Self { name: name.into(), handle: Arc::new(handle) };
        namespace.sysctls(&[
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv6.conf.all.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
            ("net.ipv6.conf.default.router_solicitations", "0"),
            // Scenarios provoke many errors within a second, and every one of them is an assertion.
            ("net.ipv4.icmp_ratelimit", "0"),
            ("net.ipv6.icmp.ratelimit", "0"),
            // Beside the limit per peer there is one for all, icmp_msgs_per_sec with a burst of 50, which old kernels keep for the
            // whole machine; it spares the types that are not in the mask. 255 is a reserved type.
            ("net.ipv4.icmp_ratemask", "0"),
            ("net.ipv6.icmp.ratemask", "255"),
        ])?;
        if namespace.run(|| Path::new("/proc/sys/net/sctp").exists())? {
            // An INIT that is lost, or whose answer finds the socket locked, is sent again within a request's time: not after 3 s.
            namespace.sysctls(&[("net.sctp.rto_min", "500"), ("net.sctp.rto_initial", "1000")])?;
        }
        Ok(namespace)
    }

    /// What it was called when it was made.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs work on a thread inside the namespace and waits for it. Sockets opened there belong to the namespace for good,
    /// wherever they are used later; so a listener for a process in this namespace is made here. Calls may overlap.
    ///
    /// # Errors
    /// If no thread can be had. A panic in the work goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(&self.name, || self.enter().map(|()| work()))?
    }

    /// Starts work on a thread inside the namespace and does not wait.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let namespace = self.clone();
        named(&self.name).spawn(move || namespace.enter().map(|()| work())).map_err(Error::call("spawn a thread in", &self.name))
    }

    /// Starts a process inside the namespace. It is killed when the handle is dropped, and by the kernel when this process dies.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        process::spawn(self.clone(), command)
    }

    /// Starts a process inside the namespace whose descendants end with it, whatever session or process group they have moved to: it is
    /// the first one of a PID namespace. Dropping the handle waits for all of them. As every first process it does not notice signals
    /// that it does not handle; a SIGKILL from here it does.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn_contained(&self, command: Command) -> Result<Process> {
        process::spawn_contained(self.clone(), command)
    }

    /// Runs a program inside the namespace to its end: `exec("curl", &["-s", "http://172.30.0.41"])`.
    ///
    /// # Errors
    /// If the program cannot be started. Its failure is in the result.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> Result<Finished> {
        let output = self.run(|| Command::new(program).args(arguments).output())?;
        output.map(Finished::from).map_err(Error::call("run", program))
    }

    /// Writes one sysctl of the namespace, by its dotted name. Interface names with dots need the form with slashes.
    ///
    /// # Errors
    /// If it does not exist or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.sysctls(&[(name, value)])
    }

    /// Writes several sysctls.
    pub(crate) fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            settings.iter().try_for_each(|(name, value)| {
                // /proc/sys/net shows the namespace of the thread that opens the file.
                let path = format!("/proc/sys/{}", if name.contains('/') { (*name).to_owned() } else { name.replace('.', "/") });
                fs::write(&path, value).map_err(Error::call("write", format!("{value} to {path}")))
            })
        })?
    }

    /// Moves the calling thread into the namespace.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&*self.handle, CloneFlags::CLONE_NEWNET).map_err(Error::errno("setns", &self.name))
    }

    /// The descriptor, for requests that name a namespace by it.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.handle.as_raw_fd()
    }
}

/// Brings `lo` of the calling thread's namespace up. By ioctl: it must also work before the first thread exists.
pub(crate) fn loopback_up() -> Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").map_err(Error::call("open", "a socket for SIOCSIFFLAGS"))?;
    // SAFETY: ifreq is plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = 0x1 /* IFF_UP */;
    // SAFETY: the request is a valid ifreq that outlives the call, and the descriptor is open.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } < 0 {
        return Err(Error::call("SIOCSIFFLAGS", "lo")(std::io::Error::last_os_error()));
    }
    Ok(())
}

fn on_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = named(name).spawn_scoped(scope, work).map_err(Error::call("spawn a thread in", name))?;
        worker.join().or_else(|panic| resume_unwind(panic))
    })
}

fn named(name: &str) -> thread::Builder {
    // The kernel keeps 15 bytes of it; enough to tell threads apart in a debugger.
    thread::Builder::new().name(name.to_owned())
}
