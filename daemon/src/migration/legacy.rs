//! iptables-legacy: the kernel tells which tables there are and what is in them, and only its own tool writes one without losing what
//! others write.
//!
//! The kernel takes an x_tables table whole or not at all, and who may write when is settled by a lock file that the tool knows and a
//! daemon in a container cannot see. So without the tool we say whose chains are there, and leave them alone.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::iptables::{Fate, Rule};
use crate::model::Family;
use crate::netlink::xtables::{self, Target};

/// What writes the tables of one family.
struct Tools {
    save: &'static str,
    restore: &'static str,
}

/// What kept us from reading or writing.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// The tool is not there.
    #[error("{tool} is not installed here")]
    NoTool {
        /// Its name.
        tool: &'static str,
    },
    /// It could not be run.
    #[error("running {tool}: {source}")]
    Run {
        /// Its name.
        tool: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("{tool}: {words}")]
    Failed {
        /// Its name.
        tool: &'static str,
        /// What it said.
        words: String,
    },
}

/// The tables of one family that exist in this network namespace: reading them would not make them.
#[must_use]
pub fn tables(family: Family) -> Vec<String> {
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    // A kernel without x_tables has no such file.
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Why a table of this family cannot be written here, if it cannot.
#[must_use]
pub fn why_not_writable(family: Family) -> Option<LegacyError> {
    let Tools { save, restore } = Tools::of(family);
    let paths = env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| env::split_paths(&paths).any(|path| path.join(tool).is_file());
    [save, restore].into_iter().find(|tool| !is_there(tool)).map(|tool| LegacyError::NoTool { tool })
}

/// Removes chains with all their rules, and the rules of built-in chains that send packets to them, in one go.
///
/// # Errors
/// See [`LegacyError`].
pub fn remove(family: Family, table: &str, chains: &[String]) -> Result<(), LegacyError> {
    let Tools { save, restore } = Tools::of(family);
    // The tool knows a rule by the words that it writes for it.
    let saved = run(save, &["-t", table], "")?;
    run(restore, &["--noflush", "--wait"], &script(table, chains, &saved)).map(drop)
}

/// What tells the tool to remove all that.
fn script(table: &str, chains: &[String], saved: &str) -> String {
    let mut script = format!("*{table}\n");
    // Naming a chain that exists flushes it.
    chains.iter().for_each(|chain| script.push_str(&format!(":{chain} - [0:0]\n")));
    let builtin: BTreeSet<&str> = saved.lines().filter_map(built_in).collect();
    let gone: BTreeSet<&str> = chains.iter().map(String::as_str).collect();
    for rule in saved.lines().filter_map(|line| line.strip_prefix("-A ")) {
        let (chain, target) = chain_and_target(rule);
        if builtin.contains(chain) && target.is_some_and(|target| gone.contains(target)) {
            script.push_str(&format!("-D {rule}\n"));
        }
    }
    chains.iter().for_each(|chain| script.push_str(&format!("-X {chain}\n")));
    script.push_str("COMMIT\n");
    script
}

/// The chain that a line gives a policy: one that somebody made has none.
fn built_in(line: &str) -> Option<&str> {
    let (chain, policy) = line.strip_prefix(':')?.split_once(' ')?;
    (!policy.starts_with('-')).then_some(chain)
}

/// Of what follows `-A`. Words in quotes are comments, and nothing is looked for in them.
fn chain_and_target(rule: &str) -> (&str, Option<&str>) {
    let words: Vec<&str> = rule.split('"').step_by(2).flat_map(str::split_whitespace).collect();
    let after = |option: &str| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1)).copied();
    (words.first().copied().unwrap_or_default(), after("-j").or_else(|| after("-g")))
}

fn run(tool: &'static str, arguments: &[&str], input: &str) -> Result<String, LegacyError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => LegacyError::NoTool { tool },
        _ => LegacyError::Run { tool, source },
    };
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends early says why on standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(LegacyError::Failed { tool, words: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Tools {
    fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self { save: "iptables-legacy-save", restore: "iptables-legacy-restore" },
            Family::V6 => Self { save: "ip6tables-legacy-save", restore: "ip6tables-legacy-restore" },
        }
    }
}

impl From<&xtables::Rule> for Rule {
    fn from(rule: &xtables::Rule) -> Self {
        let target = match &rule.target {
            Target::Chain(name) | Target::Extension(name) => Some(name.as_str()),
            Target::Accept | Target::Drop | Target::Return | Target::Other => None,
        };
        let fate = match &rule.target {
            Target::Accept => Fate::Accept,
            Target::Drop => Fate::Drop,
            Target::Return => Fate::Return,
            Target::Extension(name) if name == "REJECT" => Fate::Drop,
            Target::Chain(_) | Target::Extension(_) | Target::Other => Fate::Other,
        };
        let translates = rule.target == Target::Extension("DNAT".to_owned());
        Self { translates, ..Self::new(&rule.chain, target, fate, &rule.conditions) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_named_in_the_tools_own_words() {
        let saved = "# Generated\n*nat\n:PREROUTING ACCEPT [1:60]\n:KUBE-SERVICES - [0:0]\n:mine - [0:0]\n\
             -A PREROUTING -m comment --comment \"say -j DROP\" -j KUBE-SERVICES\n\
             -A PREROUTING -j mine\n-A mine -j KUBE-SERVICES\n-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -j KUBE-SERVICES\nCOMMIT\n";
        assert_eq!(
            script("nat", &["KUBE-SERVICES".to_owned()], saved),
            "*nat\n:KUBE-SERVICES - [0:0]\n-D PREROUTING -m comment --comment \"say -j DROP\" -j KUBE-SERVICES\n-X KUBE-SERVICES\nCOMMIT\n"
        );
    }
}
