//! A YAML document as it was written, before anybody says what its fields are: the only form in which duplicates can be seen.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A node of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    /// `null`, `~`, or nothing.
    Null,
    /// A boolean, a number or a string.
    Scalar(Value),
    /// A list.
    List(Vec<Tree>),
    /// An object, with its keys in order, repeated ones included.
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// What was said last under a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Tree> {
        match self {
            Self::Object(entries) => entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// As a string, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// As JSON, in which the last of two equal keys wins and the null of a field says nothing. `duplicate` hears the path of every repeated key.
    pub(crate) fn into_json(self, path: &str, duplicate: &mut impl FnMut(String)) -> Option<Value> {
        match self {
            Self::Null => None,
            Self::Scalar(value) => Some(value),
            Self::List(items) => {
                let items = items.into_iter().enumerate();
                let item = |(place, item): (usize, Self)| item.into_json(&format!("{path}[{place}]"), duplicate);
                Some(Value::Array(items.map(item).map(Option::unwrap_or_default).collect()))
            }
            Self::Object(entries) => {
                let mut object = Map::new();
                let mut seen = std::collections::BTreeSet::new();
                for (key, value) in entries {
                    let path = format!("{path}.{key}");
                    if !seen.insert(key.clone()) {
                        duplicate(path.clone());
                        object.remove(&key);
                    }
                    let value = value.into_json(&path, duplicate);
                    if let Some(value) = value {
                        object.insert(key, value);
                    }
                }
                Some(Value::Object(object))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Number::from_f64(value).map(|number| Tree::Scalar(Value::Number(number))).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::String(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some((Key(key), value)) = map.next_entry()? {
            entries.push((key, value));
        }
        Ok(Tree::Object(entries))
    }
}

/// The name of a field, as it is written. One that is missing (`: value`) is not told in serde's words, which are about Rust's types.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer)?.map(Key).ok_or_else(|| D::Error::custom("no name of a field before the ':'"))
    }
}
