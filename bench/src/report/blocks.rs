//! The places in a document that the report keeps up to date.
//!
//! ```text
//! <!-- results: promises -->
//! ...the section's tables...
//! <!-- end of results -->
//! ```

use anyhow::{Context as _, Result, ensure};

use super::markdown;
use super::section::Section;

const BEGIN: &str = "<!-- results: ";
const BEGUN: &str = " -->\n";
const END: &str = "<!-- end of results -->";

/// The document with each of its blocks written anew.
///
/// # Errors
/// For a block without an end or of no section, and a document without any: whoever names it expects one.
pub(super) fn renew(document: &str, sections: &[Section<'_>]) -> Result<String> {
    ensure!(document.contains(BEGIN), "there is no `{BEGIN}SECTION -->` in it");
    let mut parts = document.split(BEGIN);
    let mut renewed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (id, rest) = part.split_once(BEGUN).with_context(|| format!("`{BEGIN}` without its `-->` at the end of the line"))?;
        let (_, after) = rest.split_once(END).with_context(|| format!("the results of `{id}` have no `{END}`"))?;
        let known = || sections.iter().map(|section| section.id).collect::<Vec<_>>().join(", ");
        let section = sections.iter().find(|section| section.id == id);
        let section = section.with_context(|| format!("there are no results for `{id}`, only for {}", known()))?;
        renewed += &format!("{BEGIN}{id}{BEGUN}{}{END}{after}", markdown::section(section));
    }
    Ok(renewed)
}

/// The document without its blocks: what people wrote.
#[cfg(test)]
pub(super) fn prose(document: &str) -> String {
    let without = |part: &str| part.split_once(END).map_or(String::new(), |(_, after)| after.to_owned());
    let mut parts = document.split(BEGIN);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + &without(part))
}
