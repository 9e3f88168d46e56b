//! Encoder outputs of images, computed once and kept in host memory.

use crate::data::batches::{Batches, Order};
use crate::data::flickr8k::Flickr8k;
use crate::data::loader::{Loader, LoaderOptions, SkippedImage};
use crate::data::samples::Samples;
use crate::error::{Error, Result};
use crate::nn::captioner::Captioner;
use crate::nn::params::Params;
use crate::tensor::{Context, DType, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// Images that go through the encoder at once.
const BATCH: usize = 16;

/// Features of some images of a data set.
pub struct Features {
    /// Elements an image.
    size: usize,
    rows: HashMap<usize, usize>,
    values: Vec<f32>,
}

impl Features {
    /// Runs the encoder, in inference mode, over `images` of the data set. `progress` is told how many are done.
    /// Gives the images left out because they could not be read, too (only with `skip_bad_images`).
    pub fn compute(
        ctx: &Context,
        params: &Params,
        captioner: &Captioner,
        dataset: &Flickr8k,
        images: &[usize],
        options: LoaderOptions,
        mut progress: impl FnMut(usize),
    ) -> Result<(Self, Vec<SkippedImage>)> {
        let samples = Arc::new(Samples::of_images(images.iter().copied()));
        let batches = Batches::new(&samples, BATCH, Order::Listed)?;
        let size = captioner.feature_shape()[1..].iter().product();
        let mut features = Features {
            size,
            rows: HashMap::with_capacity(images.len()),
            values: Vec::with_capacity(images.len() * size),
        };
        let side = options.size;
        let mut loader = Loader::new(batches, dataset.image_paths()?, options)?;
        for loaded in &mut loader {
            let loaded = loaded?;
            let shape = [loaded.batch.len(), side, side, 3];
            let mut pixels = ctx.empty(shape, DType::U8)?;
            pixels.copy_from_slice(&loaded.pixels)?;
            let output = captioner.features(ctx, params, &pixels)?;
            for (row, &image) in loaded.batch.images.iter().enumerate() {
                features.rows.insert(image, features.rows.len());
                let start = features.values.len();
                features.values.resize(start + size, 0.0);
                output
                    .index(row)?
                    .copy_to_slice(&mut features.values[start..])?;
            }
            drop((pixels, output));
            ctx.reset()?;
            progress(features.rows.len());
        }
        Ok((features, loader.take_skipped()))
    }

    /// The features of a batch of images, uploaded: `shape` is that of the whole batch.
    pub fn batch(&self, ctx: &Context, images: &[usize], shape: &[usize]) -> Result<Tensor> {
        let batch = ctx.empty(crate::Shape::new(shape), DType::F32)?;
        for (entry, image) in images.iter().enumerate() {
            let row = *self.rows.get(image).ok_or_else(|| {
                Error::operation("features", format!("image {image} was not computed"))
            })?;
            let values = &self.values[row * self.size..][..self.size];
            batch.index(entry)?.copy_from_slice(values)?;
        }
        Ok(batch)
    }

    pub fn contains(&self, image: usize) -> bool {
        self.rows.contains_key(&image)
    }
}
