//! `showtell caption`: captions for images, by a trained captioner.

use super::device::DeviceArgs;
use super::search::SearchArgs;
use crate::data::image;
use crate::decode::{Search, Sentence};
use crate::files;
use crate::model::Engine;
use crate::report::{self, attention::attention_grid};
use crate::train::run::RunDirectory;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Images that are captioned at once.
const BATCH: usize = 16;

/// Captions images with a run's best checkpoint
#[derive(Args)]
pub struct CaptionArgs {
    /// Folder of the run
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// Images: JPEG or PNG
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Put the attention maps into the JSON: a weight for each position, for each word
    #[arg(long, requires = "json")]
    maps: bool,
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
    #[serde(serialize_with = "files::serialize_lossy")]
    image: &'a Path,
    caption: String,
    /// The drawn attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attention: Option<Attention<'a>>,
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

pub fn caption(args: CaptionArgs) -> Result<()> {
    let search = args.search.search()?;
    let run = RunDirectory::open(&args.run)?;
    let engine = run.engine(&args.device.open()?)?;
    let grid = engine.captioner.decoder.attention_grid();
    if (args.maps || args.attention_out.is_some()) && grid.is_none() {
        bail!(
            "{}: a {} captioner has no attention to show: \
             leave out --attention-out and --maps, or give a run of a captioner that has",
            args.run.display(),
            engine.captioner.config().decoder.name
        );
    }
    let pictures = match &args.attention_out {
        Some(directory) => {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
            picture_paths(directory, &args.images)
        }
        None => Vec::new(),
    };
    let batch = search.batch(BATCH);
    let mut out = std::io::stdout().lock();
    for (chunk, images) in args.images.chunks(batch).enumerate() {
        let sentences = sentences(&engine, images, search)?;
        for (i, (image, sentence)) in images.iter().zip(&sentences).enumerate() {
            let attention = grid.map(|grid| attention(&engine, sentence, grid));
            let picture = pictures.get(chunk * batch + i);
            if let (Some(picture), Some(attention)) = (picture, &attention) {
                draw(image, attention, picture)?;
            }
            let line = Line {
                image,
                caption: engine.vocabulary.decode(&sentence.tokens),
                picture: picture.map(|path| path.to_string_lossy()),
                attention: attention.filter(|_| args.maps),
            };
            if args.json {
                writeln!(out, "{}", serde_json::to_string(&line)?)?;
            } else {
                writeln!(out, "{}\t{}", line.image.display(), line.caption)?;
            }
        }
    }
    Ok(())
}

fn sentences(engine: &Engine, paths: &[PathBuf], search: Search) -> Result<Vec<Sentence>> {
    let side = engine.captioner.config().image_size;
    let mut pixels = Vec::with_capacity(paths.len() * side * side * 3);
    for path in paths {
        pixels.extend(image::load(path, side)?.pixels);
    }
    Ok(search.caption(engine, &pixels)?)
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
        let stem = image.file_stem().unwrap_or(image.as_os_str());
        let numbered = |n: usize| {
            let mut name = OsString::from(stem);
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
