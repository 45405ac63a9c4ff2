//! What a report says, before it is written in any language.

use crate::results::Verdict;

use super::plot::Plot;
use super::runs::Run;

/// A question, what was seen, and what it was seen with.
#[derive(Debug)]
pub(super) struct Section<'r> {
    /// Of anchors, and of the places in documents.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// How to read what follows.
    pub(super) lead: String,
    pub(super) exhibits: Vec<Exhibit>,
    /// The runs that its numbers are from.
    pub(super) sources: Vec<&'r Run>,
}

#[derive(Debug)]
pub(super) enum Exhibit {
    Table(Table),
    Plot(Plot),
}

/// The first cell of each row says what the row is.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) caption: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) kind: Kind,
}

/// What else a cell says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Prose.
    Words,
    /// Digits, to stand below each other.
    Number,
    /// Of a budget, 1 being all of it.
    Share(f64),
    Verdict(Verdict),
}

impl Cell {
    pub(super) fn words(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: Kind::Words }
    }

    pub(super) fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: Kind::Number }
    }
}

impl Table {
    /// With nothing but heads.
    pub(super) fn new<'h>(caption: impl Into<String>, head: impl IntoIterator<Item = &'h str>) -> Self {
        Self { caption: caption.into(), head: head.into_iter().map(ToOwned::to_owned).collect(), rows: Vec::new() }
    }

    /// Whether a column is read rather than compared.
    pub(super) fn is_words(&self, column: usize) -> bool {
        self.rows.first().and_then(|row| row.get(column)).is_some_and(|cell| matches!(cell.kind, Kind::Words | Kind::Verdict(_)))
    }
}
