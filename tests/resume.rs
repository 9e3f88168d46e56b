//! A run that is killed, at any moment, and resumed leaves the files of one that was not: the same checkpoints to
//! the last bit, the same records but for the time things took.

#![cfg(unix)]

mod support;

use showtell::Device;
use showtell::data::flickr8k::Flickr8k;
use showtell::data::vocabulary::Vocabulary;
use showtell::files;
use showtell::train::config::{Config, EncoderBatchNorm, Model, Monitor};
use showtell::train::log::{EpochRecord, StepRecord};
use showtell::train::run::{Engine, RANDOM, RunDirectory};
use showtell::train::trainer::{self, Ended, Trainer};
use showtell::train::{Observer, Stage};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::training::small;
use support::{Numbers, pictures};

/// Kills of the longest test.
const KILLS: usize = 20;

/// What a run leaves, without the time that its steps and epochs took.
#[derive(PartialEq)]
struct Left {
    names: Vec<String>,
    settings: [String; 2],
    steps: Vec<String>,
    epochs: Vec<String>,
    checkpoints: [Option<Vec<u8>>; 2],
}

fn left(run: &Path) -> Left {
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

/// Says what differs, which whole files would drown.
fn assert_same(found: &Left, expected: &Left, how: &str) {
    assert_eq!(found.names, expected.names, "{how}");
    assert_eq!(found.settings, expected.settings, "{how}");
    assert_eq!(found.steps, expected.steps, "{how}");
    assert_eq!(found.epochs, expected.epochs, "{how}");
    assert!(
        found.checkpoints == expected.checkpoints,
        "checkpoints differ: {how}"
    );
}

/// Copies the run's folder at every call: that is what a kill at this moment would leave.
struct Snapshots<'a> {
    run: &'a Path,
    folder: &'a Path,
    taken: Vec<(String, PathBuf)>,
}

impl Snapshots<'_> {
    fn take(&mut self, when: String) {
        let copy = self.folder.join(format!("{}", self.taken.len()));
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(self.run).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        self.taken.push((when, copy));
    }
}

impl Observer for Snapshots<'_> {
    fn begin(&mut self, stage: Stage, _: usize) {
        self.take(format!("beginning of {stage:?}"));
    }

    fn progress(&mut self, done: usize) {
        self.take(format!("{done} parts"));
    }

    fn end(&mut self) {
        self.take("end of a stage".into());
    }

    fn step(&mut self, record: &StepRecord, _: usize) {
        self.take(format!("step {}", record.step));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.take(format!("epoch {}", record.epoch));
    }

    fn warn(&mut self, _: &str) {}
}

/// Hears nothing, and wants to stop after so many steps.
struct Deaf(Option<u64>);

impl Observer for Deaf {
    fn begin(&mut self, _: Stage, _: usize) {}
    fn progress(&mut self, _: usize) {}
    fn end(&mut self) {}
    fn step(&mut self, _: &StepRecord, _: usize) {
        self.0 = self.0.map(|steps| steps.saturating_sub(1));
    }
    fn epoch(&mut self, _: &EpochRecord) {}
    fn warn(&mut self, _: &str) {}
    fn wants_to_stop(&self) -> bool {
        self.0 == Some(0)
    }
}

/// Trains from wherever the run stands.
fn go_on(config: Config, data: &Path, out: &Path, observer: &mut dyn Observer) -> Ended {
    let dataset = Flickr8k::open(data).unwrap();
    let run = RunDirectory::open(out).or_else(|_| RunDirectory::create(out));
    let run = run.unwrap();
    files::remove_leftovers(out).unwrap();
    let checkpoint = run.open_last().unwrap();
    let vocabulary = match &checkpoint {
        Some(_) => Vocabulary::load(run.vocabulary()).unwrap(),
        None => trainer::vocabulary(config.model, &dataset),
    };
    let mut engine = Engine::new(&Device::cpu(), config, vocabulary).unwrap();
    let mut trainer = match &checkpoint {
        Some(checkpoint) => Trainer::resume(engine, &dataset, run, 2, checkpoint, observer),
        None => {
            let random = engine.load_initial().unwrap();
            Trainer::start(engine, &dataset, run, 2, random, observer)
        }
    };
    trainer.as_mut().unwrap().train(observer).unwrap()
}

/// Snapshots of a run wherever it tells of itself, each resumed.
fn check_every_moment(config: Config, data: &Path) -> Left {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut snapshots = Snapshots {
        run: folder.path(),
        folder: copies.path(),
        taken: Vec::new(),
    };
    go_on(config.clone(), data, folder.path(), &mut snapshots);
    let expected = left(folder.path());
    // A kill between the two checkpoints of an epoch's end leaves the best one of later.
    let mut taken = snapshots.taken;
    let (_, first) = taken[taken.len() / 3].clone();
    let odd = copies.path().join("odd");
    fs::create_dir(&odd).unwrap();
    for name in &expected.names {
        let _ = fs::copy(first.join(name), odd.join(name));
    }
    let best = RunDirectory::open(folder.path()).unwrap().best();
    fs::copy(best, odd.join("best.safetensors")).unwrap();
    // A kill inside a write leaves a part of a file, aside, and perhaps a part of a line.
    fs::write(odd.join("last.safetensors.4711.0.tmp"), "half").unwrap();
    let steps = fs::read_to_string(odd.join("steps.jsonl")).unwrap();
    fs::write(odd.join("steps.jsonl"), steps + "{\"step\":9").unwrap();
    taken.push(("a mixture".into(), odd));
    for (when, copy) in taken {
        let ended = go_on(config.clone(), data, &copy, &mut Deaf(None));
        assert_eq!(ended, Ended::Finished);
        assert_same(&left(&copy), &expected, &when);
    }
    expected
}

/// Small enough to be run a hundred times.
fn tiny(model: Model) -> Config {
    Config {
        encoder_width: 4,
        embed: 8,
        hidden: 8,
        attention: 8,
        image_size: 24,
        batch_size: 7,
        checkpoint_every: 3,
        encoder_weights: Some(RANDOM.into()),
        ..small(model)
    }
}

/// Dropout, augmentation, shuffling, moving statistics, a trained encoder, rates that fall.
fn everything() -> Config {
    Config {
        epochs: 3,
        fine_tune: true,
        encoder_batch_norm: EncoderBatchNorm::Batch,
        monitor: Monitor::Bleu4,
        lr: 0.02,
        schedule_from: 1,
        schedule_factor: 0.5,
        ..tiny(Model::Attend)
    }
}

#[test]
fn wherever_a_run_with_a_fine_tuned_encoder_is_ended_it_goes_on_alike() {
    let data = pictures::temporary();
    let expected = check_every_moment(everything(), data.path());
    let rate = |line: &String| line.split_once("\"lr\":").unwrap().1.to_string();
    let rates: Vec<String> = expected.epochs.iter().map(rate).collect();
    assert_ne!(
        rates.first(),
        rates.last(),
        "the rate never fell: {rates:?}"
    );
}

/// Batches of the same picture: all of one batch's are bad, and it takes no step.
#[test]
fn wherever_a_run_over_bad_images_is_ended_it_goes_on_alike() {
    let data = pictures::temporary();
    for bad in [1, pictures::TRAIN - 1] {
        fs::write(pictures::path(data.path(), bad), "no picture").unwrap();
    }
    let config = Config {
        batch_size: 2,
        captions_per_image: 2,
        shuffle: false,
        skip_bad_images: true,
        checkpoint_every: 1,
        ..tiny(Model::ShowTell)
    };
    let expected = check_every_moment(config.clone(), data.path());
    let steps = config.epochs * (pictures::TRAIN - 2);
    assert_eq!(expected.steps.len(), steps);
}

#[test]
fn wherever_a_run_from_features_is_ended_it_goes_on_alike() {
    let data = pictures::temporary();
    let config = Config {
        augment: false,
        checkpoint_every: 0,
        ..tiny(Model::ShowTell)
    };
    check_every_moment(config, data.path());
}

#[test]
fn wherever_a_run_with_a_limit_of_steps_is_ended_it_goes_on_alike() {
    let data = pictures::temporary();
    let limited = Config {
        max_steps: 6,
        ..tiny(Model::Attend)
    };
    let expected = check_every_moment(limited, data.path());
    assert_eq!(expected.steps.len(), 6, "inside the second epoch");
    assert_eq!(expected.epochs.len(), 2);
}

/// Also where the limit lay: the epoch's record was one of a part, and the rest of it is trained.
#[test]
fn a_higher_limit_of_steps_lets_a_run_go_on_as_if_there_had_been_none() {
    let data = pictures::temporary();
    let (whole, part) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = everything();
    go_on(config.clone(), data.path(), whole.path(), &mut Deaf(None));
    let limited = Config {
        max_steps: 6,
        ..config.clone()
    };
    go_on(limited, data.path(), part.path(), &mut Deaf(None));
    go_on(config.clone(), data.path(), part.path(), &mut Deaf(None));
    let (mut found, expected) = (left(part.path()), left(whole.path()));
    // The settings still tell of the limit, and the best checkpoint may be the one of the part.
    found.settings = expected.settings.clone();
    found.checkpoints[1] = expected.checkpoints[1].clone();
    assert_same(&found, &expected, "limit");
}

#[test]
fn a_run_that_is_asked_to_stop_saves_where_it_is() {
    let data = pictures::temporary();
    let whole = tempfile::tempdir().unwrap();
    go_on(everything(), data.path(), whole.path(), &mut Deaf(None));
    // The fourth step is the last of its epoch.
    for steps in [1, 4, 5] {
        let part = tempfile::tempdir().unwrap();
        let mut observer = Deaf(Some(steps));
        let ended = go_on(everything(), data.path(), part.path(), &mut observer);
        assert_eq!(ended, Ended::Interrupted);
        let run = RunDirectory::open(part.path()).unwrap();
        let position = run.open_last().unwrap().unwrap().position;
        assert_eq!(position.step, steps);
        go_on(everything(), data.path(), part.path(), &mut Deaf(None));
        assert_same(&left(part.path()), &left(whole.path()), "stop");
    }
}

#[test]
fn records_that_are_lost_are_missed() {
    let data = pictures::temporary();
    let run = tempfile::tempdir().unwrap();
    go_on(everything(), data.path(), run.path(), &mut Deaf(None));
    let steps = run.path().join("steps.jsonl");
    fs::write(&steps, "{}\n").unwrap();
    let dataset = Flickr8k::open(data.path()).unwrap();
    let directory = RunDirectory::open(run.path()).unwrap();
    let checkpoint = directory.open_last().unwrap().unwrap();
    let vocabulary = Vocabulary::load(directory.vocabulary()).unwrap();
    let engine = Engine::new(&Device::cpu(), everything(), vocabulary).unwrap();
    let observer = &mut Deaf(None);
    let resumed = Trainer::resume(engine, &dataset, directory, 1, &checkpoint, observer);
    let error = resumed.map(drop).unwrap_err().to_string();
    assert!(error.contains("steps.jsonl"), "{error}");
    assert!(error.contains("holds 1 records"), "{error}");
}

/// A run as small, by the program.
fn flags(data: &Path, out: &Path, epochs: usize, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_showtell"));
    command.args(["train", "--threads=2", "--encoder-weights=random"]);
    command.args(["--encoder-blocks=1,1", "--encoder-width=4"]);
    command.arg("--encoder-stem=3");
    command.args([
        "--embed=8",
        "--hidden=8",
        "--attention=8",
        "--image-size=24",
    ]);
    command.args(["--batch-size=7", &format!("--epochs={epochs}")]);
    command.arg("--data").arg(data).arg("--out").arg(out);
    command.args(more);
    command
}

fn resume(out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_showtell"));
    command.args(["train", "--resume", "--out"]).arg(out);
    command.args(more);
    command
}

fn start(mut command: Command) -> Child {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.spawn().unwrap()
}

fn finish(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{messages}");
    output
}

/// Kills runs at random moments, this many times: a run that gets to its end is compared, and another begun.
fn kill(model: &str, more: &[&str], kills: usize, seed: u64) {
    let data = pictures::temporary();
    let place = tempfile::tempdir().unwrap();
    let more = [&["--model", model, "--checkpoint-every=3"], more].concat();
    let unkilled = place.path().join("unkilled");
    let began = Instant::now();
    finish(flags(data.path(), &unkilled, 3, &more));
    let time = began.elapsed().as_micros() as u64;
    let expected = left(&unkilled);
    let mut numbers = Numbers::new(seed);
    let (mut done, mut runs) = (0, 0);
    while done < kills {
        runs += 1;
        let out = place.path().join(format!("{runs}"));
        loop {
            let command = match out.join("config.toml").exists() {
                true => resume(&out, &[]),
                false => flags(data.path(), &out, 3, &more),
            };
            let mut child = start(command);
            if done < kills {
                std::thread::sleep(Duration::from_micros(numbers.bits() % time));
            }
            let ended = match done < kills {
                true => child.try_wait().unwrap(),
                false => Some(child.wait().unwrap()),
            };
            if let Some(status) = ended {
                assert!(status.success(), "{status}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            done += 1;
        }
        assert_same(&left(&out), &expected, &format!("{model}, run {runs}"));
    }
}

#[test]
fn a_run_killed_at_twenty_random_moments_is_the_same_run() {
    let more = [
        "--fine-tune",
        "--encoder-batch-norm=batch",
        "--schedule-from=1",
        "--lr=0.02",
    ];
    kill("attend", &more, KILLS, 1);
}

#[test]
fn so_is_one_with_a_frozen_encoder() {
    kill("show-tell", &[], KILLS / 4, 2);
    kill("show-tell", &["--no-augment"], KILLS / 4, 3);
}

#[test]
fn ctrl_c_saves_and_the_run_goes_on() {
    let data = pictures::temporary();
    let place = tempfile::tempdir().unwrap();
    let more = ["--model=attend", "--checkpoint-every=0", "--no-validate"];
    let (whole, part) = (place.path().join("whole"), place.path().join("part"));
    let mut command = flags(data.path(), &part, 60, &more);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let steps = part.join("steps.jsonl");
    while fs::metadata(&steps).map_or(0, |about| about.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "ended before a step");
        std::thread::sleep(Duration::from_millis(1));
    }
    let signal = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signal.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{messages}");
    assert!(messages.contains("--resume"), "{messages}");
    let taken = fs::read_to_string(&steps).unwrap().lines().count();
    let run = RunDirectory::open(&part).unwrap();
    let position = run.open_last().unwrap().unwrap().position;
    assert_eq!(position.step, taken as u64, "saved at the last step");
    finish(resume(&part, &[]));
    finish(flags(data.path(), &whole, 60, &more));
    assert_same(&left(&part), &left(&whole), "Ctrl-C");
}

#[test]
fn a_finished_run_says_so_and_more_epochs_let_it_go_on() {
    let data = pictures::temporary();
    let place = tempfile::tempdir().unwrap();
    let (long, short) = (place.path().join("long"), place.path().join("short"));
    finish(flags(data.path(), &long, 3, &["--model=show-tell"]));
    finish(flags(data.path(), &short, 2, &["--model=show-tell"]));
    let before = left(&short);
    let output = finish(resume(&short, &[]));
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(
        messages.contains("finished: 2 epochs, 8 steps"),
        "{messages}"
    );
    assert_same(&left(&short), &before, "finished");
    finish(resume(&short, &["--epochs=3"]));
    assert_same(&left(&short), &left(&long), "one epoch more");
}

#[test]
fn a_resumed_run_keeps_its_settings() {
    let data = pictures::temporary();
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("run");
    finish(flags(data.path(), &out, 1, &["--model=show-tell"]));
    let refused = |mut command: Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let message = refused(resume(&out, &["--lr=0.1"]));
    assert!(
        message.contains("lr = 0.1: this run was started with 0.9"),
        "{message}"
    );
    let message = refused(resume(&out, &["--fine-tune"]));
    assert!(message.contains("fine-tune = true"), "{message}");
    finish(resume(&out, &["--lr=0.9", "--no-fine-tune"]));
    let nothing = place.path().join("nothing");
    let message = refused(resume(&nothing, &[]));
    assert!(message.contains("has no config.toml"), "{message}");
}
