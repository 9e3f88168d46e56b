//! Encoder outputs of images, computed once: kept on the device if it has room, else in host memory, or in a file that is
//! mapped. A batch of those on the device is gathered there: its rows' numbers are all that goes up.

use super::config::{Config, FeatureType};
use super::feature_cache::{self, FeatureFile, Header};
use super::{Observer, Stage};
use crate::data::batches::{Batches, Order};
use crate::data::flickr8k::Flickr8k;
use crate::data::loader::{Loader, LoaderOptions, SkippedImage};
use crate::data::samples::Samples;
use crate::error::{Error, Result};
use crate::files;
use crate::model::Engine;
use crate::ops::embedding;
use crate::tensor::{DType, Tensor};
use crate::words;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

/// Images that go through the encoder at once.
pub const BATCH: usize = 16;

/// Features of some images of a data set.
pub struct Features {
    /// Elements per image.
    size: usize,
    /// The row of an image of the data set.
    rows: HashMap<usize, usize>,
    values: Values,
}

enum Values {
    Memory(Vec<f32>),
    Mapped(FeatureFile),
    /// (N, elements per image)
    Device(Tensor),
    /// Those of a dry run, which reads no numbers.
    Blank,
}

/// Where features are kept on disk, and how.
#[derive(Clone, Copy, Debug)]
pub struct Cache<'a> {
    /// A folder, which other runs may share.
    pub directory: &'a Path,
    /// How elements are stored.
    pub element: FeatureType,
}

impl<'a> Cache<'a> {
    /// The cache that the settings name, if they do.
    pub fn of(config: &'a Config) -> Option<Self> {
        let element = config.feature_type;
        config
            .feature_cache
            .as_deref()
            .map(|directory| Cache { directory, element })
    }
}

/// Images to encode.
#[derive(Clone)]
pub struct Encoding<'a> {
    /// Whose encoder does it. It is prepared.
    pub engine: &'a Engine,
    /// The data set.
    pub dataset: &'a Flickr8k,
    /// Indices into the data set's images.
    pub images: &'a [usize],
    /// How the images are read.
    pub options: LoaderOptions,
    /// Where features are looked for and put, if anywhere.
    pub cache: Option<Cache<'a>>,
    /// What the observer is told.
    pub stage: Stage,
}

impl Encoding<'_> {
    /// The encoder's outputs in inference mode: out of the cache if they are in it, else computed, and put there if
    /// there is one. The observer is told of images that are left out because they cannot be read (only with
    /// `skip_bad_images`).
    ///
    /// # Errors
    /// When an image, or with `skip_bad_images` every image, cannot be read; when the cache cannot be written; when the
    /// observer asks to stop, which keeps nothing of what was encoded.
    pub fn features(&self, observer: &mut dyn Observer) -> Result<Features> {
        let features = match self.cache {
            None => self.in_memory(observer)?,
            Some(cache) => self.mapped(cache, observer)?,
        };
        if features.rows.is_empty() && !self.images.is_empty() {
            let message = match self.images.len() {
                1 => "the only image cannot be read".into(),
                images => format!("none of the {images} images can be read"),
            };
            return Err(Error::Config(message));
        }
        Ok(features)
    }

    fn in_memory(&self, observer: &mut dyn Observer) -> Result<Features> {
        let size = self.engine.captioner.feature_shape(1).len();
        let mut rows = HashMap::with_capacity(self.images.len());
        let mut values = Vec::with_capacity(self.images.len() * size);
        self.encode(observer, |image, row| {
            rows.insert(image, rows.len());
            values.extend_from_slice(row);
            Ok(())
        })?;
        let values = Values::Memory(values);
        Ok(Features { size, rows, values })
    }

    fn mapped(&self, cache: Cache, observer: &mut dyn Observer) -> Result<Features> {
        let header = Header::new(self.engine, self.dataset, self.images, cache.element)?;
        let path = header.path(cache.directory);
        files::refuse_special(&path)?;
        let found = self.find(&path, &header).unwrap_or_else(|error| {
            observer.warn(&format!("{error}; the features are computed again"));
            None
        });
        let file = match found {
            Some(file) => {
                let images = words::count(self.images.len(), "image");
                observer.note(&format!("features of {images}: {}", path.display()));
                self.report_left_out(&file, observer)?;
                file
            }
            None => {
                self.write(&path, &header, observer)?;
                FeatureFile::open(&path, &header)?
            }
        };
        let kept = self.images.iter().zip(file.flags());
        let kept = kept.filter(|&(_, &flag)| flag == 1);
        Ok(Features {
            size: self.engine.captioner.feature_shape(1).len(),
            rows: kept.map(|(&image, _)| image).zip(0..).collect(),
            values: Values::Mapped(file),
        })
    }

    /// The file of these features, if there is one that can be used as it is.
    fn find(&self, path: &Path, header: &Header) -> Result<Option<FeatureFile>> {
        if !path.exists() {
            return Ok(None);
        }
        let file = FeatureFile::open(path, header)?;
        if !self.options.skip_bad_images && file.flags().contains(&0) {
            let message = "was made without images that could not be read";
            return Err(Error::file(path, message));
        }
        Ok(Some(file))
    }

    fn report_left_out(&self, file: &FeatureFile, observer: &mut dyn Observer) -> Result<()> {
        let paths = self.dataset.image_paths()?;
        let flagged = self.images.iter().zip(file.flags());
        for (&image, _) in flagged.filter(|(_, flag)| **flag == 0) {
            let path = paths[image].display();
            observer.warn(&format!("left out: {path}: could not be read before"));
        }
        Ok(())
    }

    /// Encodes into a file.
    fn write(&self, path: &Path, header: &Header, observer: &mut dyn Observer) -> Result<()> {
        let megabytes = header.file_bytes() as f64 / 1e6;
        let images = words::count(self.images.len(), "image");
        observer.note(&format!(
            "features of {images} will take {megabytes:.1} MB: {}",
            path.display()
        ));
        let positions: HashMap<usize, usize> = self.images.iter().copied().zip(0..).collect();
        feature_cache::write(path, header, |rows| {
            self.encode(observer, |image, row| rows.push(positions[&image], row))
        })
    }

    /// Runs the encoder over the images that can be read, in their order, and gives each one's features to `take`.
    fn encode(
        &self,
        observer: &mut dyn Observer,
        mut take: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let engine = self.engine;
        let samples = Arc::new(Samples::of_images(self.images.iter().copied()));
        let batches = Batches::new(&samples, BATCH, Order::Listed)?;
        let paths = self.dataset.image_paths()?;
        let mut loader = Loader::new(batches, paths.clone(), self.options.clone())?;
        observer.begin(self.stage, self.images.len());
        let mut done = 0;
        for loaded in &mut loader {
            if observer.wants_to_stop() {
                observer.end();
                return Err(Error::Stopped("stopped while images were encoded".into()));
            }
            let loaded = loaded?;
            let values: Vec<f32> =
                engine.with_images(&loaded.pixels, |images| engine.features(images)?.to_f32())?;
            let rows = values.chunks_exact(values.len() / loaded.batch.len());
            for (&image, row) in loaded.batch.images.iter().zip(rows) {
                check_finite(row, &paths[image])?;
                take(image, row)?;
            }
            done += loaded.batch.len();
            observer.progress(done);
        }
        report_skipped(&loader.take_skipped(), observer);
        observer.end();
        Ok(())
    }
}

impl Features {
    /// Features of image 0 for a dry run, kept on the device or not.
    ///
    /// # Errors
    /// When the device is none of a dry run and has no memory left.
    pub(super) fn blank(engine: &Engine, on_device: bool) -> Result<Self> {
        let features = Features {
            size: engine.captioner.feature_shape(1).len(),
            rows: HashMap::from([(0, 0)]),
            values: Values::Blank,
        };
        if on_device {
            features.to_device(engine)
        } else {
            Ok(features)
        }
    }

    /// Features of images 0 to `count` − 1 that no encoder made, on the device: numbers from 0 to 1.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub(super) fn made_up(engine: &Engine, count: usize) -> Result<Self> {
        let size = engine.captioner.feature_shape(1).len();
        let values = Tensor::zeros(engine.ctx.device(), [count, size], engine.params.operands())?;
        let row: Vec<f32> = (0..size).map(|i| (i * 31 % 1000) as f32 * 1e-3).collect();
        for image in 0..count {
            values.index(image)?.copy_from_f32(&row)?;
        }
        Ok(Features {
            size,
            rows: (0..count).map(|image| (image, image)).collect(),
            values: Values::Device(values),
        })
    }

    /// The same features on the device, as the decoder reads them.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn to_device(self, engine: &Engine) -> Result<Self> {
        let shape = [self.rows.len(), self.size];
        let (device, dtype) = (engine.ctx.device(), engine.params.operands());
        let mut on_device = Tensor::zeros(device, shape, dtype)?;
        match self.values {
            Values::Memory(values) => on_device.copy_from_f32(&values)?,
            Values::Mapped(file) => {
                let mut read = vec![0.0; self.size];
                for row in 0..shape[0] {
                    file.read(row, &mut read);
                    on_device.index(row)?.copy_from_f32(&read)?;
                }
            }
            Values::Device(values) => on_device = values,
            Values::Blank => {}
        }
        Ok(Features {
            values: Values::Device(on_device),
            ..self
        })
    }

    /// The features (N, elements per image), when they are on the device.
    pub(super) fn on_device(&self) -> Option<&Tensor> {
        match &self.values {
            Values::Device(values) => Some(values),
            _ => None,
        }
    }

    /// The rows of these images.
    ///
    /// # Errors
    /// When the features of an image were not computed.
    pub(super) fn rows(&self, images: &[usize]) -> Result<Vec<u32>> {
        let row = |image| match self.rows.get(image) {
            Some(&row) => Ok(row as u32),
            None => {
                let message = format!("image {image} was not computed");
                Err(Error::operation("features", message))
            }
        };
        images.iter().map(row).collect()
    }

    /// Uploads the features of a batch of images and gives them to `body` as one step: afterwards all room of the
    /// step arena is free again, so that no tensor made in `body` may leave it.
    ///
    /// # Errors
    /// Those of `body`; when the features of an image were not computed, or the device fails.
    pub fn with_batch<R>(
        &self,
        engine: &Engine,
        images: &[usize],
        body: impl FnOnce(&Tensor) -> Result<R>,
    ) -> Result<R> {
        let result = body(&self.upload(engine, images)?)?;
        engine.ctx.reset()?;
        Ok(result)
    }

    /// The features of a batch of images in the step arena, as the decoder reads them.
    ///
    /// # Errors
    /// When the features of an image were not computed, or the device fails.
    pub fn upload(&self, engine: &Engine, images: &[usize]) -> Result<Tensor> {
        let ctx = &engine.ctx;
        let rows = self.rows(images)?;
        if let Some(values) = self.on_device() {
            let mut on_device = ctx.empty([rows.len()], DType::U32)?;
            on_device.copy_from_slice(&rows)?;
            return gather(engine, values, &on_device);
        }
        let shape = engine.captioner.feature_shape(rows.len());
        let batch = ctx.empty(shape, engine.params.operands())?;
        let mut read = Vec::new();
        for (entry, row) in rows.into_iter().enumerate() {
            let row = row as usize;
            let values = match &self.values {
                Values::Memory(values) => &values[row * self.size..][..self.size],
                Values::Mapped(file) => {
                    read.resize(self.size, 0.0);
                    file.read(row, &mut read);
                    &read
                }
                Values::Device(_) | Values::Blank => continue,
            };
            batch.index(entry)?.copy_from_f32(values)?;
        }
        Ok(batch)
    }

    /// Whether the image has features.
    pub fn contains(&self, image: usize) -> bool {
        self.rows.contains_key(&image)
    }

    /// The samples whose image has features.
    pub fn covered(&self, samples: &Samples) -> Samples {
        let missing = samples.images().into_iter();
        let missing: BTreeSet<usize> = missing.filter(|&image| !self.contains(image)).collect();
        samples.without(&missing)
    }
}

/// The features of a batch in the step arena, as the decoder reads them, from `values` (N, elements per image) and the rows
/// (B) among them.
///
/// # Errors
/// When the device has no memory left.
pub(super) fn gather(engine: &Engine, values: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let shape = engine.captioner.feature_shape(rows.len());
    let batch = engine.ctx.empty(shape, engine.params.operands())?;
    let mut matrix = batch.reshape([rows.len(), values.cols()])?;
    embedding::forward(&engine.ctx, values, rows, &mut matrix)?;
    Ok(batch)
}

/// Checks the features of the image in a file: an encoder with wrong weights may give numbers that are not finite.
///
/// # Errors
/// When one is not; the message names the image.
pub fn check_finite(features: &[f32], image: &Path) -> Result<()> {
    let Some(value) = features.iter().find(|value| !value.is_finite()) else {
        return Ok(());
    };
    let message = format!(
        "the encoder gives {value} for this image, expected finite numbers: the encoder's weights are damaged, or are not \
         those of a ResNet that was trained; use another file for `encoder-weights`"
    );
    Err(Error::file(image, message))
}

/// Tells of images that were left out.
pub fn report_skipped(skipped: &[SkippedImage], observer: &mut dyn Observer) {
    for image in skipped {
        observer.warn(&format!("left out: {}", image.error));
    }
}
