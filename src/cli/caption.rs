//! `showtell caption`: what a trained captioner says of images.

use super::device::DeviceArgs;
use crate::data::image;
use crate::decode;
use crate::tensor::DType;
use crate::train::run::{Engine, RunDirectory};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

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
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    image: &'a PathBuf,
    caption: String,
}

pub fn caption(args: CaptionArgs) -> Result<()> {
    let run = RunDirectory::open(&args.run)?;
    let engine = Engine::open(&run, &args.device.open()?)?;
    let mut out = std::io::stdout().lock();
    for paths in args.images.chunks(BATCH) {
        for line in caption_batch(&engine, paths)? {
            match args.json {
                true => writeln!(out, "{}", serde_json::to_string(&line)?)?,
                false => writeln!(out, "{}\t{}", line.image.display(), line.caption)?,
            }
        }
    }
    Ok(())
}

fn caption_batch<'a>(engine: &Engine, paths: &'a [PathBuf]) -> Result<Vec<Line<'a>>> {
    let side = engine.config.image_size;
    let mut pixels = Vec::with_capacity(paths.len() * side * side * 3);
    for path in paths {
        pixels.extend(image::load(path, side)?.pixels);
    }
    let sentences = {
        let mut images = engine.ctx.empty([paths.len(), side, side, 3], DType::U8)?;
        images.copy_from_slice(&pixels)?;
        let features = engine
            .captioner
            .features(&engine.ctx, &engine.params, &images)?;
        let decoder = &engine.captioner.decoder;
        decode::greedy(
            &engine.ctx,
            &engine.params,
            decoder,
            &features,
            decode::LONGEST,
        )?
    };
    engine.ctx.reset()?;
    let lines = paths.iter().zip(sentences);
    Ok(lines
        .map(|(image, sentence)| Line {
            image,
            caption: engine.vocabulary.decode(&sentence.tokens),
        })
        .collect())
}
