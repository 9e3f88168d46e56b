//! The program `showtell` as its users run it: a command, what it prints, how it ends.

use std::ffi::OsStr;
use std::process::{Command, Output};

/// The program, without arguments: the one in the pack in which the tests' executable travels, or the one that cargo built.
pub fn showtell() -> Command {
    let packed = super::data::root().join("showtell");
    Command::new(if packed.is_file() {
        packed
    } else {
        env!("CARGO_BIN_EXE_showtell").into()
    })
}

/// Runs the program with these arguments to its end.
pub fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    showtell().args(arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a command that must end with this exit status wrote to stderr. No command may panic.
#[track_caller]
pub fn ended(code: i32, output: &Output) -> String {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// What a command that must succeed wrote to stderr.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    ended(0, output)
}

/// What a command that must succeed wrote to stdout.
#[track_caller]
pub fn printed(output: &Output) -> String {
    succeeded(output);
    stdout(output)
}

/// The one line in which a command that must fail says why.
#[track_caller]
pub fn failed(output: &Output) -> String {
    blamed(1, output)
}

/// The one line in which a command says why its flags cannot work.
#[track_caller]
pub fn misused(output: &Output) -> String {
    blamed(2, output)
}

#[track_caller]
fn blamed(code: i32, output: &Output) -> String {
    let text = ended(code, output);
    let blames = |line: &&str| line.starts_with("showtell: ") && !line.contains(": warning: ");
    let lines: Vec<&str> = text.lines().filter(blames).collect();
    assert!(
        lines.len() == 1 && text.ends_with(&format!("{}\n", lines[0])),
        "{text}"
    );
    lines[0].to_string()
}

/// That all of `words` are in an error.
#[track_caller]
pub fn says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "'{word}' in: {error}");
    }
}

/// That a terminal finds nothing in a text to obey: no control character but line ends and tabs.
#[track_caller]
pub fn is_plain(text: &str) {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!text.contains(obeyed), "{text:?}");
}
