//! Whole training runs of captioners small enough for tests, through the library.

use showtell::Device;
use showtell::data::flickr8k::Flickr8k;
use showtell::model::attend::ATTEND;
use showtell::model::{Engine, Model};
use showtell::train::config::Config;
use showtell::train::initial::Initial;
use showtell::train::log::{EpochRecord, StepRecord};
use showtell::train::run::{RunDirectory, structure};
use showtell::train::trainer::{self, Setup, Trainer};
use showtell::train::{Observer, Stage};
use std::path::Path;

/// A recipe with a small model, for pictures of 40 pixels.
pub fn small(model: Model) -> Config {
    let config = Config {
        encoder_blocks: vec![1, 1],
        encoder_width: 8,
        encoder_stem: 3,
        image_size: 40,
        embed: 24,
        hidden: 40,
        batch_size: 7,
        epochs: 2,
        ..Config::recipe(model)
    };
    with_attention(config, 20)
}

/// Gives attention another size, where the model has any.
pub fn with_attention(config: Config, size: i64) -> Config {
    if config.model == ATTEND {
        config.with("attention", size).unwrap()
    } else {
        config
    }
}

/// An observer that runs a function after each step and ignores everything else.
pub struct Steps<F>(pub F);

impl<F: FnMut(&StepRecord)> Observer for Steps<F> {
    fn begin(&mut self, _: Stage, _: usize) {}
    fn progress(&mut self, _: usize) {}
    fn end(&mut self) {}
    fn step(&mut self, record: &StepRecord, _: usize) {
        (self.0)(record);
    }
    fn epoch(&mut self, _: &EpochRecord) {}
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

/// Trains from `seed`'s initial weights to the end. Gives the most bytes that the step arena ever held.
pub fn train(
    device: &Device,
    config: Config,
    data: &Path,
    out: &Path,
    loader_threads: usize,
    calibrate: bool,
    observer: &mut dyn Observer,
) -> usize {
    let dataset = Flickr8k::open(data).unwrap();
    let vocabulary = trainer::vocabulary(config.model, &dataset);
    let structure = structure(&config, vocabulary.len());
    let engine = Engine::new(device, &structure, vocabulary).unwrap();
    engine.params.initialise(config.seed).unwrap();
    let setup = Setup {
        config,
        dataset: &dataset,
        run: RunDirectory::create(out).unwrap(),
        loader_threads,
    };
    let initial = Initial {
        random_encoder: calibrate,
        encoder: None,
    };
    let mut trainer = Trainer::start(setup, engine, initial, observer).unwrap();
    trainer.train(observer).unwrap();
    trainer.engine().ctx.peak_bytes()
}
