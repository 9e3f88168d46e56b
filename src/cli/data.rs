//! `showtell data`: what a data set contains.

use super::tell;
use crate::data::flickr8k::Flickr8k;
use crate::data::statistics::{Lengths, Statistics};
use crate::model::{MODELS, VocabularyOf};
use crate::words::{count, printable};
use anyhow::Result;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The longest captions that have a line in a histogram. The longest caption of Flickr8k has 38.
const LONGEST: usize = 60;
/// Width of the longest bar of a histogram.
const BAR: usize = 50;

/// Counts images, captions and words. Reads no image.
#[derive(Debug, clap::Args)]
pub struct StatsArgs {
    /// The data set: Flickr8k as distributed, or a table of captions with a folder of images
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn stats(args: StatsArgs) -> Result<()> {
    let dataset = Flickr8k::open(&args.dir)?;
    for warning in dataset.warnings() {
        tell(format_args!("showtell: warning: {warning}"));
    }
    let statistics = Statistics::new(&dataset);
    let table = table(&statistics)?;
    super::print(args.json, &statistics, |_| table)
}

fn table(statistics: &Statistics) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let row = |text: &mut String, name: &str, images, captions, tokens| {
        writeln!(text, "{name:14}{images:>8}{captions:>10}{tokens:>10}")
    };
    writeln!(
        text,
        "{:14}{:>8}{:>10}{:>10}",
        "", "images", "captions", "tokens"
    )?;
    for split in &statistics.splits {
        row(
            &mut text,
            &split.name,
            split.images,
            split.captions,
            split.tokens,
        )?;
    }
    let (images, captions) = (statistics.images, statistics.captions);
    row(&mut text, "all", images, captions, statistics.tokens)?;
    writeln!(text, "\nmissing images: {}", statistics.missing.len())?;
    for name in &statistics.missing {
        writeln!(text, "  {}", printable(name))?;
    }
    let vocabulary = &statistics.vocabulary;
    writeln!(text, "\nvocabulary, with 4 specials")?;
    let counts = [
        (
            VocabularyOf::AllCaptions,
            "all captions",
            vocabulary.all_captions,
        ),
        (
            VocabularyOf::TrainingCaptions,
            "training captions",
            vocabulary.train_captions,
        ),
    ];
    for (captions, what, count) in counts {
        let what = format!("{what} ({})", counted_by(captions));
        writeln!(text, "  {what:29}  {count:>6}")?;
    }
    histogram(&mut text, &statistics.lengths)?;
    Ok(text)
}

/// The decoders whose vocabulary is counted from these captions.
fn counted_by(captions: VocabularyOf) -> String {
    let models = MODELS.iter().filter(|model| model.vocabulary == captions);
    models
        .map(|model| model.name)
        .collect::<Vec<_>>()
        .join(", ")
}

fn histogram(text: &mut String, lengths: &Lengths) -> std::fmt::Result {
    let (mean, max) = (lengths.mean, lengths.max);
    writeln!(text, "\ntokens per caption: mean {mean:.2}, max {max}")?;
    let most = lengths.histogram.iter().copied().max().unwrap_or(0).max(1);
    let first = lengths.histogram.iter().position(|&n| n > 0).unwrap_or(0);
    let shown = lengths.histogram.len().min(LONGEST + 1);
    let (histogram, tail) = lengths.histogram.split_at(shown);
    for (length, &count) in histogram.iter().enumerate().skip(first) {
        let bar = "#".repeat((count * BAR).div_ceil(most));
        writeln!(text, "{length:4}{count:8}  {bar}")?;
    }
    match tail.iter().sum() {
        0 => Ok(()),
        longer => writeln!(text, "more than {LONGEST}: {}", count(longer, "caption")),
    }
}
