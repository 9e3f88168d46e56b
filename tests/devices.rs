//! `showtell devices`, and what `--device` and `--precision` do, with the emulator in place of a driver, with one that is
//! set up badly, and with none.

use crate::support;
use showtell::device::cuda;
use std::process::{Command, Output};
use support::cli::{failed, misused, says, showtell, stderr, stdout};
use support::driver_folder;

/// Training without data: it fails, but the device is opened first.
const TRAIN: &str = "train --model attend --encoder-weights random --data nowhere --out never";

/// The command in the emulator's driver folder, with more environment variables.
fn emulated(arguments: &str, environment: &[(&str, &str)]) -> Option<Output> {
    let folder = driver_folder()?;
    let mut command = showtell();
    command
        .args(arguments.split(' '))
        .envs(environment.iter().copied());
    Some(
        command
            .env("LD_LIBRARY_PATH", folder.path())
            .output()
            .unwrap(),
    )
}

/// The command without a driver; `None` if this machine has one.
fn without_driver(arguments: &str) -> Option<Output> {
    let mut command: Command = showtell();
    let output = command
        .args(arguments.split(' '))
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let listed = showtell()
        .arg("devices")
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let has_a_driver = stdout(&listed).contains("cuda:0");
    (!has_a_driver).then_some(output)
}

#[test]
fn devices_are_listed() {
    let environment = [
        ("CUDA_EMULATOR_DEVICES", "2"),
        ("CUDA_EMULATOR_SM_COUNT", "12"),
        ("CUDA_EMULATOR_MEMORY", "3G"),
    ];
    let Some(output) = emulated("devices", &environment) else {
        return;
    };
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        output.status.success() && lines.len() == 3,
        "{text}{}",
        stderr(&output)
    );
    assert!(
        lines[0].starts_with("cpu ") && lines[0].ends_with(" threads"),
        "{text}"
    );
    for (line, device) in lines[1..].iter().zip(["cuda:0 ", "cuda:1 "]) {
        assert!(line.starts_with(device), "{text}");
        assert!(
            line.ends_with("compute capability 8.0, 12 multiprocessors, 3.0 GiB"),
            "{text}"
        );
    }
    let output = emulated("devices --json", &environment).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(listed["cuda"][1]["ordinal"], 1);
    assert_eq!(listed["cuda"][1]["memory_bytes"], 3_u64 << 30);
    assert_eq!(listed["no_cuda"], serde_json::Value::Null);
}

#[test]
fn a_machine_without_a_driver_says_so() {
    let Some(output) = without_driver("devices") else {
        return;
    };
    let text = stdout(&output);
    assert!(
        output.status.success() && text.contains("\ncuda    none: "),
        "{text}"
    );
    let json = without_driver("devices --json").unwrap();
    let listed: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(listed["cuda"], serde_json::json!([]));
    // Whether the kernels or the driver are missing, the message says what to install.
    let reason = if cuda::toolkit().is_some() {
        ["there is no NVIDIA driver here", "install one"]
    } else {
        ["was built without nvcc", "scripts/cuda-toolkit"]
    };
    says(&text, &reason);
    says(listed["no_cuda"].as_str().unwrap(), &reason);
    let output = without_driver(&format!("{TRAIN} --device cuda")).unwrap();
    says(&failed(&output), &reason);
}

#[test]
fn a_driver_without_a_gpu_says_so() {
    let none = [("CUDA_EMULATOR_DEVICES", "0")];
    let command = format!("{TRAIN} --device cuda");
    let Some(output) = emulated(&command, &none) else {
        return;
    };
    says(&failed(&output), &["the NVIDIA driver finds no GPU"]);
    let output = emulated(&format!("{TRAIN} --device cuda:7"), &[]).unwrap();
    says(&failed(&output), &["there is no GPU 7", "there are 1"]);
    let old = [("CUDA_EMULATOR_DRIVER_VERSION", "11.2")];
    says(
        &failed(&emulated(&command, &old).unwrap()),
        &["driver is too old", "CUDA 11.2", "Update the driver"],
    );
}

/// `auto` takes the CPU and says why; the error that follows is about the missing data.
#[test]
fn auto_falls_back_to_the_cpu_saying_why() {
    let none = [("CUDA_EMULATOR_DEVICES", "0")];
    let Some(output) = emulated(TRAIN, &none) else {
        return;
    };
    says(
        &stderr(&output),
        &[
            "computing on the CPU: the NVIDIA driver finds no GPU",
            "nowhere",
        ],
    );
    let output = emulated(TRAIN, &[]).unwrap();
    assert!(!stderr(&output).contains("CPU"), "{}", stderr(&output));
}

#[test]
fn wrong_devices_and_precisions_are_refused() {
    for device in ["gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", ""] {
        let output = showtell()
            .args(["caption", "--run", "r", "--device", device, "p.jpg"])
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{device}: {}",
            stderr(&output)
        );
    }
    let train = |options: &str| {
        showtell()
            .args(TRAIN.split(' '))
            .args(options.split(' '))
            .output()
            .unwrap()
    };
    let error = misused(&train("--device cpu --precision bf16"));
    says(
        &error,
        &[
            "--precision: the CPU computes in f32, not bf16",
            "--device cuda",
        ],
    );
    assert_eq!(train("--precision f16").status.code(), Some(2));
}
