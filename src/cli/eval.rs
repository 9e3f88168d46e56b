//! `showtell eval`: losses, BLEU and captions of a split.

use super::device::DeviceArgs;
use super::flags;
use super::progress::Progress;
use super::search::SearchArgs;
use super::trained::TrainedArgs;
use super::{Usage, usage};
use crate::data::flickr8k::{Flickr8k, Split};
use crate::data::loader::LoaderOptions;
use crate::data::samples::{Limits, Samples};
use crate::decode::Search;
use crate::error::Error;
use crate::files;
use crate::metrics::coco;
use crate::metrics::sight::{Sight, Verdict};
use crate::model::Engine;
use crate::settings::{Setting, Table};
use crate::train::config::Config;
use crate::train::evaluate::{Captioned, Evaluator};
use crate::train::features::{Cache, Encoding};
use crate::train::run::RunDirectory;
use crate::train::{Observer, Stage};
use crate::words::{count, printable};
use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Evaluates a run's best checkpoint: losses, BLEU, captions
#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    trained: TrainedArgs,
    /// The data set: a folder in the layout of Flickr8k
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The images to evaluate: train, dev, test, or test+unlisted, which is every image in neither train nor dev
    #[arg(long, default_value = "test", value_parser = flags::named::<Split>())]
    split: Split,
    /// File for the captions [default: captions-SPLIT.txt, or .json, in the run's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave out images that cannot be read, with a warning
    #[arg(long)]
    skip_bad_images: bool,
    /// Print the result, and write the captions, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The settings of the run that an evaluation can change.
struct CacheArgs(Table);

fn cache_settings() -> Vec<&'static Setting> {
    let settings = Config::SETTINGS.iter();
    let is_cache = |setting: &&Setting| ["feature-cache", "feature-type"].contains(&setting.key);
    settings.filter(is_cache).collect()
}

impl Args for CacheArgs {
    fn augment_args(command: Command) -> Command {
        let flag = |setting| flags::flags(setting, Some("as in the run".into()));
        command.args(cache_settings().into_iter().flat_map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        CacheArgs::augment_args(command)
    }
}

impl FromArgMatches for CacheArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(CacheArgs(flags::given(matches, &cache_settings())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = CacheArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

impl CacheArgs {
    fn put_into(&self, config: &mut Config) -> Result<()> {
        let mut given = self.0.clone();
        flags::make_absolute(&mut given, &cache_settings())?;
        for (key, value) in given {
            *config = config.clone().with(&key, value).map_err(usage)?;
        }
        Ok(())
    }
}

/// The result of an evaluation. BLEU is from 0 to 1.
#[derive(Serialize)]
struct Evaluation {
    split: String,
    images: usize,
    samples: usize,
    loss: f64,
    ce: f64,
    bleu_corpus: [f64; 4],
    bleu_sentence_mean: [f64; 4],
    /// As pycocoevalcap has them.
    coco: coco::Scores,
    /// The same against the references of other images.
    sight: Sight,
    distinct_captions: usize,
    #[serde(serialize_with = "files::serialize_lossy")]
    captions: PathBuf,
}

/// Refuses to write captions over a file that the run needs, or over one that is read.
fn refuse_own_file(out: &Path, run: &RunDirectory, dataset: &Flickr8k) -> Result<()> {
    let Ok(found) = out.canonicalize() else {
        return Ok(());
    };
    let mut needed = run.files().into_iter().chain(dataset.files());
    if needed.any(|file| file.canonicalize().is_ok_and(|file| file == found)) {
        let message = format!(
            "found {}, which is a file of the run or of the data set",
            out.display()
        );
        return Err(Usage(Error::Config(format!("--out: {message}"))).into());
    }
    Ok(())
}

pub fn eval(args: EvalArgs) -> Result<()> {
    let search = args.search.search()?;
    let run = RunDirectory::open(&args.trained.run)?;
    let mut config = run.read_config()?;
    args.cache.put_into(&mut config)?;
    let out = args.out.clone().unwrap_or_else(|| args.default_out());
    files::check_writable(&out)?;
    let engine = args.trained.engine(&run, &args.device.open()?)?;
    let dataset = Flickr8k::open(&args.data)?;
    refuse_own_file(&out, &run, &dataset)?;
    let mut progress = Progress::new();
    for warning in dataset.warnings() {
        progress.warn(&warning);
    }
    if !args.skip_bad_images {
        dataset.require_images(args.split)?;
    }
    let cache = Cache::of(&config);
    let (mut evaluation, captions) =
        evaluate(&args, search, &engine, &dataset, cache, &mut progress)?;
    evaluation.captions = out;
    // What took long to compute is shown first, in case the disk has filled up meanwhile.
    super::print(args.json, &evaluation, text)?;
    write_captions(&evaluation, &captions, args.json)
}

impl EvalArgs {
    /// The file for the captions when none is given.
    fn default_out(&self) -> PathBuf {
        let ending = if self.json { "json" } else { "txt" };
        let name = format!("captions-{}.{ending}", self.split);
        self.trained.run.join(name)
    }
}

fn evaluate(
    args: &EvalArgs,
    search: Search,
    engine: &Engine,
    dataset: &Flickr8k,
    cache: Option<Cache>,
    progress: &mut Progress,
) -> Result<(Evaluation, Vec<Captioned>)> {
    let samples = Samples::new(dataset, args.split, &engine.vocabulary, Limits::default());
    if samples.is_empty() {
        let (split, data) = (args.split, args.data.display());
        anyhow::bail!("the split {split} of {data} is empty");
    }
    let encoding = Encoding {
        engine,
        dataset,
        images: &samples.images(),
        options: LoaderOptions {
            size: engine.captioner.config().image_size,
            threads: args.device.loader_threads(),
            skip_bad_images: args.skip_bad_images,
            ..LoaderOptions::default()
        },
        cache,
        stage: Stage::ValidationFeatures,
    };
    let features = encoding.features(progress)?;
    let samples = Arc::new(features.covered(&samples));
    let evaluator = Evaluator::new(engine, dataset, &features, search);
    let losses = evaluator.losses(&samples, progress)?;
    if !losses.loss.is_finite() {
        anyhow::bail!(
            "{}: the loss on the split {} is {}, so that scores and captions would mean nothing: the weights of this run are \
             too large to compute with; evaluate another run",
            args.trained.run.display(),
            args.split,
            losses.loss
        );
    }
    let images = samples.images();
    let captions = evaluator.captions(&images, progress)?;
    let (coco, sight) = evaluator.coco(&captions);
    let evaluation = Evaluation {
        split: args.split.to_string(),
        images: images.len(),
        samples: samples.len(),
        loss: losses.loss,
        ce: losses.ce,
        bleu_corpus: evaluator.bleu(&captions),
        bleu_sentence_mean: evaluator.sentence_bleu(&captions),
        coco,
        sight,
        distinct_captions: distinct(&captions),
        captions: PathBuf::new(),
    };
    Ok((evaluation, captions))
}

fn distinct(captions: &[Captioned]) -> usize {
    let sentences = captions.iter().map(|captioned| &captioned.caption);
    sentences.collect::<std::collections::HashSet<_>>().len()
}

fn write_captions(evaluation: &Evaluation, captions: &[Captioned], json: bool) -> Result<()> {
    let text = if json {
        serde_json::to_string_pretty(captions)? + "\n"
    } else {
        captions
            .iter()
            .map(|captioned| format!("{}\t{}\n", captioned.file, captioned.caption))
            .collect()
    };
    Ok(files::write_text(&evaluation.captions, &text)?)
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Sees => "the model sees its images",
        Verdict::SeesLittle => {
            "the model sees little, as its captions fit other images nearly as well as their own"
        }
        Verdict::Blind => {
            "the model is blind, as its captions fit other images as well as their own: it is not trained, or its encoder is not \
             the one that it was trained with"
        }
        Verdict::Unknown => "too few images to tell whether the model sees them",
    }
}

fn text(e: &Evaluation) -> String {
    let percent = |bleu: [f64; 4]| bleu.map(|b| format!("{:.1}", 100.0 * b)).join(" / ");
    let (corpus, mean) = (percent(e.bleu_corpus), percent(e.bleu_sentence_mean));
    format!(
        "{}: {}, {}\n\
         loss {:.4}, cross-entropy {:.4}\n\
         BLEU-1/2/3/4 corpus         {corpus}\n\
         BLEU-1/2/3/4 sentence mean  {mean}\n\
         as pycocoevalcap: BLEU-4 {:.1}, ROUGE-L {:.1}, CIDEr-D {:.3}\n\
         on other images: BLEU-4 {:.1}, CIDEr-D {:.3}: {}\n\
         {}; the file of all captions is {}\n",
        e.split,
        count(e.images, "image"),
        count(e.samples, "caption"),
        e.loss,
        e.ce,
        100.0 * e.coco.bleu[3],
        100.0 * e.coco.rouge_l,
        e.coco.cider_d,
        100.0 * e.sight.shuffled.bleu[3],
        e.sight.shuffled.cider_d,
        verdict(e.sight.verdict),
        count(e.distinct_captions, "distinct caption"),
        printable(&e.captions.display().to_string())
    )
}
