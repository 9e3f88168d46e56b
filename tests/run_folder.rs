//! What happens to a run's folder: two processes in it, signals, another place for it and its encoder, outputs that cannot be
//! written.

#![cfg(unix)]

use crate::support;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use support::cli::{ended, failed, misused, says, showtell, stdout, succeeded};
use support::tiny::{SHOW_TELL, Tiny};

/// More epochs than a test waits for.
const ENDLESS: [&str; 9] = [
    "--model",
    "show-tell",
    "--encoder-weights",
    "random",
    "--epochs",
    "1000000",
    "--no-validate",
    "--checkpoint-every",
    "1000000",
];

/// Starts training and waits for the first step.
fn training(tiny: &Tiny, run: &str, prepare: impl FnOnce(&mut Command)) -> Child {
    let mut command = tiny.train_command(run, &ENDLESS);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    prepare(&mut command);
    let mut child = command.spawn().unwrap();
    let steps = tiny.path(run).join("steps.jsonl");
    while fs::metadata(&steps).map_or(0, |about| about.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "ended before a step");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn send(signal: &str, child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status().unwrap();
    assert!(sent.success());
}

fn resume(tiny: &Tiny, run: &str, options: &[&str]) -> Output {
    let mut command = showtell();
    command.args(["train", "--resume", "--device", "cpu", "--out"]);
    command.arg(tiny.path(run)).args(options);
    command.output().unwrap()
}

#[test]
fn a_second_process_is_refused_and_told_who_trains() {
    let tiny = Tiny::new();
    let mut first = training(&tiny, "run", |_| {});
    let holder = format!("process {} ", first.id());
    let words = [&holder, "run: ", "is training this run"];
    says(&failed(&resume(&tiny, "run", &[])), &words);
    says(&failed(&tiny.train_once("run")), &words);
    // Nothing holds the lock of a process that was killed.
    first.kill().unwrap();
    first.wait().unwrap();
    succeeded(&resume(&tiny, "run", &["--max-steps", "1"]));
}

#[test]
fn signals_that_ask_to_end_save_a_checkpoint() {
    let tiny = Tiny::new();
    for (signal, status) in [("-TERM", 143), ("-HUP", 129)] {
        let run = &signal[1..];
        let child = training(&tiny, run, |_| {});
        // Batch systems send a signal more than once.
        send(signal, &child);
        send(signal, &child);
        let messages = ended(status, &child.wait_with_output().unwrap());
        says(&messages, &["stopped", "--resume"]);
        let steps = fs::read_to_string(tiny.path(run).join("steps.jsonl")).unwrap();
        let limit = (steps.lines().count() + 1).to_string();
        succeeded(&resume(&tiny, run, &["--max-steps", &limit]));
        let steps = fs::read_to_string(tiny.path(run).join("steps.jsonl")).unwrap();
        assert_eq!(steps.lines().count().to_string(), limit, "{signal}");
    }
}

/// Training with fixed features encodes all images first, which may take hours.
#[test]
fn a_signal_while_images_are_encoded_says_what_is_kept() {
    let tiny = Tiny::new();
    let names: Vec<String> = (0..64).map(|i| format!("photo{i}.png")).collect();
    for (i, name) in names.iter().enumerate() {
        let image = tiny.image(i as u32);
        image.save(tiny.images().join(name)).unwrap();
        tiny.append("Flickr8k.token.txt", &format!("{name}#0\tA photo\n"));
    }
    tiny.append("Flickr_8k.trainImages.txt", &names.join("\n"));
    let slow = ["--no-augment", "--image-size=160", "--encoder-width=16"];
    let mut command = tiny.train_command("run", &[&SHOW_TELL[..], &slow].concat());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while !tiny.path("run/vocab.txt").exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before it began");
        std::thread::sleep(Duration::from_millis(1));
    }
    send("-TERM", &child);
    let messages = ended(143, &child.wait_with_output().unwrap());
    let kept = "stopped while images were encoded: only the run's settings are kept; to continue: ";
    says(&messages, &[kept, "--resume --out"]);
    assert!(!tiny.path("run/last.safetensors").exists());
    succeeded(&resume(&tiny, "run", &[]));
    assert!(tiny.path("run/last.safetensors").exists());
}

/// A folder is needed where a file is.
#[test]
fn a_file_in_the_place_of_a_folder_is_named() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    fs::write(tiny.path("file"), "").unwrap();
    symlink("nowhere", tiny.path("link")).unwrap();
    let words = |name: &str| {
        format!("{name}: is a file, but a folder is needed in its place: give another name")
    };
    for (out, file) in [
        ("file", "file"),
        ("file/deep/run", "file"),
        ("link", "link"),
    ] {
        says(&failed(&tiny.train_once(out)), &[&words(file)]);
    }
    let file = tiny.path("file").display().to_string();
    let fixed = [&SHOW_TELL[..], &["--feature-cache", &file]].concat();
    says(&failed(&tiny.train("cached", &fixed)), &[&words("file")]);
    let pictures = ["--attention-out", &file];
    succeeded(&tiny.train(
        "attend",
        &["--model=attend", "--encoder-weights=random", "--epochs=1"],
    ));
    says(
        &failed(&caption(&tiny, "attend", &pictures)),
        &[&words("file")],
    );
    let demo = showtell().args(["demo", "--out", &file]).output().unwrap();
    says(&failed(&demo), &[&words("file")]);
    let run = "file: is a file, expected the directory of a run";
    says(&failed(&caption(&tiny, "file", &[])), &[run]);
    says(&failed(&resume(&tiny, "file", &[])), &[run]);
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let tiny = Tiny::new();
    // What nohup does: the program starts with the signal ignored.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    let real = tiny.train_command("run", &ENDLESS);
    command.arg(real.get_program()).args(real.get_args());
    let mut child = training(&tiny, "run", |plain| {
        *plain = command;
        plain
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
    });
    send("-HUP", &child);
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "SIGHUP ended it");
    send("-TERM", &child);
    ended(143, &child.wait_with_output().unwrap());
}

/// A run with a frozen encoder from a file: a checkpoint that has one.
fn with_encoder_file(tiny: &Tiny) -> String {
    succeeded(&tiny.train("source", &[&SHOW_TELL[..], &["--standalone"]].concat()));
    fs::create_dir(tiny.path("server")).unwrap();
    let encoder = tiny.path("server/encoder.safetensors");
    fs::copy(tiny.path("source/last.safetensors"), &encoder).unwrap();
    let encoder = encoder.to_str().unwrap().to_string();
    let options = [
        "--model",
        "show-tell",
        "--epochs",
        "1",
        "--encoder-weights",
        &encoder,
    ];
    succeeded(&tiny.train("server/run", &options));
    encoder
}

fn caption(tiny: &Tiny, run: &str, options: &[&str]) -> Output {
    let mut command = showtell();
    command
        .args(["caption", "--device", "cpu", "--run"])
        .arg(tiny.path(run));
    command.args(options).arg(tiny.images().join("i.jpg"));
    command.output().unwrap()
}

#[test]
fn a_run_that_moved_finds_its_encoder_or_is_told_where_it_is() {
    let tiny = Tiny::new();
    with_encoder_file(&tiny);
    let expected = stdout(&caption(&tiny, "server/run", &[]));
    // Both moved: beside the run.
    fs::rename(tiny.path("server"), tiny.path("laptop")).unwrap();
    assert_eq!(stdout(&caption(&tiny, "laptop/run", &[])), expected);
    // The run alone: the error says what to do, and the flag does it.
    fs::rename(tiny.path("laptop/run"), tiny.path("run")).unwrap();
    says(
        &failed(&caption(&tiny, "run", &[])),
        &["server/encoder.safetensors: ", "--encoder-weights FILE"],
    );
    let moved = tiny.path("laptop/encoder.safetensors");
    let flag = ["--encoder-weights", moved.to_str().unwrap()];
    assert_eq!(stdout(&caption(&tiny, "run", &flag)), expected);
    succeeded(&tiny.eval("run", &flag));
    // A finished run keeps the new place.
    succeeded(&resume(&tiny, "run", &flag));
    assert_eq!(stdout(&caption(&tiny, "run", &[])), expected);
    // Another file is refused, wherever it is.
    let mut bytes = fs::read(&moved).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&moved, bytes).unwrap();
    let words = [
        "encoder.safetensors: ",
        "is not the encoder this run was trained with",
    ];
    says(&failed(&caption(&tiny, "run", &flag)), &words);
    says(&failed(&caption(&tiny, "run", &[])), &words);
    says(&failed(&resume(&tiny, "run", &flag)), &words);
    says(
        &misused(&caption(&tiny, "source", &flag)),
        &["--encoder-weights: ", "leave this out"],
    );
}

/// `config.toml` names another file, as after an edit; the one of the checkpoint is where it was.
#[test]
fn an_encoder_that_is_where_it_was_is_found() {
    let tiny = Tiny::new();
    let encoder = with_encoder_file(&tiny);
    let other = format!("{encoder}.other");
    fs::copy(tiny.path("server/run/last.safetensors"), &other).unwrap();
    let config = tiny.path("server/run/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(&encoder, &other)).unwrap();
    succeeded(&caption(&tiny, "server/run", &[]));
    // A folder of that name is passed over, too.
    fs::remove_file(&other).unwrap();
    fs::create_dir(&other).unwrap();
    succeeded(&caption(&tiny, "server/run", &[]));
}

#[test]
fn a_run_without_validation_images_says_so() {
    let tiny = Tiny::new();
    fs::write(tiny.data().join("Flickr_8k.devImages.txt"), "").unwrap();
    let told = succeeded(&tiny.train_once("run"));
    says(
        &told,
        &["no validation image has a caption: nothing is validated"],
    );
    assert!(!tiny.path("run/best.safetensors").exists());
}

#[test]
fn eval_finds_out_first_that_it_cannot_write() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    for out in [tiny.path("no/folder/captions.txt"), tiny.data()] {
        let output = tiny.eval("run", &["--out", out.to_str().unwrap()]);
        says(&failed(&output), &[out.to_str().unwrap()]);
        assert_eq!(stdout(&output), "");
    }
}

/// What was trained before a validation that fails is saved, and the repaired run goes on from there.
#[test]
fn a_validation_that_fails_costs_no_step() {
    let tiny = Tiny::new();
    let good = fs::read(tiny.images().join("g.jpg")).unwrap();
    tiny.write_image("g.jpg", b"no image");
    let steps = || fs::read_to_string(tiny.path("run/steps.jsonl")).unwrap();
    says(&failed(&tiny.train_once("run")), &["g.jpg"]);
    let trained = steps();
    assert!(!trained.is_empty());
    tiny.write_image("g.jpg", &good);
    succeeded(&resume(&tiny, "run", &[]));
    assert_eq!(steps(), trained);
    assert!(tiny.path("run/best.safetensors").exists());
}

#[test]
fn eval_writes_over_no_file_that_is_needed() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    for needed in [
        "run/vocab.txt",
        "run/best.safetensors",
        "data/Flickr8k.token.txt",
    ] {
        let before = fs::read(tiny.path(needed)).unwrap();
        let output = tiny.eval("run", &["--out", tiny.path(needed).to_str().unwrap()]);
        says(
            &misused(&output),
            &["--out: ", "is a file of the run or of the data set"],
        );
        assert_eq!(fs::read(tiny.path(needed)).unwrap(), before);
    }
    // As long a name as file systems take.
    let long = tiny.path(&"x".repeat(255));
    succeeded(&tiny.eval("run", &["--out", long.to_str().unwrap()]));
    assert!(long.is_file());
    fs::remove_file(tiny.path("run/best.safetensors")).unwrap();
    let told = succeeded(&tiny.eval("run", &[]));
    says(
        &told,
        &["best.safetensors: is missing: the last checkpoint is used"],
    );
}

/// `data` and `data ` are two folders.
#[test]
fn blanks_belong_to_names_of_files() {
    let tiny = Tiny::new();
    fs::rename(tiny.data(), tiny.path("data ")).unwrap();
    let mut command = showtell();
    command
        .args(["train", "--device=cpu", "--threads=1", "--epochs=0"])
        .args(&SHOW_TELL[..4]);
    command.args([
        "--encoder-blocks=1",
        "--encoder-width=4",
        "--image-size=32",
        "--embed=4",
        "--hidden=4",
    ]);
    command
        .arg("--data")
        .arg(tiny.path("data "))
        .arg("--out")
        .arg(tiny.path(" run "));
    succeeded(&command.output().unwrap());
    assert!(tiny.path(" run /config.toml").is_file());
}

#[test]
fn an_output_that_is_a_link_is_written_through() {
    let tiny = Tiny::new();
    succeeded(&tiny.train_once("run"));
    fs::create_dir(tiny.path("disk")).unwrap();
    let (link, target) = (tiny.path("captions.txt"), tiny.path("disk/captions.txt"));
    symlink(Path::new("disk/captions.txt"), &link).unwrap();
    for _ in 0..2 {
        succeeded(&tiny.eval("run", &["--out", link.to_str().unwrap()]));
        assert!(link.is_symlink() && !target.is_symlink());
        assert!(fs::read_to_string(&target).unwrap().starts_with("i.jpg\t"));
    }
    let circle = tiny.path("circle");
    symlink("circle", &circle).unwrap();
    let output = tiny.eval("run", &["--out", circle.to_str().unwrap()]);
    says(&failed(&output), &["leads to itself"]);
}
