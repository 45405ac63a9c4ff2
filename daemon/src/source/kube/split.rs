//! Cutting a response body into objects while it arrives, so that memory holds one object and not one body.
//!
//! An API server that does not stream lists answers `resourceVersion=0` with everything at once, whatever `limit` says: 73 MB for
//! 250,000 endpoints.

use super::Failure;

/// No object of an API server is larger (etcd refuses beyond 1.5 MiB); what is, is not from an API server.
const LARGEST: usize = 64 << 20;

/// Lines of a watch.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

/// The items of a list: `{"kind":"ServiceList","metadata":{..},"items":[{..},{..}]}`.
///
/// Finds where items begin and end by counting brackets outside of strings; whether they are JSON inside is the decoder's business.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// Everything but the items: a list of none, with its metadata.
    head: Vec<u8>,
    item: Vec<u8>,
    /// The last string at depth 1, or its beginning: the key, if a `[` follows.
    last_string: Vec<u8>,
    depth: u32,
    in_items: bool,
    in_string: bool,
    escaped: bool,
}

impl Lines {
    /// Takes a chunk and hands out the lines that it completes, without their ends. Empty lines are none.
    pub(super) fn feed(&mut self, mut chunk: &[u8], mut line: impl FnMut(&[u8])) -> Result<(), Failure> {
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            let (head, tail) = chunk.split_at(end);
            if self.partial.is_empty() {
                if !head.trim_ascii().is_empty() {
                    line(head);
                }
            } else {
                self.partial.extend_from_slice(head);
                line(&self.partial);
                self.partial.clear();
            }
            chunk = &tail[1..];
        }
        self.partial.extend_from_slice(chunk);
        within_bounds(&self.partial)
    }
}

impl Items {
    /// Takes a chunk and hands out the items that it completes.
    pub(super) fn feed(&mut self, chunk: &[u8], mut item: impl FnMut(&[u8])) -> Result<(), Failure> {
        for &byte in chunk {
            if self.in_string {
                self.inside_string(byte);
                continue;
            }
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.last_string.clear();
                    self.keep(byte);
                }
                b'{' | b'[' => {
                    if byte == b'[' && self.depth == 1 && self.last_string == b"items" {
                        self.head.push(byte);
                        self.in_items = true;
                    } else {
                        self.keep(byte);
                    }
                    self.depth = self.depth.saturating_add(1);
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.in_items && self.depth == 1 {
                        self.complete(&mut item);
                        self.in_items = false;
                    }
                    self.keep(byte);
                }
                b',' if self.in_items && self.depth == 2 => self.complete(&mut item),
                _ => self.keep(byte),
            }
        }
        within_bounds(&self.item)?;
        within_bounds(&self.head)
    }

    /// What is left without the items, for the metadata of the list.
    pub(super) fn into_head(self) -> Vec<u8> {
        self.head
    }

    fn inside_string(&mut self, byte: u8) {
        self.keep(byte);
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.in_string = false;
            return;
        }
        if self.depth == 1 && self.last_string.len() < 16 {
            self.last_string.push(byte);
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.in_items { self.item.push(byte) } else { self.head.push(byte) }
    }

    fn complete(&mut self, item: &mut impl FnMut(&[u8])) {
        if !self.item.trim_ascii().is_empty() {
            item(&self.item);
        }
        self.item.clear();
    }
}

fn within_bounds(buffer: &[u8]) -> Result<(), Failure> {
    if buffer.len() > LARGEST {
        return Err(Failure::Garbled { reason: format!("an object of more than {} MiB", LARGEST >> 20) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn items_of(text: &[u8], chunk: usize) -> (Vec<Value>, Value) {
        let (mut splitter, mut items) = (Items::default(), Vec::new());
        for chunk in text.chunks(chunk) {
            splitter.feed(chunk, |item| items.push(serde_json::from_slice(item).expect("an item is JSON"))).expect("in bounds");
        }
        (items, serde_json::from_slice(&splitter.into_head()).expect("the head is JSON"))
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            r#"[\\"\[\]{},:a-c]{0,6}"#.prop_map(Value::from),
            Just(Value::from("items"))
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("items|a|b|\"", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn items_are_cut_wherever_the_chunks_end(
            items in proptest::collection::vec(any_json(), 0..6), metadata in any_json(), chunk in 1_usize..40, pretty: bool,
        ) {
            let list = json!({"kind": "items", "apiVersion": metadata, "items": items, "metadata": metadata, "z": [metadata]});
            let text = if pretty { serde_json::to_vec_pretty(&list) } else { serde_json::to_vec(&list) }.expect("writes");
            let (found, head) = items_of(&text, chunk);
            prop_assert_eq!(found, items);
            prop_assert_eq!(head, json!({"kind": "items", "apiVersion": metadata, "items": [], "metadata": metadata, "z": [metadata]}));
        }

        #[test]
        fn lines_are_cut_wherever_the_chunks_end(lines in proptest::collection::vec("[a-z]{1,9}", 0..9), chunk in 1_usize..20) {
            let text: String = lines.iter().map(|line| format!("{line}\n\n")).collect();
            let (mut splitter, mut found) = (Lines::default(), Vec::new());
            for chunk in text.as_bytes().chunks(chunk) {
                splitter.feed(chunk, |line| found.push(String::from_utf8_lossy(line).into_owned())).expect("in bounds");
            }
            prop_assert_eq!(found, lines);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in r#"[\[\]{},:"\\ items]{0,60}"#) {
            for bytes in [&bytes[..], text.as_bytes()] {
                let _ = Items::default().feed(bytes, |_| {});
                let _ = Lines::default().feed(bytes, |_| {});
            }
        }
    }

    #[test]
    fn a_list_of_nothing() {
        for items in ["null", "[]", "[ ]"] {
            let text = format!(r#"{{"metadata":{{"resourceVersion":"7"}},"items":{items}}}"#);
            assert_eq!(items_of(text.as_bytes(), 3).0, Vec::<Value>::new());
        }
    }
}
