//! What control groups leave of the machine's memory: a container's limit says more than `/proc/meminfo`, which is the machine's.

use std::fs;
use std::path::{Path, PathBuf};

/// A control group with a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Its directory.
    pub(crate) group: PathBuf,
    /// What may be taken yet, in bytes.
    pub(crate) left: u64,
}

/// The files of one version of the memory controller.
struct Files {
    legacy: bool,
    limit: &'static str,
    usage: &'static str,
    /// Of `memory.stat`: page cache that the kernel gives up before it kills anybody.
    reclaimable: &'static str,
}

/// Documentation/admin-guide/cgroup-v2.rst; a limit may also be `max`.
const UNIFIED: Files = Files { legacy: false, limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file" };
/// Documentation/admin-guide/cgroup-v1/memory.rst; no limit is a number beyond all memory there is.
const LEGACY: Files =
    Files { legacy: true, limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", reclaimable: "total_inactive_file" };

/// The tightest limit on this process: of its own group, or of one above it. `None` without any, and where none can be read.
pub(crate) fn tightest() -> Option<Limit> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    tightest_of(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

fn tightest_of(groups: &str, mounts: &str) -> Option<Limit> {
    let limits = mounts.lines().filter_map(mount).flat_map(|Mount { files, root, point }| {
        let group = groups.lines().filter_map(group).find(|group| group.legacy == files.legacy);
        let own = group.and_then(|group| Path::new(group.path).strip_prefix(root).ok()).unwrap_or(Path::new(""));
        // What is above the mount is out of sight.
        let groups: Vec<PathBuf> = own.ancestors().map(|group| point.join(group)).collect();
        groups.into_iter().filter_map(move |group| files.limit(group))
    });
    limits.min_by_key(|limit| limit.left)
}

/// Where groups with a memory controller are.
struct Mount<'t> {
    files: &'static Files,
    /// Which group is mounted there.
    root: &'t Path,
    point: &'t Path,
}

/// A line of proc_pid_mountinfo(5).
fn mount(line: &str) -> Option<Mount<'_>> {
    let (of_mount, of_filesystem) = line.split_once(" - ")?;
    let mut of_mount = of_mount.split(' ').skip(3);
    let (root, point) = (Path::new(of_mount.next()?), Path::new(of_mount.next()?));
    let mut of_filesystem = of_filesystem.split(' ');
    let files = match (of_filesystem.next()?, of_filesystem.nth(1)?) {
        ("cgroup2", _) => &UNIFIED,
        ("cgroup", options) if options.split(',').any(|option| option == "memory") => &LEGACY,
        _ => return None,
    };
    Some(Mount { files, root, point })
}

/// Which group this process is in.
struct Group<'t> {
    legacy: bool,
    path: &'t str,
}

/// A line of `/proc/self/cgroup`: hierarchy, controllers, path (cgroups(7)).
fn group(line: &str) -> Option<Group<'_>> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let legacy = controllers.split(',').any(|controller| controller == "memory");
    (legacy || controllers.is_empty()).then_some(Group { legacy, path })
}

impl Files {
    fn limit(&self, group: PathBuf) -> Option<Limit> {
        let number = |file: &str| -> Option<u64> { fs::read_to_string(group.join(file)).ok()?.trim().parse().ok() };
        let (limit, usage) = (number(self.limit)?, number(self.usage)?);
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let named = |line: &str| line.split_once(' ').filter(|(name, _)| *name == self.reclaimable)?.1.parse().ok();
        let reclaimable: u64 = stat.lines().find_map(named).unwrap_or_default();
        Some(Limit { left: limit.saturating_sub(usage.saturating_sub(reclaimable)), group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hierarchy of three groups below a directory.
    fn hierarchy(files: &Files, limits: [&str; 3]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        for (path, limit) in ["", "pod", "pod/container"].iter().zip(limits) {
            let group = top.path().join(path);
            fs::create_dir_all(&group).unwrap();
            let write = |file: &str, text: &str| fs::write(group.join(file), text).unwrap();
            write(files.limit, limit);
            write(files.usage, "300\n");
            write("memory.stat", "anon 200\ninactive_file 100\ntotal_inactive_file 100\n");
        }
        top
    }

    #[test]
    fn the_tightest_limit_counts_whichever_group_has_it() {
        let top = hierarchy(&UNIFIED, ["max\n", "5000\n", "9000\n"]);
        let mounts = format!("30 24 0:26 / {} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate", top.path().display());
        let tightest = tightest_of("0::/pod/container\n", &mounts);
        assert_eq!(tightest, Some(Limit { group: top.path().join("pod"), left: 4_800 }));
        assert_eq!(tightest_of("0::/\n", &mounts), None, "the top has no limit");
    }

    #[test]
    fn in_a_container_the_mount_is_of_its_own_group() {
        let top = hierarchy(&LEGACY, ["1000\n", "9223372036854771712\n", "9223372036854771712\n"]);
        let point = top.path().display();
        let mounts =
            format!("31 24 0:27 /docker/x {point} rw - cgroup cgroup rw,memory\n32 24 0:28 / /c rw - cgroup cgroup rw,cpu");
        let tightest = |groups: &str| tightest_of(groups, &mounts).unwrap();
        assert_eq!(tightest("5:cpu:/\n4:memory:/docker/x/pod\n0::/elsewhere\n").left, 800);
        assert_eq!(tightest("4:memory:/../outside\n").group, top.path(), "what is not below it is taken for it");
    }

    #[test]
    fn what_is_used_up_leaves_nothing() {
        let top = hierarchy(&UNIFIED, ["100\n", "max\n", "max\n"]);
        let mounts = format!("30 24 0:26 / {} rw - cgroup2 cgroup2 rw", top.path().display());
        assert_eq!(tightest_of("0::/pod\n", &mounts).unwrap().left, 0);
        assert_eq!(tightest_of("", ""), None);
        assert_eq!(tightest_of("broken", "1 2 3\n4 5 6 7 8 - x\n"), None);
    }
}
