//! A network namespace for one test, and stock `nft` in it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

/// Runs `test` on a thread in a fresh network namespace. Says so and returns where that is not allowed.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let flags = if nix::unistd::geteuid().is_root() {
        CloneFlags::CLONE_NEWNET
    } else {
        CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET
    };
    let thread = std::thread::spawn(move || match unshare(flags) {
        Ok(()) => test(),
        Err(errno) => eprintln!("skipped: no network namespace here: {errno}"),
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs stock nft in the namespace of this thread.
pub(crate) fn nft(arguments: &[&str], input: &str) -> String {
    run(Command::new("nft").args(arguments), input)
}

/// What a program that is installed makes of this input, in the namespace of this thread.
pub(crate) fn run(program: &mut Command, input: &str) -> String {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it is installed");
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds, and the program may answer before it has read it all.
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The table as nft shows it, without what changes by itself.
pub(super) fn list() -> String {
    nft(&["-s", "list", "table", "inet", "sheave"], "")
}

/// What stock nft makes of this text in a namespace that has nothing else.
pub(super) fn reloaded(text: String) -> String {
    let (sender, receiver) = std::sync::mpsc::channel();
    in_namespace(move || {
        nft(&["-f", "-"], &text);
        sender.send(list()).unwrap();
    });
    receiver.recv().unwrap()
}
