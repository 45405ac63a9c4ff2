//! A command line as a shell would take it again.

use std::ffi::{OsStr, OsString};

/// Of these arguments, the program first. What is no UTF-8 is shown, and is all that cannot be repeated.
pub(super) fn of(arguments: impl Iterator<Item = OsString>) -> String {
    arguments.map(|argument| quoted(&argument)).collect::<Vec<_>>().join(" ")
}

fn quoted(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    let plain = |character: char| character.is_alphanumeric() || "-_=+,./:@%".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_takes_it_as_it_was_given() {
        let arguments = ["--save", "a file", "it's", "", "$HOME", "--services=10,20", "*", "a\nb", "\\", "~", "#"];
        let line = of(arguments.into_iter().map(Into::into));
        let output = Command::new("sh").arg("-c").arg(format!(r"printf '%s\0' {line}")).output().unwrap();
        let given: Vec<u8> = arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect();
        assert_eq!(output.stdout, given, "{line}");
        assert!(line.starts_with("--save 'a file' ") && line.contains(" --services=10,20 "), "{line}");
    }

    #[test]
    fn what_is_no_text_is_shown_as_far_as_it_is() {
        assert_eq!(of([OsString::from_vec(b"a\xff".into())].into_iter()), "'a\u{fffd}'");
    }
}
