//! The page: one file, without a script and without anything from elsewhere.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::results::Verdict;

use super::number::percent;
use super::plot::{COLOURS, Plot};
use super::runs::{Run, Runs};
use super::section::{Cell, Exhibit, Kind, Section, Table};

const STYLE: &str = include_str!("page.css");
/// Should markup of a result file ever get through: it can load nothing and run nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// All of it.
///
/// # Errors
/// If a plot cannot be drawn.
pub(super) fn of(sections: &[Section<'_>], runs: &Runs) -> Result<String> {
    let mut body = Vec::new();
    for part in sections {
        body.push(section(part)?);
    }
    let newest = runs.iter().next();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "sheave, measured" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "sheave, measured" }
                    @if let Some(run) = newest {
                        p.when { (day(run)) " · " (run.results.machine.describe()) " · " (run.results.versions.describe()) }
                    }
                    nav aria-label="Sections" {
                        @for section in sections { a href={ "#" (section.id) } { (section.title) } }
                    }
                }
                main { @for section in &body { (section) } }
                footer {
                    p { "Every number is from a file that is named beneath it, with the command that wrote it." }
                    @if !runs.skipped.is_empty() {
                        p { "Left out:" }
                        ul { @for skipped in &runs.skipped { li { (skipped) } } }
                    }
                }
            }
        }
    };
    Ok(page.into_string())
}

fn section(section: &Section<'_>) -> Result<Markup> {
    let mut exhibits = Vec::new();
    let mut plots = Vec::new();
    for exhibit in &section.exhibits {
        match exhibit {
            Exhibit::Plot(drawn) => plots.push(plot(drawn, &format!("{}-{}", section.id, plots.len()))?),
            Exhibit::Table(shown) => exhibits.push(table(shown)),
        }
    }
    Ok(html! {
        section id=(section.id) aria-labelledby={ (section.id) "-title" } {
            h2 id={ (section.id) "-title" } { (section.title) }
            p { (section.lead) }
            @if !plots.is_empty() { div.plots { @for plot in &plots { (plot) } } }
            @for exhibit in &exhibits { (exhibit) }
            details {
                summary { "Measured with" }
                dl { @for run in &section.sources { (source(run)) } }
            }
        }
    })
}

fn plot(plot: &Plot, id: &str) -> Result<Markup> {
    let title = html! { title id=(id) { (plot.caption) } }.into_string();
    // The element and its attributes are plotters'; what it is and shows is ours to say.
    let svg = plot.svg()?.replacen('>', &format!(" role=\"img\" aria-labelledby=\"{id}\">{title}"), 1);
    Ok(html! {
        figure {
            figcaption { (plot.caption) }
            ul.legend {
                @for (place, name) in plot.legend().iter().enumerate() { li class={ "c" (place % COLOURS) } { (name) } }
            }
            (PreEscaped(svg))
        }
    })
}

fn table(table: &Table) -> Markup {
    html! {
        // A box that scrolls must be reachable by keyboard.
        div.scroll tabindex="0" role="region" aria-label=(table.caption) {
            table {
                caption { (table.caption) }
                thead { tr { @for (column, head) in table.head.iter().enumerate() { th.words[table.is_words(column)] scope="col" { (head) } } } }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (column, cell) in row.iter().enumerate() {
                                @if column == 0 { th scope="row" { (cell.text) } } @else { (data(cell)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn data(cell: &Cell) -> Markup {
    let text = &cell.text;
    match cell.kind {
        Kind::Words => html! { td.words { (text) } },
        Kind::Number => html! { td { (text) } },
        Kind::Share(share) => {
            let class = if share <= 1.0 { "bar" } else { "bar over" };
            html! { td.share { span class=(class) style={ "--share:" (percent(share.clamp(0.0, 1.0)).replace(' ', "")) } {} span.part { (text) } } }
        }
        Kind::Verdict(Verdict::Kept) => html! { td.words.kept { (text) } },
        Kind::Verdict(Verdict::Missed) => html! { td.words.missed { (text) } },
        Kind::Verdict(Verdict::NoBudget) => html! { td.words.open { (text) } },
    }
}

fn source(run: &Run) -> Markup {
    let results = &run.results;
    html! {
        dt { (run.file) }
        dd {
            code { (results.command_line) }
            br;
            (results.started) " · " (results.machine.describe()) " · " (results.versions.describe()) " · "
            (results.profile.describe()) " · " (results.surroundings())
            @for what in &results.left_out { br; "left out: " (what) }
        }
    }
}

fn day(run: &Run) -> &str {
    run.results.started.split('T').next().unwrap_or_default()
}
