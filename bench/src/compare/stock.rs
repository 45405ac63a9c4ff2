//! The same rules by stock nft: what a reload of everything, and a change by hand, cost.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sheave::dataplane::nftables::TABLE;
use sheave_lab::Namespace;
use tempfile::NamedTempFile;

use super::contender::{Seen, Told};
use crate::statistics::Samples;
use crate::{machine, program};

/// As in the results.
pub(super) const NAME: &str = "nft -f";
/// How often its memory is looked at: it goes with the process.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How often a program that does nothing is run.
const EMPTY_PROGRAMS: usize = 21;
/// Of a map from a backend's place to where it is.
const ENDPOINTS: &str = "endpoints-4";

/// Two elements of one map. The first one is changed, to what the second one says and back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Changed {
    map: String,
    key: String,
    values: [String; 2],
}

/// Whether nft is there at all.
pub(super) fn ensure_there() -> Result<()> {
    let status = Command::new("nft").arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = status.context("running nft, which sheave is to be compared with, since there is no --kube-proxy")?;
    ensure!(there.success(), "`nft --version` failed ({there})");
    program::in_path(Path::new("nft")).map_or(Ok(()), |nft| program::ensure_visible("nft", &nft))
}

/// Writes sheave's table in a node's namespace into a file. What keeps its hooks alive, `table inet sheave-hold`, is not in it.
pub(super) fn list(node: &Namespace, into: &NamedTempFile) -> Result<()> {
    let output = into.as_file().try_clone().context("opening the list of rules")?;
    let mut command = Command::new("nft");
    command.args(["list", "table", "inet", TABLE]).stdin(Stdio::null()).stdout(output).stderr(Stdio::inherit());
    // The lab's process: listing takes seconds, and is not to outlive an interrupted run.
    let status = node.spawn_contained(command)?.child().wait().context("waiting for nft")?;
    ensure!(status.success(), "nft list table failed ({status})");
    Ok(())
}

/// Loads the table into a fresh namespace, and changes one endpoint in it so many times.
pub(super) fn run(ruleset: &NamedTempFile, changes: u32, told: &Told<'_>) -> Result<Seen> {
    let text = fs::read_to_string(ruleset.path()).context("reading the list of rules")?;
    let changed = Changed::first_in(&text).context("no map of IPv4 endpoints in the rules has two elements")?;
    drop(text);
    let place = Namespace::new("nft").context("making a namespace")?;
    let cpu = machine::children_time();
    let (programmed, peak_rss_mb) = load(&place, File::open(ruleset.path()).context("opening the list of rules")?)?;
    let start_cpu = machine::children_time().saturating_sub(cpu);
    told(programmed);

    let empty_program = empty_program(&place)?;
    let cpu = machine::children_time();
    let mut durations = Vec::new();
    for change in 0..changes {
        let mut script = tempfile::tempfile().context("making a script for nft")?;
        script.write_all(changed.script(change).as_bytes()).context("writing a script for nft")?;
        script.seek(SeekFrom::Start(0)).context("rewinding a script for nft")?;
        durations.push(run_through(&place, nft(script)?)?);
    }
    let change_cpu = machine::children_time().saturating_sub(cpu) / changes.max(1);
    let changes = Samples::new(durations).context("nothing was changed")?;
    Ok(Seen { programmed, start_cpu, changes, change_cpu, peak_rss_mb, rss_mb: None, empty_program: Some(empty_program) })
}

/// What starting any program and waiting for its end takes, the fork of this process included: the middle of some times.
fn empty_program(place: &Namespace) -> Result<Duration> {
    let nothing = || {
        let mut command = Command::new("true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        run_through(place, command)
    };
    let times = (0..EMPTY_PROGRAMS).map(|_| nothing()).collect::<Result<Vec<_>>>()?;
    Ok(Samples::new(times).context("no program was run")?.percentile(50))
}

/// How long it took.
fn run_through(place: &Namespace, command: Command) -> Result<Duration> {
    let name = command.get_program().to_string_lossy().into_owned();
    let begun = Instant::now();
    // Not contained: making a PID namespace takes long enough to be seen in a change.
    let mut process = place.spawn(command)?;
    let status = process.child().wait().with_context(|| format!("waiting for {name}"))?;
    let taken = begun.elapsed();
    ensure!(status.success(), "{name} failed ({status})");
    Ok(taken)
}

/// How long it took, and the most memory it had in MB.
fn load(place: &Namespace, script: File) -> Result<(Duration, f64)> {
    let begun = Instant::now();
    let mut process = place.spawn(nft(script)?)?;
    let mut peak: f64 = 0.0;
    loop {
        if let Some(status) = process.child().try_wait().context("waiting for nft")? {
            ensure_done(status)?;
            return Ok((begun.elapsed(), peak));
        }
        peak = peak.max(machine::peak_rss_mb(process.id()).unwrap_or_default());
        std::thread::sleep(LOOK_EVERY);
    }
}

fn nft(script: File) -> Result<Command> {
    let mut command = Command::new("nft");
    // What it complains about is for the person who reads the bench's own.
    command.args(["-f", "-"]).stdin(script).stdout(Stdio::null()).stderr(Stdio::inherit());
    Ok(command)
}

fn ensure_done(status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "nft -f failed ({status})");
    Ok(())
}

impl Changed {
    /// Of the first map of endpoints that has two.
    fn first_in(ruleset: &str) -> Option<Self> {
        ruleset.split("\n\tmap ").skip(1).find_map(|map| {
            let (name, body) = map.split_once(" {")?;
            if !name.starts_with(ENDPOINTS) {
                return None;
            }
            let elements = body.split_once("elements = {")?.1.split_once('}')?.0;
            let mut elements = elements.split(',').map(|element| element.split_once(" : "));
            let ((key, value), (_, other)) = elements.next().flatten().zip(elements.next().flatten())?;
            let values = [other, value].map(|value| value.trim().to_owned());
            Some(Self { map: name.to_owned(), key: key.trim().to_owned(), values })
        })
    }

    /// The `nth` change, in one transaction.
    fn script(&self, nth: u32) -> String {
        let Self { map, key, values: [other, own] } = self;
        let value = if nth.is_multiple_of(2) { other } else { own };
        format!("delete element inet {TABLE} {map} {{ {key} }}\nadd element inet {TABLE} {map} {{ {key} : {value} }}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULESET: &str = "table inet sheave {\n\tmap affinity-4 {\n\t\ttype ipv4_addr : ipv4_addr\n\t}\n\n\tmap endpoints-4.b {\n\
        \t\ttypeof ip daddr . meta mark : ip daddr . tcp dport\n\t\telements = { 10.96.0.1 . 0x00000001 : 10.128.0.1 . 8080,\n\
        \t\t\t     10.96.0.1 . 0x00000002 : 10.128.0.2 . 8080 }\n\t}\n}\n";

    #[test]
    fn an_endpoint_is_taken_from_the_rules_and_moved_back_and_forth() {
        let changed = Changed::first_in(RULESET).unwrap();
        assert_eq!((changed.map.as_str(), changed.key.as_str()), ("endpoints-4.b", "10.96.0.1 . 0x00000001"));
        assert!(changed.script(0).ends_with("{ 10.96.0.1 . 0x00000001 : 10.128.0.2 . 8080 }\n"), "{}", changed.script(0));
        assert!(changed.script(1).ends_with("{ 10.96.0.1 . 0x00000001 : 10.128.0.1 . 8080 }\n"), "{}", changed.script(1));
        assert_eq!(changed.script(2), changed.script(0));
        assert!(changed.script(0).starts_with("delete element inet sheave endpoints-4.b { 10.96.0.1 . 0x00000001 }\n"));
        assert_eq!(Changed::first_in("table inet sheave {\n}\n"), None);
    }
}
