//! Hearing of changes to a path: by inotify, or by looking again now and then where the kernel gives us no inotify.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

/// A person's editor needs a few milliseconds for its rename dance; this long without an event, and it is over.
const QUIET: Duration = Duration::from_millis(10);
/// But a directory that never rests is read all the same.
const AT_MOST: Duration = Duration::from_millis(30);
/// How often to look where inotify is not to be had (`fs.inotify.max_user_instances`).
const POLL: Duration = Duration::from_secs(2);
/// Links followed on the way to a file, as many as the kernel does (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// Watches a path that may be a file or a directory, may be reached through links, and need not be there yet.
pub(crate) struct PathWatch {
    path: PathBuf,
    inotify: Option<Armed>,
}

struct Armed {
    watches: Watches,
    events: EventStream<[u8; 4096]>,
    /// What each watch is there for: everything in a directory, or one name in it.
    interest: HashMap<WatchDescriptor, Interest>,
    /// Changes of attributes are of interest.
    attributes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Interest {
    Everything(PathBuf),
    Name(PathBuf, OsString),
}

impl PathWatch {
    pub(crate) fn new(path: PathBuf) -> Self {
        let inotify = Armed::new().inspect_err(|error| {
            warn!("inotify is not to be had ({error}): {} is looked at every {} s instead", path.display(), POLL.as_secs());
        });
        Self { path, inotify: inotify.ok() }
    }

    /// Watches the path and what leads to it. To be called before looking at it, so that nothing falls between.
    pub(crate) fn arm(&mut self) {
        let Some(armed) = &mut self.inotify else { return };
        if self.path.is_dir() {
            armed.add(&self.path, None);
        }
        armed.lead_to(&self.path);
    }

    /// Watches where the files really are, or would be: a link's target changes without a word in the link's directory.
    pub(super) fn arm_targets(&mut self, files: &[PathBuf]) {
        let Some(armed) = &mut self.inotify else { return };
        for file in files.iter().filter(|file| file.is_symlink()) {
            if let Some(target) = file.canonicalize().ok().or_else(|| where_it_breaks_off(file)) {
                armed.lead_to(&target);
            }
        }
    }

    /// Whether a change of permissions matters: something could not be read. Otherwise they change in the middle of a copy.
    pub(super) fn expect_attributes(&mut self, expected: bool) {
        if let Some(armed) = &mut self.inotify {
            armed.attributes = expected;
        }
    }

    /// Watches every link on the way to a file, and where it ends: a ConfigMap that is mounted is changed by swapping `..data`, a
    /// directory link half-way.
    pub(crate) fn arm_links(&mut self) {
        let Some(armed) = &mut self.inotify else { return };
        let mut path = self.path.clone();
        for _ in 0..MOST_LINKS {
            // The first part of the path that is a link, resolved, is the next path.
            let mut ancestors: Vec<&Path> = path.ancestors().collect();
            ancestors.reverse();
            let Some((link, target)) = ancestors.into_iter().find_map(|part| Some((part, std::fs::read_link(part).ok()?))) else {
                break;
            };
            let (Some(above), Some(name)) = (parent(link), link.file_name()) else { break };
            armed.add(above, Some(name.to_owned()));
            let rest = path.strip_prefix(link).unwrap_or(Path::new(""));
            path = if rest.as_os_str().is_empty() { above.join(target) } else { above.join(target).join(rest) };
        }
        if let (Some(above), Some(name)) = (parent(&path), path.file_name()) {
            armed.add(above, Some(name.to_owned()));
        }
    }

    /// Waits for something to happen to the path, and then for it to be over.
    pub(crate) async fn changed(&mut self) {
        let Some(armed) = &mut self.inotify else { return sleep(POLL).await };
        while !armed.next().await {}
        let latest = Instant::now() + AT_MOST;
        // Of interest or not, an event only means that it is not quiet yet.
        while Instant::now() < latest && timeout_at(latest.min(Instant::now() + QUIET), armed.next()).await.is_ok() {}
    }
}

/// Returns once there is something at a path.
pub(crate) async fn until_there(path: PathBuf) {
    let mut watch = PathWatch::new(path);
    loop {
        watch.arm();
        watch.arm_links();
        if watch.path.exists() {
            return;
        }
        watch.changed().await;
    }
}

/// The parent directory, of which a bare name has one as well.
fn parent(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// The name at which a chain of links leads nowhere; none if it runs in a circle.
fn where_it_breaks_off(link: &Path) -> Option<PathBuf> {
    let mut path = link.to_owned();
    for _ in 0..MOST_LINKS {
        if !path.is_symlink() {
            return Some(path);
        }
        path = parent(&path)?.join(std::fs::read_link(&path).ok()?);
    }
    None
}

impl Armed {
    fn new() -> io::Result<Self> {
        let events = Inotify::init()?.into_event_stream([0; 4096])?;
        Ok(Self { watches: events.watches(), events, interest: HashMap::new(), attributes: false })
    }

    /// Watches for a path itself, which can be created, removed or replaced, and so can each directory on the way that is not there
    /// yet.
    fn lead_to(&mut self, path: &Path) {
        let mut below = path;
        while let (Some(parent), Some(name)) = (parent(below), below.file_name()) {
            self.add(parent, Some(name.to_owned()));
            if parent.is_dir() {
                break;
            }
            below = parent;
        }
    }

    /// Adding a watch twice is one watch; interest in everything wins over interest in a name. What cannot be watched is not there
    /// (yet), and then something above it is watched.
    fn add(&mut self, directory: &Path, name: Option<OsString>) {
        // Not MODIFY: a file is read when its writer has closed it, not in the middle.
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::ATTRIB
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let Ok(descriptor) = self.watches.add(directory, mask) else { return };
        let new = match name {
            None => Interest::Everything(directory.to_owned()),
            Some(name) => Interest::Name(directory.to_owned(), name),
        };
        match self.interest.get(&descriptor) {
            Some(Interest::Everything(_)) if matches!(new, Interest::Name(..)) => {}
            Some(Interest::Name(_, known)) if matches!(&new, Interest::Name(_, name) if name != known) => {
                self.interest.insert(descriptor, Interest::Everything(directory.to_owned()));
            }
            _ => _ = self.interest.insert(descriptor, new),
        }
    }

    /// The next event; whether it concerns us.
    async fn next(&mut self) -> bool {
        match self.events.next().await {
            Some(Ok(event)) => self.concerns_us(&event),
            // Neither happens to an inotify descriptor that is ours alone; looking again is right in any case, but not in a hurry.
            Some(Err(_)) | None => {
                sleep(POLL).await;
                true
            }
        }
    }

    fn concerns_us(&mut self, event: &EventOwned) -> bool {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return true;
        }
        if event.mask.contains(EventMask::ATTRIB) && !self.attributes {
            return false;
        }
        if event.mask.contains(EventMask::IGNORED) {
            self.interest.remove(&event.wd);
            return true;
        }
        let (directory, wanted) = match self.interest.get(&event.wd) {
            Some(Interest::Everything(directory)) => (directory, None),
            Some(Interest::Name(directory, name)) => (directory, Some(name)),
            None => return false,
        };
        let Some(name) = &event.name else { return true };
        if wanted.is_some_and(|wanted| wanted != name) {
            return false;
        }
        // A regular file that was just created is empty still; its CLOSE_WRITE follows. Links and directories are complete at once.
        !event.mask.contains(EventMask::CREATE) || !is_fresh_file(&directory.join(name))
    }
}

fn is_fresh_file(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() == 1)
}
