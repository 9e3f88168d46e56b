//! A CUDA device that fails in the middle of a run: a launch is refused, a kernel breaks the context, memory runs out. Each
//! is an error in one line with exit status 1, and what was trained is not lost: the run that is resumed ends with the same
//! weights as a run without a failure.

use crate::support;
use std::path::Path;
use std::process::{Command, Output};
use support::cli::{failed, says, showtell, succeeded};
use support::driver_folder;
use support::tiny::Tiny;

/// Two epochs of six steps, a checkpoint every five.
const SETTINGS: &str = "--encoder-weights random --encoder-blocks 1 --encoder-width 4 --encoder-stem 3 --image-size 32 \
     --embed 8 --hidden 8 --attention 8 --positions 4 --batch-size 5 --epochs 2 --checkpoint-every 5 --fine-tune \
     --fine-tune-from 1 --threads 1 --device cuda";

fn command(tiny: &Tiny, driver: &Path, model: &str, run: &str) -> Command {
    let mut command = showtell();
    command
        .args(["train", "--model", model])
        .args(SETTINGS.split_whitespace());
    command
        .arg("--data")
        .arg(tiny.data())
        .arg("--out")
        .arg(tiny.path(run));
    command.env("LD_LIBRARY_PATH", driver);
    command
}

/// Trains with a failure, then continues without it. The error; none if nothing failed.
fn fails_and_resumes(tiny: &Tiny, driver: &Path, model: &str, failure: &str) -> Option<String> {
    let run = format!("{model}-{failure}").replace(':', "-");
    let output: Output = command(tiny, driver, model, &run)
        .env("CUDA_EMULATOR_FAIL", failure)
        .output()
        .unwrap();
    if output.status.success() {
        return None;
    }
    let error = failed(&output);
    let mut again = command(tiny, driver, model, &run);
    // A run that failed before its folder had its settings is started once more.
    if tiny.path(&run).join("config.toml").is_file() {
        again.arg("--resume");
    }
    succeeded(&again.output().unwrap());
    let weights = |run: &str| std::fs::read(tiny.path(run).join("last.safetensors")).unwrap();
    assert!(
        weights(&run) == weights(model),
        "{model}, {failure}: other weights than without it"
    );
    Some(error)
}

/// Trains again and again, each time with a later call that fails, `step` calls after the one before, until a run succeeds.
/// The errors of all runs.
fn all_failures(model: &str, kind: &str, first: usize, step: usize) -> Vec<String> {
    let Some(driver) = driver_folder() else {
        return Vec::new();
    };
    let tiny = Tiny::new();
    succeeded(
        &command(&tiny, driver.path(), model, model)
            .output()
            .unwrap(),
    );
    let numbers = (first..).step_by(step);
    let errors = numbers
        .map_while(|n| fails_and_resumes(&tiny, driver.path(), model, &format!("{kind}:{n}")));
    let errors: Vec<String> = errors.collect();
    assert!(!errors.is_empty(), "{kind} never failed");
    errors
}

#[test]
fn a_launch_that_is_refused_costs_a_step() {
    for (model, first, step) in [("attend", 301, 250), ("show-tell", 201, 250)] {
        let errors = all_failures(model, "launch", first, step);
        for error in &errors {
            says(error, &["too many resources requested for launch"]);
            assert!(
                error.contains("kernel ") || error.contains("graph"),
                "{error}"
            );
        }
        if let Some(last) = errors.last() {
            says(last, &["can be resumed from it"]);
        }
    }
}

#[test]
fn a_kernel_that_breaks_the_device_costs_what_was_not_saved() {
    for error in all_failures("attend", "fault", 401, 400) {
        says(&error, &["CUDA_ERROR_ILLEGAL_ADDRESS"]);
    }
}

#[test]
fn memory_that_ends_is_an_error_at_any_time() {
    for error in all_failures("show-tell", "allocation", 1, 4) {
        says(&error, &["is out of memory", "MiB"]);
    }
}
