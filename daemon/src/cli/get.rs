//! `sheave get`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use super::Failure;
use super::table::{Cell, Colour, is_coloured, table};
use crate::admin::{self, AskError, NodeStanding, Vip, Vips};

/// What to ask for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the VIPs: which Services have them, from which pool, which node announces each, since when and why
    ///
    /// Every node knows of every VIP; asked is the daemon of this one, at its admin socket. Exit code 0: it has answered, if only that
    /// there are none; 1: not as it should; 3: it cannot be reached, or this user may not ask.
    #[command(visible_alias = "vip")]
    Vips(VipArguments),
}

#[derive(Debug, Args)]
struct VipArguments {
    /// Only VIPs of Services of this namespace [default: all]
    #[arg(short, long, value_name = "NAME", value_parser = super::object_name)]
    namespace: Option<String>,

    /// How it is printed: `wide` adds interfaces, and of every other node why it does not announce
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    /// The daemon's admin socket
    #[arg(long, value_name = "PATH", env = "SHEAVE_ADMIN_SOCKET", default_value = admin::SOCKET)]
    admin_socket: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Json,
    Yaml,
}

pub(super) fn get(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.what {
        What::Vips(arguments) => vips(arguments),
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the answer of a command; that it is empty is no part of it")]
fn vips(arguments: &VipArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("starting a runtime to ask the daemon").map_err(Failure::No)?;
    let mut told: Vips = runtime.block_on(admin::ask(&arguments.admin_socket, admin::VIPS))?;
    if let Some(namespace) = &arguments.namespace {
        told.vips.retain(|vip| vip.services.iter().any(|service| is_in(service, namespace)));
    }
    let printed = match arguments.output {
        Output::Json => serde_json::to_string_pretty(&told).context("as JSON").map_err(Failure::No)? + "\n",
        Output::Yaml => serde_saphyr::to_string(&told).context("as YAML").map_err(Failure::No)?,
        Output::Table | Output::Wide if told.vips.is_empty() => {
            let within = arguments.namespace.as_ref().map(|name| format!(" in namespace {name}")).unwrap_or_default();
            eprintln!("no VIPs{within}{}", told.note.map(|note| format!(": {note}")).unwrap_or_default());
            return Ok(());
        }
        Output::Table => narrow(&told, is_coloured()),
        Output::Wide => wide(&told, is_coloured()),
    };
    print!("{printed}");
    Ok(())
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Nobody { .. } | AskError::Denied { .. } => Self::Unreachable(error.into()),
            AskError::Silent { .. } | AskError::Refused { .. } => Self::No(error.into()),
        }
    }
}

fn is_in(service: &str, namespace: &str) -> bool {
    service.split_once('/').is_some_and(|(of, _)| of == namespace)
}

fn narrow(told: &Vips, coloured: bool) -> String {
    let rows: Vec<_> = told.vips.iter().map(|vip| cells(vip, told.as_of)).collect();
    table(["ADDRESS", "SERVICE", "POOL", "NODE", "SINCE", "WHY"], &rows, coloured)
}

fn wide(told: &Vips, coloured: bool) -> String {
    let row = |vip: &Vip| {
        let [address, service, pool, node, since, why] = cells(vip, told.as_of);
        let interfaces = vip.announced.iter().flat_map(|announced| announced.interfaces.clone()).collect::<Vec<_>>().join(",");
        let interfaces = if interfaces.is_empty() { "-".to_owned() } else { interfaces };
        [address, service, pool, node, Cell::new(interfaces), since, why, Cell::new(others(vip))]
    };
    let rows: Vec<_> = told.vips.iter().map(row).collect();
    table(["ADDRESS", "SERVICE", "POOL", "NODE", "INTERFACES", "SINCE", "WHY", "OTHERS"], &rows, coloured)
}

fn cells(vip: &Vip, now: Timestamp) -> [Cell; 6] {
    let (node, since, colour) = match &vip.announced {
        None => ("<none>".to_owned(), "-".to_owned(), Some(Colour::Red)),
        Some(announced) => {
            let moves = vip.elected.as_ref() != Some(&announced.node);
            let colour = (moves || announced.protected).then_some(Colour::Yellow);
            (announced.node.clone(), age(now.duration_since(announced.since)), colour)
        }
    };
    let service = Cell::new(vip.services.join(","));
    let node = Cell::new(node).in_colour(colour);
    [Cell::new(vip.address.to_string()), service, Cell::new(&*vip.pool), node, Cell::new(since), Cell::new(&*vip.why)]
}

/// How the nodes fared that do not announce it.
fn others(vip: &Vip) -> String {
    let announcer = vip.announced.as_ref().map(|announced| announced.node.as_str());
    let others = vip.standings.iter().filter(|standing| Some(standing.node.as_str()) != announcer);
    let told = others.map(|NodeStanding { node, rank, excluded }| match (rank, excluded) {
        (Some(rank), _) => format!("{node}: number {}", rank + 1),
        (None, Some(excluded)) => format!("{node}: {excluded}"),
        (None, None) => node.clone(),
    });
    told.collect::<Vec<_>>().join("; ")
}

/// As kubectl shows ages: two units at most, and fewer the longer it is.
fn age(age: SignedDuration) -> String {
    let seconds = age.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 && seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 && minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        () if days < 2 => format!("{hours}h"),
        () if days < 8 && hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        () => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Announcement;

    fn told() -> Vips {
        let since = Timestamp::UNIX_EPOCH;
        let announced = Announcement { node: "a".into(), since, interfaces: vec!["eth0".into()], protected: false };
        let standing = |node: &str, rank, excluded: Option<&str>| NodeStanding {
            node: node.into(),
            rank,
            excluded: excluded.map(Into::into),
        };
        let here = Vip {
            address: [192, 168, 0, 240].into(),
            services: vec!["default/api".into(), "shop/web".into()],
            pool: "lan".into(),
            announced: Some(announced),
            elected: Some("a".into()),
            why: "first of 2 nodes".into(),
            standings: vec![
                standing("a", Some(0), None),
                standing("b", Some(1), None),
                standing("c", None, Some("it is cordoned")),
            ],
        };
        let silent = Vip {
            address: "fd00::f0".parse().unwrap(),
            services: vec!["shop/web".into()],
            announced: None,
            elected: None,
            why: "none of its Services has a ready endpoint".into(),
            standings: Vec::new(),
            ..here.clone()
        };
        let as_of = since + SignedDuration::from_secs(330);
        Vips { node: "a".into(), as_of, note: None, vips: vec![here, silent], members: Vec::new() }
    }

    #[test]
    fn a_person_sees_who_announces_and_why() {
        insta::assert_snapshot!(narrow(&told(), false), @r"
        ADDRESS         SERVICE                POOL   NODE     SINCE   WHY
        192.168.0.240   default/api,shop/web   lan    a        5m30s   first of 2 nodes
        fd00::f0        shop/web               lan    <none>   -       none of its Services has a ready endpoint
        ");
        insta::assert_snapshot!(wide(&told(), false), @r"
        ADDRESS         SERVICE                POOL   NODE     INTERFACES   SINCE   WHY                                         OTHERS
        192.168.0.240   default/api,shop/web   lan    a        eth0         5m30s   first of 2 nodes                            b: number 2; c: it is cordoned
        fd00::f0        shop/web               lan    <none>   -            -       none of its Services has a ready endpoint   
        ");
    }

    #[test]
    fn a_namespace_is_compared_as_a_whole() {
        assert!(is_in("shop/web", "shop") && !is_in("shop/web", "sho") && !is_in("shop/web", "web"));
    }

    #[test]
    fn ages_are_those_of_kubectl() {
        for (seconds, text) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (700, "11m"),
            (3 * 3600 + 600, "3h10m"),
            (30 * 3600, "30h"),
            (3 * 86_400 + 5 * 3600, "3d5h"),
            (90 * 86_400, "90d"),
        ] {
            assert_eq!(age(SignedDuration::from_secs(seconds)), text);
        }
    }
}
