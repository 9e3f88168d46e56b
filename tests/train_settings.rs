//! What surrounds a run: settings from files, checkpoints that stand alone, numbers that become infinite, too little
//! memory.

use crate::support;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use showtell::train::log::{self, StepRecord};
use showtell::train::run::RunDirectory;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use support::cli::{ended, showtell, succeeded};
use support::pictures;
use tempfile::TempDir;

const SMALL: [&str; 8] = [
    "--encoder-blocks=1,1",
    "--encoder-width=4",
    "--encoder-stem=3",
    "--embed=8",
    "--attention=8",
    "--image-size=24",
    "--batch-size=7",
    "--threads=2",
];

fn train(out: &Path, arguments: &[&str]) -> Output {
    let mut command = showtell();
    command.arg("train").arg("--out").arg(out).args(arguments);
    command.output().unwrap()
}

#[track_caller]
fn succeed(out: &Path, arguments: &[&str]) -> String {
    succeeded(&train(out, arguments))
}

#[track_caller]
fn fail(out: &Path, arguments: &[&str]) -> String {
    ended(1, &train(out, arguments))
}

struct Place {
    folder: TempDir,
    data: String,
}

impl Place {
    fn new() -> Self {
        let folder = pictures::temporary();
        let data = format!("--data={}", folder.path().display());
        Place { folder, data }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn flags<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let unless_given = |flag: &'static str, key: &str| -> Option<&str> {
            let given = more.iter().any(|flag| flag.starts_with(key));
            (!given).then_some(flag)
        };
        let own = [
            unless_given("--epochs=1", "--epochs"),
            unless_given("--hidden=8", "--hidden"),
        ];
        let own: Vec<&str> = own.into_iter().flatten().collect();
        [&SMALL, &[&*self.data, "--model=show-tell"][..], &own, more].concat()
    }
}

#[test]
fn a_run_is_repeated_from_its_config_file_and_flags_win_over_it() {
    let place = Place::new();
    let [first, again, other] = ["first", "again", "other"].map(|name| place.path(name));
    let more = ["--encoder-weights=random", "--lr=0.3", "--no-augment"];
    succeed(&first, &place.flags(&more));
    let config = format!("--config={}", first.join("config.toml").display());
    succeed(&again, &[&config]);
    for name in ["config.toml", "last.safetensors", "best.safetensors"] {
        let read = |run: &Path| fs::read(run.join(name)).unwrap();
        assert!(read(&first) == read(&again), "{name}");
    }
    succeed(&other, &[&config, "--lr=0.2", "--augment"]);
    let settings = RunDirectory::open(&other).unwrap().read_config().unwrap();
    assert_eq!((settings.lr, settings.augment), (0.2, true));
    assert_eq!(settings.hidden, 8);
}

#[test]
fn mistakes_in_a_config_file_name_the_key_and_the_file() {
    let place = Place::new();
    let file = place.path("mine.toml");
    let flag = format!("--config={}", file.display());
    let mistakes = [
        ("hiden = 3", "hiden"),
        ("lr = \"fast\"", "lr"),
        ("model = \"attent\"", "model"),
        ("embed = 8\nlr 3", "line 2"),
    ];
    for (text, named) in mistakes {
        fs::write(&file, text).unwrap();
        let message = fail(&place.path("run"), &place.flags(&[&flag]));
        assert!(message.contains("mine.toml"), "{message}");
        assert!(message.contains(named), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    assert!(!place.path("run").exists());
}

/// A run's untrained random encoder, as torchvision would store it.
fn encoder_file(place: &Place) -> PathBuf {
    let run = place.path("random");
    succeed(
        &run,
        &place.flags(&["--encoder-weights=random", "--epochs=0"]),
    );
    let bytes = fs::read(run.join("last.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let encoder = tensors.iter().filter_map(|(name, view)| {
        let name = name.strip_prefix("encoder.")?;
        (!name.starts_with("fc.")).then(|| (name.to_string(), view))
    });
    let encoder: Vec<(String, TensorView)> = encoder.collect();
    let path = place.path("encoder.safetensors");
    fs::write(&path, safetensors::serialize(encoder, None).unwrap()).unwrap();
    path
}

#[test]
fn a_frozen_encoder_is_named_unless_checkpoints_are_to_stand_alone() {
    let place = Place::new();
    let file = encoder_file(&place);
    let flag = format!("--encoder-weights={}", file.display());
    let [named, alone] = ["named", "alone"].map(|name| place.path(name));
    succeed(&named, &place.flags(&[&flag]));
    succeed(&alone, &place.flags(&[&flag, "--standalone"]));
    let holds = |run: &Path| {
        let bytes = fs::read(run.join("last.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let has = |name: &str| tensors.tensor(name).is_ok();
        assert!(has("encoder.fc.weight"), "the decoder's projection");
        has("encoder.conv1.weight")
    };
    assert!(!holds(&named) && holds(&alone));
    let steps = |run: &Path| -> Vec<f32> {
        let records = log::read::<StepRecord>(run.join("steps.jsonl")).unwrap();
        records.iter().map(|record| record.loss).collect()
    };
    assert_eq!(steps(&named), steps(&alone));

    let moved = place.path("moved.safetensors");
    fs::rename(&file, &moved).unwrap();
    let message = fail(&named, &["--resume", "--epochs=2"]);
    assert!(message.contains("encoder.safetensors"), "{message}");
    let flag = format!("--encoder-weights={}", moved.display());
    succeed(&named, &["--resume", "--epochs=2", &flag]);
    succeed(&alone, &["--resume", "--epochs=2"]);
    assert_eq!(steps(&named), steps(&alone));
    assert!(holds(&alone), "also after it went on");
}

#[test]
fn a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint() {
    let place = Place::new();
    let run = place.path("run");
    let more = [
        "--encoder-weights=random",
        "--lr=1e30",
        "--clip-norm=0",
        "--epochs=3",
        "--checkpoint-every=1",
    ];
    let message = fail(&run, &place.flags(&more));
    assert!(message.contains("diverged at step"), "{message}");
    assert!(message.contains("last.safetensors"), "{message}");
    assert!(message.contains("--lr below"), "{message}");
    assert!(message.contains("--clip-norm"), "{message}");
    let bytes = fs::read(run.join("last.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for (name, view) in tensors.iter() {
        let (values, _) = view.data().as_chunks::<4>();
        let finite = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes).is_finite();
        assert!(values.iter().all(finite), "{name}");
    }
    let records = log::read::<StepRecord>(run.join("steps.jsonl")).unwrap();
    assert!(records.iter().all(|record| record.loss.is_finite()));
}

#[test]
fn memory_is_told_before_it_is_taken_and_too_much_is_refused() {
    let place = Place::new();
    let more = ["--encoder-weights=random"];
    let message = succeed(&place.path("run"), &place.flags(&more));
    let plans = message.lines().filter(|line| line.contains("memory: "));
    let [plan] = plans.collect::<Vec<_>>().try_into().expect(&message);
    // The whole, and what it is the sum of, each rounded to a tenth.
    let numbers: Vec<f64> = plan
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let (whole, parts) = (numbers[0], &numbers[1..]);
    let off = (whole - parts.iter().sum::<f64>()).abs();
    assert!(
        parts.len() > 3 && off < 0.05 * (1.0 + parts.len() as f64) + 1e-9,
        "{plan}"
    );
    if cfg!(target_os = "linux") {
        let huge = place.path("huge");
        let more = ["--encoder-weights=random", "--hidden=65536", "--fine-tune"];
        let message = fail(&huge, &place.flags(&more));
        // Two layers of four gates each, which read h and, the second, the h of the first: 12 H² weights, and as many
        // gradients and momenta. Beside them nothing counts.
        let expected = 3.0 * 12.0 * 65_536_f64.powi(2) * 4.0 / f64::from(1 << 20);
        let (_, needed) = message.split_once("this run needs about ").expect(&message);
        let needed: f64 = needed.split(' ').next().unwrap().parse().unwrap();
        let ratio = needed / expected;
        assert!((1.0..1.02).contains(&ratio), "{expected}: {message}");
        assert!(message.contains("--batch-size 3 ("), "{message}");
        assert!(message.contains("--no-fine-tune ("), "{message}");
        assert!(!huge.exists());
    }
}
