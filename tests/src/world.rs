//! A lab with the real daemon on its node under test, fed from a directory of manifests.
//!
//! ```no_run
//! # use sheave_lab::Port;
//! # use sheave_tests::world::World;
//! # fn main() -> anyhow::Result<()> {
//! let mut world = World::new()?;
//! world.pod("ep", "10.180.0.1")?.serve(&[Port::tcp(80)])?;
//! world.start(&[])?;
//! world.apply("kind: Service ...")?; // returns when it is in the kernel
//! assert_eq!(world.client().tcp("172.30.0.41:80")?.by(), Some("ep"));
//! # Ok(()) }
//! ```

pub(crate) mod log;

use self::log::Log;
use crate::{confinement::Confinement, scenario::patience};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use sheave::source::manifests;
use sheave_lab::{Finished, Lab, Process};
use std::{
    env, fs,
    io::Write as _,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// A lab, a directory of manifests, and the daemon that makes the one do what the other says.
/// It dereferences to its [`Lab`].
pub struct World {
    // Fields drop in order: the daemon ends before its network and its manifests do.
    daemon: Option<Daemon>,
    arguments: Vec<String>,
    source: Source,
    /// Where the daemon is held, if not simply on the node.
    confinement: Option<Confinement>,
    lab: Lab,
    manifests: TempDir,
    /// Where the daemon's admin socket is.
    sockets: TempDir,
}

/// Where the daemon is told to look for objects.
enum Source {
    /// In the directory of manifests.
    Manifests,
    /// On these API servers.
    ApiServers(String),
    /// Where its arguments, or the files that they name, say.
    AsArguments,
}

struct Daemon {
    process: Process,
    log: Log,
}

/// What a daemon that serves manifests logs, unless its arguments say otherwise.
pub const LOG_FILTER: &str = "info,sheave::marks=debug";
/// The node's name in every scenario.
pub const NODE_NAME: &str = "test-node";
/// How long the daemon may take to bring objects into the kernel, a hundred thousand endpoints with a busy machine and a debug
/// build included.
const SYNC_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(15);

impl World {
    /// The standard lab, without objects and without a daemon.
    ///
    /// # Errors
    /// If the lab cannot be built.
    pub fn new() -> anyhow::Result<Self> {
        Self::in_lab(Lab::new()?)
    }

    /// The same in a lab of the caller's.
    ///
    /// # Errors
    /// If there is no temporary directory.
    pub fn in_lab(lab: Lab) -> anyhow::Result<Self> {
        let manifests = tempfile::tempdir().context("cannot make a directory for manifests")?;
        let sockets = tempfile::tempdir().context("cannot make a directory for the admin socket")?;
        Ok(Self { daemon: None, arguments: Vec::new(), source: Source::Manifests, confinement: None, lab, manifests, sockets })
    }

    /// Starts `sheave run` on the node under test, with further arguments, and waits until the manifests that are there are in the
    /// kernel.
    ///
    /// # Errors
    /// If it is not built, ends, or takes too long.
    pub fn start(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.launch()?;
        self.await_sync()
    }

    /// Starts `sheave run` on API servers, comma-separated URLs as the node sees them, with further arguments. Does not wait: what is
    /// to be awaited is that a packet goes through. A later [`launch`](Self::launch) or [`restart`](Self::restart) does the same.
    ///
    /// # Errors
    /// If it is not built.
    pub fn start_on_api(&mut self, servers: &str, arguments: &[&str]) -> anyhow::Result<()> {
        self.source = Source::ApiServers(servers.to_owned());
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.launch()
    }

    /// Starts `sheave run` with these arguments and no others but for the format of its log, as somebody else's manifest would. Does not
    /// wait.
    ///
    /// # Errors
    /// If it is not built.
    pub fn start_as(&mut self, arguments: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        self.source = Source::AsArguments;
        self.arguments = arguments.into_iter().collect();
        self.launch()
    }

    /// Confines the daemon, when it is started next; its executable is `/usr/bin/sheave` of the confinement's root then.
    pub fn confine(&mut self, confinement: Confinement) {
        self.confinement = Some(confinement);
    }

    /// Makes these the only objects, by a rename, and waits until they are in the kernel.
    ///
    /// # Errors
    /// If no daemon runs, or it takes too long.
    pub fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        self.write("world.yaml", yaml)?;
        self.await_sync()
    }

    /// Adds or replaces one file of objects, and waits until it is in the kernel.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_file(&self, name: &str, yaml: &str) -> anyhow::Result<()> {
        self.write(name, yaml)?;
        self.await_sync()
    }

    /// Removes one file of objects, and waits until the kernel no longer has them.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), and if there is no such file.
    pub fn remove_file(&self, name: &str) -> anyhow::Result<()> {
        fs::remove_file(self.manifests.path().join(name)).with_context(|| format!("cannot remove {name}"))?;
        self.await_sync()
    }

    /// Writes a file of objects and waits for nothing: for a daemon that is not running, or to catch it at work.
    /// The name needs an ending that is read: `.yaml`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, yaml: &str) -> anyhow::Result<()> {
        let target = self.manifests.path().join(name);
        // Hidden, so that it is not read before the rename.
        let mut file =
            tempfile::Builder::new().prefix(".").tempfile_in(self.manifests.path()).context("cannot write manifests")?;
        file.write_all(yaml.as_bytes()).context("cannot write manifests")?;
        file.persist(&target).with_context(|| format!("cannot rename to {}", target.display())).map(drop)
    }

    /// Waits until the manifests as they are now are in the kernel.
    ///
    /// # Errors
    /// If no daemon runs, it ends, or it takes too long.
    pub fn await_sync(&self) -> anyhow::Result<()> {
        let mark = manifests::digest(self.manifests.path()).context("cannot read the manifests")?;
        let daemon = self.daemon.as_ref().context("the daemon is not running")?;
        daemon.log.await_mark(&mark, SYNC_LIMIT * patience())
    }

    /// Waits for a log message that contains a text, among those not yet passed by an earlier wait.
    ///
    /// # Errors
    /// If no daemon runs, it ends, or none comes in time.
    pub fn await_log(&self, text: &str, limit: Duration) -> anyhow::Result<String> {
        self.daemon.as_ref().context("the daemon is not running")?.log.await_message(text, limit)
    }

    /// How many messages of this daemon so far contain a text.
    #[must_use]
    pub fn count_log(&self, text: &str) -> usize {
        self.daemon.as_ref().map_or(0, |daemon| daemon.log.count(text))
    }

    /// SIGKILL: nothing is tidied up.
    ///
    /// # Errors
    /// If no daemon runs.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGKILL).map(drop)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// If no daemon runs, or it does not end.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.end(Signal::SIGTERM)
    }

    /// Starts the daemon again, with the arguments it had.
    ///
    /// # Errors
    /// As [`start`](Self::start), and if one is running.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        if matches!(self.source, Source::Manifests) { self.await_sync() } else { Ok(()) }
    }

    /// What a hostile administrator does: `nft flush ruleset` on the node.
    ///
    /// # Errors
    /// If nft is missing or refuses.
    pub fn flush(&self) -> anyhow::Result<()> {
        self.nft("flush ruleset").map(drop)
    }

    /// Loads an nft script on the node, or asks: `nft("list ruleset")`.
    ///
    /// # Errors
    /// If nft is missing or refuses; with its words.
    pub fn nft(&self, script: &str) -> anyhow::Result<String> {
        nft(&self.lab, script)
    }

    /// Runs another command of sheave on the node: `sheave(&["explain", "172.30.0.41:80"])`.
    ///
    /// # Errors
    /// If it cannot be started. Its failure is in the result.
    pub fn sheave(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        let program = executable()?;
        Ok(self.lab.node().exec(&program.to_string_lossy(), arguments)?)
    }

    /// The daemon's process id.
    #[must_use]
    pub fn daemon_id(&self) -> Option<u32> {
        self.daemon.as_ref().map(|daemon| daemon.process.id())
    }

    /// Where the manifests are.
    #[must_use]
    pub fn manifests(&self) -> &Path {
        self.manifests.path()
    }

    /// The daemon's admin socket, where it is not confined.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.sockets.path().join("sheave.sock")
    }

    /// Starts the daemon, with the arguments it had, and waits for nothing.
    ///
    /// # Errors
    /// If it is not built, or one is running.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        ensure!(self.daemon.is_none(), "the daemon is running: kill or terminate it first");
        let mut command = match &self.confinement {
            None => {
                let mut command = Command::new(executable()?);
                command.env("SHEAVE_ADMIN_SOCKET", self.admin_socket());
                command
            }
            Some(confinement) => {
                let mut command = Command::new("/usr/bin/sheave");
                confinement.confine(&mut command);
                command
            }
        };
        command.args(["run", "--log-format", "json"]);
        match &self.source {
            Source::ApiServers(servers) => {
                command.args(["--node-name", NODE_NAME, "--source", "kube", "--api-server", servers]);
            }
            Source::Manifests => {
                command
                    .args(["--node-name", NODE_NAME, "--source"])
                    .arg(format!("manifests={}", self.manifests.path().display()))
                    // Manifests that change nothing are waited for as well.
                    .env("SHEAVE_LOG", LOG_FILTER);
            }
            Source::AsArguments => {}
        }
        command.args(&self.arguments).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = self.lab.node().spawn(command)?;
        let stream = process.child().stderr.take().context("the daemon's standard error is a pipe")?;
        self.daemon = Some(Daemon { process, log: Log::follow("", stream) });
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<ExitStatus> {
        let mut daemon = self.daemon.take().context("the daemon is not running")?;
        daemon.process.signal(signal)?;
        Ok(daemon.process.wait(END_LIMIT)?)
    }
}

impl Deref for World {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

/// Runs an nft script on the lab's node under test.
///
/// # Errors
/// If nft is missing or refuses; with its words.
pub fn nft(lab: &Lab, script: &str) -> anyhow::Result<String> {
    let mut file = tempfile::NamedTempFile::new().context("cannot write an nft script")?;
    file.write_all(script.as_bytes()).context("cannot write an nft script")?;
    let done = lab.node().exec("nft", &["-f", &file.path().to_string_lossy()])?;
    ensure!(done.status.success(), "nft refused: {}", done.stderr);
    Ok(done.stdout)
}

/// The daemon's executable: `SHEAVE_BIN`, or the one beside this test executable.
///
/// # Errors
/// If there is none; the error says how to get it.
pub fn executable() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("SHEAVE_BIN") {
        return Ok(path.into());
    }
    // A test lives in target/PROFILE/deps, a binary in target/PROFILE.
    let own = env::current_exe().context("cannot find the test executable")?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join("sheave")).find(|path| path.is_file());
    found.with_context(|| format!("no sheave beside {}: build it first with `cargo build -p sheave`", own.display()))
}
