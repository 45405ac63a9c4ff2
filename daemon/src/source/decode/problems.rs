//! Collecting what an object got wrong.

use std::fmt;

use super::field::{Field, Shape};
use crate::model::Problem;

/// More problems than this of one object help nobody, and an object with 100,000 bad endpoints must not cost memory for each.
const MOST: usize = 16;

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
