//! Which files make up a path of manifests, and what they hold.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

/// The manifests found, by path, in the order in which they count: an object that two files define is the first one's.
pub(super) type Contents = BTreeMap<PathBuf, Found>;

/// What the name of a manifest led to.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What the file holds, or why it cannot be read.
    pub(super) bytes: Result<Arc<[u8]>, String>,
    /// When it was last written, in seconds since 1970; 0 if that cannot be read.
    pub(super) modified: i64,
}

/// Names of the files that would be read now: the path itself if it is a file, else the `*.yaml`, `*.yml` and `*.json` of that
/// directory (one level, as `kubectl apply -f` does), whether they can be read or not. Hidden files are not looked at, and with them
/// the `..data` directories of a ConfigMap volume, whose files are reached through the links beside them; nor are editors' backup
/// and swap files.
///
/// # Errors
/// The path cannot be read; above all, it is not there.
pub(super) fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if is_manifest(Path::new(&entry.file_name())) && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn is_manifest(name: &Path) -> bool {
    let hidden = name.to_str().is_none_or(|name| name.starts_with('.'));
    !hidden && matches!(name.extension().and_then(|extension| extension.to_str()), Some("yaml" | "yml" | "json"))
}

/// Reads the files listed for `path`. One that has vanished since is left out: the event that says so is on its way.
///
/// # Errors
/// The path is a file, and cannot be read. One of many files only spoils itself.
pub(super) fn read(path: &Path, files: &[PathBuf]) -> io::Result<Contents> {
    let mut contents = Contents::new();
    for file in files {
        match read_file(file) {
            Ok(found) => _ = contents.insert(file.clone(), found),
            Err(error) if file == path => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !file.is_symlink() => {}
            Err(error) => _ = contents.insert(file.clone(), Found { bytes: Err(why(file, &error)), modified: 0 }),
        }
    }
    Ok(contents)
}

fn read_file(file: &Path) -> io::Result<Found> {
    let metadata = std::fs::metadata(file)?;
    // A pipe would keep us waiting for its writer.
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(Found { bytes: Ok(std::fs::read(file)?.into()), modified: metadata.mtime() })
}

fn why(file: &Path, error: &io::Error) -> String {
    match std::fs::read_link(file) {
        Ok(target) => format!("a link to {}: {error}", target.display()),
        Err(_) => error.to_string(),
    }
}

/// What identifies contents: 128 bits of XXH3 over names and bytes, as hexadecimal digits.
pub(super) fn digest_of(contents: &Contents) -> String {
    let mut hash = Xxh3::new();
    for (path, found) in contents {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        hash.update(&name.len().to_le_bytes());
        hash.update(name);
        let (readable, bytes) = match &found.bytes {
            Ok(bytes) => (1, &**bytes),
            Err(why) => (0, why.as_bytes()),
        };
        hash.update(&[readable]);
        hash.update(&bytes.len().to_le_bytes());
        hash.update(bytes);
    }
    format!("{:032x}", hash.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_manifests_are_listed_in_order_and_one_level_deep() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", "c.yml", ".hidden.yaml", "notes.txt", "b.yaml~", ".b.yaml.swp", "#b.yaml#", "noext"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("sub.yaml")).unwrap();
        std::os::unix::fs::symlink("b.yaml", dir.path().join("link.yaml")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling.yaml")).unwrap();
        let names: Vec<_> = list(dir.path()).unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.json", "b.yaml", "c.yml", "dangling.yaml", "link.yaml"]);
        let contents = read(dir.path(), &list(dir.path()).unwrap()).unwrap();
        let unreadable: Vec<_> = contents.values().filter_map(|found| found.bytes.clone().err()).collect();
        assert_eq!(unreadable, ["a link to nowhere: No such file or directory (os error 2)"]);
        assert_eq!(list(&dir.path().join("notes.txt")).unwrap().len(), 1, "a file that is named is read whatever its name");
        assert!(list(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn the_digest_changes_with_names_and_bytes() {
        let digest = |files: &[(&str, &str)]| {
            let found = |text: &str| match text {
                "unreadable" => Found { bytes: Err(text.to_owned()), modified: 0 },
                _ => Found { bytes: Ok(text.as_bytes().into()), modified: 7 },
            };
            digest_of(&files.iter().map(|(name, text)| (PathBuf::from(name), found(text))).collect())
        };
        let base = digest(&[("a", "1"), ("b", "2")]);
        assert_eq!(base, digest(&[("b", "2"), ("a", "1")]));
        for other in [
            digest(&[("a", "1")]),
            digest(&[("a", "12"), ("b", "")]),
            digest(&[("a1", ""), ("b", "2")]),
            digest(&[("a", "2"), ("b", "1")]),
            digest(&[("a", "1"), ("b", "unreadable")]),
        ] {
            assert_ne!(base, other);
        }
    }
}
