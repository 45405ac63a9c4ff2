//! The report's tables for documents.

use std::fmt::Write as _;

use super::section::{Exhibit, Section, Table};

/// All of it, as a document of its own.
pub(super) fn of(sections: &[Section<'_>]) -> String {
    let mut text = "# What was measured\n".to_owned();
    for part in sections {
        let _ = write!(text, "\n## {}\n\n{}", part.title, section(part));
    }
    text
}

/// Without its title, which a document says in its own words.
pub(super) fn section(section: &Section<'_>) -> String {
    let mut text = escaped(&section.lead) + "\n";
    for exhibit in &section.exhibits {
        if let Exhibit::Table(exhibit) = exhibit {
            let _ = write!(text, "\n{}:\n\n", escaped(&exhibit.caption));
            table(&mut text, exhibit);
        }
    }
    text.push('\n');
    for run in &section.sources {
        let results = &run.results;
        let _ = writeln!(
            text,
            "- `{}`: {}, {}, {}. `{}`",
            code(&run.file),
            escaped(&results.started),
            escaped(&results.machine.describe()),
            results.surroundings(),
            code(&results.command_line)
        );
        for what in &results.left_out {
            let _ = writeln!(text, "  - left out: {}", escaped(what));
        }
    }
    text
}

fn table(text: &mut String, table: &Table) {
    let aligned = |column: usize| if column == 0 || table.is_words(column) { "---" } else { "---:" };
    let columns = 0..table.head.len();
    line(text, table.head.iter().map(|head| escaped(head)));
    line(text, columns.map(|column| aligned(column).to_owned()));
    for row in &table.rows {
        line(text, row.iter().map(|cell| escaped(&cell.text)));
    }
}

fn line(text: &mut String, cells: impl Iterator<Item = String>) {
    let _ = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
}

/// What came from a file is text: no markup, no second line, no next cell.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '|' | '*' | '[' | ']' => escaped.extend(['\\', character]),
            control if control.is_control() => escaped.push(' '),
            plain => escaped.push(plain),
        }
    }
    escaped
}

/// Between backticks, where a mark of [`super::blocks`] would still be one.
fn code(text: &str) -> String {
    let plain: String =
        text.chars().map(|character| if character == '`' || character.is_control() { '\'' } else { character }).collect();
    plain.replace("<!--", "< !--")
}
