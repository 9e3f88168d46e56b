//! The context that operations run in: a device and the step arena, from which all activations of one
//! training step (or one batch of inference) are taken.
//!
//! The arena is bumped during a step and reset at its end. When a step needs more than the arena has,
//! further blocks are added; the next reset replaces them by one block of the size then known to be
//! needed, so from then on no step of that size or smaller allocates anything and addresses repeat.

use super::{DType, ROW_ALIGNMENT, Shape, Tensor};
use crate::device::{Device, Memory};
use crate::error::{Error, Result};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

/// Every tensor of the arena starts at a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// A device with an arena: what operations compute on.
pub struct Context {
    device: Device,
    arena: RefCell<Arena>,
    counters: OnceCell<Tensor>,
}

#[derive(Default)]
struct Arena {
    blocks: Vec<Rc<Memory>>,
    /// Bytes used of the last block.
    used: usize,
    /// Bytes used of the blocks before the last.
    full: usize,
    /// The largest number of bytes ever in use at once.
    peak: usize,
    /// How often blocks came or went.
    generation: u64,
}

impl Context {
    /// A context with an empty arena.
    pub fn new(device: &Device) -> Self {
        let device = device.clone();
        let arena = RefCell::default();
        Context {
            device,
            arena,
            counters: OnceCell::new(),
        }
    }

    /// The device that computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Room for a tensor until the next reset, or until the [`Context::scope`] around it ends. Its content is undefined.
    pub fn empty(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let shape = shape.into();
        self.with_ld(shape, shape.cols(), dtype)
    }

    /// As [`Context::empty`], each row starting at a multiple of [`ROW_ALIGNMENT`] elements.
    pub fn empty_padded(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let shape = shape.into();
        let ld = shape.cols().next_multiple_of(ROW_ALIGNMENT);
        self.with_ld(shape, ld, dtype)
    }

    fn with_ld(&self, shape: Shape, ld: usize, dtype: DType) -> Result<Tensor> {
        let bytes = shape.rows() * ld * dtype.bytes();
        let (memory, start) = self.arena.borrow_mut().take(&self.device, bytes)?;
        Tensor::in_memory(memory, start / dtype.bytes(), shape, ld, dtype)
    }

    /// Makes the arena at least this large, so that the first step already finds its room. Between
    /// steps only.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        let mut arena = self.arena.borrow_mut();
        let bytes = bytes.max(arena.peak);
        arena.reserve(&self.device, bytes)
    }

    /// Runs `body` and gives back all room that it took. Tensors made inside must not leave it: their memory is given to
    /// others. In debug builds it is filled with NaN first, so that reading it shows, unless work is being recorded: a
    /// recording would hold that filling too.
    pub fn scope<R>(&self, body: impl FnOnce() -> Result<R>) -> Result<R> {
        let mark = self.arena.borrow().mark();
        let result = body();
        #[cfg(debug_assertions)]
        let result = result.and_then(|value| self.poison_from(&mark).map(|()| value));
        self.arena.borrow_mut().release(mark);
        result
    }

    #[cfg(debug_assertions)]
    fn poison_from(&self, mark: &Mark) -> Result<()> {
        if self.device.is_recording() {
            return Ok(());
        }
        self.arena.borrow().poison_from(mark)
    }

    /// `count` numbers that are zero and that kernels leave at zero: with them, blocks of one launch count each other. All
    /// launches of this context share them, one after the other. Every call gives the same `count`.
    ///
    /// # Errors
    /// When they are asked for the first time while work is being recorded, or there is no memory for them.
    pub(crate) fn counters(&self, count: usize) -> Result<Tensor> {
        if let Some(counters) = self.counters.get() {
            return Ok(counters.clone());
        }
        let counters = Tensor::zeros(&self.device, [count], DType::U32)?;
        Ok(self.counters.get_or_init(|| counters).clone())
    }

    /// Ends a step: all room is free again.
    ///
    /// # Errors
    /// When a tensor of the step is still held somewhere: it would be overwritten by the next step.
    pub fn reset(&self) -> Result<()> {
        self.arena.borrow_mut().reset(&self.device)
    }

    /// A number that changes whenever the arena's addresses do. A recording of work that used the arena must not be
    /// replayed after it has changed.
    pub fn generation(&self) -> u64 {
        self.arena.borrow().generation
    }

    /// The largest number of arena bytes that was ever in use at once.
    pub fn peak_bytes(&self) -> usize {
        self.arena.borrow().peak
    }

    /// Bytes of the numbers with which blocks count each other, once a launch has needed them.
    pub(crate) fn counter_bytes(&self) -> usize {
        let counters = self.counters.get();
        counters.map_or(0, |counters| counters.len() * counters.dtype().bytes())
    }
}

/// A position in the arena: number of blocks, bytes used of the last, of those before.
struct Mark(usize, usize, usize);

impl Arena {
    fn take(&mut self, device: &Device, bytes: usize) -> Result<(Rc<Memory>, usize)> {
        let room = self.room();
        let start = self.used.next_multiple_of(ALIGNMENT);
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        if let Some(block) = self.blocks.last()
            && start + bytes <= room
        {
            self.used = start + bytes;
            self.peak = self.peak.max(self.full + self.used);
            return Ok((block.clone(), start));
        }
        // As much again as all blocks so far, so that their number stays logarithmic.
        let total: usize = self.blocks.iter().map(|block| block.bytes()).sum();
        let block = Rc::new(device.allocate_undefined(bytes.max(total))?);
        self.full += self.used;
        self.used = bytes;
        self.peak = self.peak.max(self.full + self.used);
        self.blocks.push(block.clone());
        self.generation += 1;
        Ok((block, 0))
    }

    fn reserve(&mut self, device: &Device, bytes: usize) -> Result<()> {
        if self.blocks.len() > 1 || self.room() < bytes {
            self.blocks.clear();
            self.generation += 1;
            if bytes > 0 {
                self.blocks.push(Rc::new(device.allocate_undefined(bytes)?));
            }
        }
        Ok(())
    }

    /// Bytes of the last block.
    fn room(&self) -> usize {
        self.blocks.last().map_or(0, |block| block.bytes())
    }

    fn mark(&self) -> Mark {
        Mark(self.blocks.len(), self.used, self.full)
    }

    fn release(&mut self, Mark(blocks, used, full): Mark) {
        self.generation += u64::from(blocks < self.blocks.len());
        self.blocks.truncate(blocks);
        (self.used, self.full) = (used, full);
    }

    /// Makes all that was taken since the mark NaN.
    #[cfg(debug_assertions)]
    fn poison_from(&self, Mark(blocks, used, _): &Mark) -> Result<()> {
        for (i, block) in self.blocks.iter().enumerate() {
            let start = match (i + 1).cmp(blocks) {
                std::cmp::Ordering::Less => continue,
                std::cmp::Ordering::Equal => *used,
                std::cmp::Ordering::Greater => 0,
            };
            let is_last = i + 1 == self.blocks.len();
            let end = if is_last { self.used } else { block.bytes() };
            block.poison(start..end.max(start))?;
        }
        Ok(())
    }

    fn reset(&mut self, device: &Device) -> Result<()> {
        if self.blocks.iter().any(|block| Rc::strong_count(block) > 1) {
            let message = "a tensor of the last step is still held";
            return Err(Error::operation("reset of the step arena", message));
        }
        (self.used, self.full) = (0, 0);
        self.reserve(device, self.peak)?;
        #[cfg(debug_assertions)]
        self.poison_from(&Mark(0, 0, 0))?;
        Ok(())
    }
}
