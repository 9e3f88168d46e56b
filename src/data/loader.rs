//! Batches of images, which background threads decode and resize before they are needed.
//!
//! Threads take the samples of the epoch one by one, in the epoch's order, and stay at most a fixed number of
//! batches ahead. Batches are delivered in order. The number of threads therefore changes the speed and nothing else.

use super::batches::{Batch, Batches};
use super::image::{self, Rgb};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How images are loaded.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// S: images are resized to (S, S, 3).
    pub size: usize,
    /// Number of threads that decode; 0 counts as 1.
    pub threads: usize,
    /// Number of batches that are prepared beyond the one asked for.
    pub prefetch: usize,
    /// Index of the first batch to deliver; earlier batches are not decoded.
    pub first: usize,
    /// What is known of the data set's images, when the caller keeps them: an image that is known is not decoded, nor is
    /// one that comes again. `None` decodes the image of every sample.
    pub known: Option<Known>,
    /// Leaves out samples whose image cannot be decoded. Without it, such an image is an error.
    pub skip_bad_images: bool,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        LoaderOptions {
            size: 256,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            prefetch: 2,
            first: 0,
            known: None,
            skip_bad_images: false,
        }
    }
}

/// Images by their indices in the data set.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Those that the caller has.
    pub kept: HashSet<usize>,
    /// Those that cannot be read. Their samples are left out, and nothing is said of them again.
    pub unreadable: HashSet<usize>,
}

/// A batch with its pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBatch {
    /// The samples and their captions.
    pub batch: Batch,
    /// The images that were decoded for this batch, n of them: one for each sample, or with
    /// [`known`](LoaderOptions::known) those that are new.
    pub decoded: Vec<usize>,
    /// Their pixels, (n, S, S, 3), values 0 to 255.
    pub pixels: Vec<u8>,
}

/// An image that could not be decoded, and why.
#[derive(Debug)]
pub struct SkippedImage {
    /// Index into the data set's images.
    pub image: usize,
    /// The reason; its message names the file.
    pub error: Error,
}

/// The batches of an epoch, in order: an iterator that ends after the first error.
pub struct Loader {
    batches: Batches,
    options: LoaderOptions,
    gate: Arc<Gate>,
    decoded: Receiver<Decoded>,
    /// Images that were decoded before their turn, by position.
    early: HashMap<usize, Option<Result<Rgb>>>,
    workers: Vec<JoinHandle<()>>,
    /// The batch to deliver next.
    next: usize,
    skipped: Vec<SkippedImage>,
    /// Images that cannot be read.
    unreadable: HashSet<usize>,
}

/// A position in the epoch's order, and the image for it, unless it was known already.
type Decoded = (usize, Option<Result<Rgb>>);

impl Loader {
    /// Starts to load `batches`. `paths[i]` is the file of image i of the data set.
    ///
    /// # Errors
    /// When `size` is 0, when an image has no path, or when a thread cannot be started.
    pub fn new(
        batches: Batches,
        paths: Arc<[PathBuf]>,
        mut options: LoaderOptions,
    ) -> Result<Self> {
        if options.size == 0 {
            return Err(Error::Config(
                "the image size is 0, expected at least 1".into(),
            ));
        }
        let images = batches.samples().images();
        if let Some(image) = images.iter().find(|&&image| image >= paths.len()) {
            let known = paths.len();
            return Err(Error::Config(format!(
                "image {image} has no path: there are paths for {known} images"
            )));
        }
        let (sender, decoded) = channel();
        let start = batches.positions(options.first).start;
        let known = options.known.take();
        let unreadable = known
            .as_ref()
            .map_or_else(HashSet::new, |known| known.unreadable.clone());
        let gate = Arc::new(Gate::at(start, known));
        let mut loader = Loader {
            gate: gate.clone(),
            decoded,
            early: HashMap::new(),
            workers: Vec::new(),
            next: options.first,
            skipped: Vec::new(),
            unreadable,
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

    /// Number of batches of the epoch. With `skip_bad_images`, fewer may be delivered, because a batch without
    /// any readable image is left out.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether the epoch has no batches.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Number of batches that are done. Batches before `first` and batches that were left out count, too.
    pub fn taken(&self) -> usize {
        self.next
    }

    /// Removes and returns the images that were left out so far, each once, in the order in which they were
    /// met. Empty without `skip_bad_images`.
    pub fn take_skipped(&mut self) -> Vec<SkippedImage> {
        std::mem::take(&mut self.skipped)
    }

    /// Lets the workers prepare the first `batches` batches.
    fn open_gate(&self, batches: usize) {
        self.gate.open(self.batches.positions(batches - 1).end);
    }

    /// Batch `self.next`; `None` if none of its images can be read.
    fn assemble(&mut self) -> Result<Option<ImageBatch>> {
        self.open_gate((self.next + 1).saturating_add(self.options.prefetch));
        let positions = self.batches.positions(self.next);
        let (mut decoded, mut pixels) = (Vec::new(), Vec::new());
        let mut kept = Vec::with_capacity(positions.len());
        for position in positions {
            let sample = self.batches.order()[position];
            let image = self.batches.samples().image(sample);
            match self.receive(position)? {
                Some(Ok(Rgb { pixels: new, .. })) => {
                    pixels.extend_from_slice(&new);
                    decoded.push(image);
                    kept.push(sample);
                }
                Some(Err(error)) if self.options.skip_bad_images => self.skip(image, error),
                Some(Err(error)) => return Err(error),
                None if self.unreadable.contains(&image) => {}
                None => kept.push(sample),
            }
        }
        if kept.is_empty() {
            return Ok(None);
        }
        Ok(Some(ImageBatch {
            batch: Batch::new(self.batches.samples(), kept),
            decoded,
            pixels,
        }))
    }

    fn skip(&mut self, image: usize, error: Error) {
        if self.unreadable.insert(image) {
            self.skipped.push(SkippedImage { image, error });
        }
    }

    /// Waits for the image at `position`. The outer error is one of the loader, the inner one of the image.
    fn receive(&mut self, position: usize) -> Result<Option<Result<Rgb>>> {
        loop {
            if let Some(image) = self.early.remove(&position) {
                return Ok(image);
            }
            let (arrived, image) = (self.decoded.recv()).map_err(|_| {
                Error::Device("the threads that load images have ended too early".into())
            })?;
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
            // A panic while an image is prepared is caught in the worker. Any other cannot be reported here.
            let _ = worker.join();
        }
    }
}

/// Gives out positions to the threads, in order and not too far ahead.
struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
}

struct GateState {
    /// The next position to give out.
    next: usize,
    /// This position and later ones have to wait.
    limit: usize,
    closed: bool,
    /// Images that need not be decoded: those that were known, and those whose turn has come before. `None` when every
    /// sample's is decoded.
    known: Option<HashSet<usize>>,
}

impl Gate {
    /// A gate whose first position is `next`.
    fn at(next: usize, known: Option<Known>) -> Self {
        let state = GateState {
            next,
            limit: 0,
            closed: false,
            known: known.map(|known| known.kept.into_iter().chain(known.unreadable).collect()),
        };
        Gate {
            state: Mutex::new(state),
            moved: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        // Every state is valid, even if a thread panicked while it held the lock.
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

    /// Waits for a position below the limit, and says whether its image is to be decoded: the first sample of an image
    /// in the epoch's order is, whichever thread takes it. `None` if the gate is closed or no position is left.
    fn claim(&self, end: usize, image_at: impl Fn(usize) -> usize) -> Option<(usize, bool)> {
        let mut state = self.state();
        while !state.closed && state.next < end && state.next >= state.limit {
            let woken = self.moved.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed || state.next >= end {
            return None;
        }
        let position = state.next;
        state.next += 1;
        let known = state.known.as_mut();
        let decode = known.is_none_or(|known| known.insert(image_at(position)));
        Some((position, decode))
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
        let (order, samples) = (self.batches.order(), self.batches.samples());
        let image_at = |position: usize| samples.image(order[position]);
        while let Some((position, decode)) = self.gate.claim(order.len(), image_at) {
            let load = || image::load(&self.paths[image_at(position)], self.options.size);
            let image = decode.then(load);
            if self.sender.send((position, image)).is_err() {
                return;
            }
        }
    }
}
