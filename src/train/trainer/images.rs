//! Steps whose images go through the encoder: as the loader brings them, or out of the photos that are kept.

use super::stepper::Source;
use super::{Ended, Trainer};
use crate::data::augment::Augmentation;
use crate::data::batches::Batches;
use crate::data::loader::{ImageBatch, Loader, LoaderOptions};
use crate::data::random::Epoch;
use crate::error::{Error, Result};
use crate::ops::augment::Change;
use crate::train::Observer;
use crate::train::features::report_skipped;
use crate::train::photo_store::PhotoStore;
use std::time::Instant;

impl Trainer<'_> {
    /// The rest of an epoch, which is `draw`'s.
    pub(super) fn steps_from_images(
        &mut self,
        batches: Batches,
        draw: Epoch,
        observer: &mut dyn Observer,
    ) -> Result<Ended> {
        let mut photos = self.photos.take();
        let options = LoaderOptions {
            first: self.position.epoch_batches,
            known: photos.as_ref().map(PhotoStore::known),
            ..self.loader_options()
        };
        let mut loader = Loader::new(batches, self.setup.dataset.image_paths()?, options)?;
        let ended = self.steps_of_loader(&mut loader, draw, photos.as_mut(), observer)?;
        let skipped = loader.take_skipped();
        report_skipped(&skipped, observer);
        if let Some(photos) = &mut photos {
            photos.leave_out(&skipped);
        }
        self.photos = photos;
        match self.position.epoch_step {
            0 => Err(Error::Config("no training image can be read".into())),
            _ => Ok(ended),
        }
    }

    fn steps_of_loader(
        &mut self,
        loader: &mut Loader,
        draw: Epoch,
        mut photos: Option<&mut PhotoStore>,
        observer: &mut dyn Observer,
    ) -> Result<Ended> {
        let mut started = Instant::now();
        while !self.reached_step_limit() {
            let Some(loaded) = loader.next().transpose()? else {
                // The last batches may have had no image that can be read.
                self.position.epoch_batches = loader.taken();
                break;
            };
            if let Some(photos) = &mut photos {
                photos.keep(&loaded.decoded, &loaded.pixels)?;
            }
            self.step_from_images(&loaded, draw, photos.as_deref(), started, observer)?;
            if self.after_step(loader.taken(), observer)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
            started = Instant::now();
        }
        Ok(Ended::Finished)
    }

    fn step_from_images(
        &mut self,
        loaded: &ImageBatch,
        draw: Epoch,
        photos: Option<&PhotoStore>,
        started: Instant,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let batch = &loaded.batch;
        let draw = self.config().augment.then_some(draw);
        let rows = photos
            .map(|photos| photos.rows(&batch.images))
            .transpose()?;
        if let (Some(rows), Some(photos)) = (&rows, photos.and_then(PhotoStore::photos)) {
            let changes = changes(rows, &batch.samples, draw);
            return self.step(batch, Source::Photos(photos, &changes), started, observer);
        }
        let kept = photos.zip(rows).map(|(photos, rows)| photos.pixels(&rows));
        let pixels = kept.as_deref().unwrap_or(&loaded.pixels);
        let uploaded: Vec<usize> = (0..batch.len()).collect();
        // Without augmentation the images are those that go up.
        let changes = draw.map(|draw| changes(&uploaded, &batch.samples, Some(draw)));
        let source = Source::Pixels(pixels, changes.as_deref());
        self.step(batch, source, started, observer)
    }
}

/// What becomes of the photo of each sample, in the epoch that `draw` is of.
fn changes(photos: &[usize], samples: &[usize], draw: Option<Epoch>) -> Vec<Change> {
    let change = |(&photo, &sample): (&usize, &usize)| {
        let Some(draw) = draw else {
            return Change::none(photo);
        };
        let Augmentation {
            flip,
            degrees,
            grayscale,
        } = Augmentation::draw(draw, sample);
        Change {
            photo,
            flip,
            degrees,
            grayscale,
        }
    };
    photos.iter().zip(samples).map(change).collect()
}
