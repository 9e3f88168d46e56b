//! Encoder outputs of images, computed once: kept in host memory, or in a file that is mapped.

use super::feature_cache::{self, FeatureFile, Header};
use super::run::Engine;
use super::{Observer, Stage};
use crate::data::batches::{Batches, Order};
use crate::data::flickr8k::Flickr8k;
use crate::data::loader::{Loader, LoaderOptions, SkippedImage};
use crate::data::samples::Samples;
use crate::error::{Error, Result};
use crate::tensor::{Context, DType, Tensor};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Images that go through the encoder at once.
pub const BATCH: usize = 16;

/// Features of some images of a data set.
pub struct Features {
    /// Elements an image.
    size: usize,
    /// The row of an image of the data set.
    rows: HashMap<usize, usize>,
    values: Values,
}

enum Values {
    Memory(Vec<f32>),
    Mapped(FeatureFile),
}

/// What to encode.
#[derive(Clone, Copy)]
pub struct ImageSet<'a> {
    pub dataset: &'a Flickr8k,
    /// Indices into the data set's images.
    pub images: &'a [usize],
}

impl Features {
    /// The encoder's outputs for `set` in inference mode: out of the configuration's cache if they are in it, else
    /// computed, and put there if there is one. The observer sees a stage, and hears of images left out because
    /// they could not be read (only with `skip_bad_images`).
    ///
    /// # Errors
    /// When an image, or with `skip_bad_images` every image, cannot be read; when the cache cannot be written.
    pub fn of(
        engine: &Engine,
        set: ImageSet,
        options: LoaderOptions,
        stage: Stage,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let features = match &engine.config.feature_cache {
            None => Features::in_memory(engine, set, options, stage, observer)?,
            Some(cache) => Features::mapped(engine, set, cache, options, stage, observer)?,
        };
        if features.rows.is_empty() && !set.images.is_empty() {
            let message = format!("none of the {} images can be read", set.images.len());
            return Err(Error::Config(message));
        }
        Ok(features)
    }

    fn mapped(
        engine: &Engine,
        set: ImageSet,
        directory: &Path,
        options: LoaderOptions,
        stage: Stage,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let header = Header::new(engine, set.dataset, set.images)?;
        let path = header.path(directory);
        let found = match find(&path, &header, &options) {
            Ok(found) => found,
            Err(error) => {
                observer.warn(&format!("{error}: computed anew"));
                None
            }
        };
        let file = match found {
            Some(file) => {
                let images = set.images.len();
                observer.note(&format!("features of {images} images: {}", path.display()));
                report_left_out(set, &file, observer)?;
                file
            }
            None => {
                write(engine, set, &path, &header, options, stage, observer)?;
                FeatureFile::open(&path, &header)?
            }
        };
        let kept = set.images.iter().zip(file.flags());
        let kept = kept.filter(|&(_, &flag)| flag == 1);
        Ok(Features {
            size: engine.captioner.feature_shape().iter().product(),
            rows: kept.map(|(&image, _)| image).zip(0..).collect(),
            values: Values::Mapped(file),
        })
    }

    fn in_memory(
        engine: &Engine,
        set: ImageSet,
        options: LoaderOptions,
        stage: Stage,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let size = engine.captioner.feature_shape().iter().product();
        let mut rows = HashMap::with_capacity(set.images.len());
        let mut values = Vec::with_capacity(set.images.len() * size);
        encode(engine, set, options, stage, observer, |image, row| {
            rows.insert(image, rows.len());
            values.extend_from_slice(row);
            Ok(())
        })?;
        let values = Values::Memory(values);
        Ok(Features { size, rows, values })
    }

    /// The features of a batch of images, uploaded: `shape` is that of the whole batch.
    pub fn batch(&self, ctx: &Context, images: &[usize], shape: &[usize]) -> Result<Tensor> {
        let batch = ctx.empty(crate::Shape::new(shape), DType::F32)?;
        let mut read = vec![0.0; self.size];
        for (entry, image) in images.iter().enumerate() {
            let row = *self.rows.get(image).ok_or_else(|| {
                Error::operation("features", format!("image {image} was not computed"))
            })?;
            let values = match &self.values {
                Values::Memory(values) => &values[row * self.size..][..self.size],
                Values::Mapped(file) => {
                    file.read(row, &mut read);
                    &read
                }
            };
            batch.index(entry)?.copy_from_slice(values)?;
        }
        Ok(batch)
    }

    pub fn contains(&self, image: usize) -> bool {
        self.rows.contains_key(&image)
    }
}

/// A file that can be used as it is; none when there is none.
fn find(path: &Path, header: &Header, options: &LoaderOptions) -> Result<Option<FeatureFile>> {
    if !path.exists() {
        return Ok(None);
    }
    let file = FeatureFile::open(path, header)?;
    if !options.skip_bad_images && file.flags().contains(&0) {
        let message = "was made without images that could not be read";
        return Err(Error::file(path, message));
    }
    Ok(Some(file))
}

fn report_left_out(set: ImageSet, file: &FeatureFile, observer: &mut dyn Observer) -> Result<()> {
    let paths = set.dataset.image_paths()?;
    for (&image, _) in set
        .images
        .iter()
        .zip(file.flags())
        .filter(|(_, f)| **f == 0)
    {
        let path = paths[image].display();
        observer.warn(&format!("left out: {path}: could not be read before"));
    }
    Ok(())
}

/// Encodes into a file.
fn write(
    engine: &Engine,
    set: ImageSet,
    path: &Path,
    header: &Header,
    options: LoaderOptions,
    stage: Stage,
    observer: &mut dyn Observer,
) -> Result<()> {
    let megabytes = header.file_bytes() as f64 / 1e6;
    let images = set.images.len();
    observer.note(&format!(
        "features of {images} images will take {megabytes:.1} MB: {}",
        path.display()
    ));
    let positions: HashMap<usize, usize> = set.images.iter().copied().zip(0..).collect();
    feature_cache::write(path, header, |rows| {
        encode(engine, set, options, stage, observer, |image, row| {
            rows.push(positions[&image], row)
        })
    })
}

/// Runs the encoder over the images that can be read, in their order, and gives each one's features to `take`.
fn encode(
    engine: &Engine,
    set: ImageSet,
    options: LoaderOptions,
    stage: Stage,
    observer: &mut dyn Observer,
    mut take: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let Engine {
        ctx,
        captioner,
        params,
        ..
    } = engine;
    let samples = Arc::new(Samples::of_images(set.images.iter().copied()));
    let batches = Batches::new(&samples, BATCH, Order::Listed)?;
    let side = options.size;
    let mut loader = Loader::new(batches, set.dataset.image_paths()?, options)?;
    observer.begin(stage, set.images.len());
    let mut done = 0;
    for loaded in &mut loader {
        let loaded = loaded?;
        let shape = [loaded.batch.len(), side, side, 3];
        let mut pixels = ctx.empty(shape, DType::U8)?;
        pixels.copy_from_slice(&loaded.pixels)?;
        let output = captioner.features(ctx, params, &pixels)?;
        let values: Vec<f32> = output.to_vec()?;
        let rows = values.chunks_exact(values.len() / loaded.batch.len());
        for (&image, row) in loaded.batch.images.iter().zip(rows) {
            take(image, row)?;
        }
        drop((pixels, output));
        ctx.reset()?;
        done += loaded.batch.len();
        observer.progress(done);
    }
    report_skipped(&loader.take_skipped(), observer);
    observer.end();
    Ok(())
}

/// Tells of images left out.
pub fn report_skipped(skipped: &[SkippedImage], observer: &mut dyn Observer) {
    for image in skipped {
        observer.warn(&format!("left out: {}", image.error));
    }
}
