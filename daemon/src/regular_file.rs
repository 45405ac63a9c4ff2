//! Files that somebody names on a command line.

use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Opens a file, through links as well, and refuses what is none: a pipe that nobody writes into would be waited for without end, a
/// device may have no end, and some do something when they are opened.
///
/// # Errors
/// There is none, it may not be read, or it is something else.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    refuse_other(fs::metadata(path)?.file_type())?;
    // What takes its place meanwhile is not waited for either. Of a regular file nobody needs to wait, and the flag says nothing.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    refuse_other(file.metadata()?.file_type())?;
    Ok(file)
}

fn refuse_other(kind: FileType) -> io::Result<()> {
    let found = match kind {
        kind if kind.is_file() => return Ok(()),
        // Reading would say so in the system's words.
        kind if kind.is_dir() => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {found}, not a regular file")))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once_and_a_link_to_one_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        for name in ["file", "link"] {
            let mut text = String::new();
            open(&at(name)).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "text", "{name}");
        }
        nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("pipe", at("link to a pipe")).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        for (path, expected) in [
            (at("pipe"), "it is a pipe, not a regular file"),
            (at("link to a pipe"), "it is a pipe, not a regular file"),
            (at("socket"), "it is a socket, not a regular file"),
            ("/dev/zero".into(), "it is a device, not a regular file"),
            (directory.path().into(), "Is a directory"),
            (at("none"), "No such file"),
        ] {
            let told = open(&path).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{}: {told}", path.display());
        }
    }
}
