//! What the numbers were measured on.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

/// A quiet machine's kernel takes and gives back less than this within a step,
const SETTLED_MB: f64 = 0.5;
const SETTLING_STEP: Duration = Duration::from_millis(250);
/// in so many steps, one after the other: what is taken apart is given back in pieces, with pauses between them.
const SETTLED_STEPS: u32 = 4;
const SETTLING_STEPS: u32 = 20;

/// A machine, as far as it explains a number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    /// Processors that this process may use.
    #[serde(alias = "cores")]
    pub(crate) cpus: usize,
    /// What the processors call themselves.
    #[serde(alias = "cpu")]
    pub(crate) model: String,
    /// In MB of 2^20 bytes.
    pub(crate) memory_mb: u64,
    /// `uname -r`.
    pub(crate) kernel: String,
}

/// What was measured, and with what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Versions {
    /// Of bench and daemon, which are built together.
    pub(crate) sheave: String,
    /// Of the daemon, as it says itself; `-dirty` behind it where there were changes on top. `None` where its build was not told.
    pub(crate) commit: Option<String>,
    /// The compiler.
    pub(crate) rustc: Option<String>,
    /// The stock tool, where there is one.
    pub(crate) nft: Option<String>,
}

impl Machine {
    /// This one. What `/proc` does not say is left blank.
    pub(crate) fn here() -> Self {
        Self {
            cpus: std::thread::available_parallelism().map_or(1, Into::into),
            model: value(&read("/proc/cpuinfo"), "model name").unwrap_or_default().to_owned(),
            memory_mb: kibibytes(&read("/proc/meminfo"), "MemTotal").unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    pub(crate) fn describe(&self) -> String {
        let Self { cpus, model, memory_mb, kernel } = self;
        format!("{cpus} cores of {model}, {memory_mb} MB, Linux {kernel}")
    }
}

impl Versions {
    /// Of this build and this machine.
    pub(crate) fn here() -> Self {
        let nft = Command::new("nft").arg("--version").output().ok().map(|output| String::from_utf8_lossy(&output.stdout).into());
        Self {
            sheave: env!("CARGO_PKG_VERSION").into(),
            commit: None,
            rustc: option_env!("SHEAVE_BENCH_RUSTC").map(Into::into),
            nft: nft.map(|text: String| text.trim().to_owned()).filter(|text| !text.is_empty()),
        }
    }

    pub(crate) fn describe(&self) -> String {
        let Self { sheave, commit, rustc, nft } = self;
        let others = [commit.as_ref().map(|commit| format!("commit {commit}")), rustc.clone(), nft.clone()];
        others.into_iter().flatten().fold(format!("sheave {sheave}"), |text, other| text + ", " + &other)
    }
}

/// What this process may do, a bit for each capability (`CapEff` of proc_pid_status(5)).
pub(crate) fn effective_capabilities() -> u64 {
    own_mask("CapEff")
}

/// Whether this process was begun with a signal ignored, as by nohup (`SigIgn`).
pub(crate) fn ignores(signal: i32) -> bool {
    own_mask("SigIgn") & 1 << (signal - 1) != 0
}

fn own_mask(field: &str) -> u64 {
    value(&read("/proc/self/status"), field).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or_default()
}

/// Who a process is a child of. `None` for one that is gone.
pub(crate) fn parent(process: u32) -> Option<u32> {
    value(&read(&format!("/proc/{process}/status")), "PPid")?.parse().ok()
}

/// The load average of the last minute: others at work are the usual reason for a bad percentile.
pub(crate) fn load_average() -> f64 {
    read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

/// What can be had on this machine without swapping, in bytes (`MemAvailable`).
pub(crate) fn available_memory() -> Option<u64> {
    kibibytes(&read("/proc/meminfo"), "MemAvailable").map(|kib| kib * 1024)
}

/// The most memory a process ever had resident, in MB of 10^6 bytes (`VmHWM`). `None` for one that is gone.
pub(crate) fn peak_rss_mb(process: u32) -> Option<f64> {
    resident(process, "VmHWM")
}

/// What a process has resident now, in MB of 10^6 bytes (`VmRSS`).
pub(crate) fn rss_mb(process: u32) -> Option<f64> {
    resident(process, "VmRSS")
}

/// What the whole kernel has for itself, in MB of 10^6 bytes: slabs that cannot be reclaimed (large `kmalloc`s are among them), vmalloc
/// and per-cpu memory, of all processes. A difference is as good as the machine is quiet.
#[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 KiB")]
pub(crate) fn kernel_memory_mb() -> f64 {
    let meminfo = read("/proc/meminfo");
    let sum: u64 = ["SUnreclaim", "VmallocUsed", "Percpu"].iter().filter_map(|field| kibibytes(&meminfo, field)).sum();
    sum as f64 * 1024.0 / 1e6
}

/// The same once it stays: a namespace that is gone is taken apart by a worker of the kernel, and a table of a million elements for
/// seconds. After five of them whatever there is must do, since it is others who are busy.
pub(crate) fn settled_kernel_memory_mb() -> f64 {
    let (mut last, mut quiet) = (kernel_memory_mb(), 0);
    for _ in 0..SETTLING_STEPS {
        std::thread::sleep(SETTLING_STEP);
        let now = kernel_memory_mb();
        quiet = if (now - last).abs() < SETTLED_MB { quiet + 1 } else { 0 };
        last = now;
        if quiet == SETTLED_STEPS {
            break;
        }
    }
    last
}

/// Processor time of the calling thread so far, user and kernel. By its clock: `getrusage` tells a running thread what it had at the last
/// tick, which is as long as a hundred changes of one endpoint.
pub(crate) fn own_time() -> Duration {
    clocked(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// What a clock shows. `None` for one of a process that is gone.
fn clocked(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is there.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    Some(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).ok()?))
}

/// Processor time that a process' thread of this name has had, user and kernel: to the nanosecond, and where the kernel was built without
/// scheduler information (`schedstat`) in steps of a clock tick (10 ms). What it had to wait for others is not in it, so that a busy
/// machine can be told from slow work.
pub(crate) fn thread_time(process: u32, thread: &str) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    tasks.flatten().map(|task| task.path()).find_map(|task| {
        let read = |file| read(&task.join(file).to_string_lossy());
        let ticks = ticks(&read("stat"), thread)?;
        // USER_HZ is 100 on every architecture that Linux has here.
        Some(on_processor(&read("schedstat")).unwrap_or(Duration::from_millis(ticks * 10)))
    })
}

/// The first field of a task's `schedstat` (Documentation/scheduler/sched-stats.rst): nanoseconds spent on a processor, exact for one that
/// is on none now.
fn on_processor(schedstat: &str) -> Option<Duration> {
    schedstat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Processor time that a process has had, and all programs that it started and waited for: its own to the nanosecond, theirs in clock
/// ticks (10 ms). `None` for one that is gone.
pub(crate) fn process_time(process: u32) -> Option<Duration> {
    let children = waited_for(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the kernel writes one clockid_t, which is there.
    if unsafe { libc::clock_getcpuclockid(process.cast_signed(), &raw mut clock) } != 0 {
        return None;
    }
    Some(clocked(clock)? + Duration::from_millis(children * 10))
}

/// cutime and cstime (proc_pid_stat(5), fields 16 and 17).
fn waited_for(stat: &str) -> Option<u64> {
    let mut times = stat.rsplit_once(") ")?.1.split(' ').skip(13).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

/// Processor time of all programs that this process started and waited for.
pub(crate) fn children_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Duration::ZERO };
    let times = [usage.user_time(), usage.system_time()];
    times.iter().map(|time| Duration::from_micros(time.num_microseconds().unsigned_abs())).sum()
}

/// utime and stime (proc_pid_stat(5), fields 14 and 15) of a thread, if it has this name.
fn ticks(stat: &str, thread: &str) -> Option<u64> {
    let (head, fields) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    (name == thread).then_some(times.next()?.ok()? + times.next()?.ok()?)
}

#[expect(clippy::cast_precision_loss, reason = "no process has 2^53 KiB")]
fn resident(process: u32, field: &str) -> Option<f64> {
    kibibytes(&read(&format!("/proc/{process}/status")), field).map(|kib| kib as f64 * 1024.0 / 1e6)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn value<'t>(text: &'t str, field: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.split_once(':').filter(|(name, _)| name.trim() == field).map(|(_, value)| value.trim()))
}

/// A field of `/proc/meminfo` or `/proc/PID/status`, which call 1,024 bytes "kB".
fn kibibytes(text: &str, field: &str) -> Option<u64> {
    value(text, field)?.strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_proc_writes_it() {
        let status = "Name:\tsheave\nVmPeak:\t  999 kB\nVmHWM:\t   97656 kB\nVmRSS:\t   80000 kB\n";
        assert_eq!(kibibytes(status, "VmHWM"), Some(97_656));
        assert_eq!(kibibytes(status, "VmSwap"), None);
    }

    #[test]
    fn the_time_of_a_thread_is_found_by_its_name() {
        let stat = "77 (my (odd) sync) S 1 77 77 0 -1 4194304 10 0 0 0 12 30 0 0 20 0 5 0 100 1000 50";
        assert_eq!(ticks(stat, "my (odd) sync"), Some(42));
        assert_eq!(ticks(stat, "sync"), None);
        assert_eq!(ticks("", "sync"), None);
    }

    #[test]
    fn the_time_of_a_thread_has_its_nanoseconds_where_the_kernel_tells_them() {
        assert_eq!(on_processor("12345678 99 3\n"), Some(Duration::from_nanos(12_345_678)));
        assert_eq!((on_processor(""), on_processor("\n")), (None, None));
        let own = std::thread::Builder::new().name("clocked".into());
        let seen = own.spawn(|| thread_time(std::process::id(), "clocked"));
        assert!(seen.unwrap().join().unwrap().is_some(), "this thread is one of the process");
        assert_eq!(thread_time(std::process::id(), "nobody"), None);
    }

    #[test]
    fn the_own_time_is_finer_than_a_tick() {
        let step = || {
            let before = own_time();
            (0..u32::MAX).map(|_| own_time()).find(|now| *now != before).map(|now| now - before)
        };
        // Somebody may have had the processor at one reading, but not at each.
        let finest = (0..100).filter_map(|_| step()).min().unwrap();
        assert!(finest < Duration::from_millis(1), "{finest:?}");
    }

    #[test]
    fn what_was_waited_for_stands_behind_the_own_time() {
        let stat = "77 (my (odd) sync) S 1 77 77 0 -1 4194304 10 0 0 0 12 30 5 6 20 0 5 0 100 1000 50";
        assert_eq!(waited_for(stat), Some(11));
        assert_eq!(waited_for(""), None);
        assert!(process_time(std::process::id()).unwrap() > Duration::ZERO);
        assert_eq!(process_time(u32::MAX >> 1), None);
    }

    #[test]
    fn a_process_has_had_at_least_what_it_has() {
        let me = std::process::id();
        assert!(peak_rss_mb(me).unwrap() >= rss_mb(me).unwrap() * 0.9);
        assert_eq!(peak_rss_mb(u32::MAX), None);
    }
}
