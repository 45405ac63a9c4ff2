//! Fields that may hold anything: a value of the wrong JSON type costs the field, never the object.
//!
//! serde's derived code gives up on the whole document at the first surprise. A [`Field`] accepts whatever stands there, keeps it
//! if it has the [`Shape`] asked for, and otherwise remembers what it was instead, for the [`Problem`](crate::model::Problem).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What stood in the place of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Field<T> {
    /// Nothing, or null: the API makes no difference.
    #[default]
    Absent,
    /// A value of the right type.
    Is(T),
    /// A value of another type, named as a person would: `a list`.
    Wrong(&'static str),
}

/// A type that a field can have. Each method is one JSON type; what a shape does not override, it is not.
pub(crate) trait Shape<'de>: Sized {
    /// What the schema asks for, as a person says it: `a string`.
    const WANTED: &'static str;

    /// From a string that lives as long as the input.
    fn from_borrowed(text: &'de str) -> Option<Self> {
        Self::from_text(text)
    }

    /// From a string that had escapes in it, or comes from YAML.
    fn from_text(_text: &str) -> Option<Self> {
        None
    }

    /// From a boolean.
    fn from_bool(_value: bool) -> Option<Self> {
        None
    }

    /// From a whole number.
    fn from_number(_value: i64) -> Option<Self> {
        None
    }

    /// From a list. Reads it to its end in any case.
    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    /// From an object. Reads it to its end in any case.
    fn from_object<A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// A string, borrowed from the input where that has no escapes.
pub(crate) type Text<'a> = Cow<'a, str>;

/// A list whose elements are judged one by one.
pub(crate) type List<T> = Vec<Field<T>>;

/// The first element of a list; the rest is counted unread (`addresses` of an endpoint: all name the same backend).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct First<T> {
    /// Absent if the list is empty.
    pub(crate) first: Field<T>,
    /// How many stand behind it.
    pub(crate) more: usize,
}

/// An object whose keys are anybody's: labels, a selector. In the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs<'a>(pub(crate) Vec<(Text<'a>, Field<Text<'a>>)>);

/// A key of [`Pairs`].
struct Key<'a>(Text<'a>);

struct KeyVisitor;

/// That a key is there at all, whatever its value (`!service.kubernetes.io/headless`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present(pub(crate) bool);

struct FieldVisitor<T>(PhantomData<T>);

// === impl Field ===

impl<T> Field<T> {
    /// The value, if there is one of the right type.
    pub(crate) fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Wrong(_) => None,
        }
    }

    /// The value, if there is one of the right type.
    pub(crate) fn into_value(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Wrong(_) => None,
        }
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

impl<'de, T: Shape<'de>> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WANTED)
    }

    fn visit_unit<E: Error>(self) -> Result<Field<T>, E> {
        Ok(Field::Absent)
    }

    fn visit_none<E: Error>(self) -> Result<Field<T>, E> {
        Ok(Field::Absent)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field<T>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Field<T>, E> {
        Ok(T::from_borrowed(text).map_or(Field::Wrong("a string"), Field::Is))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Field<T>, E> {
        Ok(T::from_text(text).map_or(Field::Wrong("a string"), Field::Is))
    }

    fn visit_bytes<E: Error>(self, _bytes: &[u8]) -> Result<Field<T>, E> {
        Ok(Field::Wrong("binary data"))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Field<T>, E> {
        Ok(T::from_bool(value).map_or(Field::Wrong("a boolean"), Field::Is))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Field<T>, E> {
        Ok(T::from_number(value).map_or(Field::Wrong("a number"), Field::Is))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Field<T>, E> {
        i64::try_from(value).map_or(Ok(Field::Wrong("a number beyond 64 bits")), |value| self.visit_i64(value))
    }

    fn visit_i128<E: Error>(self, _value: i128) -> Result<Field<T>, E> {
        Ok(Field::Wrong("a number beyond 64 bits"))
    }

    fn visit_u128<E: Error>(self, _value: u128) -> Result<Field<T>, E> {
        Ok(Field::Wrong("a number beyond 64 bits"))
    }

    fn visit_f64<E: Error>(self, _value: f64) -> Result<Field<T>, E> {
        Ok(Field::Wrong("a number with a fraction"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Field<T>, A::Error> {
        Ok(T::from_list(list)?.map_or(Field::Wrong("a list"), Field::Is))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Field<T>, A::Error> {
        Ok(T::from_object(object)?.map_or(Field::Wrong("an object"), Field::Is))
    }
}

// === impl Shape ===

impl<'de: 'a, 'a> Shape<'de> for Text<'a> {
    const WANTED: &'static str = "a string";

    fn from_borrowed(text: &'de str) -> Option<Self> {
        Some(Cow::Borrowed(text))
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(Cow::Owned(text.to_owned()))
    }
}

impl Shape<'_> for bool {
    const WANTED: &'static str = "a boolean";

    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Shape<'_> for i64 {
    const WANTED: &'static str = "a whole number";

    fn from_number(value: i64) -> Option<Self> {
        Some(value)
    }
}

impl<'de, T: Shape<'de>> Shape<'de> for List<T> {
    const WANTED: &'static str = "a list";

    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut elements = Self::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Some(elements))
    }
}

impl<'de, T: Shape<'de>> Shape<'de> for First<T> {
    const WANTED: &'static str = "a list";

    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let first = list.next_element()?.unwrap_or(Field::Absent);
        let mut more = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            more += 1;
        }
        Ok(Some(Self { first, more }))
    }
}

impl<'de: 'a, 'a> Shape<'de> for Pairs<'a> {
    const WANTED: &'static str = "an object";

    fn from_object<A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        let mut pairs = Vec::new();
        while let Some(Key(key)) = object.next_key()? {
            pairs.push((key, object.next_value()?));
        }
        Ok(Some(Self(pairs)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor).map(Self)
    }
}

/// In YAML a key may look like something else than text, which it is all the same.
impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Text<'de>, E> {
        Ok(Cow::Owned(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Text<'de>, E> {
        Ok(Cow::Owned(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Text<'de>, E> {
        Ok(Cow::Owned(value.to_string()))
    }
}

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// Makes structs with derived `Deserialize` the shape of a JSON object.
macro_rules! object_shape {
    (borrowing $($borrowing:ident),+; owning $($owning:ident),+) => {
        $(object_shape!(@ $borrowing<'a>, 'de: 'a, 'a);)+
        $(object_shape!(@ $owning, 'de);)+
    };
    (@ $name:ty, $($lifetime:tt)+) => {
        impl<$($lifetime)+> Shape<'de> for $name {
            const WANTED: &'static str = "an object";

            fn from_object<A: serde::de::MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
                Self::deserialize(serde::de::value::MapAccessDeserializer::new(object)).map(Some)
            }
        }
    };
}
pub(crate) use object_shape;
