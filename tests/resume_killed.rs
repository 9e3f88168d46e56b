//! The program is killed or stopped and started again: it leaves the same files as a program that was not disturbed.

#![cfg(unix)]

use crate::support;
use showtell::train::run::RunDirectory;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::cli::{ended, showtell, stderr, succeeded};
use support::left::{assert_same, left};
use support::{Numbers, pictures};

/// Kills of the longest test.
const KILLS: usize = 20;

/// Training of a small model by the program.
fn flags(data: &Path, out: &Path, epochs: usize, more: &[&str]) -> Command {
    let mut command = showtell();
    command.args(["train", "--threads=2", "--encoder-weights=random"]);
    command.args(["--encoder-blocks=1,1", "--encoder-width=4"]);
    command.arg("--encoder-stem=3");
    command.args([
        "--embed=8",
        "--hidden=8",
        "--attention=8",
        "--image-size=24",
    ]);
    command.args(["--batch-size=7", &format!("--epochs={epochs}")]);
    command.arg("--data").arg(data).arg("--out").arg(out);
    command.args(more);
    command
}

fn resume(out: &Path, more: &[&str]) -> Command {
    let mut command = showtell();
    command.args(["train", "--resume", "--out"]).arg(out);
    command.args(more);
    command
}

fn start(mut command: Command) -> Child {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.spawn().unwrap()
}

fn finish(mut command: Command) -> Output {
    let output = command.output().unwrap();
    succeeded(&output);
    output
}

/// Kills runs at random moments, this many times. A run that reaches its end is compared, and another one is started.
fn kill(model: &str, more: &[&str], kills: usize, seed: u64) {
    let data = pictures::temporary();
    let place = tempfile::tempdir().unwrap();
    let more = [&["--model", model, "--checkpoint-every=3"], more].concat();
    let unkilled = place.path().join("unkilled");
    let began = Instant::now();
    finish(flags(data.path(), &unkilled, 3, &more));
    let time = began.elapsed().as_micros() as u64;
    let expected = left(&unkilled);
    let mut numbers = Numbers::new(seed);
    let (mut done, mut runs) = (0, 0);
    while done < kills {
        runs += 1;
        let out = place.path().join(format!("{runs}"));
        loop {
            let command = if out.join("config.toml").exists() {
                resume(&out, &[])
            } else {
                flags(data.path(), &out, 3, &more)
            };
            let mut child = start(command);
            if done < kills {
                std::thread::sleep(Duration::from_micros(numbers.bits() % time));
            }
            let ended = if done < kills {
                child.try_wait().unwrap()
            } else {
                Some(child.wait().unwrap())
            };
            if let Some(status) = ended {
                assert!(status.success(), "{status}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            done += 1;
        }
        assert_same(&left(&out), &expected, &format!("{model}, run {runs}"));
    }
}

#[test]
fn a_run_killed_at_twenty_random_moments_is_the_same_run() {
    let more = [
        "--fine-tune",
        "--encoder-batch-norm=batch",
        "--schedule-from=1",
        "--lr=0.02",
    ];
    kill("attend", &more, KILLS, 1);
}

#[test]
fn a_killed_run_with_a_frozen_encoder_is_the_same_run() {
    kill("show-tell", &[], KILLS / 4, 2);
    kill("show-tell", &["--no-augment"], KILLS / 4, 3);
}

#[test]
fn ctrl_c_saves_and_the_run_goes_on() {
    let data = pictures::temporary();
    let place = tempfile::tempdir().unwrap();
    let more = ["--model=attend", "--checkpoint-every=0", "--no-validate"];
    let (whole, part) = (place.path().join("whole"), place.path().join("part"));
    let mut command = flags(data.path(), &part, 60, &more);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    // A shell that runs the tests in the background has them ignore the signal, which a child would inherit.
    // SAFETY: `signal` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    let steps = part.join("steps.jsonl");
    while fs::metadata(&steps).map_or(0, |about| about.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "ended before a step");
        std::thread::sleep(Duration::from_millis(1));
    }
    let signal = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signal.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let messages = ended(130, &output);
    assert!(messages.contains("--resume"), "{messages}");
    let taken = fs::read_to_string(&steps).unwrap().lines().count();
    let run = RunDirectory::open(&part).unwrap();
    let position = run.open_last().unwrap().unwrap().position;
    assert_eq!(position.step, taken as u64, "saved at the last step");
    finish(resume(&part, &[]));
    finish(flags(data.path(), &whole, 60, &more));
    assert_same(&left(&part), &left(&whole), "Ctrl-C");
}

#[test]
fn a_finished_run_says_so_and_more_epochs_let_it_go_on() {
    let data = pictures::temporary();
    let place = tempfile::tempdir().unwrap();
    let (long, short) = (place.path().join("long"), place.path().join("short"));
    finish(flags(data.path(), &long, 3, &["--model=show-tell"]));
    finish(flags(data.path(), &short, 2, &["--model=show-tell"]));
    let before = left(&short);
    let output = finish(resume(&short, &[]));
    let messages = stderr(&output);
    assert!(
        messages.contains("finished: 2 epochs, 8 steps"),
        "{messages}"
    );
    assert_same(&left(&short), &before, "finished");
    finish(resume(&short, &["--epochs=3"]));
    assert_same(&left(&short), &left(&long), "one epoch more");
}

#[test]
fn a_resumed_run_keeps_its_settings() {
    let data = pictures::temporary();
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("run");
    finish(flags(data.path(), &out, 1, &["--model=show-tell"]));
    let refused = |mut command: Command| ended(1, &command.output().unwrap());
    let misused = |mut command: Command| ended(2, &command.output().unwrap());
    let message = misused(resume(&out, &["--lr=0.1"]));
    assert!(
        message.contains("--lr: found 0.1, but this run was started with 0.9"),
        "{message}"
    );
    let message = misused(resume(&out, &["--fine-tune"]));
    let expected = "found --fine-tune, but this run was started with --no-fine-tune";
    assert!(message.contains(expected), "{message}");
    let message = misused(resume(&out, &["--no-augment"]));
    let expected = "found --no-augment, but this run was started with --augment;";
    assert!(message.contains(expected), "{message}");
    finish(resume(&out, &["--lr=0.9", "--no-fine-tune"]));
    let nothing = place.path().join("nothing");
    let message = refused(resume(&nothing, &[]));
    assert!(message.contains("has no config.toml"), "{message}");
    fs::remove_file(out.join("last.safetensors")).unwrap();
    let before = left(&out);
    let message = refused(resume(&out, &["--epochs=2"]));
    assert!(
        message.contains("last.safetensors: is missing"),
        "{message}"
    );
    assert_same(&left(&out), &before, "without its last checkpoint");
}
