//! What two runs that should be the same left behind.

use std::fs;
use std::path::Path;

/// What a run leaves, without the time that its steps and epochs took.
#[derive(PartialEq)]
pub struct Left {
    pub names: Vec<String>,
    pub settings: [String; 2],
    pub steps: Vec<String>,
    pub epochs: Vec<String>,
    pub checkpoints: [Option<Vec<u8>>; 2],
}

pub fn left(run: &Path) -> Left {
    let text = |name: &str| fs::read_to_string(run.join(name)).unwrap();
    let untimed = |name: &str, last_key: &str| -> Vec<String> {
        let lines = text(name);
        let cut = lines.lines().map(|line| {
            let (before, _) = line.split_once(&format!(",\"{last_key}\":")).unwrap();
            before.to_string()
        });
        cut.collect()
    };
    let entries = fs::read_dir(run).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    Left {
        names,
        settings: [text("config.toml"), text("vocab.txt")],
        steps: untimed("steps.jsonl", "ms"),
        epochs: untimed("epochs.jsonl", "seconds"),
        checkpoints: ["last", "best"]
            .map(|name| fs::read(run.join(format!("{name}.safetensors"))).ok()),
    }
}

/// Compares part by part, so that a failure says which part differs instead of printing whole files.
pub fn assert_same(found: &Left, expected: &Left, how: &str) {
    assert_eq!(found.names, expected.names, "{how}");
    assert_eq!(found.settings, expected.settings, "{how}");
    assert_eq!(found.steps, expected.steps, "{how}");
    assert_eq!(found.epochs, expected.epochs, "{how}");
    assert!(
        found.checkpoints == expected.checkpoints,
        "checkpoints differ: {how}"
    );
}
