//! A run that is interrupted at any moment and resumed leaves the same files as a run that was not interrupted: the same
//! checkpoints to the last bit, and the same records apart from times. `resume_killed` does this to the program.

use crate::support;
use showtell::Device;
use showtell::data::flickr8k::Flickr8k;
use showtell::data::vocabulary::Vocabulary;
use showtell::files;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::model::{Engine, Model};
use showtell::train::config::{Config, EncoderBatchNorm, EncoderWeights, Monitor};
use showtell::train::initial::Initial;
use showtell::train::log::{EpochRecord, StepRecord};
use showtell::train::run::{RunDirectory, structure};
use showtell::train::trainer::{self, Ended, Setup, Trainer};
use showtell::train::{Observer, Stage};
use std::fs;
use std::path::{Path, PathBuf};
use support::left::{Left, assert_same, left};
use support::pictures;
use support::training::{small, with_attention};

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

/// An observer that ignores everything, and may want to stop.
struct Deaf(Stop);

#[derive(PartialEq)]
enum Stop {
    Never,
    /// After so many steps.
    Steps(u64),
    /// Inside a stage.
    During(Stage),
    Now,
}

impl Observer for Deaf {
    fn begin(&mut self, stage: Stage, _: usize) {
        if self.0 == Stop::During(stage) {
            self.0 = Stop::Now;
        }
    }

    fn progress(&mut self, _: usize) {}
    fn end(&mut self) {}

    fn step(&mut self, record: &StepRecord, _: usize) {
        if self.0 == Stop::Steps(record.step) {
            self.0 = Stop::Now;
        }
    }

    fn epoch(&mut self, _: &EpochRecord) {}
    fn warn(&mut self, _: &str) {}

    fn wants_to_stop(&self) -> bool {
        self.0 == Stop::Now
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
    let structure = structure(&config, vocabulary.len());
    let engine = Engine::new(&Device::cpu(), &structure, vocabulary).unwrap();
    let setup = Setup {
        config,
        dataset: &dataset,
        run,
        loader_threads: 2,
    };
    let mut trainer = match &checkpoint {
        Some(checkpoint) => Trainer::resume(setup, engine, checkpoint, observer),
        None => {
            let initial = Initial::load(&engine, &setup.config, observer).unwrap();
            Trainer::start(setup, engine, initial, observer)
        }
    };
    trainer.as_mut().unwrap().train(observer).unwrap()
}

/// Snapshots of a run at every call of the observer, each resumed.
fn check_every_moment(config: Config, data: &Path) -> Left {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut snapshots = Snapshots {
        run: folder.path(),
        folder: copies.path(),
        taken: Vec::new(),
    };
    go_on(config.clone(), data, folder.path(), &mut snapshots);
    let expected = left(folder.path());
    // A kill between the two checkpoints at the end of an epoch leaves a best one that is newer than the last one.
    let mut taken = snapshots.taken;
    let (_, first) = taken[taken.len() / 3].clone();
    let odd = copies.path().join("odd");
    fs::create_dir(&odd).unwrap();
    for name in &expected.names {
        let _ = fs::copy(first.join(name), odd.join(name));
    }
    let best = RunDirectory::open(folder.path()).unwrap().best();
    fs::copy(best, odd.join("best.safetensors")).unwrap();
    // A kill during a write leaves an incomplete temporary file, and perhaps an incomplete line.
    fs::write(odd.join("last.safetensors.4711.0.showtell-tmp"), "half").unwrap();
    let steps = fs::read_to_string(odd.join("steps.jsonl")).unwrap();
    fs::write(odd.join("steps.jsonl"), steps + "{\"step\":9").unwrap();
    taken.push(("a mixture".into(), odd));
    for (when, copy) in taken {
        let ended = go_on(config.clone(), data, &copy, &mut Deaf(Stop::Never));
        assert_eq!(ended, Ended::Finished);
        assert_same(&left(&copy), &expected, &when);
    }
    expected
}

/// Small enough to be run a hundred times.
fn tiny(model: Model) -> Config {
    let config = Config {
        encoder_width: 4,
        embed: 8,
        hidden: 8,
        image_size: 24,
        batch_size: 7,
        checkpoint_every: Some(3),
        encoder_weights: Some(EncoderWeights::Random),
        ..small(model)
    };
    with_attention(config, 8)
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
        ..tiny(ATTEND)
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

/// Every batch shows one picture. Where that picture is bad, the batch takes no step.
#[test]
fn wherever_a_run_over_bad_images_is_ended_it_goes_on_alike() {
    let data = pictures::temporary();
    for bad in [1, pictures::TRAIN - 1] {
        fs::write(pictures::path(data.path(), bad), "no picture").unwrap();
    }
    let config = Config {
        batch_size: 2,
        captions_per_image: Some(2),
        shuffle: false,
        skip_bad_images: true,
        checkpoint_every: Some(1),
        ..tiny(SHOW_TELL)
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
        checkpoint_every: None,
        ..tiny(SHOW_TELL)
    };
    check_every_moment(config, data.path());
}

#[test]
fn wherever_a_run_with_a_limit_of_steps_is_ended_it_goes_on_alike() {
    let data = pictures::temporary();
    let limited = Config {
        max_steps: Some(6),
        ..tiny(ATTEND)
    };
    let expected = check_every_moment(limited, data.path());
    assert_eq!(expected.steps.len(), 6, "inside the second epoch");
    assert_eq!(expected.epochs.len(), 2);
}

/// The limit was inside an epoch: its record was that of a part, and the rest of the epoch is trained.
#[test]
fn a_higher_limit_of_steps_lets_a_run_go_on_as_if_there_had_been_none() {
    let data = pictures::temporary();
    let (whole, part) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = everything();
    go_on(
        config.clone(),
        data.path(),
        whole.path(),
        &mut Deaf(Stop::Never),
    );
    let limited = Config {
        max_steps: Some(6),
        ..config.clone()
    };
    go_on(limited, data.path(), part.path(), &mut Deaf(Stop::Never));
    go_on(
        config.clone(),
        data.path(),
        part.path(),
        &mut Deaf(Stop::Never),
    );
    let (mut found, expected) = (left(part.path()), left(whole.path()));
    // The settings still contain the limit, and the best checkpoint may be that of the part.
    found.settings = expected.settings.clone();
    found.checkpoints[1] = expected.checkpoints[1].clone();
    assert_same(&found, &expected, "limit");
}

#[test]
fn a_run_that_is_asked_to_stop_saves_where_it_is() {
    let data = pictures::temporary();
    let whole = tempfile::tempdir().unwrap();
    go_on(
        everything(),
        data.path(),
        whole.path(),
        &mut Deaf(Stop::Never),
    );
    // The fourth step is the last of its epoch, and validation follows.
    let stops = [
        (Stop::Steps(1), 1),
        (Stop::Steps(4), 4),
        (Stop::Steps(5), 5),
        (Stop::During(Stage::ValidationFeatures), 4),
        (Stop::During(Stage::Validation), 4),
        (Stop::During(Stage::Captions), 4),
    ];
    for (stop, steps) in stops {
        let part = tempfile::tempdir().unwrap();
        let ended = go_on(everything(), data.path(), part.path(), &mut Deaf(stop));
        assert_eq!(ended, Ended::Interrupted);
        let run = RunDirectory::open(part.path()).unwrap();
        let position = run.open_last().unwrap().unwrap().position;
        assert_eq!(position.step, steps);
        go_on(
            everything(),
            data.path(),
            part.path(),
            &mut Deaf(Stop::Never),
        );
        assert_same(&left(part.path()), &left(whole.path()), "stop");
    }
}

#[test]
fn records_that_are_lost_are_missed() {
    let data = pictures::temporary();
    let run = tempfile::tempdir().unwrap();
    go_on(
        everything(),
        data.path(),
        run.path(),
        &mut Deaf(Stop::Never),
    );
    let steps = run.path().join("steps.jsonl");
    fs::write(&steps, "{}\n").unwrap();
    let dataset = Flickr8k::open(data.path()).unwrap();
    let directory = RunDirectory::open(run.path()).unwrap();
    let checkpoint = directory.open_last().unwrap().unwrap();
    let vocabulary = Vocabulary::load(directory.vocabulary()).unwrap();
    let structure = structure(&everything(), vocabulary.len());
    let engine = Engine::new(&Device::cpu(), &structure, vocabulary).unwrap();
    let setup = Setup {
        config: everything(),
        dataset: &dataset,
        run: directory,
        loader_threads: 1,
    };
    let resumed = Trainer::resume(setup, engine, &checkpoint, &mut Deaf(Stop::Never));
    let error = resumed.map(drop).unwrap_err().to_string();
    assert!(error.contains("steps.jsonl"), "{error}");
    assert!(error.contains("holds 1 record,"), "{error}");
}
