//! `showtell demo`: everything from pictures to captions, with only the program itself.

use super::device::DeviceArgs;
use super::progress::Progress;
use super::{flags, tell};
use crate::Device;
use crate::data::flickr8k::{Flickr8k, Split};
use crate::data::image;
use crate::data::loader::LoaderOptions;
use crate::data::scenes::SceneSet;
use crate::decode::Search;
use crate::files;
use crate::metrics::bleu;
use crate::model::Engine;
use crate::model::attend::ATTEND;
use crate::report::{self, attention, curves};
use crate::settings::integer;
use crate::train::config::{Config, EncoderBatchNorm, Schedule};
use crate::train::evaluate::{Captioned, Evaluator};
use crate::train::features::Encoding;
use crate::train::initial::Initial;
use crate::train::run::{RunDirectory, structure};
use crate::train::trainer::{self, Setup, Trainer};
use crate::train::{Stage, log};
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::TypedValueParser;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Unseen scenes: for the learning curves, for the scores.
const DEV: usize = 200;
const TEST: usize = 300;
/// Scenes whose captions are printed and whose attention is drawn.
const SHOWN: usize = 8;

/// Draws scenes, learns to caption them, and captions new ones; takes a few minutes, downloads nothing
#[derive(Args)]
pub struct DemoArgs {
    /// Folder for the scenes, the run and the pictures
    #[arg(long, value_name = "DIR", default_value = "showtell-demo")]
    out: PathBuf,
    /// Seed of the scenes and of the training
    #[arg(long, value_name = "N", default_value = flags::declared("seed").default, value_parser = seed())]
    seed: u64,
    /// Scenes to train on
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = count())]
    scenes: usize,
    /// Training steps, of 32 captions each
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = count())]
    steps: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

fn seed() -> impl TypedValueParser<Value = u64> {
    flags::number(*flags::declared("seed"))
}

fn count() -> impl TypedValueParser<Value = usize> {
    flags::number(integer(1).most(1_000_000))
}

/// The scores on unseen scenes. BLEU is from 0 to 1.
#[derive(Serialize)]
struct Outcome {
    scenes: usize,
    bleu: [f64; 4],
    /// The same captions against the references of other scenes: the score of captions that ignore the picture.
    bleu_shuffled: [f64; 4],
    /// Share of captions of which every colour and shape is in the picture.
    names_what_is_there: f64,
    /// Share of captions that are one of the scene's five, word for word.
    word_for_word: f64,
    samples: Vec<Sample>,
    seconds: f64,
}

/// A scene and its caption.
#[derive(Serialize)]
struct Sample {
    file: String,
    scene: String,
    caption: String,
    /// Whether it is one of the five captions of the scene.
    right: bool,
    #[serde(serialize_with = "files::serialize_lossy")]
    picture: PathBuf,
}

pub fn demo(args: DemoArgs) -> Result<()> {
    let started = Instant::now();
    let device = args.device.open()?;
    let run = RunDirectory::create(args.out.join("run"))?;
    let set = SceneSet {
        seed: args.seed,
        train: args.scenes,
        dev: DEV,
        test: TEST,
    };
    let data = args.out.join("data");
    set.write(&data)?;
    let drawing = started.elapsed().as_secs_f64();
    tell(format_args!("{} scenes drawn in {drawing:.1} s", set.len()));
    let dataset = Flickr8k::open(&data)?;
    train(&args, &device, &dataset, &run)?;
    let curves = args.out.join("curves.png");
    draw_curves(&run, &curves)?;
    let mut outcome = evaluate(&args, &device, &dataset, &run, set)?;
    outcome.seconds = started.elapsed().as_secs_f64();
    print(&args, &outcome, &curves)
}

/// The published recipe of attend, made small, with an encoder that is trained from nothing.
fn config(args: &DemoArgs) -> Result<Config> {
    let attend = Config::recipe(ATTEND)
        .with("attention", 64)?
        .with("dropout", 0.1)?;
    Ok(Config {
        encoder_blocks: vec![1, 1, 1],
        encoder_width: 16,
        encoder_stem: 3,
        encoder_batch_norm: EncoderBatchNorm::Batch,
        fine_tune: true,
        fine_tune_from: 0,
        image_size: crate::data::scenes::SIDE,
        embed: 64,
        hidden: 128,
        lr: 2e-3,
        encoder_lr: 2e-3,
        schedule: Schedule::Linear,
        max_steps: Some(args.steps),
        // The run ends by its steps, and every epoch has at least one.
        epochs: args.steps,
        // A flipped picture would make left right.
        augment: false,
        seed: args.seed,
        ..attend
    })
}

fn train(args: &DemoArgs, device: &Device, dataset: &Flickr8k, run: &RunDirectory) -> Result<()> {
    let config = config(args)?;
    let vocabulary = trainer::vocabulary(config.model, dataset);
    let engine = Engine::new(device, &structure(&config, vocabulary.len()), vocabulary)?;
    engine.params.initialise(args.seed)?;
    let (trained, words) = (engine.params.trained_count(), engine.vocabulary.len());
    tell(format_args!(
        "{trained} trainable parameters, vocabulary {words}"
    ));
    let setup = Setup {
        config,
        dataset,
        run: run.clone(),
        loader_threads: args.device.loader_threads(),
    };
    let initial = Initial {
        random_encoder: true,
        encoder: None,
    };
    let mut progress = Progress::new();
    Trainer::start(setup, engine, initial, &mut progress)?.train(&mut progress)?;
    Ok(())
}

fn draw_curves(run: &RunDirectory, path: &Path) -> Result<()> {
    let (steps, epochs) = (log::read(run.steps())?, log::read(run.epochs())?);
    let picture = curves::learning_curves(&steps, &epochs)?;
    Ok(report::save(&picture, path)?)
}

/// Captions the unseen scenes with the run's best checkpoint, and compares them with the truth.
fn evaluate(
    args: &DemoArgs,
    device: &Device,
    dataset: &Flickr8k,
    run: &RunDirectory,
    set: SceneSet,
) -> Result<Outcome> {
    let engine = run.engine(device)?;
    let images = dataset.split(Split::Test);
    let mut progress = Progress::new();
    let encoding = Encoding {
        engine: &engine,
        dataset,
        images,
        options: LoaderOptions {
            size: engine.captioner.config().image_size,
            threads: args.device.loader_threads(),
            ..LoaderOptions::default()
        },
        cache: None,
        stage: Stage::ValidationFeatures,
    };
    let features = encoding.features(&mut progress)?;
    let evaluator = Evaluator::new(&engine, dataset, &features, Search::GREEDY);
    let captions = evaluator.captions(images, &mut progress)?;
    let share = |is: &dyn Fn(&Captioned) -> bool| {
        captions.iter().filter(|captioned| is(captioned)).count() as f64 / captions.len() as f64
    };
    Ok(Outcome {
        scenes: captions.len(),
        bleu: evaluator.bleu(&captions),
        bleu_shuffled: shuffled_bleu(dataset, &captions),
        names_what_is_there: share(&|c| set.scene(c.image).agrees_with(&c.caption)),
        word_for_word: share(&|c| dataset.images()[c.image].captions.contains(&c.caption)),
        samples: samples(
            args,
            &engine,
            &evaluator,
            set,
            &captions[..SHOWN.min(captions.len())],
        )?,
        seconds: 0.0,
    })
}

/// BLEU of every caption against the references of the scene after its own: scenes are independent of each other,
/// so this is any shuffle without a scene that stays in its place.
fn shuffled_bleu(dataset: &Flickr8k, captions: &[Captioned]) -> [f64; 4] {
    let others = captions.iter().cycle().skip(1);
    let pairs = captions.iter().zip(others).map(|(captioned, other)| {
        (
            &captioned.caption,
            dataset.images()[other.image].captions.clone(),
        )
    });
    bleu::corpus(&pairs.collect::<Vec<_>>())
}

/// Draws the attention of these captions.
fn samples(
    args: &DemoArgs,
    engine: &Engine,
    evaluator: &Evaluator,
    set: SceneSet,
    captions: &[Captioned],
) -> Result<Vec<Sample>> {
    let folder = args.out.join("attention");
    files::make_folder(&folder)?;
    let images: Vec<usize> = captions.iter().map(|captioned| captioned.image).collect();
    let paths = evaluator.dataset().image_paths()?;
    let positions = engine.captioner.decoder.attention_grid();
    let positions = positions.context("the demo's decoder has attention")?;
    let mut samples = Vec::with_capacity(captions.len());
    for (captioned, sentence) in captions.iter().zip(evaluator.sentences(&images)?) {
        let words = sentence.tokens.iter().map(|&id| engine.vocabulary.word(id));
        let words: Vec<&str> = words.collect();
        let image = image::decode(&paths[captioned.image])?;
        let grid = attention::attention_grid(&image, &words, &sentence.attention, positions)?;
        let picture = folder.join(&captioned.file).with_extension("png");
        report::save(&grid, &picture)?;
        let scene = set.scene(captioned.image);
        samples.push(Sample {
            file: captioned.file.clone(),
            scene: scene.to_string(),
            right: scene.captions().contains(&captioned.caption),
            caption: captioned.caption.clone(),
            picture,
        });
    }
    Ok(samples)
}

fn print(args: &DemoArgs, outcome: &Outcome, curves: &Path) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let json = serde_json::to_string_pretty(outcome)?;
        writeln!(out, "{}", super::escaped(&json))?;
        return Ok(());
    }
    writeln!(out, "Scenes it has never seen, and what it says of them:\n")?;
    for sample in &outcome.samples {
        let wrong = if sample.right { "" } else { "   <- wrong" };
        writeln!(out, "  {:50} {}{wrong}", sample.scene, sample.caption)?;
    }
    writeln!(out, "\n{} unseen scenes:", outcome.scenes)?;
    let percent = |scores: [f64; 4]| {
        scores
            .map(|score| format!("{:5.1}", 100.0 * score))
            .join(" ")
    };
    writeln!(
        out,
        "  BLEU-1 to BLEU-4                    {}",
        percent(outcome.bleu)
    )?;
    writeln!(
        out,
        "  the same for scenes mixed up        {}",
        percent(outcome.bleu_shuffled)
    )?;
    let shares = [
        (
            "  all that is named is in the picture",
            outcome.names_what_is_there,
        ),
        ("  word for word one of the five", outcome.word_for_word),
    ];
    for (what, share) in shares {
        writeln!(out, "{what:37} {:5.1} %", 100.0 * share)?;
    }
    let places = [
        ("scenes", args.out.join("data")),
        ("run", args.out.join("run")),
        ("learning curves", curves.to_path_buf()),
        ("attention", args.out.join("attention")),
    ];
    writeln!(out, "\nIn {:.0} s. Where things are:", outcome.seconds)?;
    for (what, path) in places {
        writeln!(out, "  {what:16} {}", path.display())?;
    }
    Ok(())
}
