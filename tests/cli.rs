//! The program from end to end on pictures drawn here: what it writes, what it prints, how it ends.

use crate::support;
use serde_json::Value;
use showtell::model::Model;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::train::config::Config;
use showtell::train::log::{self, EpochRecord, StepRecord};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::{cli, pictures};
use tempfile::TempDir;

/// An encoder and a decoder that train in a moment.
const SMALL: &[&str] = &[
    "--encoder-blocks=1,1",
    "--encoder-width=8",
    "--encoder-stem=3",
    "--image-size=32",
    "--embed=16",
    "--hidden=24",
    "--attention=12",
    "--batch-size=8",
];
/// Another encoder.
const WIDER: &[&str] = &[
    "--encoder-blocks=1,1",
    "--encoder-width=16",
    "--encoder-stem=3",
];
const RANDOM: &[&str] = &["--encoder-weights=random"];

/// What a command that must succeed prints.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    cli::printed(&cli::run(arguments))
}

/// What a command that must end with this exit status writes to stderr.
#[track_caller]
fn complaint(code: i32, arguments: &[&str]) -> String {
    cli::ended(code, &cli::run(arguments))
}

/// A folder with the pictures and with room for runs.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(pictures::temporary())
    }

    fn data(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn named(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_string()
    }

    /// Arguments of `train`, with the run in folder `out`.
    fn arguments(&self, model: &str, out: &str, more: &[&[&str]]) -> Vec<String> {
        let out = self.named(out);
        let mut all = vec![
            "train",
            "--model",
            model,
            "--data",
            self.data(),
            "--out",
            &out,
        ];
        all.extend(more.iter().copied().flatten());
        all.iter().map(|argument| argument.to_string()).collect()
    }

    /// Trains and gives the run's folder.
    fn train(&self, model: &str, out: &str, more: &[&[&str]]) -> PathBuf {
        let arguments = self.arguments(model, out, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(printed(&arguments), self.named(out) + "\n");
        self.path(out)
    }

    /// Training that ends with status 1.
    fn refused(&self, model: &str, out: &str, more: &[&[&str]]) -> String {
        self.fails(1, model, out, more)
    }

    fn fails(&self, code: i32, model: &str, out: &str, more: &[&[&str]]) -> String {
        let arguments = self.arguments(model, out, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        complaint(code, &arguments)
    }
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn keys(line: &str) -> Vec<String> {
    let value: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
    value.keys().cloned().collect()
}

/// Every file of a run, read as what it is to be.
fn check_run(run: &Path, model: Model) {
    let written = text(run.join("config.toml"));
    let config = Config::from_settings(written.parse().unwrap()).unwrap();
    assert_eq!(config.to_toml(), written);
    assert_eq!(
        (config.model, config.epochs, config.hidden, config.lr),
        (model, 2, 24, 0.01)
    );
    let words = text(run.join("vocab.txt"));
    let words: Vec<&str> = words.lines().collect();
    assert_eq!(words[..4], ["<pad>", "<sos>", "<unk>", "<eos>"]);
    assert!(words.contains(&"disc"), "{words:?}");

    let steps = text(run.join("steps.jsonl"));
    let expected = ["ce", "grad_norm", "loss", "lr", "ms", "step"];
    assert!(steps.lines().all(|line| keys(line) == expected), "{steps}");
    let steps: Vec<StepRecord> = log::read(run.join("steps.jsonl")).unwrap();
    let per_epoch = (pictures::TRAIN * pictures::CAPTIONS).div_ceil(8) as u64;
    let numbers: Vec<u64> = steps.iter().map(|step| step.step).collect();
    assert_eq!(numbers, (1..=2 * per_epoch).collect::<Vec<_>>());
    assert!(
        steps
            .iter()
            .all(|s| s.lr == 0.01 && s.ms > 0.0 && s.grad_norm > 0.0)
    );

    let epochs: Vec<EpochRecord> = log::read(run.join("epochs.jsonl")).unwrap();
    assert_eq!(epochs.len(), 2);
    for (epoch, record) in epochs.iter().enumerate() {
        let steps = &steps[epoch * per_epoch as usize..][..per_epoch as usize];
        let mean = steps.iter().map(|s| f64::from(s.loss)).sum::<f64>() / per_epoch as f64;
        assert!((record.train_loss - mean).abs() < 1e-12);
        assert_eq!(
            (record.epoch, record.step),
            (epoch + 1, (epoch as u64 + 1) * per_epoch)
        );
        let validation = record.validation.as_ref().unwrap();
        assert!(validation.validation_ce > 0.0 && validation.validation_ce.is_finite());
    }
    for name in ["best.safetensors", "last.safetensors"] {
        let file = fs::read(run.join(name)).unwrap();
        assert!(
            safetensors::SafeTensors::deserialize(&file).is_ok(),
            "{name}"
        );
    }
}

/// `eval` and `caption` of a run agree with each other.
fn check_speech(place: &Place, run: &Path) {
    let folder = run.to_str().unwrap();
    let result = printed(&["eval", "--run", folder, "--data", place.data(), "--json"]);
    let result: Value = serde_json::from_str(&result).unwrap();
    assert_eq!(result["split"], "test");
    assert_eq!(result["images"], pictures::TEST);
    assert_eq!(result["samples"], pictures::TEST * pictures::CAPTIONS);
    for bleu in ["bleu_corpus", "bleu_sentence_mean"] {
        let scores: Vec<f64> = serde_json::from_value(result[bleu].clone()).unwrap();
        assert!(scores.len() == 4 && scores.iter().all(|b| (0.0..=1.0).contains(b)));
    }
    let captions: Vec<Value> = serde_json::from_str(&text(run.join("captions-test.json"))).unwrap();
    let images: Vec<PathBuf> = (0..pictures::ALL)
        .skip(pictures::TRAIN + pictures::DEV)
        .map(|i| pictures::path(place.0.path(), i))
        .collect();
    let mut arguments = vec!["caption", "--run", folder, "--json"];
    arguments.extend(images.iter().map(|image| image.to_str().unwrap()));
    let said = printed(&arguments);
    assert_eq!(said.lines().count(), images.len());
    for ((line, image), evaluated) in said.lines().zip(&images).zip(&captions) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["image"], image.to_str().unwrap());
        assert_eq!(line["caption"], evaluated["caption"]);
        let name = image.file_name().unwrap().to_str().unwrap();
        assert_eq!(evaluated["file"], name);
    }
    let split = "--split=test+unlisted";
    let plain = printed(&["eval", "--run", folder, "--data", place.data(), split]);
    let ce = format!("cross-entropy {:.4}", result["ce"].as_f64().unwrap());
    assert!(plain.contains(&ce), "{plain}");
}

fn end_to_end(model: Model, name: &str, more: &[&str]) {
    let place = Place::new();
    let own = ["--epochs=2", "--lr=0.01", "--threads=2"];
    let run = place.train(name, "run", &[SMALL, RANDOM, &own, more]);
    check_run(&run, model);
    check_speech(&place, &run);
    let again = place.refused(name, "run", &[SMALL, RANDOM]);
    assert!(again.contains("holds a run already"), "{again}");
}

#[test]
fn show_tell_from_end_to_end() {
    end_to_end(SHOW_TELL, "show-tell", &[]);
}

#[test]
fn attend_from_end_to_end() {
    end_to_end(ATTEND, "attend", &["--no-augment"]);
}

#[test]
fn attend_with_fine_tuning_from_end_to_end() {
    end_to_end(
        ATTEND,
        "attend",
        &["--fine-tune", "--encoder-batch-norm=batch"],
    );
}

/// No epoch at all: the first step of the published workflow is the loss of the untrained model, about ln V.
#[test]
fn a_run_of_no_epochs_is_the_untrained_model() {
    let place = Place::new();
    for model in ["show-tell", "attend"] {
        let run = place.train(model, model, &[SMALL, RANDOM, &["--epochs=0"]]);
        let words = text(run.join("vocab.txt")).lines().count() as f64;
        let folder = run.to_str().unwrap();
        let result = printed(&["eval", "--run", folder, "--data", place.data(), "--json"]);
        let result: Value = serde_json::from_str(&result).unwrap();
        let (ce, uniform) = (result["ce"].as_f64().unwrap(), words.ln());
        // Logits of an untrained model scatter by a tenth or two around a constant.
        assert!(
            (ce / uniform - 1.0).abs() < 0.05,
            "{model}: {ce} for {uniform}"
        );
        assert_eq!(text(run.join("steps.jsonl")), "");
        assert!(!run.join("best.safetensors").exists());
    }
}

#[test]
fn damaged_images_end_training_unless_they_may_be_skipped() {
    let place = Place::new();
    let path = pictures::path(place.0.path(), 0);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    for more in [&[][..], &["--no-augment"]] {
        let error = place.refused(
            "show-tell",
            &format!("strict{}", more.len()),
            &[SMALL, RANDOM, more],
        );
        let last = error.lines().last().unwrap();
        assert!(
            last.contains(&pictures::name(0)) && last.contains("truncated"),
            "{error}"
        );
        let skip = ["--skip-bad-images", "--epochs=1"];
        let out = format!("lenient{}", more.len());
        let arguments = place.arguments("show-tell", &out, &[SMALL, RANDOM, more, &skip]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let warnings = complaint(0, &arguments);
        assert!(
            warnings.contains("left out") && warnings.contains(&pictures::name(0)),
            "{warnings}"
        );
    }
    fs::remove_file(&path).unwrap();
    let error = place.refused("show-tell", "absent", &[SMALL, RANDOM]);
    assert!(
        error.contains(&pictures::name(0)) && error.contains("does not exist"),
        "{error}"
    );
}

#[test]
fn an_encoder_of_another_shape_is_named_with_what_was_expected() {
    let place = Place::new();
    let run = place.train("show-tell", "narrow", &[SMALL, RANDOM, &["--epochs=0"]]);
    let file = run.join("last.safetensors");
    let given = format!("--encoder-weights={}", file.display());
    let error = place.refused("attend", "wide", &[WIDER, &[&given]]);
    for part in [
        file.to_str().unwrap(),
        "conv1.weight",
        "[16, 3, 3, 3]",
        "[8, 3, 3, 3]",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(
        !place.path("wide").exists(),
        "a run that cannot start leaves no folder"
    );
}

#[test]
fn the_frozen_encoder_of_a_run_must_stay_what_it_was() {
    let place = Place::new();
    let source = place.train("show-tell", "source", &[SMALL, RANDOM, &["--epochs=0"]]);
    let file = source.join("last.safetensors");
    let given = format!("--encoder-weights={}", file.display());
    let run = place.train("show-tell", "run", &[SMALL, &[&given, "--epochs=0"]]);
    let folder = run.to_str().unwrap();
    let eval = ["eval", "--run", folder, "--data", place.data()];
    assert!(printed(&eval).contains("BLEU"));
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = complaint(1, &eval);
    assert!(
        error.contains("is not the encoder") && error.contains("sha256"),
        "{error}"
    );
}

#[test]
fn exit_status_tells_failure_from_wrong_usage() {
    let place = Place::new();
    for version in ["--version", "--help"] {
        assert!(printed(&[version]).to_lowercase().contains("showtell"));
    }
    let absent = place.named("absent");
    for wrong in [
        &["train", "--no-such-flag"][..],
        &["no-such-command"],
        &["caption", "--run", &absent],
        &["data", "stats", &absent, "--threads=0"],
        &["train", "--data", &absent, "--out", &absent, "--lr=fast"],
        &[],
    ] {
        complaint(2, wrong);
    }
    let error = complaint(1, &["data", "stats", &absent]);
    assert!(error.contains(&absent), "{error}");
    let error = complaint(1, &["eval", "--run", &absent, "--data", place.data()]);
    assert!(
        error.contains(&absent) && error.contains("config.toml"),
        "{error}"
    );
    let error = place.fails(2, "show-tell", "run", &[SMALL]);
    assert!(error.contains("--encoder-weights"), "{error}");
    let error = place.fails(2, "attend", "run", &[SMALL, RANDOM, &["--dropout=1.5"]]);
    assert!(error.contains("--dropout: found 1.5"), "{error}");
}

/// Runs a command whose reader has gone before it prints.
fn into_nowhere(arguments: &[&str], errors_too: bool) {
    let mut command = cli::showtell();
    command.args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    if errors_too {
        drop(child.stderr.take());
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    let errors = cli::stderr(&output);
    assert!(!errors.contains("pipe"), "{errors}");
}

#[test]
fn broken_pipes_are_silent() {
    let place = Place::new();
    let run = place.train("show-tell", "run", &[SMALL, RANDOM, &["--epochs=1"]]);
    let (folder, file) = (run.to_str().unwrap(), run.join("last.safetensors"));
    into_nowhere(&["data", "stats", place.data()], false);
    into_nowhere(&["weights", "inspect", file.to_str().unwrap()], false);
    let image = pictures::path(place.0.path(), 0);
    into_nowhere(
        &["caption", "--run", folder, image.to_str().unwrap()],
        false,
    );
    into_nowhere(&["eval", "--run", folder, "--data", place.data()], false);
    let arguments = place.arguments("show-tell", "other", &[SMALL, RANDOM, &["--epochs=1"]]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    into_nowhere(&arguments, true);
    assert!(place.path("other").join("last.safetensors").is_file());
}

#[test]
fn data_stats_counts() {
    let place = Place::new();
    let stats: Value =
        serde_json::from_str(&printed(&["data", "stats", place.data(), "--json"])).unwrap();
    assert_eq!(stats["images"], pictures::ALL);
    assert_eq!(stats["captions"], pictures::ALL * pictures::CAPTIONS);
    assert!(printed(&["data", "stats", place.data()]).contains("vocabulary"));
}
