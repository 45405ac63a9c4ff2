//! iptables-legacy: the kernel tells which tables there are, and only its own tool writes one without losing what others write.
//!
//! The kernel takes an x_tables table whole or not at all, and who may write when is settled by a lock file that the tool knows and a
//! daemon in a container cannot see. So without the tool we say whose chains are there, and leave them alone.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, Stdio};

use super::iptables::{Place, Rule};
use crate::model::Family;

/// A table as `iptables-legacy-save` writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its chains, built-in ones among them.
    pub chains: Vec<Chain>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// What becomes of packets that no rule decided; a chain that somebody made has none.
    pub policy: Option<String>,
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

/// Reads a table that exists.
///
/// # Errors
/// See [`LegacyError`].
pub fn read(family: Family, table: &str) -> Result<Table, LegacyError> {
    let tool = if family == Family::V4 { "iptables-legacy-save" } else { "ip6tables-legacy-save" };
    run(tool, &["-t", table], "").map(|text| Table::parse(&text))
}

/// Removes chains with all their rules, and these rules of other chains, in one go.
///
/// # Errors
/// See [`LegacyError`].
pub fn remove<'a>(
    family: Family,
    table: &str,
    chains: &[String],
    rules: impl Iterator<Item = &'a Rule>,
) -> Result<(), LegacyError> {
    let tool = if family == Family::V4 { "iptables-legacy-restore" } else { "ip6tables-legacy-restore" };
    let mut script = format!("*{table}\n");
    // Naming a chain that exists flushes it.
    chains.iter().for_each(|chain| script.push_str(&format!(":{chain} - [0:0]\n")));
    for rule in rules {
        if let Place::Line(line) = &rule.place {
            script.push_str(&format!("-D {line}\n"));
        }
    }
    chains.iter().for_each(|chain| script.push_str(&format!("-X {chain}\n")));
    script.push_str("COMMIT\n");
    run(tool, &["--noflush", "--wait"], &script).map(drop)
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

impl Table {
    fn parse(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines() {
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split(' ');
                let name = words.next().unwrap_or_default().to_owned();
                let policy = words.next().filter(|policy| *policy != "-").map(str::to_owned);
                table.chains.push(Chain { name, policy });
            } else if let Some(rule) = line.strip_prefix("-A ") {
                table.rules.push(parse_rule(rule));
            }
        }
        table
    }

    /// Whether a chain is the table's own.
    #[must_use]
    pub fn is_builtin(&self, name: &str) -> bool {
        self.policy(name).is_some()
    }

    /// The policy of a chain of the table's own.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&str> {
        self.chains.iter().find(|chain| chain.name == name)?.policy.as_deref()
    }
}

/// Reads what follows `-A`. Words in quotes are comments, and nothing is looked for in them.
fn parse_rule(line: &str) -> Rule {
    let words: Vec<&str> = line.split('"').step_by(2).flat_map(str::split_whitespace).collect();
    let after = |option: &str| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1)).copied();
    let target = after("-j").or_else(|| after("-g"));
    let destination = after("-d").filter(|_| !words.windows(2).any(|pair| pair == ["!", "-d"]));
    let host = |text: &str| {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        (length.parse() == Ok(if address.is_ipv4() { 32 } else { 128 })).then_some(address)
    };
    Rule {
        chain: words.first().copied().unwrap_or_default().to_owned(),
        target: target.map(str::to_owned),
        destination: destination.and_then(host),
        drops_invalid: target == Some("DROP") && after("--ctstate") == Some("INVALID"),
        place: Place::Line(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_table_is_read_line_by_line() {
        let table = Table::parse(
            "# Generated\n*nat\n:PREROUTING ACCEPT [1:60]\n:KUBE-SERVICES - [0:0]\n\
             -A PREROUTING -m comment --comment \"say -j DROP\" -j KUBE-SERVICES\n\
             -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -j KUBE-SVC-NPX46M4PTMTKRN6Y\n\
             -A KUBE-SERVICES ! -d 10.0.0.1/32 -j RETURN\n-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
        );
        assert!(table.is_builtin("PREROUTING") && !table.is_builtin("KUBE-SERVICES"));
        let targets: Vec<_> = table.rules.iter().filter_map(|rule| rule.target.as_deref()).collect();
        assert_eq!(targets, ["KUBE-SERVICES", "KUBE-SVC-NPX46M4PTMTKRN6Y", "RETURN", "DROP"]);
        let destinations: Vec<_> = table.rules.iter().filter_map(|rule| rule.destination).collect();
        assert_eq!(destinations, [IpAddr::from([10, 96, 0, 1])]);
        assert_eq!(table.rules.iter().map(|rule| rule.drops_invalid).collect::<Vec<_>>(), [false, false, false, true]);
    }
}
