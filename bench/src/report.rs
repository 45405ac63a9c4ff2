//! `sheave-bench report`: saved results as a page for people, and as tables for the documentation.
//!
//! ```text
//! bench/results/*.json ──► Runs ──► SECTIONS ──┬──► page      one HTML file: no script, nothing from elsewhere
//!                                              ├──► markdown  the same tables, without plots
//!                                              └──► blocks    those tables at the places that a document has for them
//! ```
//! A section is a function from all runs to tables and plots; what does not concern it, it passes over. A new kind of benchmark is
//! one more module and one more line in [`SECTIONS`].

mod blocks;
mod compare;
mod growth;
mod markdown;
mod memory;
pub(crate) mod number;
mod outputs;
mod packets;
mod page;
mod plot;
mod promises;
mod runs;
mod section;
mod stages;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::results::open_regular;
use crate::{one_line, place, say};

use runs::Runs;
use section::Section;

/// All of the report, in its order.
const SECTIONS: [fn(&Runs) -> Option<Section<'_>>; 6] =
    [promises::section, compare::section, stages::section, growth::section, packets::section, memory::section];

/// What to read and where to write.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Saved results, or directories of them
    #[arg(value_name = "FILE|DIRECTORY", default_value = "bench/results")]
    results: Vec<PathBuf>,

    /// Write the page, one file of HTML, here
    #[arg(long, value_name = "FILE", required_unless_present_any = ["markdown", "docs"])]
    output: Option<PathBuf>,

    /// Write its tables as Markdown here
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Renew the tables within this document: each stands between `<!-- results: SECTION -->` and `<!-- end of results -->`
    #[arg(long, value_name = "FILE")]
    docs: Vec<PathBuf>,

    /// End with exit code 1 if a budget is missed, or none could be judged, after everything is written
    #[arg(long)]
    require_budgets: bool,
}

/// Reads, and writes what was asked for.
///
/// # Errors
/// If there is nothing to read, something cannot be written or would be written over what is read, or budgets are required and one is
/// missed, or none was judged. A file that is no result is named and passed over.
pub(crate) fn write(arguments: &Arguments) -> Result<()> {
    let Arguments { results, output, markdown, docs, require_budgets } = arguments;
    let written: Vec<&Path> = output.iter().chain(markdown).chain(docs).map(PathBuf::as_path).collect();
    outputs::ensure_apart(&runs::files(results)?, &written)?;
    let runs = Runs::read(results)?;
    for skipped in &runs.skipped {
        say(&format!("left out: {}", one_line(skipped)));
    }
    let sections = sections(&runs);
    if let Some(path) = output {
        save(path, &page::of(&sections, &runs)?)?;
    }
    if let Some(path) = markdown {
        save(path, &markdown::of(&sections))?;
    }
    for path in docs {
        let mut text = String::new();
        open_regular(path)?.read_to_string(&mut text).with_context(|| format!("reading {}", path.display()))?;
        let renewed = blocks::renew(&text, &sections).with_context(|| path.display().to_string())?;
        if renewed != text {
            save(path, &renewed)?;
        }
    }
    let missed = promises::missed(&runs);
    for promise in &missed {
        say(&format!("BUDGET MISSED: {}", one_line(promise)));
    }
    if *require_budgets {
        ensure!(missed.is_empty(), "budgets missed: {}", missed.len());
        ensure!(promises::judged(&runs) > 0, "nothing was judged: no run here is of a shape that a budget is for");
    }
    Ok(())
}

/// What these runs have something to say about.
fn sections(runs: &Runs) -> Vec<Section<'_>> {
    SECTIONS.iter().filter_map(|section| section(runs)).collect()
}

fn save(path: &Path, text: &str) -> Result<()> {
    place::replace(path, text)?;
    say(&format!("written: {}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests;
