//! Collecting what an object got wrong.

use std::fmt;

use super::field::{Field, List, Shape};
use crate::model::Problem;

/// More problems than this of one field help nobody, and an object with 100,000 bad endpoints must not cost memory for each. Counted by
/// field, so that one mistake that is made again and again hides no other.
const MOST_OF_A_FIELD: usize = 16;

/// Of a list for the load balancer, so many entries are read: more than any pool has, and no more than can be compared with each other.
const MOST_ENTRIES: usize = 4_096;

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

/// Who answers for an object, which decides what is worth a word to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// A person, in a file.
    Person,
    /// An API server. It knows all values of its own release, so that one that is not known here is of a later Kubernetes, and every node
    /// would complain of it; a cloud may read what we do not; and objects still have addresses as they were once written.
    Server,
}

/// The problems of one object, in the order in which they were met.
#[derive(Debug)]
pub(super) struct Problems {
    author: Author,
    met: Vec<Problem>,
    /// How many were met of each field, whatever its places in lists: `spec.ports[].port`. There are as many as fields are read.
    fields: Vec<(String, usize)>,
    /// Only to write a field's name into.
    scratch: String,
}

/// Where a field is: a name and, inside lists, the places.
pub(super) type Path<'a> = fmt::Arguments<'a>;

impl Problems {
    pub(super) fn of(author: Author) -> Self {
        Self { author, met: Vec::new(), fields: Vec::new(), scratch: String::new() }
    }

    /// Notes what only a person can have got wrong: where an API server has let it in, nobody hears of it.
    pub(super) fn note_to_person(&mut self, field: Path<'_>, reason: impl Into<String>) {
        if self.author == Author::Person {
            self.note(field, reason);
        }
    }

    /// Notes one. The path is written out only if it will be kept.
    ///
    /// Cold, so that [`Self::take`], which each of a million endpoints goes through several times, is a comparison where it stands.
    #[cold]
    pub(super) fn note(&mut self, field: Path<'_>, reason: impl Into<String>) {
        if self.count(field) <= MOST_OF_A_FIELD {
            self.met.push(Problem { field: field.to_string(), reason: reason.into() });
        }
    }

    /// How many problems of this field there are, this one included.
    fn count(&mut self, field: Path<'_>) -> usize {
        self.scratch.clear();
        let Ok(()) = fmt::Write::write_fmt(&mut WithoutPlaces(&mut self.scratch), field) else { return 0 };
        if let Some((_, count)) = self.fields.iter_mut().find(|(known, _)| *known == self.scratch) {
            *count += 1;
            return *count;
        }
        self.fields.push((self.scratch.clone(), 1));
        1
    }

    /// The value of a field; one of the wrong type is noted and left out.
    #[inline]
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

    /// The elements of a list, none where there is none; one that is too long is noted and cut.
    pub(super) fn list<'de, T: Shape<'de>>(&mut self, field: Path<'_>, value: Field<List<T>>) -> List<T> {
        let mut list = self.take(field, value).unwrap_or_default();
        if list.len() > MOST_ENTRIES {
            self.note(field, format!("{} entries, more than the {MOST_ENTRIES} that are read", list.len()));
            list.truncate(MOST_ENTRIES);
        }
        list
    }

    /// The value of an element of a list, where null is not nothing but a hole.
    #[inline]
    pub(super) fn element<'de, T: Shape<'de>>(&mut self, field: Path<'_>, value: Field<T>) -> Option<T> {
        if let Field::Absent = value {
            self.note(field, format!("is null, not {}: ignored", T::WANTED));
        }
        self.take(field, value)
    }

    /// How many have been met, those that are not kept included.
    pub(super) fn total(&self) -> usize {
        self.fields.iter().map(|(_, count)| count).sum()
    }

    /// All of them, with a line at the end for each field that has too many.
    pub(super) fn into_vec(self) -> Vec<Problem> {
        let Self { mut met, fields, author: _, scratch: _ } = self;
        for (field, count) in fields.into_iter().filter(|(_, count)| *count > MOST_OF_A_FIELD) {
            met.push(Problem { field, reason: format!("{} more problems with this field", count - MOST_OF_A_FIELD) });
        }
        met
    }
}

/// The name of a field, whatever its places in lists: `spec.ports[].port` of `spec.ports[7].port`.
pub(crate) fn without_places(field: &str) -> String {
    let mut name = String::with_capacity(field.len());
    // A String takes everything.
    _ = fmt::Write::write_str(&mut WithoutPlaces(&mut name), field);
    name
}

/// Leaves the numbers out of `ports[7]`, which has them in brackets.
struct WithoutPlaces<'s>(&'s mut String);

impl fmt::Write for WithoutPlaces<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if !letter.is_ascii_digit() || !self.0.ends_with('[') {
                self.0.push(letter);
            }
        }
        Ok(())
    }
}
