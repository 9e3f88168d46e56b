//! `showtell caption`: what a trained captioner says of images.

use super::device::DeviceArgs;
use super::search::SearchArgs;
use crate::data::image;
use crate::decode::{self, Search, Sentence};
use crate::model::{SHOW_TELL, attend};
use crate::report::{self, attention::attention_grid};
use crate::tensor::DType;
use crate::train::run::{Engine, RunDirectory};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
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
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Put the attention maps into the JSON: a weight for each position, for each word
    #[arg(long, requires = "json")]
    maps: bool,
    /// Draw each image under each word's attention, DIR/<image>.attention.png
    #[arg(long, value_name = "DIR")]
    attention_out: Option<PathBuf>,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    image: &'a Path,
    caption: String,
    /// The drawn attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<&'a Path>,
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
    let engine = Engine::open(&run, &args.device.open()?)?;
    if (args.maps || args.attention_out.is_some()) && engine.config.model == SHOW_TELL {
        bail!(
            "{}: a show-tell captioner has no attention to show: \
             leave out --attention-out and --maps, or give a run of attend",
            args.run.display()
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
            let picture = pictures.get(chunk * batch + i);
            if let Some(picture) = picture {
                draw(&engine, image, sentence, picture)?;
            }
            let line = Line {
                image,
                caption: engine.vocabulary.decode(&sentence.tokens),
                picture: picture.map(PathBuf::as_path),
                attention: args
                    .maps
                    .then(|| attention(&engine, sentence))
                    .transpose()?,
            };
            match args.json {
                true => writeln!(out, "{}", serde_json::to_string(&line)?)?,
                false => writeln!(out, "{}\t{}", line.image.display(), line.caption)?,
            }
        }
    }
    Ok(())
}

fn sentences(engine: &Engine, paths: &[PathBuf], search: Search) -> Result<Vec<Sentence>> {
    let (ctx, params, captioner) = (&engine.ctx, &engine.params, &engine.captioner);
    let side = engine.config.image_size;
    let mut pixels = Vec::with_capacity(paths.len() * side * side * 3);
    for path in paths {
        pixels.extend(image::load(path, side)?.pixels);
    }
    let sentences = {
        let mut images = ctx.empty([paths.len(), side, side, 3], DType::U8)?;
        images.copy_from_slice(&pixels)?;
        let features = captioner.features(ctx, params, &images)?;
        search.sentences(ctx, params, &captioner.decoder, &features, decode::LONGEST)?
    };
    ctx.reset()?;
    Ok(sentences)
}

fn attention<'a>(engine: &'a Engine, sentence: &'a Sentence) -> Result<Attention<'a>> {
    let words = sentence.tokens.iter().map(|&id| engine.vocabulary.word(id));
    let decoder = attend::Settings::read(&engine.config.own)?;
    Ok(Attention {
        grid: [decoder.positions; 2],
        words: words.collect(),
        maps: &sentence.attention,
    })
}

/// The picture is drawn on the image as it is in the file, not as it was squeezed for the encoder.
fn draw(engine: &Engine, image: &Path, sentence: &Sentence, picture: &Path) -> Result<()> {
    let image = image::decode(image)?;
    let Attention { grid, words, maps } = attention(engine, sentence)?;
    let drawn = attention_grid(&image, &words, maps, grid)?;
    Ok(report::save(&drawn, picture)?)
}

/// Where each image's attention is drawn. Images of one name in different folders are numbered, that none
/// overwrites another, upper and lower case being the same to some file systems.
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
