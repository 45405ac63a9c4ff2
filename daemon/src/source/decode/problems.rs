//! Collecting what an object got wrong.

use std::fmt;

use super::field::{Field, Shape};
use crate::model::Problem;

/// More problems than this of one object help nobody, and an object with 100,000 bad endpoints must not cost memory for each.
const MOST: usize = 16;

/// Of text from outside, so many characters are repeated: as many as the longest name of a label has, and any address.
const LONGEST_QUOTE: usize = 64;

/// Text from outside, cut to what a line of the log can hold: as it is, or in quotes by `{:?}`.
pub(crate) struct Cut<'a> {
    text: &'a str,
    more: bool,
}

/// Cuts it.
pub(crate) fn cut(text: &str) -> Cut<'_> {
    let end = text.char_indices().nth(LONGEST_QUOTE).map(|(end, _)| end);
    Cut { text: &text[..end.unwrap_or(text.len())], more: end.is_some() }
}

impl Cut<'_> {
    fn ellipsis(&self) -> &'static str {
        if self.more { "..." } else { "" }
    }
}

impl fmt::Debug for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.text, self.ellipsis())
    }
}

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, self.ellipsis())
    }
}

/// The problems of one object, in the order in which they were met.
#[derive(Debug, Default)]
pub(super) struct Problems {
    met: Vec<Problem>,
    beyond: usize,
}

/// Where a field is: a name and, inside lists, the places.
pub(super) type Path<'a> = fmt::Arguments<'a>;

impl Problems {
    /// Notes one. The path is written out only if it will be kept.
    pub(super) fn note(&mut self, field: Path<'_>, reason: impl Into<String>) {
        if self.met.len() < MOST {
            self.met.push(Problem { field: field.to_string(), reason: reason.into() });
        } else {
            self.beyond += 1;
        }
    }

    /// The value of a field; one of the wrong type is noted and left out.
    pub(super) fn take<'de, T: Shape<'de>>(&mut self, field: Path<'_>, value: Field<T>) -> Option<T> {
        match value {
            Field::Is(value) => Some(value),
            Field::Absent => None,
            Field::Wrong(found) => {
                self.note(field, format!("is {found}, not {}: ignored", T::WANTED));
                None
            }
        }
    }

    /// The value of an element of a list, where null is not nothing but a hole.
    pub(super) fn element<'de, T: Shape<'de>>(&mut self, field: Path<'_>, value: Field<T>) -> Option<T> {
        if let Field::Absent = value {
            self.note(field, format!("is null, not {}: ignored", T::WANTED));
        }
        self.take(field, value)
    }

    /// All of them, with a last line for those that were too many.
    pub(super) fn into_vec(self) -> Vec<Problem> {
        let Self { mut met, beyond } = self;
        if beyond > 0 {
            met.push(Problem { field: "(object)".into(), reason: format!("{beyond} more problems like these") });
        }
        met
    }
}
