//! Columns of text, as kubectl prints them; colours where somebody looks.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

/// Between two columns.
const GAP: usize = 3;

/// What stands in a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    colour: Option<Colour>,
}

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// Something does not work.
    Red,
    /// Something is under way, or not as usual.
    Yellow,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), colour: None }
    }

    pub(super) fn in_colour(self, colour: Option<Colour>) -> Self {
        Self { colour, ..self }
    }
}

/// Whether standard output is read by a person who has not asked for no colours (<https://no-color.org>).
pub(super) fn is_coloured() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !unwanted && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// One line for the heads and one for each row. The last column is as long as it likes. What others wrote cannot move the cursor.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: &[[Cell; N]], coloured: bool) -> String {
    let mut widths = heads.map(|head| head.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let mut text = String::new();
    line(&mut text, &heads.map(Cell::new), &widths, false);
    rows.iter().for_each(|row| line(&mut text, row, &widths, coloured));
    text
}

fn line(text: &mut String, cells: &[Cell], widths: &[usize], coloured: bool) {
    for (place, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let shown: String = cell.text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
        let is_last = place + 1 == cells.len();
        let padding = if is_last { 0 } else { (width + GAP).saturating_sub(shown.chars().count()) };
        let (begin, end) = match cell.colour.filter(|_| coloured) {
            Some(Colour::Red) => ("\u{1b}[31m", "\u{1b}[0m"),
            Some(Colour::Yellow) => ("\u{1b}[33m", "\u{1b}[0m"),
            None => ("", ""),
        };
        // Into a String nothing can fail.
        let _ = write!(text, "{begin}{shown}{end}{:padding$}", "");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let rows = [
            [Cell::new("10.0.0.240"), Cell::new("a"), Cell::new("first of 2 nodes")],
            [Cell::new("fd00::f0"), Cell::new("<none>").in_colour(Some(Colour::Red)), Cell::new("no\u{1b}[2J node")],
        ];
        let plain = "\
            ADDRESS      NODE     WHY\n\
            10.0.0.240   a        first of 2 nodes\n\
            fd00::f0     <none>   no?[2J node\n";
        assert_eq!(table(["ADDRESS", "NODE", "WHY"], &rows, false), plain);
        let coloured = table(["ADDRESS", "NODE", "WHY"], &rows, true);
        assert!(coloured.contains("fd00::f0     \u{1b}[31m<none>\u{1b}[0m   no?"), "{coloured}");
    }
}
