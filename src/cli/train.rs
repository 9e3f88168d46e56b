//! `showtell train`: trains a captioner.

use super::device::DeviceArgs;
use super::progress::Progress;
use super::tell;
use crate::data::flickr8k::{Flickr8k, Split};
use crate::data::vocabulary::Vocabulary;
use crate::files;
use crate::train::Observer;
use crate::train::checkpoint::Checkpoint;
use crate::train::config::{Config, NO_CACHE, Schedule};
use crate::train::memory_plan::Planner;
use crate::train::run::{Engine, RANDOM, RunDirectory};
use crate::train::trainer::{self, Ended, Trainer};
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Trains a captioner by its published recipe; every number can be changed
#[derive(Args)]
pub struct TrainArgs {
    /// Folder for the run's files
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// Go on with the run in that folder, from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Settings from a TOML file, another run's config.toml say; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    switches: Switches,
}

/// The keys that are on or off: each a flag for either, the later one counting.
#[derive(Args)]
struct Switches {
    /// Train the encoder too, from --fine-tune-from on
    #[arg(long, overrides_with = "no_fine_tune")]
    fine_tune: bool,
    /// Keep the encoder frozen
    #[arg(long)]
    no_fine_tune: bool,
    /// Store a frozen encoder in the checkpoints, instead of naming its file
    #[arg(long, overrides_with = "no_standalone")]
    standalone: bool,
    /// Name its file
    #[arg(long)]
    no_standalone: bool,
    /// Validate at the end of epochs
    #[arg(long, overrides_with = "no_validate")]
    validate: bool,
    /// Do not validate
    #[arg(long)]
    no_validate: bool,
    /// Flip, rotate and gray images at random
    #[arg(long, overrides_with = "no_augment")]
    augment: bool,
    /// Take images as they are
    #[arg(long)]
    no_augment: bool,
    /// Draw a new order of samples for every epoch
    #[arg(long, overrides_with = "no_shuffle")]
    shuffle: bool,
    /// Keep the order of the list
    #[arg(long)]
    no_shuffle: bool,
    /// Go on without images that cannot be read
    #[arg(long, overrides_with = "no_skip_bad_images")]
    skip_bad_images: bool,
    /// End at images that cannot be read
    #[arg(long)]
    no_skip_bad_images: bool,
}

impl Switches {
    /// Those that were given.
    fn given(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let switches = [
            ("fine-tune", self.fine_tune, self.no_fine_tune),
            ("standalone", self.standalone, self.no_standalone),
            ("validate", self.validate, self.no_validate),
            ("augment", self.augment, self.no_augment),
            ("shuffle", self.shuffle, self.no_shuffle),
            (
                "skip-bad-images",
                self.skip_bad_images,
                self.no_skip_bad_images,
            ),
        ];
        let given = |(key, on, off)| (on || off).then_some((key, on));
        switches.into_iter().filter_map(given)
    }
}

/// The keys of `config.toml` that are plain values; what is not given stays as the recipe has it.
#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    /// Which captioner
    #[arg(long, value_parser = ["show-tell", "attend"])]
    model: Option<String>,
    /// Data set: a folder in Flickr8k's layout
    #[arg(long, value_name = "DIR", value_parser = absolute, required_unless_present_any = ["resume", "config"])]
    data: Option<PathBuf>,
    /// Pretrained encoder (torchvision's names), or `random`
    #[arg(long, value_name = "FILE", value_parser = encoder)]
    encoder_weights: Option<PathBuf>,
    /// Start from these weights: any subset of parameters and buffers, by name
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    init: Option<PathBuf>,
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
    /// Save a checkpoint every so many steps, and after epochs that are validated or as long; 0: after every epoch
    #[arg(long, value_name = "N")]
    checkpoint_every: Option<usize>,
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

/// A path that means the same wherever the run is resumed.
fn absolute(path: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(path)
}

fn encoder(path: &str) -> std::io::Result<PathBuf> {
    match path {
        RANDOM => Ok(path.into()),
        file => absolute(file),
    }
}

/// A folder for features, as it can be found from anywhere; or `none`.
pub(super) fn feature_cache(given: &str) -> std::io::Result<PathBuf> {
    match given {
        NO_CACHE => Ok(given.into()),
        directory => absolute(directory),
    }
}

/// What may change when a run is resumed: how long it goes on, and where its files are.
const CHANGEABLE: [&str; 5] = [
    "epochs",
    "max-steps",
    "checkpoint-every",
    "data",
    "encoder-weights",
];

/// The user pressed Ctrl-C; a checkpoint was saved.
#[derive(Debug, thiserror::Error)]
#[error("stopped; to go on: showtell train --resume --out {}", .0.display())]
pub struct Interrupted(PathBuf);

impl TrainArgs {
    /// The settings that were given: those of the file, with those of the flags put in their place.
    fn given(&self) -> Result<toml::Table> {
        let mut settings = match &self.config {
            Some(path) => Config::read_settings(path)?,
            None => toml::Table::new(),
        };
        settings.extend(toml::Table::try_from(&self.settings)?);
        let switches = self.switches.given();
        settings.extend(switches.map(|(key, on)| (key.to_string(), on.into())));
        Ok(settings)
    }

    /// The run's own settings, with what was given and may change put in its place.
    fn resumed(&self, run: &RunDirectory) -> Result<Config> {
        let stored = toml::Table::try_from(run.read_config()?)?;
        let mut settings = stored.clone();
        settings.extend(self.given()?);
        let config = Config::from_settings(settings)?;
        for (key, value) in toml::Table::try_from(&config)? {
            let before = stored.get(&key);
            let shapes_rates = key == "max-steps" && config.schedule == Schedule::Linear;
            let changeable = CHANGEABLE.contains(&&*key) && !shapes_rates;
            if before != Some(&value) && !changeable {
                let before = before.map_or("without it".into(), |before| format!("with {before}"));
                bail!(
                    "{key} = {value}: this run was started {before}; what can change when it goes on is {}",
                    CHANGEABLE.join(", ")
                );
            }
        }
        Ok(config)
    }
}

pub fn train(args: TrainArgs) -> Result<()> {
    match args.resume {
        true => resume(&args),
        false => {
            let given = args.given()?;
            let augment_given = given.contains_key("augment");
            let config = Config::from_settings(given)?;
            if config.feature_cache().is_some() && !augment_given {
                tell(format_args!(
                    "augmentation is off: --feature-cache keeps the features of images as they are"
                ));
            }
            run(&args, config, None)
        }
    }
}

fn resume(args: &TrainArgs) -> Result<()> {
    let directory = RunDirectory::open(&args.out)?;
    files::remove_leftovers(directory.path())?;
    let config = args.resumed(&directory)?;
    let mut checkpoint = directory.open_last()?;
    if let Some(checkpoint) = &mut checkpoint {
        let position = &checkpoint.position;
        if directory.is_finished(&config, position)? {
            let (epochs, steps) = (position.epoch, position.step);
            tell(format_args!(
                "this run is finished: {epochs} epochs, {steps} steps; more --epochs or --max-steps let it go on"
            ));
            writeln!(std::io::stdout(), "{}", args.out.display())?;
            return Ok(());
        }
        if let (Some(source), Some(path)) = (&mut checkpoint.encoder, &config.encoder_weights) {
            source.path = path.clone();
        }
        directory.write_config(&config)?;
    }
    run(args, config, Some((directory, checkpoint)))
}

/// A setting and its value, as the command line spells them.
fn flag(key: &str, value: &str) -> String {
    match value {
        "true" => format!("--{key}"),
        "false" => format!("--no-{key}"),
        _ => format!("--{key} {}", value.trim_matches('"')),
    }
}

/// Trains to the end. A run that is there already goes on from its checkpoint, if it came to one.
fn run(
    args: &TrainArgs,
    config: Config,
    existing: Option<(RunDirectory, Option<Checkpoint>)>,
) -> Result<()> {
    let device = args.device.open()?;
    let mut progress = Progress::new();
    let Some(data) = &config.data else {
        bail!("no data set given: --data DIR");
    };
    let dataset = Flickr8k::open(data)?;
    for warning in dataset.warnings() {
        progress.warn(&warning);
    }
    if !config.skip_bad_images {
        dataset.require_images(Split::Train)?;
    }
    let vocabulary = match &existing {
        Some((directory, Some(_))) => Vocabulary::load(directory.vocabulary())?,
        _ => trainer::vocabulary(config.model, &dataset),
    };
    let planner = Planner {
        device: &device,
        dataset: &dataset,
        vocabulary: &vocabulary,
    };
    let plan = planner.plan(&config)?;
    tell(format_args!("{plan}"));
    if let Some(shortage) = planner.shortage(&config, &plan)? {
        bail!(shortage.told(flag));
    }
    let mut engine = Engine::new(&device, config, vocabulary)?;
    let (trained, words) = (engine.params.trained_count(), engine.vocabulary.len());
    tell(format_args!(
        "{trained} trainable parameters, vocabulary {words}"
    ));
    let threads = args.device.loader_threads();
    let mut trainer = match existing {
        Some((directory, Some(checkpoint))) => Trainer::resume(
            engine,
            &dataset,
            directory,
            threads,
            &checkpoint,
            &mut progress,
        )?,
        unstarted => {
            let random = engine.load_initial()?;
            let directory = match unstarted {
                Some((directory, _)) => directory,
                None => RunDirectory::create(&args.out)?,
            };
            Trainer::start(engine, &dataset, directory, threads, random, &mut progress)?
        }
    };
    progress.stop_on_interrupt()?;
    match trainer.train(&mut progress)? {
        Ended::Interrupted => Err(Interrupted(args.out.clone()).into()),
        Ended::Finished => {
            writeln!(std::io::stdout(), "{}", args.out.display())?;
            Ok(())
        }
    }
}
