//! `showtell profile` and what it is made of: dry runs, the emulator's counters, times on the CPU.

use crate::support;
use serde_json::Value;
use showtell::device::{Call, Precision, Work};
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::ops::{Accumulate, add, gemm};
use showtell::train::config::Config;
use showtell::train::profile::chip::Chip;
use showtell::train::profile::{Part, Profile, Size};
use showtell::{Context, DType, Device, Tensor};
use std::fs;
use std::time::{Duration, Instant};
use support::cli::{failed, misused, says, showtell, stdout, succeeded};
use support::driver_folder;
use tempfile::TempDir;

fn h100(precision: Precision) -> Device {
    Device::planning_cuda(Chip::of_word("h100").unwrap().facts(), precision)
}

/// A small captioner on given features.
fn small(model: &str) -> Config {
    let settings = format!(
        "model = \"{model}\"\nencoder-blocks = [1]\nencoder-width = 4\nencoder-stem = 3\nimage-size = 32\nembed = 8\n\
         hidden = 8\naugment = false"
    );
    Config::from_settings(toml::from_str(&settings).unwrap()).unwrap()
}

const SMALL: Size = Size {
    batch: 3,
    length: 5,
    vocabulary: 11,
};

/// y += x over 5 rows of 7 numbers reads two tensors of 140 bytes and writes one of them: each tensor counts once. A product
/// of (m, k) and (k, n) has 2 m n k operations.
#[test]
fn work_is_known_from_shapes() {
    let device = h100(Precision::Tf32);
    let ctx = Context::new(&device);
    let zeros = |shape: [usize; 2]| Tensor::zeros(&device, shape, DType::F32).unwrap();
    let (x, mut y) = (zeros([5, 7]), zeros([5, 7]));
    let (a, b, mut c) = (zeros([40, 70]), zeros([70, 90]), zeros([40, 90]));
    let calls = device.profile(|| {
        add::forward(&ctx, &x, &mut y)?;
        let (a, b) = (gemm::Factor::Plain(&a), gemm::Factor::Plain(&b));
        gemm::forward(&ctx, a, b, Accumulate::No, &mut c)
    });
    let calls = calls.unwrap();
    let work: Vec<Work> = calls.iter().map(|call| call.work).collect();
    assert_eq!((work[0].bytes, work[0].flops), (2 * 140, 0.0));
    assert_eq!(work[1].flops, (2 * 40 * 70 * 90) as f64);
    assert!(work[1].bytes >= 4 * (40 * 70 + 70 * 90 + 40 * 90));
    assert!(calls.iter().all(|call| call.time.is_none()));
    // Nothing is noted outside a profile.
    add::forward(&ctx, &x, &mut y).unwrap();
    assert!(device.profile(|| Ok(())).unwrap().is_empty());
}

/// The kernels of a step, their work and their order are the same on a dry run as in the emulator, whose multiprocessors and
/// shared memory the dry run is told.
#[test]
fn a_dry_run_asks_for_what_the_device_is_asked_for() {
    for precision in Precision::ALL {
        let Some(ctx) = support::cuda_with(precision) else {
            return;
        };
        for model in [ATTEND, SHOW_TELL] {
            let config = small(model.name);
            for part in Part::ALL {
                let calls = |device: &Device| {
                    let profile = Profile::new(device, part, &config, SMALL).unwrap();
                    let told = |call: Call| (call.name, call.work);
                    profile.calls.into_iter().map(told).collect::<Vec<_>>()
                };
                let (real, dry) = (calls(ctx.device()), calls(&ctx.device().planning()));
                assert!(real.len() > 3, "{precision} {} {part}", model.name);
                // A dry run reads no words, and so never sees the end of a sentence.
                let same = match part {
                    Part::Caption => real.len().min(30),
                    _ => real.len().max(dry.len()),
                };
                assert_eq!(
                    real[..same],
                    dry[..same],
                    "{precision} {} {part}",
                    model.name
                );
            }
        }
    }
}

/// An operation that calls others counts once: together they take no longer than the whole.
#[test]
fn operations_of_the_cpu_are_timed_once() {
    let config = small("attend");
    let start = Instant::now();
    let profile = Profile::new(&Device::cpu(), Part::Step, &config, SMALL).unwrap();
    let elapsed = start.elapsed();
    let times = profile.calls.iter().map(|call| call.time.unwrap());
    assert!(times.clone().map(|(_, length)| length).sum::<Duration>() <= elapsed);
    let mut end = Duration::ZERO;
    for (start, length) in times {
        assert!(start >= end, "calls overlap");
        end = start + length;
    }
    assert!(profile.whole.unwrap() > Duration::ZERO);
    let kernels = profile.kernels(None);
    assert!(kernels.is_sorted_by(|a, b| a.time >= b.time));
    let calls: usize = kernels.iter().map(|kernel| kernel.calls).sum();
    assert_eq!(calls, profile.calls.len());
    assert!(
        kernels
            .iter()
            .any(|kernel| kernel.name == "lstm step_forward")
    );
}

fn report(output: &std::process::Output) -> Value {
    succeeded(output);
    serde_json::from_str(&stdout(output)).unwrap()
}

/// The emulator counts instructions of tensor cores: 2,048 operations each in tf32, 4,096 in bf16. Tiles reach over the edges of
/// matrices, so that there are more of them than products ask for.
#[test]
fn products_have_as_much_to_do_as_tensor_cores_do() {
    let Some(folder) = driver_folder() else {
        return;
    };
    for (precision, per_instruction) in [("tf32", 2_048.0), ("bf16", 4_096.0)] {
        let size = [
            "--model=show-tell",
            "--batch=64",
            "--length=3",
            "--vocab=64",
        ];
        let mut command = showtell();
        command.args([
            "profile",
            "step",
            "--json",
            "--device=cuda",
            "--precision",
            precision,
        ]);
        command.args(size).env("LD_LIBRARY_PATH", folder.path());
        let report = report(&command.output().unwrap());
        let mut products = 0;
        for kernel in report["kernels"].as_array().unwrap() {
            let name = kernel["name"].as_str().unwrap();
            let number = |key: &str| kernel[key].as_f64().unwrap();
            assert!(
                number("requested_bytes") >= number("distinct_bytes"),
                "{name}"
            );
            let done = number("mma") * per_instruction;
            assert!(number("flops") <= done, "{name}: {kernel}");
            if number("flops") > 0.0 {
                products += 1;
                assert!(done <= 2.5 * number("flops"), "{name}: {kernel}");
            }
        }
        assert!(products > 3, "{report}");
        assert!(report["whole_ms"].is_null() && report["all"]["ms"].is_null());
    }
}

#[test]
fn a_dry_run_needs_no_gpu() {
    let folder = TempDir::new().unwrap();
    let trace = folder.path().join("trace.json");
    let dry = |more: &[&str]| {
        let mut command = showtell();
        command
            .args(["profile", "step", "--model=attend", "--dry-run"])
            .args(more);
        command.output().unwrap()
    };
    let with_trace = [
        "--json",
        "--chip",
        "a100",
        "--trace",
        trace.to_str().unwrap(),
    ];
    let a100 = report(&dry(&with_trace));
    let h100 = report(&dry(&["--json"]));
    assert_eq!(a100["chip"], "NVIDIA A100 80GB SXM");
    let floor = |report: &Value| report["all"]["floor_ms"].as_f64().unwrap();
    assert!(floor(&a100) > floor(&h100) && floor(&h100) > 0.1);
    let events: Value = serde_json::from_str(&fs::read_to_string(&trace).unwrap()).unwrap();
    let events = events["traceEvents"].as_array().unwrap();
    assert_eq!(events.len() as u64, a100["all"]["calls"].as_u64().unwrap());
    let text = stdout(&dry(&[
        "--model",
        "show-tell",
        "--batch",
        "128",
        "--vocab",
        "7702",
    ]));
    // Each of the three products of 128 x 24 rows, 256 and 7,702 takes 0.18 ms at 67 TFLOP/s; in tf32 memory takes longer.
    let show_tell = ["--model=show-tell", "--batch=128", "--vocab=7702"];
    let computing = |precision: &str| {
        let more = [&show_tell[..], &["--json", "--precision", precision]].concat();
        report(&dry(&more))["all"]["computing_ms"].as_f64().unwrap()
    };
    let product = 2.0 * 128.0 * 24.0 * 256.0 * 7_702.0 / 67e9;
    assert!(computing("f32") > 3.0 * product && computing("tf32") < product);
    let words = [
        "training step of show-tell, B=128 T=24 V=7702, on a dry run of NVIDIA H100 80GB SXM, tf32",
        "gemm_tf32_nn_large_f32",
        "NVIDIA H100 Tensor Core GPU data sheet",
        "Most has to be done in ",
    ];
    says(&text, &words);
}

#[test]
fn what_cannot_be_profiled_is_refused() {
    let run = |arguments: &str| {
        let mut command = showtell();
        command.arg("profile").args(arguments.split(' '));
        command.output().unwrap()
    };
    let output = run("step --device cpu --chip h100");
    says(
        &misused(&output),
        &["--chip: ", "of the CPU only the time is known"],
    );
    for wrong in [
        "steps",
        "step --length 1",
        "step --vocab 4",
        "step --batch 0",
        "step --chip h9",
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong}");
    }
    let output = run("step --dry-run --trace /nowhere/trace.json");
    says(&failed(&output), &["/nowhere"]);
    assert_eq!(stdout(&output), "");
}
