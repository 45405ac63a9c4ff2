//! `process_*`, as every Prometheus client exports them, read from /proc when somebody asks.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::metrics::gauge::Gauge;

use super::book::{Book, Decimal, DecimalCounter};

/// The metrics of this process.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    cpu: DecimalCounter,
    resident: Gauge,
    virtual_memory: Gauge,
    max_virtual_memory: Decimal,
    open_fds: Gauge,
    max_fds: Gauge,
    start: Decimal,
}

/// What /proc says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    virtual_bytes: i64,
    resident_bytes: i64,
    /// Seconds between the machine's start and ours.
    started_after_boot: f64,
}

impl ProcessMetrics {
    pub(super) fn new(book: &mut Book) -> Self {
        Self {
            cpu: book.one(
                "process_cpu_seconds_total",
                "User and system time that this process has used, in seconds",
                DecimalCounter::default,
            ),
            resident: book.one("process_resident_memory_bytes", "Memory that is resident, in bytes", Gauge::default),
            virtual_memory: book.one("process_virtual_memory_bytes", "Address space in use, in bytes", Gauge::default),
            max_virtual_memory: book.one(
                "process_virtual_memory_max_bytes",
                "Address space that may be used, in bytes; 1.8e19 for no limit",
                Decimal::default,
            ),
            open_fds: book.one("process_open_fds", "Open file descriptors", Gauge::default),
            max_fds: book.one("process_max_fds", "File descriptors that may be open", Gauge::default),
            start: book.one("process_start_time_seconds", "When this process began, in seconds since 1970", Decimal::default),
        }
    }

    /// Looks again. What cannot be read keeps its last value.
    pub(super) fn refresh(&self) {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        if let Some(usage) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| Usage::parse(&stat, ticks, page)) {
            self.cpu.inner().store(usage.cpu_seconds.to_bits(), std::sync::atomic::Ordering::Relaxed);
            self.resident.set(usage.resident_bytes);
            self.virtual_memory.set(usage.virtual_bytes);
            if let Some(boot) = fs::read_to_string("/proc/stat").ok().and_then(|stat| boot_time(&stat)) {
                self.start.set(boot + usage.started_after_boot);
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The directory itself was open while it was read.
            self.open_fds.set(i64::try_from(open.count().saturating_sub(1)).unwrap_or(i64::MAX));
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_AS) {
            self.max_virtual_memory.set(soft as f64);
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            self.max_fds.set(i64::try_from(soft).unwrap_or(i64::MAX));
        }
    }
}

impl Usage {
    /// From /proc/self/stat (proc_pid_stat(5)). The second field is a name that may hold anything, brackets included.
    fn parse(stat: &str, ticks_per_second: f64, page_bytes: i64) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(") ")?;
        // Counted from the third field on.
        let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3)?.parse::<i64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks_per_second,
            started_after_boot: field(22)? as f64 / ticks_per_second,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)?.saturating_mul(page_bytes),
        })
    }
}

/// `btime` of /proc/stat.
fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_may_hold_anything() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 500 0 0 0 150 50 0 0 20 0 8 0 1000 73400320 2560 18446744073709551615 1";
        let expected =
            Usage { cpu_seconds: 2.0, virtual_bytes: 73_400_320, resident_bytes: 2560 * 4096, started_after_boot: 10.0 };
        assert_eq!(Usage::parse(stat, 100.0, 4096), Some(expected));
        assert_eq!(Usage::parse("42 (x) S 1", 100.0, 4096), None);
    }

    #[test]
    fn this_process_has_memory_files_and_a_beginning() {
        let mut book = Book::default();
        let metrics = ProcessMetrics::new(&mut book);
        metrics.refresh();
        assert!(metrics.resident.get() > 1 << 20);
        assert!(metrics.max_virtual_memory.get() >= metrics.virtual_memory.get() as f64);
        assert!(metrics.open_fds.get() > 2);
        assert!(metrics.max_fds.get() >= metrics.open_fds.get());
        assert!(metrics.start.get() > 1.6e9);
    }
}
