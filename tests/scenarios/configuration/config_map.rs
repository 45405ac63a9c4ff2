//! A ConfigMap as kubelet mounts it: the file is a link into `..data`, which is a link to a directory that is replaced as a whole.

use anyhow::Context as _;
use std::{cell::Cell, fs, os::unix::fs::symlink};
use tempfile::TempDir;

/// A mounted ConfigMap with one file.
pub(crate) struct ConfigMap {
    directory: TempDir,
    path: String,
    version: Cell<u32>,
}

const FILE: &str = "config.conf";

impl ConfigMap {
    pub(crate) fn new(text: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("a directory for a ConfigMap")?;
        let path = directory.path().join(FILE).to_string_lossy().into_owned();
        let map = Self { directory, path, version: Cell::new(0) };
        map.replace(text)?;
        symlink(format!("..data/{FILE}"), &map.path)?;
        Ok(map)
    }

    /// The file, for `--config`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Changes it as kubelet's AtomicWriter does: a new directory, the link swapped by a rename, the old directory removed.
    pub(crate) fn replace(&self, text: &str) -> anyhow::Result<()> {
        let of = |version: u32| self.directory.path().join(format!("..version-{version}"));
        let old = self.version.get();
        let new = old + 1;
        fs::create_dir(of(new))?;
        fs::write(of(new).join(FILE), text)?;
        let fresh = self.directory.path().join("..data_tmp");
        symlink(format!("..version-{new}"), &fresh)?;
        fs::rename(&fresh, self.directory.path().join("..data"))?;
        if old > 0 {
            fs::remove_dir_all(of(old))?;
        }
        self.version.set(new);
        Ok(())
    }
}
