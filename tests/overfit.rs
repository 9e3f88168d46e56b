//! Slow, run by `./scripts/test --slow`: on real photos, each captioner learns 24 captions by heart. A model that
//! does not see the image cannot: it stays above a cross-entropy of 0.25.

use crate::support;
use showtell::data::flickr8k::{Flickr8k, Split};
use showtell::data::vocabulary::tokenize;
use showtell::train::log::{self, StepRecord};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::cli::{printed, showtell};
use support::data::real_data;

const PHOTOS: usize = 24;
/// The time allowed for each model, on two cores.
const LIMIT: Duration = Duration::from_secs(150);

/// The caption that `showtell caption` gives each photo, by file name.
fn captions(run: &Path, photos: &[PathBuf]) -> BTreeMap<String, String> {
    let output = showtell()
        .args(["caption", "--run"])
        .arg(run)
        .args(photos)
        .output()
        .unwrap();
    let text = printed(&output);
    let line = |line: &str| {
        let (path, caption) = line.split_once('\t').unwrap();
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        (name.to_string(), caption.to_string())
    };
    text.lines().map(line).collect()
}

fn learns_by_heart(flags: &[&str]) {
    let Some(data) = real_data("flickr8k-mini") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let limit = PHOTOS.to_string();
    let common = [
        "--encoder-weights",
        "random",
        "--limit-images",
        &limit,
        "--captions-per-image",
        "1",
        "--no-augment",
        "--no-validate",
        "--schedule",
        "none",
        "--threads",
        "2",
    ];
    let started = Instant::now();
    let status = showtell()
        .arg("train")
        .args(common)
        .args(flags)
        .arg("--data")
        .arg(&data)
        .arg("--out")
        .arg(&run)
        .status()
        .unwrap();
    let took = started.elapsed();
    assert!(status.success());
    let steps: Vec<StepRecord> = log::read(run.join("steps.jsonl")).unwrap();
    let last = steps.last().unwrap();
    eprintln!(
        "{flags:?}: {} steps in {took:.1?}, cross-entropy {:.4}",
        last.step, last.ce
    );
    assert!(last.ce < 0.1, "cross-entropy {}", last.ce);

    let dataset = Flickr8k::open(&data).unwrap();
    let paths = dataset.image_paths().unwrap();
    let chosen = &dataset.split(Split::Train)[..PHOTOS];
    let photos: Vec<PathBuf> = chosen.iter().map(|&i| paths[i].clone()).collect();
    let said = captions(&run, &photos);
    for &i in chosen {
        let image = &dataset.images()[i];
        let learnt = tokenize(&image.captions[0]).join(" ");
        assert_eq!(said[&image.name], learnt, "{}", image.name);
    }
    assert!(took < LIMIT, "{took:?}");
}

#[test]
#[ignore = "slow: a minute or two"]
fn show_tell_learns_24_captions_by_heart() {
    let dropouts = ["--embed-dropout", "0", "--lstm-dropout", "0"];
    learns_by_heart(&[&["--model", "show-tell", "--epochs", "525"], &dropouts[..]].concat());
}

#[test]
#[ignore = "slow: a minute or two"]
fn attend_learns_24_captions_by_heart() {
    let flags = [
        "--model",
        "attend",
        "--epochs",
        "160",
        "--lr",
        "1e-3",
        "--dropout",
        "0",
    ];
    learns_by_heart(&flags);
}
