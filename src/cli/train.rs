//! `showtell train`: trains a captioner.

use super::device::DeviceArgs;
use super::progress::Progress;
use super::tell;
use crate::data::flickr8k::{Flickr8k, Split};
use crate::train::Observer;
use crate::train::checkpoint;
use crate::train::config::{Config, NO_CACHE};
use crate::train::run::{Engine, RunDirectory};
use crate::train::trainer::{self, Trainer};
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Trains a captioner by its published recipe; every number can be changed
#[derive(Args)]
pub struct TrainArgs {
    /// Data set: a folder in Flickr8k's layout
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Pretrained encoder (torchvision's names), or `random`
    #[arg(long, value_name = "FILE")]
    encoder_weights: Option<PathBuf>,
    /// Start from these weights: any subset of parameters and buffers, by name
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Folder for the run's files
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    settings: Settings,
    /// Train the encoder too, from --fine-tune-from on
    #[arg(long)]
    fine_tune: bool,
    /// Do not validate at the end of epochs
    #[arg(long)]
    no_validate: bool,
    /// No random flips, rotations and gray images
    #[arg(long)]
    no_augment: bool,
    /// Keep the samples in the order of the list
    #[arg(long)]
    no_shuffle: bool,
    /// Go on without images that cannot be read
    #[arg(long)]
    skip_bad_images: bool,
}

/// The keys of `config.toml` that are plain values; what is not given stays as the recipe has it.
#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    /// Which captioner
    #[arg(long, value_parser = ["show-tell", "attend"])]
    model: Option<String>,
    /// Bottlenecks of each residual stage, as 3,4,6,3
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    encoder_blocks: Option<Vec<usize>>,
    /// Channels of the encoder's stem
    #[arg(long, value_name = "N")]
    encoder_width: Option<usize>,
    /// Size of the stem's filters
    #[arg(long, value_name = "N")]
    encoder_stem: Option<usize>,
    /// Statistics that the encoder's batch-norm uses in training
    #[arg(long, value_parser = ["running", "batch"])]
    encoder_batch_norm: Option<String>,
    /// First stage trained by --fine-tune; 0 is the stem
    #[arg(long, value_name = "STAGE")]
    fine_tune_from: Option<usize>,
    /// Images are resized to this square
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// E, size of word embeddings
    #[arg(long, value_name = "N")]
    embed: Option<usize>,
    /// H, size of the LSTM's state
    #[arg(long, value_name = "N")]
    hidden: Option<usize>,
    /// LSTM layers (show-tell)
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// A, size of the attention's scores (attend)
    #[arg(long, value_name = "N")]
    attention: Option<usize>,
    /// Side of the grid that attention sees (attend)
    #[arg(long, value_name = "N")]
    positions: Option<usize>,
    /// Dropout before the vocabulary (attend)
    #[arg(long, value_name = "P")]
    dropout: Option<f64>,
    /// Dropout on embeddings (show-tell)
    #[arg(long, value_name = "P")]
    embed_dropout: Option<f64>,
    /// Dropout between LSTM layers (show-tell)
    #[arg(long, value_name = "P")]
    lstm_dropout: Option<f64>,
    /// Weight of the doubly stochastic regulariser (attend)
    #[arg(long, value_name = "X")]
    regulariser: Option<f64>,
    #[arg(long, value_parser = ["sgd", "adam"])]
    optimizer: Option<String>,
    /// Learning rate of the decoder
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// Learning rate of a fine-tuned encoder
    #[arg(long, value_name = "X")]
    encoder_lr: Option<f64>,
    /// Momentum (SGD)
    #[arg(long, value_name = "X")]
    momentum: Option<f64>,
    /// Decay of the first moment (Adam)
    #[arg(long, value_name = "X")]
    beta1: Option<f64>,
    /// Decay of the second moment (Adam)
    #[arg(long, value_name = "X")]
    beta2: Option<f64>,
    /// ε (Adam)
    #[arg(long, value_name = "X")]
    epsilon: Option<f64>,
    /// Weight decay of the decoder
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// Weight decay of a fine-tuned encoder
    #[arg(long, value_name = "X")]
    encoder_weight_decay: Option<f64>,
    /// Largest norm of all gradients together; 0: not clipped
    #[arg(long, value_name = "X")]
    clip_norm: Option<f64>,
    /// Largest absolute value of a gradient; 0: not clipped
    #[arg(long, value_name = "X")]
    clip_value: Option<f64>,
    /// plateau: lower the rate after an epoch that did not improve; linear: let it fall to a tenth at
    /// --max-steps
    #[arg(long, value_parser = ["plateau", "linear", "none"])]
    schedule: Option<String>,
    /// What a plateau multiplies the rate by
    #[arg(long, value_name = "X")]
    schedule_factor: Option<f64>,
    /// First epoch after which a plateau may
    #[arg(long, value_name = "EPOCH")]
    schedule_from: Option<usize>,
    /// What decides which epoch is best
    #[arg(long, value_parser = ["loss", "bleu4"])]
    monitor: Option<String>,
    /// Samples a step
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Stop after this many steps; 0: no limit
    #[arg(long, value_name = "N")]
    max_steps: Option<usize>,
    /// Train on the first N images only; 0: all
    #[arg(long, value_name = "N")]
    limit_images: Option<usize>,
    /// Use the first N captions of each image; 0: all
    #[arg(long, value_name = "N")]
    captions_per_image: Option<usize>,
    /// Keep the encoder's outputs in this folder, for this run and others; turns augmentation off;
    /// `none`: keep them nowhere
    #[arg(long, value_name = "DIR", value_parser = feature_cache)]
    feature_cache: Option<PathBuf>,
    /// How they are stored there
    #[arg(long, value_parser = ["f32", "bf16"])]
    feature_type: Option<String>,
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// A folder for features, as it can be found from anywhere; or `none`.
pub(super) fn feature_cache(given: &str) -> std::io::Result<PathBuf> {
    match given {
        NO_CACHE => Ok(given.into()),
        directory => std::path::absolute(directory),
    }
}

impl TrainArgs {
    /// The recipe with everything that was given put in its place.
    fn config(&self) -> Result<Config> {
        let mut settings = toml::Table::try_from(&self.settings)?;
        let switches = [
            ("fine-tune", self.fine_tune, true),
            ("validate", self.no_validate, false),
            ("augment", self.no_augment, false),
            ("shuffle", self.no_shuffle, false),
            ("skip-bad-images", self.skip_bad_images, true),
        ];
        for (key, given, value) in switches {
            if given {
                settings.insert(key.into(), value.into());
            }
        }
        Ok(Config::from_settings(settings)?)
    }
}

pub fn train(args: TrainArgs) -> Result<()> {
    let config = args.config()?;
    let device = args.device.open()?;
    let mut progress = Progress::new();
    if config.feature_cache().is_some() && !args.no_augment {
        progress
            .note("augmentation is off: --feature-cache keeps the features of images as they are");
    }
    let dataset = Flickr8k::open(&args.data)?;
    for warning in dataset.warnings() {
        progress.warn(&warning);
    }
    if !config.skip_bad_images {
        dataset.require_images(Split::Train)?;
    }
    let vocabulary = trainer::vocabulary(config.model, &dataset);
    let mut engine = Engine::new(&device, config, vocabulary)?;
    let random = prepare_weights(&mut engine, &args)?;
    let (trained, words) = (engine.params.trained_count(), engine.vocabulary.len());
    tell(format_args!(
        "{trained} trainable parameters, vocabulary {words}"
    ));
    let run = RunDirectory::create(&args.out)?;
    let threads = args.device.loader_threads();
    let mut trainer = Trainer::start(engine, &dataset, run, threads, random, &mut progress)?;
    trainer.train(&mut progress)?;
    writeln!(std::io::stdout(), "{}", args.out.display())?;
    Ok(())
}

/// Initialises, then reads what was given. Whether the encoder stays random.
fn prepare_weights(engine: &mut Engine, args: &TrainArgs) -> Result<bool> {
    engine.params.initialise(engine.config.seed)?;
    let random = args.encoder_weights.as_deref() == Some(Path::new("random"));
    if let Some(path) = args.encoder_weights.as_deref().filter(|_| !random) {
        engine.use_encoder_file(path)?;
    }
    let Some(init) = &args.init else {
        if args.encoder_weights.is_none() {
            bail!(
                "no encoder given: --encoder-weights FILE, or --encoder-weights random to try things out"
            );
        }
        return Ok(random);
    };
    let left = checkpoint::load_subset(init, &engine.params)?;
    let is_encoder = |id: &crate::nn::params::Id| engine.captioner.is_encoder(&engine.params, *id);
    let encoder: Vec<_> = engine.params.ids().filter(is_encoder).collect();
    let name = |id| engine.params.name(id);
    let given = encoder
        .iter()
        .filter(|&&id| !left.iter().any(|n| n == name(id)));
    let given = given.count();
    if given > 0 {
        engine.encoder = None;
    }
    if args.encoder_weights.is_none() && given < encoder.len() {
        bail!(
            "{} has {given} of the encoder's {} tensors: give the others by --encoder-weights",
            init.display(),
            encoder.len()
        );
    }
    Ok(random && given == 0)
}
