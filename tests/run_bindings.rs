//! A run belongs to its words and its captions. With others its weights would say something else, or it would go on as
//! another run than its records show: both are refused, and the message says what to do.

use crate::support;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use support::cli::{failed, misused, says, showtell, succeeded};
use support::tiny::{SHOW_TELL, Tiny};

const TOKENS: &str = "Flickr8k.token.txt";

fn resume(tiny: &Tiny, run: &str, more: &[&str]) -> Output {
    let mut command = showtell();
    command.args(["train", "--resume", "--threads", "1", "--device", "cpu"]);
    command.arg("--out").arg(tiny.path(run)).args(more);
    command.output().unwrap()
}

fn caption(tiny: &Tiny, run: &str) -> Output {
    let mut command = showtell();
    command.arg("caption").arg("--run").arg(tiny.path(run));
    command.arg(tiny.images().join("a.jpg")).output().unwrap()
}

/// Everything in a run's folder, by name, but for the lock: it names the process that took it last.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    let mut files: Vec<_> = entries
        .map(file)
        .filter(|(name, _)| name != "lock")
        .collect();
    files.sort();
    files
}

/// Exchanges two words of the vocabulary: there are as many as before.
fn exchange_words(tiny: &Tiny, run: &str) {
    let path = tiny.path(run).join("vocab.txt");
    let text = fs::read_to_string(&path).unwrap();
    let mut words: Vec<&str> = text.lines().collect();
    let last = words.len() - 1;
    words.swap(4, last);
    fs::write(&path, words.join("\n") + "\n").unwrap();
}

/// Renames a key in the metadata, so that nobody finds it: an older program did not write it.
fn forget(checkpoint: &Path) {
    let mut bytes = fs::read(checkpoint).unwrap();
    let key = b"showtell.trained_on";
    let at = bytes.windows(key.len()).position(|found| found == key);
    bytes[at.expect("the checkpoint has the key")] = b'S';
    fs::write(checkpoint, bytes).unwrap();
}

#[test]
fn other_words_of_the_same_number_are_refused() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    let words = tiny.path("run/vocab.txt");
    let text = fs::read_to_string(&words).unwrap();
    exchange_words(&tiny, "run");
    let before = files(&tiny.path("run"));
    let expected = [
        "vocab.txt: is not the vocabulary that ",
        "put the file of this run back",
    ];
    for output in [tiny.eval("run", &[]), caption(&tiny, "run")] {
        let error = failed(&output);
        says(&error, &expected);
        says(&error, &["best.safetensors was trained with"]);
    }
    let error = failed(&resume(&tiny, "run", &["--epochs", "2"]));
    says(&error, &expected);
    says(&error, &["last.safetensors was trained with"]);
    assert!(
        files(&tiny.path("run")) == before,
        "a refused run changes nothing"
    );

    // Line ends of another system are no other words.
    fs::write(&words, text.replace('\n', "\r\n")).unwrap();
    succeeded(&tiny.eval("run", &[]));
    fs::write(&words, text).unwrap();
    succeeded(&resume(&tiny, "run", &["--epochs", "2"]));
}

#[test]
fn a_checkpoint_of_before_is_taken_as_it_is_and_the_next_one_is_bound() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    for name in ["best.safetensors", "last.safetensors"] {
        forget(&tiny.path("run").join(name));
    }
    succeeded(&tiny.eval("run", &[]));
    tiny.append(TOKENS, "a.jpg#5\tA red square .\n");
    succeeded(&resume(&tiny, "run", &["--epochs", "2"]));
    exchange_words(&tiny, "run");
    let error = failed(&resume(&tiny, "run", &["--epochs", "3"]));
    says(&error, &["vocab.txt: is not the vocabulary"]);
}

#[test]
fn a_run_does_not_go_on_with_other_captions_or_lists() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    let (captions, list) = (tiny.read(TOKENS), tiny.read("Flickr_8k.trainImages.txt"));
    let before = files(&tiny.path("run"));
    let refused = |which: &str| {
        let error = failed(&resume(&tiny, "run", &["--epochs", "2"]));
        let whose = format!("--data: the {which} images in ");
        says(
            &error,
            &[
                &whose,
                "have changed since this run was started",
                "--init ",
                "last.safetensors",
            ],
        );
        assert!(
            files(&tiny.path("run")) == before,
            "a refused run changes nothing"
        );
    };
    tiny.write(TOKENS, captions.replacen("A red", "A blue", 1));
    refused("training");
    // The same captions in another order, and of other images.
    let mut lines: Vec<&str> = captions.lines().collect();
    lines.swap(0, 1);
    tiny.write(TOKENS, lines.join("\n"));
    refused("training");
    tiny.write(TOKENS, &captions);
    tiny.write("Flickr_8k.trainImages.txt", list.replace("f.png\n", ""));
    refused("training");
    tiny.write("Flickr_8k.trainImages.txt", &list);
    tiny.write("Flickr_8k.devImages.txt", "h.png\ng.jpg\n");
    refused("validation");
    tiny.write("Flickr_8k.devImages.txt", "g.jpg\nh.png\n");

    // What the run does not use may change, and so may the place.
    tiny.append(TOKENS, "i.jpg#5\tA test caption .\n");
    fs::rename(tiny.data(), tiny.path("moved")).unwrap();
    let moved = tiny.path("moved");
    let moved = ["--epochs", "2", "--data", moved.to_str().unwrap()];
    succeeded(&resume(&tiny, "run", &moved));
}

#[test]
fn a_run_does_not_go_on_with_settings_that_were_edited() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    let path = tiny.path("run/config.toml");
    let text = fs::read_to_string(&path).unwrap();
    let line = |key: &str| {
        let found = text.lines().find(|line| line.starts_with(key));
        found.expect("config.toml has every setting")
    };
    let rate = line("lr = ");
    fs::write(&path, text.replace(rate, "lr = 0.125")).unwrap();
    let before = files(&tiny.path("run"));
    let error = failed(&resume(&tiny, "run", &["--epochs", "2"]));
    let started = rate.trim_start_matches("lr = ");
    let expected = format!("--lr: found 0.125, but this run was started with {started}");
    says(&error, &[&expected]);
    assert!(
        files(&tiny.path("run")) == before,
        "a refused run changes nothing"
    );
    let edited = text.replace(line("image-size = "), "image-size = 48");
    fs::write(&path, edited).unwrap();
    for output in [tiny.eval("run", &[]), caption(&tiny, "run")] {
        let expected = "image-size: found 48, but this run was started with 32";
        says(&failed(&output), &["config.toml: ", expected]);
    }

    // The number of epochs may change, in the file as by its flag.
    fs::write(&path, text.replace(line("epochs = "), "epochs = 2")).unwrap();
    succeeded(&resume(&tiny, "run", &[]));
}

#[test]
fn another_model_is_named_as_what_may_not_change() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    let error = misused(&resume(&tiny, "run", &["--model", "attend"]));
    let expected = "--model: found \"attend\", but this run was started with \"show-tell\"";
    says(&error, &[expected]);
}

/// What is not validated does not matter.
#[test]
fn a_run_without_validation_goes_on_with_other_validation_images() {
    let tiny = Tiny::new();
    succeeded(&tiny.train("run", &[&SHOW_TELL[..], &["--no-validate"]].concat()));
    tiny.write("Flickr_8k.devImages.txt", "h.png\n");
    succeeded(&resume(&tiny, "run", &["--epochs", "2"]));
}

#[test]
fn initial_weights_of_other_words_are_refused() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    let weights = tiny.path("run/last.safetensors");
    let init = ["--init", weights.to_str().unwrap()];
    succeeded(&tiny.train("same", &[&SHOW_TELL[..], &init].concat()));
    // One word for another one, everywhere.
    tiny.write(TOKENS, tiny.read(TOKENS).replace("square", "circle"));
    let error = failed(&tiny.train("other", &[&SHOW_TELL[..], &init].concat()));
    says(
        &error,
        &[
            "last.safetensors: was trained with other words",
            "Start without --init",
        ],
    );
    assert!(!tiny.path("other").exists());
}

/// The bytes of all tensors of a checkpoint, by name.
fn tensors(checkpoint: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(checkpoint).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let named = tensors.iter();
    named
        .map(|(name, view)| (name.to_string(), view.data().to_vec()))
        .collect()
}

/// `weights` with something in front of every name, without metadata, as PyTorch would have saved them.
fn with_prefix(weights: &Path, prefix: &str, to: &Path) {
    let bytes = fs::read(weights).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let named = tensors
        .iter()
        .map(|(name, view)| (format!("{prefix}{name}"), view));
    let named = named.filter(|(name, _)| !name.contains("optimizer."));
    safetensors::serialize_to_file(named, None, to).unwrap();
}

#[test]
fn initial_weights_lose_the_usual_prefixes() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    let weights = |run: &str| tensors(&tiny.path(run).join("last.safetensors"));
    let train = |run: &str, prefix: &str| {
        let file = tiny.path(&format!("{run}.safetensors"));
        with_prefix(&tiny.path("run/last.safetensors"), prefix, &file);
        let init = [
            "--model",
            "show-tell",
            "--epochs",
            "1",
            "--init",
            file.to_str().unwrap(),
        ];
        tiny.train(run, &init)
    };
    succeeded(&train("plain", ""));
    for (i, prefix) in ["module.", "_orig_mod.", "module._orig_mod."]
        .into_iter()
        .enumerate()
    {
        let run = format!("prefix{i}");
        let text = succeeded(&train(&run, prefix));
        says(
            &text,
            &[&format!("begin with \"{prefix}\", which is left out")],
        );
        assert!(weights(&run) == weights("plain"), "{prefix}");
    }
    let error = failed(&train("unknown", "student."));
    says(
        &error,
        &[
            "unknown.safetensors: tensor student.",
            "no parameter of that name",
        ],
    );
}
