//! Files that are written whole or not at all, such as the one that a run is kept in: found before the run and held until its end.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::refusal::Refusal;

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct Place {
    /// Held open: the sandbox that a run enters has a `/run` of its own, and what is kept must not be kept there.
    directory: File,
    name: OsString,
    /// As it was asked for.
    shown: PathBuf,
}

/// Bytes of a result, at least.
const BLOCK: usize = 4096;
/// Less what the umask takes.
const MODE: u32 = 0o666;

impl Place {
    /// `asked`: a file, which may be there, or a directory, which gets a file called `name`. Tries whether it can be written to, and
    /// touches nothing that is kept there.
    ///
    /// # Errors
    /// [`Refusal`], with the path and the cause: better now than after an hour.
    pub(crate) fn claim(asked: &Path, name: &str) -> Result<Self> {
        let tried = Self::find(asked, name).and_then(|place| place.ensure_room().map(|()| place));
        tried.map_err(|error| Refusal::of(error.context(format!("--save {}", asked.display()))))
    }

    fn find(asked: &Path, name: &str) -> Result<Self> {
        let named_directory = [b"/".as_slice(), b"/."].iter().any(|end| asked.as_os_str().as_bytes().ends_with(end));
        let (directory, name, shown) = match fs::metadata(asked) {
            Ok(there) if there.is_dir() => (asked.to_owned(), OsString::from(name), asked.join(name)),
            Ok(there) => {
                ensure!(there.is_file(), "it is neither a regular file nor a directory");
                // The file that a link leads to, so that the link stays one.
                let file = fs::canonicalize(asked).context("following it")?;
                (parent(&file)?, file_name(&file)?, asked.to_owned())
            }
            Err(missing) if named_directory || fs::symlink_metadata(asked).is_ok() => return Err(missing.into()),
            Err(_) => (parent(asked)?, file_name(asked)?, asked.to_owned()),
        };
        let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&directory);
        let directory = opened.with_context(|| format!("opening the directory {}", directory.display()))?;
        Ok(Self { directory, name, shown })
    }

    /// A file without content has room on the fullest disk.
    fn ensure_room(&self) -> Result<()> {
        self.unfinished()?.as_file_mut().write_all(&[b' '; BLOCK]).context("no file can be written beside it")
    }

    /// Writes the file, whole or not at all: whoever reads it meanwhile sees the one before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, text: &str) -> Result<()> {
        let writing = || format!("writing {}", self.shown.display());
        let mut unfinished = self.unfinished().with_context(writing)?;
        // Of the file itself: errors of the other name a path that nobody has typed.
        unfinished.as_file_mut().write_all(text.as_bytes()).with_context(writing)?;
        let place = self.within().join(&self.name);
        if let Ok(before) = fs::metadata(&place) {
            unfinished.as_file().set_permissions(before.permissions()).with_context(writing)?;
        }
        unfinished.persist(place).map_err(|error| error.error).with_context(writing)?;
        Ok(())
    }

    pub(crate) fn shown(&self) -> &Path {
        &self.shown
    }

    /// A file beside it under a name that nobody else has; it goes when it is dropped.
    fn unfinished(&self) -> Result<tempfile::NamedTempFile> {
        let mut prefix = OsString::from(".");
        prefix.push(&self.name);
        prefix.push(".");
        let mode = Permissions::from_mode(MODE);
        let made = tempfile::Builder::new().prefix(&prefix).suffix(".unfinished").permissions(mode).tempfile_in(self.within());
        // Not in its own words, which name a path that nobody has typed.
        made.map_err(|error| anyhow!("no file can be made beside it: {}", error.kind()))
    }

    /// The directory, wherever this process sees it by now.
    fn within(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string())
    }
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn replace(file: &Path, text: &str) -> Result<()> {
    let writing = || format!("writing {}", file.display());
    match fs::metadata(file) {
        // A pipe or a device holds nothing that half of a text would spoil.
        Ok(there) if !there.is_file() => fs::write(file, text).with_context(writing),
        _ => Place::find(file, "").with_context(writing)?.write(text),
    }
}

fn parent(file: &Path) -> Result<PathBuf> {
    let parent = file.parent().context("it names no file")?;
    // Of a bare name.
    Ok(if parent == Path::new("") { PathBuf::from(".") } else { parent.to_owned() })
}

fn file_name(file: &Path) -> Result<OsString> {
    file.file_name().map(OsStr::to_owned).context("it names no file")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn entries(directory: &Path) -> Vec<OsString> {
        let mut names: Vec<OsString> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_wrong_and_named_with_the_cause() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink(at("nothing"), at("dangling")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(at("file"), "").unwrap();
        for (bad, cause) in [
            (at("missing/x.json"), "No such file"),
            (PathBuf::from(format!("{}/missing/", directory.path().display())), "No such file"),
            (at("dangling"), "No such file"),
            (at("fifo"), "neither a regular file nor"),
            (at("file/x.json"), "Not a directory"),
            (PathBuf::from("/proc/x.json"), "no file can be made beside it: "),
            (PathBuf::from(""), "names no file"),
        ] {
            let error = Place::claim(&bad, "run.json").unwrap_err();
            assert!(Refusal::is_behind(&error), "{bad:?}");
            let said = format!("{error:#}");
            assert!(said.contains(&format!("--save {}", bad.display())) && said.contains(cause), "{said}");
        }
        assert_eq!(entries(directory.path()), ["dangling", "fifo", "file"], "nothing is left of the trial");
    }

    #[test]
    fn nothing_of_others_is_touched_and_links_stay_links() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["x.unfinished", "x.txt.unfinished", ".x.txt.unfinished"] {
            fs::write(at(name), "somebody's").unwrap();
        }
        fs::write(at("real"), "an earlier run").unwrap();
        symlink("real", at("link")).unwrap();
        let before = entries(directory.path());
        for name in ["x.txt", "link"] {
            Place::claim(&at(name), "run.json").unwrap().write("this run").unwrap();
        }
        assert_eq!(entries(directory.path()).len(), before.len() + 1, "x.txt");
        assert_eq!(fs::read_to_string(at("x.unfinished")).unwrap(), "somebody's");
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(at("real")).unwrap(), "this run");
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_rights_and_is_whole_for_who_has_it_open() {
        let directory = tempfile::tempdir().unwrap();
        let document = directory.path().join("document.md");
        fs::write(&document, "before").unwrap();
        fs::set_permissions(&document, Permissions::from_mode(0o600)).unwrap();
        let mut open = File::open(&document).unwrap();
        replace(&document, "after").unwrap();
        assert_eq!(std::io::read_to_string(&mut open).unwrap(), "before");
        assert_eq!(fs::read_to_string(&document).unwrap(), "after");
        assert_eq!(fs::metadata(&document).unwrap().permissions().mode() & 0o777, 0o600);
        replace(Path::new("/dev/null"), "anything").unwrap();
        let error = format!("{:#}", replace(&directory.path().join("missing/x"), "").unwrap_err());
        assert!(error.contains("missing/x") && error.contains("No such file"), "{error}");
        assert_eq!(entries(directory.path()), ["document.md"]);
    }

    #[test]
    fn a_directory_gets_a_file_named_after_the_run() {
        let directory = tempfile::tempdir().unwrap();
        Place::claim(directory.path(), "run.json").unwrap().write("this run").unwrap();
        assert_eq!(entries(directory.path()), ["run.json"]);
    }

    #[test]
    fn a_directory_that_is_hidden_meanwhile_is_still_the_one() {
        let directory = tempfile::tempdir().unwrap();
        let (place, aside) = (directory.path().join("place"), directory.path().join("aside"));
        fs::create_dir(&place).unwrap();
        let claimed = Place::claim(&place.join("x.json"), "run.json").unwrap();
        fs::rename(&place, &aside).unwrap();
        fs::create_dir(&place).unwrap();
        claimed.write("this run").unwrap();
        assert_eq!((entries(&aside), entries(&place)), (vec!["x.json".into()], Vec::new()));
    }
}
