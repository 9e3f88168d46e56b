//! Bad weights, bad runs and places that cannot be written to end in one clear line on stderr and exit status 1. What was there
//! before stays as it was.

use crate::support;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::cli::{failed, says, showtell, stdout, succeeded};
use support::tiny::{SHOW_TELL, Tiny};

fn train_on(tiny: &Tiny, weights: &Path) -> Output {
    let weights = weights.to_str().unwrap();
    let options = ["--model", "show-tell", "--encoder-weights", weights];
    tiny.train("run", &options)
}

#[test]
fn unusable_weights_and_weights_of_another_network() {
    let tiny = Tiny::new();
    let file = tiny.path("weights");
    says(&failed(&train_on(&tiny, &file)), &["weights: No such file"]);
    says(
        &failed(&train_on(&tiny, &tiny.data())),
        &["data: is a directory"],
    );
    let noise: Vec<u8> = (0..4096u32).map(|i| ((i * i * 97) >> 3) as u8).collect();
    let huge = [&u64::MAX.to_le_bytes()[..], b"{\"a\":", &noise].concat();
    let long = [&(1u64 << 40).to_le_bytes()[..], b"{\"a\":1}"].concat();
    for content in [
        b"",
        &noise[..],
        &huge,
        &long,
        b"PK\x03\x04",
        b"\x80\x02\x8a\x0a",
    ] {
        fs::write(&file, content).unwrap();
        says(&failed(&train_on(&tiny, &file)), &["weights: "]);
    }
    // A checkpoint of a tiny captioner, which has another encoder.
    succeeded(&tiny.train_once("run"));
    let checkpoint = tiny.path("run/last.safetensors");
    let checkpoint = checkpoint.to_str().unwrap();
    let mut wide = tiny.train_args("wide").join(" ");
    wide = wide.replace("--encoder-width 4", "--encoder-width 8");
    let options = [
        "train",
        "--model",
        "show-tell",
        "--encoder-weights",
        checkpoint,
    ];
    let output = showtell()
        .args(options)
        .args(wide.split(' '))
        .output()
        .unwrap();
    says(
        &failed(&output),
        &["last.safetensors: ", "should have shape"],
    );
    let mut deep = tiny.train_args("deep").join(" ");
    deep = deep.replace("--encoder-blocks 1", "--encoder-blocks 2");
    let output = showtell()
        .args(options)
        .args(deep.split(' '))
        .output()
        .unwrap();
    says(&failed(&output), &["last.safetensors: ", "has no tensor"]);
    let output = tiny.train("attend", &["--model", "attend", "--init", checkpoint]);
    says(
        &failed(&output),
        &["last.safetensors: ", "the model has no"],
    );
    assert!(!tiny.path("attend").exists());
}

fn replace(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).unwrap();
    let at = bytes
        .windows(from.len())
        .position(|w| w == from.as_bytes())
        .unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_run_that_is_not_what_it_should_be() {
    let tiny = Tiny::new();
    says(
        &failed(&tiny.eval("none", &[])),
        &["none: is not the directory of a run"],
    );
    succeeded(&tiny.train_once("run"));
    says(
        &failed(&tiny.train_once("run")),
        &["run: holds a run already"],
    );
    let best = tiny.path("run/best.safetensors");
    let checkpoint = fs::read(&best).unwrap();
    replace(
        &best,
        "\"showtell.format\":\"1\"",
        "\"showtell.format\":\"9\"",
    );
    says(
        &failed(&tiny.eval("run", &[])),
        &["best.safetensors: checkpoint of format version 9"],
    );
    replace(&best, "\"showtell.format\"", "\"shewtell.format\"");
    says(
        &failed(&tiny.eval("run", &[])),
        &["best.safetensors: these are weights, not a checkpoint"],
    );
    fs::write(&best, &checkpoint[..checkpoint.len() - 5]).unwrap();
    says(
        &failed(&tiny.eval("run", &[])),
        &["best.safetensors: is truncated"],
    );
    fs::write(&best, &checkpoint).unwrap();

    let config = tiny.path("run/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.clone() + "colour = \"blue\"\n").unwrap();
    says(&failed(&tiny.eval("run", &[])), &["colour"]);
    fs::write(&config, "model = ").unwrap();
    says(&failed(&tiny.eval("run", &[])), &["config.toml"]);
    fs::write(&config, text).unwrap();
    let words = tiny.path("run/vocab.txt");
    let text = fs::read_to_string(&words).unwrap();
    fs::write(&words, text.clone() + "more\n").unwrap();
    says(
        &failed(&tiny.eval("run", &[])),
        &["vocab.txt: is not the vocabulary", "best.safetensors"],
    );
    // A checkpoint of before has no hash of its words.
    replace(&best, "\"showtell.trained_on\"", "\"shewtell.trained_on\"");
    says(
        &failed(&tiny.eval("run", &[])),
        &["best.safetensors", "shape"],
    );
    fs::write(&words, "nothing\n").unwrap();
    says(&failed(&tiny.eval("run", &[])), &["vocab.txt"]);
    fs::write(&words, text).unwrap();
    succeeded(&tiny.eval("run", &[]));
}

/// Nothing can be created below a path that is a file, not even by root.
#[test]
fn folders_that_cannot_be_made() {
    let tiny = Tiny::new();
    says(
        &failed(&tiny.train("data/Flickr8k.token.txt/run", &SHOW_TELL)),
        &["Flickr8k.token.txt: is a file, but a folder is needed in its place"],
    );
    succeeded(&tiny.train_once("run"));
    for out in [
        "missing/captions.txt",
        "data/Flickr8k.token.txt/captions.txt",
    ] {
        let out = tiny.path(out);
        let error = failed(&tiny.eval("run", &["--out", out.to_str().unwrap()]));
        says(&error, &["captions.txt: "]);
    }
    let directory = tiny.data();
    says(
        &failed(&tiny.eval("run", &["--out", directory.to_str().unwrap()])),
        &["data: "],
    );
    let cache = tiny.data().join("Flickr8k.token.txt/cache");
    let error = failed(&tiny.eval("run", &["--feature-cache", cache.to_str().unwrap()]));
    says(
        &error,
        &["Flickr8k.token.txt: is a file, but a folder is needed in its place"],
    );
}

/// `command` with a limit on the size of files, in blocks of 512 bytes: it fails as on a full disk.
fn limited(command: &Command, blocks: usize) -> Output {
    let mut shell = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    shell.args(["-c", &script, "sh"]).arg(command.get_program());
    shell.args(command.get_args()).output().unwrap()
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    let mut files: Vec<PathBuf> = fs::read_dir(tiny.path("run"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();

    // The first checkpoint does not fit: the run fails before its first step, and leaves no incomplete file.
    let run = limited(&tiny.train_command("full", &SHOW_TELL), 16);
    says(&failed(&run), &[".safetensors: File too large"]);
    let records = fs::read_to_string(tiny.path("full/steps.jsonl")).unwrap();
    assert_eq!(records.lines().count(), 0);
    let left = fs::read_dir(tiny.path("full")).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in left {
        assert!(
            !name.ends_with("-tmp") && !name.ends_with(".safetensors"),
            "{name}"
        );
    }

    // If new captions do not fit, the earlier ones stay.
    let captions = tiny.path("captions.txt");
    fs::write(&captions, "as they were").unwrap();
    let mut eval = showtell();
    eval.arg("eval").arg("--run").arg(tiny.path("run"));
    eval.arg("--data")
        .arg(tiny.data())
        .arg("--out")
        .arg(&captions);
    says(
        &failed(&limited(&eval, 0)),
        &["captions.txt: File too large"],
    );
    assert_eq!(fs::read_to_string(&captions).unwrap(), "as they were");

    // A feature cache that does not fit leaves nothing.
    let cache = tiny.path("cache");
    eval.arg("--feature-cache").arg(&cache);
    says(&failed(&limited(&eval, 0)), &[".features: File too large"]);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0);

    let mut after: Vec<PathBuf> = fs::read_dir(tiny.path("run"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    after.sort();
    assert_eq!(files, after);
}

/// `/dev/full`, which is always full, and `/dev/null`, which every program on the machine uses.
#[test]
fn device_files_are_written_to_and_not_replaced() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    let error = failed(&tiny.eval("run", &["--out", "/dev/full"]));
    says(&error, &["/dev/full: No space left"]);
    succeeded(&tiny.eval("run", &["--out", "/dev/null"]));
    for device in ["/dev/full", "/dev/null"] {
        assert!(
            !fs::metadata(device).unwrap().is_file(),
            "{device} was replaced"
        );
    }
    let output = tiny.eval("run", &["--out", "/dev/stdout"]);
    succeeded(&output);
    assert!(stdout(&output).contains("\ni.jpg\t"), "{}", stdout(&output));

    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let mut stats = showtell();
    stats
        .args(["data", "stats"])
        .arg(tiny.data())
        .stdout(full())
        .stderr(Stdio::piped());
    let output = stats.spawn().unwrap().wait_with_output().unwrap();
    says(&failed(&output), &["No space left"]);
    // A run does not stop because its progress cannot be written.
    let mut run = tiny.train_command("silent", &SHOW_TELL);
    assert!(
        run.stdout(Stdio::null())
            .stderr(full())
            .status()
            .unwrap()
            .success()
    );
}
