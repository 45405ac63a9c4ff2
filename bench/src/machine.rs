//! What the numbers were measured on.

use std::fs;

use serde::Serialize;

/// A machine, as far as it explains a number.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_mb: u64,
    kernel: String,
    /// Of the last minute, when the bench began: others at work are the usual reason for a bad percentile.
    load_average: f64,
}

impl Machine {
    /// This one. What `/proc` does not say is left blank.
    pub(crate) fn here() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = value(&cpuinfo, "model name").unwrap_or_default();
        Self {
            cpu: cpu.to_owned(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory_mb: kibibytes(&read("/proc/meminfo"), "MemTotal").unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
        }
    }

    pub(crate) fn describe(&self) -> String {
        let Self { cpu, cores, memory_mb, kernel, load_average } = self;
        format!("{cores} cores of {cpu}, {memory_mb} MB, Linux {kernel}, load average {load_average} at the start")
    }
}

/// The most memory a process ever had resident, in MB of 10^6 bytes (`VmHWM`). `None` for one that is gone.
pub(crate) fn peak_rss_mb(process: u32) -> Option<f64> {
    resident(process, "VmHWM")
}

/// What a process has resident now, in MB of 10^6 bytes (`VmRSS`).
pub(crate) fn rss_mb(process: u32) -> Option<f64> {
    resident(process, "VmRSS")
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
    fn a_process_has_had_at_least_what_it_has() {
        let me = std::process::id();
        assert!(peak_rss_mb(me).unwrap() >= rss_mb(me).unwrap() * 0.9);
        assert_eq!(peak_rss_mb(u32::MAX), None);
    }
}
