//! `showtell demo`, cut short: what it leaves, and that its figures are those of the files it leaves. How well it learns
//! when it is not cut short, its own output shows.

use crate::support;
use serde_json::Value;
use showtell::data::flickr8k::{Flickr8k, Split};
use showtell::data::image::decode;
use showtell::metrics::bleu;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use support::cli::{ended, failed, printed, says, showtell};

/// Unseen scenes that the demo captions, and how many of them it prints.
const TEST: usize = 300;
const SHOWN: usize = 8;

fn demo(out: &Path, more: &[&str]) -> Output {
    let mut command = showtell();
    command.arg("demo").arg("--out").arg(out);
    command.args(["--scenes", "40", "--steps", "3"]).args(more);
    command.output().unwrap()
}

#[test]
fn a_short_demo_leaves_scenes_a_run_and_pictures() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("demo");
    let outcome: Value = serde_json::from_str(&printed(&demo(&out, &["--json"]))).unwrap();
    check_pictures(&out, &outcome);
    check_rates(&out);
    check_scores(&out, &outcome);
    let error = failed(&demo(&out, &[]));
    says(&error, &["holds a run already"]);
}

fn check_pictures(out: &Path, outcome: &Value) {
    let samples = outcome["samples"].as_array().unwrap();
    assert_eq!(samples.len(), SHOWN);
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
}

/// The learning rate falls along a straight line.
fn check_rates(out: &Path) {
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
}

/// The colours and shapes in a text, each colour with the shape after it.
fn kinds(text: &str) -> BTreeSet<(&str, &str)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_kind = |pair: &&[&str]| {
        ["red", "green", "blue", "yellow"].contains(&pair[0])
            && ["circle", "square", "triangle"].contains(&pair[1])
    };
    let pairs = words.windows(2).filter(is_kind);
    pairs.map(|pair| (pair[0], pair[1])).collect()
}

/// The figures of the demo are what `showtell eval` finds in its run, and what can be counted in the captions that it writes.
fn check_scores(out: &Path, outcome: &Value) {
    let mut command = showtell();
    command.arg("eval").arg("--json");
    command.arg("--run").arg(out.join("run"));
    command.arg("--data").arg(out.join("data"));
    let evaluation = printed(&command.output().unwrap());
    let evaluation: Value = serde_json::from_str(&evaluation).unwrap();
    assert_eq!(outcome["scenes"], TEST);
    assert_eq!(outcome["bleu"], evaluation["bleu_corpus"]);

    let written = std::fs::read_to_string(out.join("run/captions-test.json")).unwrap();
    let written: Vec<Value> = serde_json::from_str(&written).unwrap();
    let captions: Vec<&str> = written
        .iter()
        .map(|entry| entry["caption"].as_str().unwrap())
        .collect();
    let dataset = Flickr8k::open(out.join("data")).unwrap();
    let images = dataset.split(Split::Test);
    let references: Vec<Vec<String>> = images
        .iter()
        .map(|&image| dataset.images()[image].captions.clone())
        .collect();
    assert_eq!((captions.len(), references.len()), (TEST, TEST));
    let samples = outcome["samples"].as_array().unwrap();
    for ((sample, entry), references) in samples.iter().zip(&written).zip(&references) {
        assert_eq!(sample["file"], entry["file"]);
        assert_eq!(sample["caption"], entry["caption"]);
        let caption = entry["caption"].as_str().unwrap().to_string();
        assert_eq!(sample["right"], references.contains(&caption));
    }

    let share = |is: &dyn Fn(&str, &[String]) -> bool| {
        let pairs = captions.iter().zip(&references);
        pairs.filter(|(caption, own)| is(caption, own)).count() as f64 / TEST as f64
    };
    let word_for_word = share(&|caption, own| own.iter().any(|reference| reference == caption));
    assert_eq!(outcome["word_for_word"], word_for_word);
    // The first reference names everything in the scene.
    let names = |caption: &str, own: &[String]| {
        let named = kinds(caption);
        !named.is_empty() && named.is_subset(&kinds(&own[0]))
    };
    assert_eq!(outcome["names_what_is_there"], share(&names));
    let mut shifted = references.clone();
    shifted.rotate_left(1);
    let pairs: Vec<(&str, Vec<String>)> = captions.iter().copied().zip(shifted).collect();
    assert_eq!(
        outcome["bleu_shuffled"],
        serde_json::json!(bleu::corpus(&pairs))
    );
}

#[test]
fn nothing_to_train_on_is_wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    for nothing in [["--scenes", "0"], ["--steps", "0"]] {
        let mut command = showtell();
        command.arg("demo").arg("--out").arg(directory.path());
        let error = ended(2, &command.args(nothing).output().unwrap());
        says(&error, &[nothing[0], "from 1 to 1000000"]);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
