//! The same training run on both devices, by the command line, on real photos: a small encoder that is fine-tuned, dropout
//! on. The CUDA device is the emulator with every check on.

use crate::support;
use showtell::train::log::{self, StepRecord};
use std::path::Path;
use std::process::{Command, Output};
use support::cli::{showtell, stdout, succeeded};
use support::data::real_data;
use support::driver_folder;

const STEPS: usize = 5;

/// Photos that are captioned afterwards.
const PHOTOS: usize = 3;

/// What a run on one device left.
struct Run {
    steps: Vec<StepRecord>,
    captions: String,
}

/// How a command is sent to a device: flags, and where the driver is.
struct Target<'a> {
    flags: &'a [&'a str],
    driver: Option<&'a Path>,
}

impl Target<'_> {
    fn output(&self, command: &mut Command) -> Output {
        if let Some(driver) = self.driver {
            command.env("LD_LIBRARY_PATH", driver);
        }
        command.args(self.flags).output().unwrap()
    }

    fn run(&self, model: &str, data: &Path) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let settings = format!(
            "--model {model} --encoder-weights random --encoder-blocks 1,1,1 --encoder-width 8 --fine-tune \
             --fine-tune-from 1 --image-size 64 --embed 24 --hidden 32 --attention 16 --positions 6 --batch-size 4 \
             --max-steps {STEPS} --lr 0.001 --encoder-lr 0.001 --no-validate"
        );
        let mut train = showtell();
        train.arg("train").args(settings.split_whitespace());
        train.arg("--data").arg(data).arg("--out").arg(&out);
        succeeded(&self.output(&mut train));
        let mut caption = showtell();
        caption
            .arg("caption")
            .arg("--run")
            .arg(&out)
            .args(photos(data));
        let spoken = self.output(&mut caption);
        succeeded(&spoken);
        Run {
            steps: log::read(out.join("steps.jsonl")).unwrap(),
            captions: stdout(&spoken),
        }
    }
}

/// The first photos of the data set, by name.
fn photos(data: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(data.join("Flicker8k_Dataset")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.truncate(PHOTOS);
    paths
}

fn assert_close(cpu: &Run, cuda: &Run, tolerance: f32, name: &str) {
    assert_eq!((cpu.steps.len(), cuda.steps.len()), (STEPS, STEPS));
    for (a, b) in cpu.steps.iter().zip(&cuda.steps) {
        for (what, a_, b_) in [("loss", a.loss, b.loss), ("cross-entropy", a.ce, b.ce)] {
            let off = (a_ - b_).abs() / a_;
            assert!(
                off <= tolerance,
                "{name}, step {}: {what} {a_} on the CPU, {b_} on CUDA",
                a.step
            );
        }
    }
}

fn check(model: &str) {
    let Some(data) = real_data("flickr8k-mini") else {
        return;
    };
    let Some(driver) = driver_folder() else {
        return;
    };
    let cpu = Target {
        flags: &["--device", "cpu"],
        driver: None,
    }
    .run(model, &data);
    let on_cuda = |precision| {
        let flags = ["--device", "cuda", "--precision", precision];
        Target {
            flags: &flags,
            driver: Some(driver.path()),
        }
        .run(model, &data)
    };
    let f32 = on_cuda("f32");
    assert_close(&cpu, &f32, 1e-4, "f32");
    assert_eq!(cpu.captions, f32.captions);
    assert_close(&cpu, &on_cuda("bf16"), 0.02, "bf16");
}

#[test]
fn show_tell_trains_alike_on_both_devices() {
    check("show-tell");
}

#[test]
fn attend_trains_alike_on_both_devices() {
    check("attend");
}
