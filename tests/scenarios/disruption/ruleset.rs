//! The ruleset as stock nft lists it, in a form in which two listings of the same content are equal.

use anyhow::Context as _;
use sheave_tests::{scenario::patiently, world::World};
use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, Instant},
};

/// The blocks of `table inet sheave`, without what may differ between equals: the instance of sets and chains, the order of
/// elements, and what packets have written.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Ruleset(BTreeSet<String>);

impl Ruleset {
    /// As it is now. No table is an empty ruleset.
    pub(crate) fn of(world: &World) -> anyhow::Result<Self> {
        let listed = world.node().exec("nft", &["list", "table", "inet", "sheave"])?;
        if !listed.status.success() {
            anyhow::ensure!(listed.stderr.contains("No such file"), "nft cannot list the table: {}", listed.stderr);
            return Ok(Self(BTreeSet::new()));
        }
        Ok(Self::parse(&listed.stdout))
    }

    /// Waits until the ruleset is this one again, and says how long that took.
    pub(crate) fn await_again(&self, world: &World, limit: Duration) -> anyhow::Result<Duration> {
        let (start, limit) = (Instant::now(), patiently(limit));
        loop {
            let now = Self::of(world)?;
            if now == *self {
                return Ok(start.elapsed());
            }
            // Each listing takes its time: no pause is needed between them, and there is no event that a stranger could await.
            if start.elapsed() > limit {
                return Err(anyhow::anyhow!("not repaired within {limit:?}:\n{}", self.difference(&now)));
            }
        }
    }

    /// The names of sets and maps that no rule refers to, without their instance.
    pub(crate) fn unused_sets(world: &World) -> anyhow::Result<BTreeSet<String>> {
        let text = world.nft("list table inet sheave").context("the table is there")?;
        let names = text.lines().filter_map(|line| {
            let mut words = line.trim().split(' ');
            matches!(words.next(), Some("set" | "map")).then(|| words.next().unwrap_or_default().to_owned())
        });
        let used = |name: &String| {
            text.match_indices(&format!("@{name}")).any(|(at, found)| {
                text[at + found.len()..].chars().next().is_none_or(|next| !next.is_ascii_alphanumeric() && !"-._".contains(next))
            })
        };
        Ok(names.filter(|name| !used(name)).map(|name| without_instances(&name)).collect())
    }

    fn parse(text: &str) -> Self {
        let mut blocks = BTreeSet::new();
        let mut block = String::new();
        for line in text.lines().skip(1) {
            match line {
                "\t}" => {
                    blocks.insert(Self::block(&std::mem::take(&mut block)));
                }
                "}" | "" => {}
                line => {
                    block.push_str(line.trim());
                    block.push('\n');
                }
            }
        }
        Self(blocks)
    }

    /// One set or chain, its elements in order.
    fn block(text: &str) -> String {
        let text = without_instances(text);
        let Some((head, elements)) = text.split_once("elements = {") else { return text };
        if head.starts_with("map affinity") {
            return head.to_owned();
        }
        let elements: BTreeSet<&str> = elements.trim_end().trim_end_matches('}').split(',').map(str::trim).collect();
        format!("{head}{elements:?}")
    }

    fn difference(&self, other: &Self) -> String {
        let lost = self.0.difference(&other.0).map(|block| format!("- {block}\n"));
        lost.chain(other.0.difference(&self.0).map(|block| format!("+ {block}\n"))).collect()
    }
}

impl fmt::Debug for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|block| writeln!(f, "{block}"))
    }
}

/// Names without their instance, `.b` to `.z`: a load uses the next one, and means the same by it.
fn without_instances(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('.') {
        let (head, tail) = rest.split_at(at);
        out.push_str(head);
        let bytes = tail.as_bytes();
        let after_digit = head.as_bytes().last().is_some_and(u8::is_ascii_digit);
        let letter = bytes.get(1).is_some_and(|letter| (b'b'..=b'z').contains(letter));
        let ends = bytes.get(2).is_none_or(|next| !next.is_ascii_alphanumeric() && *next != b'.');
        let skipped = if after_digit && letter && ends { 2 } else { 1 };
        if skipped == 1 {
            out.push('.');
        }
        rest = &tail[skipped..];
    }
    out.push_str(rest);
    out
}
