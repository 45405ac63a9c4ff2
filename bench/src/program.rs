//! Programs of other people: whether there is one, who it says it is, and what it said last.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::unistd::{AccessFlags, access};
use sheave_lab::Namespace;

use crate::refusal::Refusal;

/// For printing a version.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of the sandbox: see [`sheave_lab::enter_sandbox`].
const HIDDEN: &str = "/run";

/// Looks whether a file can be run at all, before anything is begun. `option` named it.
///
/// # Errors
/// With what is wrong with it.
pub(crate) fn ensure_runnable(option: &str, program: &Path) -> Result<()> {
    match obstacle(program) {
        None => Ok(()),
        Some(obstacle) => Err(Refusal::of(anyhow!("{option} {}: {obstacle}", program.display()))),
    }
}

fn obstacle(program: &Path) -> Option<String> {
    let file = match fs::metadata(program) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(missing(program)),
        Err(error) => return Some(error.to_string()),
    };
    if file.is_dir() {
        return Some("it is a directory".to_owned());
    }
    if !file.is_file() {
        return Some("it is no regular file".to_owned());
    }
    if file.mode() & 0o111 == 0 {
        return Some("it is not executable (chmod +x)".to_owned());
    }
    if let Err(errno) = access(program, AccessFlags::X_OK) {
        return Some(format!("this user may not execute it ({errno})"));
    }
    is_hidden(program).then(|| format!("{}: copy it elsewhere", hidden()))
}

/// Looks whether a file or a directory can be seen from the sandbox. `what` named it.
///
/// # Errors
/// [`Refusal`], if it cannot.
pub(crate) fn ensure_visible(what: &str, place: &Path) -> Result<()> {
    if is_hidden(place) {
        return Err(Refusal::of(anyhow!("{what} {}: {}: name another place", place.display(), hidden())));
    }
    Ok(())
}

fn is_hidden(place: &Path) -> bool {
    fs::canonicalize(place).is_ok_and(|place| place.starts_with(HIDDEN))
}

fn hidden() -> String {
    format!("it is below {HIDDEN}, which is empty where the bench runs")
}

/// The file that a shell would run for this name.
pub(crate) fn in_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|found| found.is_file())
}

fn missing(program: &Path) -> String {
    if fs::symlink_metadata(program).is_ok() {
        return "it is a link to nothing".to_owned();
    }
    // A bare name would be looked for in PATH by a shell, but this is a file.
    let is_bare = program.components().count() == 1;
    match in_path(program).filter(|_| is_bare) {
        Some(found) => format!("there is no such file here; did you mean {}?", found.display()),
        None => "there is no such file".to_owned(),
    }
}

/// Asks a program for its version, in a namespace of its own: nobody knows yet what it does. `option` named it, `version` finds it in
/// what it should print. Returns where the program is, also for whoever is elsewhere, and the version.
///
/// # Errors
/// If it is not there, cannot be run, does not answer, or is something else.
pub(crate) fn identify(
    option: &str,
    program: &Path,
    name: &str,
    version: fn(&str) -> Option<String>,
) -> Result<(PathBuf, String)> {
    ensure_runnable(option, program)?;
    let shown = format!("{option} {}", program.display());
    // With a slash in it, so that it is this file and not one of the same name in PATH.
    let program = std::path::absolute(program).with_context(|| format!("{shown}: where is it?"))?;
    let version = ask(&program, name, version).map_err(|why| Refusal::of(why.context(shown)))?;
    Ok((program, version))
}

fn ask(program: &Path, name: &str, version: fn(&str) -> Option<String>) -> Result<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let place = Namespace::new("peer")?;
    let mut process = place.spawn_contained(command).map_err(unstartable)?;
    let status = process.wait(PATIENCE).context("`--version` does not end")?;
    let (said, complained) = streams(process.child())?;
    if status.success()
        && let Some(version) = version(&said)
    {
        return Ok(version);
    }
    if is_foreign(program) {
        bail!("it cannot be run: it has no #! line and is no program for this kind of machine");
    }
    match said.lines().chain(complained.lines()).find(|line| !line.trim().is_empty()) {
        Some(line) => bail!("it is not {name}: `--version` printed {line:?} ({status})"),
        None => bail!("it is not {name}: `--version` printed nothing ({status})"),
    }
}

fn unstartable(error: sheave_lab::Error) -> anyhow::Error {
    let error = anyhow!(error);
    let not_found = |cause: &io::Error| cause.kind() == io::ErrorKind::NotFound;
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(not_found)) {
        // The file itself is there: the kernel means the one that it names.
        return anyhow!("it cannot be run: the interpreter or loader that it asks for is not there");
    }
    error.context("it cannot be run")
}

/// Whether the kernel has nothing to run it with. execvp(3) hands such a file to a shell, whose complaints help nobody.
fn is_foreign(program: &Path) -> bool {
    let (Ok(head), Ok(own)) = (head(program), head(Path::new("/proc/self/exe"))) else { return false };
    // ELF, class and byte order; e_machine.
    let is_alike = head.get(..6) == own.get(..6) && head.get(18..20) == own.get(18..20);
    !head.starts_with(b"#!") && !is_alike
}

fn head(program: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    fs::File::open(program)?.take(20).read_to_end(&mut head)?;
    Ok(head)
}

/// Of a process that has ended, and with it all that could still write.
fn streams(process: &mut Child) -> Result<(String, String)> {
    let output = process.stdout.take().context("the program's output")?;
    let errors = process.stderr.take().context("the program's errors")?;
    let read = |stream: &mut dyn io::Read| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    };
    Ok((read(&mut { output }), read(&mut { errors })))
}

/// "Kubernetes v1.36.2" is what every component of Kubernetes prints.
pub(crate) fn kubernetes_version(said: &str) -> Option<String> {
    let version = said.trim().strip_prefix("Kubernetes ")?;
    (version.starts_with('v') && !version.contains(char::is_whitespace)).then(|| version.to_owned())
}

/// A program's last words, as they stand behind its name.
pub(crate) fn said(words: &str) -> String {
    if words.trim().is_empty() { "said nothing".to_owned() } else { format!("said:\n{words}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_version_is_kubernetes_own_and_nothing_else() {
        assert_eq!(kubernetes_version("Kubernetes v1.36.2\n").as_deref(), Some("v1.36.2"));
        for other in ["", "sheave 0.1.0", "Kubernetes", "Kubernetes 1.36", "Kubernetes v1 and more", "v1.36.2"] {
            assert_eq!(kubernetes_version(other), None, "{other}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_told_by_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        fs::write(place("plain"), "").unwrap();
        fs::write(place("program"), "").unwrap();
        fs::set_permissions(place("program"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink(place("nowhere"), place("dangling")).unwrap();
        nix::unistd::mkfifo(&place("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = |name: &str| ensure_runnable("--etcd", &place(name)).unwrap_err().to_string();
        for (name, said) in [
            ("absent", "there is no such file"),
            ("plain", "it is not executable (chmod +x)"),
            ("dangling", "it is a link to nothing"),
            ("pipe", "it is no regular file"),
            ("", "it is a directory"),
            ("plain/within", "Not a directory (os error 20)"),
        ] {
            assert_eq!(error(name), format!("--etcd {}: {said}", place(name).display()));
        }
        ensure_runnable("--etcd", &place("program")).unwrap();
    }

    #[test]
    fn a_bare_name_is_a_file_and_one_in_the_path_is_pointed_to() {
        let error = ensure_runnable("--kube-proxy", Path::new("sh")).unwrap_err().to_string();
        assert!(error.starts_with("--kube-proxy sh: there is no such file here; did you mean /"), "{error}");
        let error = ensure_runnable("--kube-proxy", Path::new("bin/sh")).unwrap_err().to_string();
        assert_eq!(error, "--kube-proxy bin/sh: there is no such file");
    }

    #[test]
    fn silence_is_told_as_such() {
        assert_eq!(said("no such luck"), "said:\nno such luck");
        assert_eq!(said(" \n"), "said nothing");
    }
}
