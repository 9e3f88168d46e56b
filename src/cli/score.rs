//! `showtell score`: BLEU, ROUGE-L and CIDEr-D of captions that any program made.

use crate::data::flickr8k::Flickr8k;
use crate::data::named_captions::{self, NamedCaptions};
use crate::error::Error;
use crate::metrics::coco::{self, Pair, Scores};
use crate::words::{count, told};
use anyhow::Result;
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Scores captions against what people said: BLEU, ROUGE-L and CIDEr-D as pycocoevalcap has them
///
/// METEOR and SPICE are not computed: they need WordNet, tables of paraphrases, and a parser.
#[derive(clap::Args)]
pub struct ScoreArgs {
    /// What people said: a data set's folder, or a file with several captions of each image. JSON as COCO, Karpathy's splits and
    /// pycocoevalcap have it, or a table
    references: PathBuf,
    /// One caption of each image: JSON as COCO's results and `showtell eval --json` have it, {"image": "caption"}, or a table
    captions: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The result.
#[derive(Serialize)]
struct Report {
    images: usize,
    references: usize,
    /// Images of the references that have no caption.
    without_caption: usize,
    #[serde(flatten)]
    scores: Scores,
}

pub fn score(args: ScoreArgs) -> Result<()> {
    let references = references(&args.references)?;
    let captions = named_captions::read(&args.captions)?;
    let pairs = pairs(&args, &references, captions)?;
    let report = Report {
        images: pairs.len(),
        references: pairs.iter().map(|pair| pair.references.len()).sum(),
        without_caption: references.len() - pairs.len(),
        scores: coco::scores(&pairs),
    };
    super::print(args.json, &report, text)
}

fn references(path: &Path) -> Result<Vec<NamedCaptions>> {
    if !path.is_dir() {
        return Ok(named_captions::read(path)?);
    }
    let dataset = Flickr8k::open(path)?;
    let images = dataset.images().iter().chain(dataset.missing());
    let named = images.map(|image| NamedCaptions {
        names: vec![image.name.clone()],
        captions: image.captions.clone(),
    });
    Ok(named.collect())
}

/// Every caption with the references of its image.
fn pairs(
    args: &ScoreArgs,
    references: &[NamedCaptions],
    captions: Vec<NamedCaptions>,
) -> Result<Vec<Pair>> {
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (i, image) in references.iter().enumerate() {
        for name in &image.names {
            let other = by_name.insert(name, i);
            if other.is_some_and(|other| other != i) {
                let message =
                    format!("two images are called {name}: a caption of it could be of either");
                return Err(Error::file(&args.references, message).into());
            }
        }
    }
    let (mut pairs, mut unknown) = (Vec::new(), Vec::new());
    let mut taken = vec![false; references.len()];
    let count_of_captions = captions.len();
    for NamedCaptions { names, captions } in captions {
        let refuse = |message: String| {
            let name = names.first().map_or("", String::as_str);
            Error::file(&args.captions, format!("image {name} {message}"))
        };
        let Some(&image) = names.iter().find_map(|name| by_name.get(name.as_str())) else {
            unknown.extend(names.into_iter().next());
            continue;
        };
        let [caption] = &captions[..] else {
            let found = count(captions.len(), "caption");
            return Err(refuse(format!("has {found}, expected one")).into());
        };
        if std::mem::replace(&mut taken[image], true) {
            return Err(refuse("has a caption twice, by two names".to_string()).into());
        }
        let references = references[image].captions.clone();
        if references.is_empty() {
            return Err(refuse("has no reference to be compared with".to_string()).into());
        }
        let caption = caption.clone();
        pairs.push(Pair {
            caption,
            references,
        });
    }
    let known = references.first().and_then(|image| image.names.first());
    if pairs.is_empty() || !unknown.is_empty() {
        return Err(unmatched(args, count_of_captions, &unknown, known).into());
    }
    Ok(pairs)
}

/// Some captions are of images that the references do not know, or there is none.
fn unmatched(args: &ScoreArgs, all: usize, unknown: &[String], known: Option<&String>) -> Error {
    const MOST_TOLD: usize = 3;
    let more = |count| format!("and {count} more");
    let references = args.references.display();
    let message = match (unknown, known) {
        (_, None) => return Error::file(&args.references, "has no captions"),
        ([], _) => "has no captions".to_string(),
        (unknown, Some(known)) => format!(
            "{} of {} in it are not in {references}: {}; the images there have names such as {known}",
            unknown.len(),
            count(all, "image"),
            told(unknown, MOST_TOLD, String::clone, more).join(", ")
        ),
    };
    Error::file(&args.captions, message)
}

fn text(report: &Report) -> String {
    let Scores {
        bleu,
        rouge_l,
        cider_d,
    } = report.scores;
    let bleu = bleu
        .map(|score| format!("{:.1}", 100.0 * score))
        .join(" / ");
    let left_out = match report.without_caption {
        0 => String::new(),
        without => format!("{} without a caption left out\n", count(without, "image")),
    };
    format!(
        "{}, {}\n{left_out}\
         BLEU-1/2/3/4  {bleu}\n\
         ROUGE-L       {:.1}\n\
         CIDEr-D       {cider_d:.3}\n",
        count(report.images, "image"),
        count(report.references, "reference"),
        100.0 * rouge_l
    )
}
