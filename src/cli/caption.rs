//! `showtell caption`: captions for images, by a trained captioner.

use super::device::DeviceArgs;
use super::flags::number;
use super::search::SearchArgs;
use super::trained::TrainedArgs;
use super::{Usage, tell};
use crate::data::{digest, image};
use crate::decode::Sentence;
use crate::error::Error;
use crate::files;
use crate::model::Engine;
use crate::report::{self, attention::attention_grid};
use crate::settings::integer;
use crate::train::features::check_finite;
use crate::train::run::RunDirectory;
use crate::words::{count, printable};
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Images that are captioned at once.
const BATCH: usize = 16;

/// Captions images with a run's best checkpoint
#[derive(Args)]
pub struct CaptionArgs {
    #[command(flatten)]
    trained: TrainedArgs,
    /// Images: JPEG, PNG, WebP, GIF or BMP
    ///
    /// An image that cannot be read is named on stderr, and the others are captioned; the exit status is then 1.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Put the attention maps into the JSON: a weight for each position, for each word
    #[arg(long, requires = "json")]
    maps: bool,
    /// Put the N best of the sentences that were followed into the JSON, with their log-probabilities
    #[arg(long, value_name = "N", requires = "json", value_parser = number::<usize>(integer(1).most(100)))]
    best: Option<usize>,
    /// Draw where attention looked for each word, to DIR/<image>.attention.png
    #[arg(long, value_name = "DIR")]
    attention_out: Option<PathBuf>,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    /// The path; what is not UTF-8 in it is replaced.
    image: Cow<'a, str>,
    caption: String,
    #[serde(flatten)]
    odds: Odds,
    /// The best sentences, the caption first.
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<Vec<Ranked>>,
    /// The drawn attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attention: Option<Attention<'a>>,
}

/// How sure the captioner is of a sentence.
#[derive(Serialize)]
struct Odds {
    /// Σ log p of its words and its end.
    log_probability: f64,
    /// Words.
    length: usize,
    /// The probability of a word on geometric average, the end counted.
    confidence: f64,
}

impl Odds {
    fn new(sentence: &Sentence) -> Self {
        Odds {
            log_probability: sentence.log_probability,
            length: sentence.tokens.len(),
            confidence: sentence.confidence(),
        }
    }
}

/// One of the best sentences.
#[derive(Serialize)]
struct Ranked {
    caption: String,
    #[serde(flatten)]
    odds: Odds,
}

/// What the decoder looked at.
#[derive(Serialize)]
struct Attention<'a> {
    /// Rows and columns of positions; together they span the image.
    grid: [usize; 2],
    words: Vec<&'a str>,
    /// For each word, what each position weighs, row by row; they sum up to 1.
    maps: &'a [Vec<f32>],
}

impl Ranked {
    fn new(engine: &Engine, sentence: &Sentence) -> Self {
        Ranked {
            caption: engine.vocabulary.decode(&sentence.tokens),
            odds: Odds::new(sentence),
        }
    }
}

impl CaptionArgs {
    /// There are no more best sentences than are followed.
    fn check_best(&self) -> Result<()> {
        let followed = self.search.beam;
        match self.best {
            Some(best) if best > followed => {
                let message =
                    format!("--best: found {best}, expected at most --beam, which is {followed}");
                Err(Usage(Error::Config(message)).into())
            }
            _ => Ok(()),
        }
    }
}

pub fn caption(args: CaptionArgs) -> Result<()> {
    let search = args.search.search()?;
    args.check_best()?;
    let run = RunDirectory::open(&args.trained.run)?;
    let engine = args.trained.engine(&run, &args.device.open()?)?;
    let grid = engine.captioner.decoder.attention_grid();
    if (args.maps || args.attention_out.is_some()) && grid.is_none() {
        let message = format!(
            "{}: a {} captioner has no attention to show: \
             leave out --attention-out and --maps, or give a run of a captioner that has",
            args.trained.run.display(),
            engine.captioner.config().decoder.name
        );
        return Err(Usage(Error::Config(message)).into());
    }
    let pictures = match &args.attention_out {
        Some(directory) => {
            files::make_folder(directory)?;
            let paths = picture_paths(directory, &args.images);
            paths
                .iter()
                .try_for_each(|path| files::check_writable(path))?;
            paths
        }
        None => Vec::new(),
    };
    let batch = search.batch(BATCH);
    let mut unreadable = Vec::new();
    for (chunk, images) in args.images.chunks(batch).enumerate() {
        let side = engine.captioner.config().image_size;
        let (read, pixels) = read(images, side, &mut unreadable);
        if read.is_empty() {
            continue;
        }
        let sentences = engine.with_images(&pixels, |pixels| {
            let features = engine.features(pixels)?;
            let values: Vec<f32> = features.to_f32()?;
            for (&i, values) in read
                .iter()
                .zip(values.chunks_exact(values.len() / read.len()))
            {
                check_finite(values, &images[i])?;
            }
            search.ranked(&engine, &features, args.best.unwrap_or(1))
        })?;
        for (&i, ranked) in read.iter().zip(&sentences) {
            let sentence = &ranked[0];
            let attention = grid.map(|grid| attention(&engine, sentence, grid));
            let picture = pictures.get(chunk * batch + i);
            if let (Some(picture), Some(attention)) = (picture, &attention) {
                draw(&images[i], attention, picture)?;
            }
            let line = Line {
                image: images[i].to_string_lossy(),
                caption: engine.vocabulary.decode(&sentence.tokens),
                odds: Odds::new(sentence),
                best: args
                    .best
                    .map(|_| ranked.iter().map(|s| Ranked::new(&engine, s)).collect()),
                picture: picture.map(|picture| picture.to_string_lossy()),
                attention: attention.filter(|_| args.maps),
            };
            print(&line, args.json)?;
        }
    }
    if let Some(first) = unreadable.first() {
        bail!(
            "{} of {} cannot be read: see the warnings; the first is {}",
            unreadable.len(),
            count(args.images.len(), "image"),
            first.display()
        );
    }
    Ok(())
}

/// The indices of the images that can be read, and their pixels, one image after the other. The others are named on
/// stderr and added to `unreadable`.
fn read<'a>(
    images: &'a [PathBuf],
    side: usize,
    unreadable: &mut Vec<&'a Path>,
) -> (Vec<usize>, Vec<u8>) {
    let mut read = Vec::with_capacity(images.len());
    let mut pixels = Vec::with_capacity(images.len() * side * side * 3);
    for (i, path) in images.iter().enumerate() {
        match image::load(path, side) {
            Ok(image) => {
                read.push(i);
                pixels.extend(image.pixels);
            }
            Err(error) => {
                tell(format_args!("showtell: warning: no caption: {error}"));
                unreadable.push(path);
            }
        }
    }
    (read, pixels)
}

fn print(line: &Line, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", super::escaped(&serde_json::to_string(line)?))?;
    } else {
        writeln!(
            out,
            "{}\t{}",
            printable(&line.image),
            printable(&line.caption)
        )?;
    }
    out.flush()?;
    Ok(())
}

fn attention<'a>(engine: &'a Engine, sentence: &'a Sentence, grid: [usize; 2]) -> Attention<'a> {
    let words = sentence.tokens.iter().map(|&id| engine.vocabulary.word(id));
    Attention {
        grid,
        words: words.collect(),
        maps: &sentence.attention,
    }
}

/// Attention is drawn on the image as it is in the file, not on the square that the encoder is given.
fn draw(image: &Path, attention: &Attention, picture: &Path) -> Result<()> {
    let Attention { grid, words, maps } = attention;
    let drawn = attention_grid(&image::decode(image)?, words, maps, *grid)?;
    Ok(report::save(&drawn, picture)?)
}

/// Where each image's attention is drawn. Images of the same name in different folders are numbered, so that no
/// picture overwrites another; upper and lower case are the same, as they are to some file systems.
fn picture_paths(directory: &Path, images: &[PathBuf]) -> Vec<PathBuf> {
    let mut taken = HashSet::new();
    let mut path = |image: &PathBuf| {
        let stem = shortened(image.file_stem().unwrap_or(image.as_os_str()));
        let numbered = |n: usize| {
            let mut name = stem.clone();
            if n > 1 {
                name.push(format!("-{n}"));
            }
            name.push(".attention.png");
            directory.join(name)
        };
        let mut free = (1..).map(numbered);
        free.find(|path| taken.insert(path.to_string_lossy().to_lowercase()))
            .expect("numbers do not run out")
    };
    images.iter().map(&mut path).collect()
}

/// Bytes of a name that a picture's name begins with. With everything behind it the name stays below 255 bytes, the limit
/// of most file systems, and below 143 bytes, the limit where names are encrypted.
const STEM: usize = 96;

/// A name that is too long, cut and ended by a hash of the whole.
fn shortened(stem: &OsStr) -> OsString {
    if stem.len() <= STEM {
        return stem.into();
    }
    let hash = digest::hexadecimal(&Sha256::digest(stem.as_encoded_bytes())[..6]);
    let text = stem.to_string_lossy();
    let mut end = STEM - hash.len() - 1;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &text[..end]).into()
}
