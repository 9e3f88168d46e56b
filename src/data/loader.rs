//! Batches of images, decoded and augmented by background threads ahead of the one who takes them.
//!
//! Threads claim the epoch's samples one by one in its order, at most a fixed number of batches ahead.
//! A sample's pixels depend on (seed, epoch, sample) alone, and batches are delivered in order: the number of
//! threads changes nothing but the speed.

use super::augment::Augmentation;
use super::batches::{Batch, Batches};
use super::image::{self, Rgb};
use super::random::Epoch;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// S: images become (S, S, 3).
    pub size: usize,
    /// Threads that decode; at least one does.
    pub threads: usize,
    /// How many batches to prepare beyond the one asked for.
    pub prefetch: usize,
    /// The batch to begin with; those before it are not decoded.
    pub first: usize,
    /// Augments at random, differently in every epoch. None: images as they are.
    pub augment: Option<Epoch>,
    /// Leaves out samples whose image cannot be decoded, instead of ending with an error.
    pub skip_bad_images: bool,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        LoaderOptions {
            size: 256,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            prefetch: 2,
            first: 0,
            augment: None,
            skip_bad_images: false,
        }
    }
}

/// A batch with its pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBatch {
    pub batch: Batch,
    /// (B, S, S, 3)
    pub pixels: Vec<u8>,
}

/// An image that could not be decoded, and why.
#[derive(Debug)]
pub struct SkippedImage {
    /// Index into the data set's images.
    pub image: usize,
    /// Names the file.
    pub error: Error,
}

/// The batches of an epoch, in order. An iterator that ends after an error.
pub struct Loader {
    batches: Batches,
    options: LoaderOptions,
    gate: Arc<Gate>,
    decoded: Receiver<Decoded>,
    /// What came before its turn, by position.
    early: HashMap<usize, Result<Rgb>>,
    workers: Vec<JoinHandle<()>>,
    /// The batch to deliver next.
    next: usize,
    skipped: Vec<SkippedImage>,
}

/// A position in the epoch's order and the image that belongs there.
type Decoded = (usize, Result<Rgb>);

impl Loader {
    /// Starts to load `batches`; image i of the data set lies at `paths[i]`.
    ///
    /// # Errors
    /// When `size` is 0, an image has no path or a thread cannot be started.
    pub fn new(batches: Batches, paths: Arc<[PathBuf]>, options: LoaderOptions) -> Result<Self> {
        if options.size == 0 {
            return Err(Error::Config("images need a size of at least 1".into()));
        }
        let images = batches.samples().images();
        if let Some(image) = images.iter().find(|&&image| image >= paths.len()) {
            let known = paths.len();
            return Err(Error::Config(format!(
                "image {image} has no path: {known} are known"
            )));
        }
        let (sender, decoded) = channel();
        let gate = Arc::new(Gate::at(batches.positions(options.first).start));
        let mut loader = Loader {
            gate: gate.clone(),
            decoded,
            early: HashMap::new(),
            workers: Vec::new(),
            next: options.first,
            skipped: Vec::new(),
            batches: batches.clone(),
            options: options.clone(),
        };
        loader.open_gate(options.first.saturating_add(options.prefetch.max(1)));
        let threads = options.threads.max(1);
        let worker = Worker {
            batches,
            paths,
            options,
            gate,
            sender,
        };
        for number in 0..threads {
            let worker = worker.clone();
            let thread = std::thread::Builder::new().name(format!("loader-{number}"));
            let started = thread.spawn(move || worker.run());
            let refuse = |e| Error::Device(format!("cannot start a loader thread: {e}"));
            loader.workers.push(started.map_err(refuse)?);
        }
        Ok(loader)
    }

    /// How many batches the epoch has. With `skip_bad_images` fewer may come: a batch without any readable
    /// image is not delivered.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How many batches are behind us, those before the first and those not delivered included.
    pub fn taken(&self) -> usize {
        self.next
    }

    /// Gives up the images left out so far, each once, in the order met. Empty unless `skip_bad_images`.
    pub fn take_skipped(&mut self) -> Vec<SkippedImage> {
        std::mem::take(&mut self.skipped)
    }

    /// Lets the workers prepare the first `batches` batches.
    fn open_gate(&self, batches: usize) {
        self.gate.open(self.batches.positions(batches - 1).end);
    }

    /// Batch `self.next`; none if no image of it can be decoded.
    fn assemble(&mut self) -> Result<Option<ImageBatch>> {
        self.open_gate((self.next + 1).saturating_add(self.options.prefetch));
        let positions = self.batches.positions(self.next);
        let row = 3 * self.options.size * self.options.size;
        let mut pixels = Vec::with_capacity(positions.len() * row);
        let mut kept = Vec::with_capacity(positions.len());
        for position in positions {
            let sample = self.batches.order()[position];
            match self.receive(position)? {
                Ok(image) => {
                    pixels.extend_from_slice(&image.pixels);
                    kept.push(sample);
                }
                Err(error) if self.options.skip_bad_images => self.skip(sample, error),
                Err(error) => return Err(error),
            }
        }
        if kept.is_empty() {
            return Ok(None);
        }
        let batch = Batch::new(self.batches.samples(), kept);
        Ok(Some(ImageBatch { batch, pixels }))
    }

    fn skip(&mut self, sample: usize, error: Error) {
        let image = self.batches.samples().image(sample);
        if self.skipped.iter().all(|skipped| skipped.image != image) {
            self.skipped.push(SkippedImage { image, error });
        }
    }

    /// Waits for the image at `position`. The outer error is the loader's own.
    fn receive(&mut self, position: usize) -> Result<Result<Rgb>> {
        loop {
            if let Some(image) = self.early.remove(&position) {
                return Ok(image);
            }
            let (arrived, image) = (self.decoded.recv())
                .map_err(|_| Error::Device("the loader's threads ended early".into()))?;
            self.early.insert(arrived, image);
        }
    }
}

impl Iterator for Loader {
    type Item = Result<ImageBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.batches.len() {
            let assembled = self.assemble();
            self.next = match assembled {
                Ok(_) => self.next + 1,
                Err(_) => self.batches.len(),
            };
            if let Some(batch) = assembled.transpose() {
                return Some(batch);
            }
        }
        self.gate.close();
        None
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.gate.close();
        for worker in self.workers.drain(..) {
            // A worker's panic was caught where it happened; there is nobody left to tell here.
            let _ = worker.join();
        }
    }
}

/// What the threads share to take samples in order, none too far ahead.
struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
}

#[derive(Default)]
struct GateState {
    /// The position to claim next.
    next: usize,
    /// Positions from here on must wait.
    limit: usize,
    closed: bool,
}

impl Gate {
    /// A gate before which everything was taken.
    fn at(next: usize) -> Self {
        let state = GateState {
            next,
            ..GateState::default()
        };
        Gate {
            state: Mutex::new(state),
            moved: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        // Every state is valid, whatever happened to a thread that held it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, limit: usize) {
        self.state().limit = limit;
        self.moved.notify_all();
    }

    fn close(&self) {
        self.state().closed = true;
        self.moved.notify_all();
    }

    /// Waits for a position below the limit; none when the gate is closed or all are taken.
    fn claim(&self, end: usize) -> Option<usize> {
        let mut state = self.state();
        while !state.closed && state.next < end && state.next >= state.limit {
            let woken = self.moved.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed || state.next >= end {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }
}

#[derive(Clone)]
struct Worker {
    batches: Batches,
    paths: Arc<[PathBuf]>,
    options: LoaderOptions,
    gate: Arc<Gate>,
    sender: Sender<Decoded>,
}

impl Worker {
    fn run(self) {
        let order = self.batches.order();
        while let Some(position) = self.gate.claim(order.len()) {
            let image = self.prepare(order[position]);
            if self.sender.send((position, image)).is_err() {
                return;
            }
        }
    }

    fn prepare(&self, sample: usize) -> Result<Rgb> {
        let path = &self.paths[self.batches.samples().image(sample)];
        let prepare = || {
            let image = image::load(path, self.options.size)?;
            Ok(match self.options.augment {
                Some(epoch) => Augmentation::draw(epoch, sample).apply(image),
                None => image,
            })
        };
        // A decoder that panics on a damaged file must cost that file only, and never leave the taker waiting.
        catch_unwind(AssertUnwindSafe(prepare))
            .unwrap_or_else(|_| Err(Error::file(path, "the decoder panicked on this image")))
    }
}
