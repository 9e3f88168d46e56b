//! `showtell demo` goes the whole way; what it learns in full length is for its own output to show.

use serde_json::Value;
use showtell::data::image::decode;
use std::path::Path;
use std::process::{Command, Output};

fn demo(out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_showtell"));
    command.arg("demo").arg("--out").arg(out);
    command.args(["--scenes", "40", "--steps", "3"]).args(more);
    command.output().unwrap()
}

#[test]
fn a_short_demo_leaves_scenes_a_run_and_pictures() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("demo");
    let output = demo(&out, &["--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["scenes"], 300);
    for key in ["bleu", "bleu_shuffled"] {
        assert_eq!(outcome[key].as_array().unwrap().len(), 4);
    }
    let share = outcome["names_what_is_there"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&share));
    let samples = outcome["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 8);
    for sample in samples {
        decode(Path::new(sample["picture"].as_str().unwrap())).unwrap();
    }
    decode(&out.join("curves.png")).unwrap();
    for name in [
        "config.toml",
        "vocab.txt",
        "steps.jsonl",
        "best.safetensors",
    ] {
        assert!(out.join("run").join(name).is_file(), "{name}");
    }
    let steps = std::fs::read_to_string(out.join("run/steps.jsonl")).unwrap();
    let rates = steps
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rates: Vec<f64> = rates.map(|step| step["lr"].as_f64().unwrap()).collect();
    let expected = [0, 1, 2].map(|step| 2e-3 * (1.0 - 0.9 * f64::from(step) / 3.0));
    assert_eq!(rates.len(), 3);
    for (rate, expected) in rates.iter().zip(expected) {
        assert!((rate - expected).abs() < 1e-12, "{rates:?}");
    }
    let again = demo(&out, &[]);
    assert_eq!(
        again.status.code(),
        Some(1),
        "a run must not be overwritten"
    );
    assert!(String::from_utf8_lossy(&again.stderr).contains("holds a run already"));
}

#[test]
fn nothing_to_train_on_is_wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    for more in [["--scenes", "0"], ["--steps", "0"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_showtell"));
        command
            .arg("demo")
            .arg("--out")
            .arg(directory.path())
            .args(more);
        assert_eq!(command.output().unwrap().status.code(), Some(2));
    }
}
