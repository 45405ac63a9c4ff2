//! Where a report goes: never over what it is made of.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::refusal::Refusal;

/// A file, whatever path leads to it.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    /// One that is there: device and inode.
    There(u64, u64),
    /// One that is not, in a directory that is, or by its bare path.
    Missing(PathBuf),
}

/// Refuses outputs that would replace a result, or each other.
///
/// # Errors
/// [`Refusal`], with both.
pub(super) fn ensure_apart(results: &[PathBuf], outputs: &[&Path]) -> Result<()> {
    for (nth, output) in outputs.iter().enumerate() {
        let own = Identity::of(output);
        let shown = output.display();
        if let Some(result) = results.iter().find(|result| Identity::of(result) == own) {
            return Err(Refusal::of(anyhow!("{shown} would be written over a result that is to be read, {}", result.display())));
        }
        if let Some(other) = outputs.iter().take(nth).find(|other| Identity::of(other) == own) {
            return Err(Refusal::of(anyhow!("{shown} would be written twice, also as {}", other.display())));
        }
    }
    Ok(())
}

impl Identity {
    fn of(path: &Path) -> Self {
        if let Ok(there) = fs::metadata(path) {
            return Self::There(there.dev(), there.ino());
        }
        let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let parent = fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned());
        Self::Missing(path.file_name().map_or_else(|| path.to_owned(), |name| parent.join(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_never_written_over_whatever_it_is_called() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("run.json"), "{}").unwrap();
        fs::hard_link(at("run.json"), at("hard")).unwrap();
        std::os::unix::fs::symlink("run.json", at("soft")).unwrap();
        let results = [at("run.json")];
        for name in ["run.json", "./run.json", "hard", "soft"] {
            let error = ensure_apart(&results, &[&at(name)]).unwrap_err();
            assert!(Refusal::is_behind(&error) && error.to_string().contains("run.json"), "{name}: {error}");
        }
        ensure_apart(&results, &[&at("page.html"), &at("tables.md")]).unwrap();
        let error = ensure_apart(&results, &[&at("page.html"), &at("./page.html")]).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    }
}
