//! The features in a file are those that the encoder computes, whichever run has made the file. A wrong or damaged file is
//! never used.

use crate::support;
use half::bf16;
use serde_json::Value;
use showtell::Device;
use showtell::data::flickr8k::{Flickr8k, Split};
use showtell::data::loader::LoaderOptions;
use showtell::device::Precision;
use showtell::model::attend::ATTEND;
use showtell::model::show_tell::SHOW_TELL;
use showtell::model::{Engine, Model};
use showtell::train::config::{Config, FeatureType};
use showtell::train::features::{Cache, Encoding};
use showtell::train::log::{EpochRecord, StepRecord};
use showtell::train::run::structure;
use showtell::train::trainer;
use showtell::train::{Observer, Stage};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::cli::{failed, misused, stdout, succeeded};
use support::tiny::Tiny;

/// Stores the messages that it receives.
#[derive(Default)]
struct Told {
    stages: usize,
    warnings: Vec<String>,
    notes: Vec<String>,
}

impl Observer for Told {
    fn begin(&mut self, _: Stage, _: usize) {
        self.stages += 1;
    }

    fn progress(&mut self, _: usize) {}

    fn end(&mut self) {}

    fn step(&mut self, _: &StepRecord, _: usize) {}

    fn epoch(&mut self, _: &EpochRecord) {}

    fn warn(&mut self, message: &str) {
        self.warnings.push(message.into());
    }

    fn note(&mut self, message: &str) {
        self.notes.push(message.into());
    }
}

/// A captioner, and the settings that say where its features are cached.
struct Cached {
    engine: Engine,
    config: Config,
}

/// A tiny captioner with its feature cache in the directory `cache`.
fn engine(tiny: &Tiny, dataset: &Flickr8k, model: Model, settings: &str) -> Cached {
    engine_on(&Device::cpu(), tiny, dataset, model, settings)
}

fn engine_on(
    device: &Device,
    tiny: &Tiny,
    dataset: &Flickr8k,
    model: Model,
    settings: &str,
) -> Cached {
    let mut table: toml::Table = toml::from_str(settings).unwrap();
    let tiny_model = "encoder-blocks = [1]\nencoder-width = 4\nencoder-stem = 3\nimage-size = 32\n\
                      embed = 8\nhidden = 8\nattention = 8\naugment = false";
    for (key, value) in toml::from_str::<toml::Table>(tiny_model).unwrap() {
        table.entry(key).or_insert(value);
    }
    table.insert("model".into(), model.name.into());
    let cache = tiny.path("cache").to_str().unwrap().to_string();
    table.entry("feature-cache").or_insert(cache.into());
    let config = Config::from_settings(table).unwrap();
    let vocabulary = trainer::vocabulary(config.model, dataset);
    let structure = structure(&config, vocabulary.len());
    let mut engine = Engine::new(device, &structure, vocabulary).unwrap();
    engine.params.initialise(config.seed).unwrap();
    engine.prepare().unwrap();
    Cached { engine, config }
}

/// The features of the training images, row after row.
fn features(cached: &Cached, dataset: &Flickr8k, told: &mut Told) -> Vec<f32> {
    let Cached { engine, config } = cached;
    let images = dataset.split(Split::Train);
    let encoding = Encoding {
        engine,
        dataset,
        images,
        options: LoaderOptions {
            size: config.image_size,
            threads: 1,
            ..LoaderOptions::default()
        },
        cache: Cache::of(config),
        stage: Stage::Features,
    };
    let features = encoding.features(told).unwrap();
    features.upload(engine, images).unwrap().to_f32().unwrap()
}

fn cached_files(tiny: &Tiny) -> Vec<PathBuf> {
    let entries = fs::read_dir(tiny.path("cache"));
    let paths = entries.into_iter().flatten().map(|e| e.unwrap().path());
    paths.collect()
}

#[test]
fn mapped_features_are_those_in_memory() {
    for model in [SHOW_TELL, ATTEND] {
        let tiny = Tiny::new();
        let dataset = Flickr8k::open(tiny.data()).unwrap();
        let mut told = Told::default();
        let none = engine(&tiny, &dataset, model, "feature-cache = \"none\"");
        let expected = features(&none, &dataset, &mut told);
        assert!(told.notes.is_empty() && cached_files(&tiny).is_empty());
        assert!(expected.iter().any(|&v| v > 0.0));
        for kind in [FeatureType::F32, FeatureType::Bf16] {
            let settings = match kind {
                FeatureType::F32 => "",
                FeatureType::Bf16 => "feature-type = \"bf16\"",
            };
            let engine = engine(&tiny, &dataset, model, settings);
            let mut told = Told::default();
            let made = features(&engine, &dataset, &mut told);
            assert_eq!(told.stages, 1);
            assert!(
                told.notes[0].contains("6 images will take 0.0 MB"),
                "{:?}",
                told.notes
            );
            let mut again = Told::default();
            assert_eq!(made, features(&engine, &dataset, &mut again));
            assert_eq!((again.stages, again.warnings.len()), (0, 0));
            let expected = expected.iter().map(|&v| match kind {
                FeatureType::F32 => v,
                FeatureType::Bf16 => bf16::from_f32(v).to_f32(),
            });
            assert!(made.into_iter().eq(expected));
        }
        assert_eq!(cached_files(&tiny).len(), 2);
    }
}

/// A header of 64 bytes, six rows, six flags, and a checksum of 32 bytes.
#[test]
fn the_announced_size_is_the_files() {
    let tiny = Tiny::new();
    let dataset = Flickr8k::open(tiny.data()).unwrap();
    let settings = "feature-type = \"bf16\"\nencoder-width = 64\nimage-size = 128";
    let engine = engine(&tiny, &dataset, ATTEND, settings);
    let mut told = Told::default();
    features(&engine, &dataset, &mut told);
    let bytes = 64 + 6 * 14 * 14 * 256 * 2 + 6 + 32;
    let found = fs::metadata(&cached_files(&tiny)[0]).unwrap().len();
    assert_eq!(found, bytes);
    let announced = format!("{:.1} MB", bytes as f64 / 1e6);
    assert!(told.notes[0].contains(&announced), "{:?}", told.notes);
}

#[test]
fn a_damaged_file_is_noticed_wherever_it_is_and_made_anew() {
    let tiny = Tiny::new();
    let dataset = Flickr8k::open(tiny.data()).unwrap();
    let engine = engine(&tiny, &dataset, SHOW_TELL, "");
    let expected = features(&engine, &dataset, &mut Told::default());
    let path = cached_files(&tiny).remove(0);
    let whole = fs::read(&path).unwrap();
    let check = |content: &[u8], why: &str| {
        fs::write(&path, content).unwrap();
        let mut told = Told::default();
        assert_eq!(features(&engine, &dataset, &mut told), expected);
        let warnings = told.warnings.join("\n");
        assert!(
            warnings.contains(why) && warnings.contains("computed again"),
            "{warnings}"
        );
        assert_eq!(fs::read(&path).unwrap(), whole);
    };
    check(b"", "is empty");
    check(b"x", "truncated");
    for end in [63, 64, 200, whole.len() - 33, whole.len() - 1] {
        check(&whole[..end], "truncated");
    }
    for at in [0, 9, 30, 63, 64, 333, whole.len() - 35, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        check(&damaged, "");
    }
    check(&[&whole[..], &[0]].concat(), "");
}

#[test]
fn whatever_features_depend_on_leads_to_another_file() {
    let tiny = Tiny::new();
    let dataset = Flickr8k::open(tiny.data()).unwrap();
    let make = |model, settings: &str| {
        let mut told = Told::default();
        let engine = engine(&tiny, &dataset, model, settings);
        features(&engine, &dataset, &mut told);
        (told.stages, cached_files(&tiny).len())
    };
    assert_eq!(make(SHOW_TELL, ""), (1, 1));
    assert_eq!(make(SHOW_TELL, ""), (0, 1));
    // What features do not depend on.
    assert_eq!(
        make(SHOW_TELL, "lr = 0.5\nhidden = 4\nbatch-size = 2"),
        (0, 1)
    );
    assert_eq!(make(ATTEND, ""), (1, 2));
    assert_eq!(make(SHOW_TELL, "seed = 9"), (1, 3));
    assert_eq!(make(SHOW_TELL, "image-size = 40"), (1, 4));
    assert_eq!(make(SHOW_TELL, "feature-type = \"bf16\""), (1, 5));
    assert_eq!(make(SHOW_TELL, "encoder-width = 8"), (1, 6));
    tiny.image(77).save(tiny.images().join("b.png")).unwrap();
    assert_eq!(make(SHOW_TELL, ""), (1, 7));
}

#[test]
fn a_running_statistic_is_part_of_the_key() {
    let tiny = Tiny::new();
    let dataset = Flickr8k::open(tiny.data()).unwrap();
    let mut engine = engine(&tiny, &dataset, SHOW_TELL, "");
    features(&engine, &dataset, &mut Told::default());
    let params = &engine.engine.params;
    let id = params.find("encoder.bn1.running_mean").unwrap();
    let mut values = params.export(id).unwrap();
    values[1] += 0.5;
    params.import(id, &values).unwrap();
    engine.engine.prepare().unwrap();
    features(&engine, &dataset, &mut Told::default());
    assert_eq!(cached_files(&tiny).len(), 2);
}

/// In f32 the features of both devices differ by rounding; those of another precision differ by more.
#[test]
fn the_precision_is_part_of_the_key() {
    let tiny = Tiny::new();
    let dataset = Flickr8k::open(tiny.data()).unwrap();
    let make = |device: &Device| {
        let engine = engine_on(device, &tiny, &dataset, SHOW_TELL, "");
        features(&engine, &dataset, &mut Told::default());
        cached_files(&tiny).len()
    };
    assert_eq!(make(&Device::cpu()), 1);
    for (precision, files) in [
        (Precision::F32, 1),
        (Precision::Tf32, 2),
        (Precision::Bf16, 3),
    ] {
        let Some(ctx) = support::cuda_with(precision) else {
            return;
        };
        assert_eq!(make(ctx.device()), files, "{precision}");
    }
}

/// `steps.jsonl` without times.
fn losses(tiny: &Tiny, run: &str) -> Vec<Value> {
    let text = fs::read_to_string(tiny.path(run).join("steps.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("ms");
        value
    };
    text.lines().map(line).collect()
}

fn options<'a>(cache: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut options = vec![
        "--encoder-weights",
        "random",
        "--model",
        "attend",
        "--epochs",
        "2",
    ];
    options.extend(["--feature-cache", cache.to_str().unwrap()]);
    options.extend(more);
    options
}

#[test]
fn runs_and_evaluations_share_a_cache() {
    let tiny = Tiny::new();
    let none = options(Path::new("none"), &["--no-augment"]);
    succeeded(&tiny.train("plain", &none));
    let cache = tiny.path("cache");
    let cached = options(&cache, &[]);
    let first = succeeded(&tiny.train("first", &cached));
    assert!(first.contains("augmentation is off"), "{first}");
    assert_eq!(first.matches("images will take").count(), 2, "{first}");
    let second = succeeded(&tiny.train("second", &cached));
    assert_eq!(second.matches("images will take").count(), 0, "{second}");
    assert_eq!(losses(&tiny, "plain"), losses(&tiny, "first"));
    assert_eq!(losses(&tiny, "plain"), losses(&tiny, "second"));

    let plain = tiny.eval("plain", &["--split", "dev", "--json", "--out", "/dev/null"]);
    let mapped = tiny.eval("first", &["--split", "dev", "--json", "--out", "/dev/null"]);
    assert!(succeeded(&mapped).contains(".features"));
    assert_eq!(stdout(&plain), stdout(&mapped));
    let test = tiny.eval("first", &["--feature-cache", "none"]);
    assert!(!succeeded(&test).contains(".features"));
    assert_eq!(cached_files(&tiny).len(), 2);
}

#[test]
fn processes_that_start_at_once_both_get_it_right() {
    let tiny = Tiny::new();
    let cache = tiny.path("cache");
    let runs: Vec<_> = (0..4).map(|i| format!("run{i}")).collect();
    let start = |run: &String| {
        let mut command = tiny.train_command(run, &options(&cache, &[]));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let processes: Vec<_> = runs.iter().map(start).collect();
    for process in processes {
        succeeded(&process.wait_with_output().unwrap());
    }
    for run in &runs[1..] {
        assert_eq!(losses(&tiny, &runs[0]), losses(&tiny, run));
    }
    let files = cached_files(&tiny);
    assert_eq!(files.len(), 2, "{files:?}");
}

#[test]
fn images_left_out_are_told_of_again_and_missed_when_wanted() {
    let tiny = Tiny::new();
    tiny.write_image("c.jpg", b"no image");
    let cache = tiny.path("cache");
    let skipping = options(&cache, &["--skip-bad-images"]);
    let first = succeeded(&tiny.train("first", &skipping));
    let second = succeeded(&tiny.train("second", &skipping));
    for text in [&first, &second] {
        assert_eq!(text.matches("left out: ").count(), 1, "{text}");
        assert!(text.contains("c.jpg"), "{text}");
    }
    assert_eq!(losses(&tiny, "first"), losses(&tiny, "second"));
    let error = failed(&tiny.train("third", &options(&cache, &[])));
    assert!(
        error.contains("c.jpg: not a JPEG, PNG, WebP, GIF or BMP image"),
        "{error}"
    );
}

#[test]
fn what_changes_features_excludes_a_cache() {
    let tiny = Tiny::new();
    let cache = tiny.path("cache");
    for more in [
        &["--fine-tune", "--fine-tune-from", "1"][..],
        &["--encoder-batch-norm", "batch"],
    ] {
        let error = misused(&tiny.train("run", &options(&cache, more)));
        assert!(error.contains("feature-cache"), "{error}");
    }
    assert!(cached_files(&tiny).is_empty());
}
