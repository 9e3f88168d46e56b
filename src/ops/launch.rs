//! Runs of kernels on tensors of the CUDA device, for the `cuda.rs` half of operations.
//!
//! A run names a family of kernels, by the struct of its arguments, and picks the member by a key: the parts of the kernel's
//! name that tell it from the others. Its tensors are gathered and checked together: their element types are those that the
//! member's declaration has, they are on this device, and what is written overlaps nothing else of the run.

use super::given::Given;
use super::kernels::vector::VECTORS;
use crate::device::cuda::{Cuda, Grid, Kernel};
use crate::device::{Device, Precision, Work};
use crate::error::{Error, Result};
use crate::tensor::{Context, DType, Tensor};
use std::cell::Cell;
use std::ffi::c_void;

/// The kernels that do one thing for several element types, widths or cuts.
pub struct Family {
    pub members: &'static [Member],
}

impl Family {
    pub fn member(&self, key: &[&str]) -> Option<&'static Member> {
        self.members.iter().find(|member| member.key == key)
    }
}

pub struct Member {
    /// The parts of the kernel's name behind the family's.
    pub key: &'static [&'static str],
    pub kernel: Kernel,
    /// Element types of the tensors, in the order of the parameters.
    pub elements: &'static [DType],
}

/// The arguments of one family, under the names of the kernels' parameters.
pub trait Arguments: Sized {
    const FAMILY: Family;

    /// Calls `launch` with the address of every argument, tensors being checked by `tensors` in the order of the parameters.
    fn with_addresses(
        self,
        tensors: &mut Tensors,
        launch: impl FnOnce(&mut [*mut c_void]) -> Result<()>,
    ) -> Result<()>;
}

/// A tensor that a kernel reads, or none.
#[derive(Clone, Copy)]
pub struct Input<'a>(Option<&'a Tensor>);

/// A tensor that a kernel writes, also in place, or none.
pub struct Output<'a>(Option<&'a mut Tensor>);

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Input(Some(tensor))
    }
}

impl<'a> From<Option<&'a Tensor>> for Input<'a> {
    fn from(tensor: Option<&'a Tensor>) -> Self {
        Input(tensor)
    }
}

impl<'a> From<&'a mut Tensor> for Output<'a> {
    fn from(tensor: &'a mut Tensor) -> Self {
        Output(Some(tensor))
    }
}

impl<'a> From<Option<&'a mut Tensor>> for Output<'a> {
    fn from(tensor: Option<&'a mut Tensor>) -> Self {
        Output(tensor)
    }
}

/// How many blocks a run has, of as many threads as its kernel is made for.
#[derive(Clone, Copy)]
pub struct Blocks {
    count: Count,
    shared: usize,
    flops: f64,
}

#[derive(Clone, Copy)]
enum Count {
    Blocks([usize; 3]),
    Threads(usize),
}

impl Blocks {
    pub fn new(blocks: [usize; 3]) -> Self {
        Blocks::of(Count::Blocks(blocks))
    }

    /// As many as `threads` threads need.
    pub fn for_threads(threads: usize) -> Self {
        Blocks::of(Count::Threads(threads))
    }

    fn of(count: Count) -> Self {
        let (shared, flops) = (0, 0.0);
        Blocks {
            count,
            shared,
            flops,
        }
    }

    /// All together have so many multiplications and additions to do; for profiles.
    pub fn flops(self, flops: f64) -> Self {
        Blocks { flops, ..self }
    }

    /// With this many bytes of dynamic shared memory for every block.
    pub fn shared(self, bytes: usize) -> Self {
        let shared = bytes;
        Blocks { shared, ..self }
    }

    fn grid(self, kernel: &Kernel) -> Grid {
        let grid = match self.count {
            Count::Blocks(blocks) => Grid::blocks(blocks, kernel.threads()),
            Count::Threads(threads) => Grid::threads_for(threads, kernel.threads()),
        };
        grid.shared(self.shared)
    }
}

/// The neighbouring elements that a thread takes at once: `kernels/vector.cuh`.
#[derive(Clone, Copy)]
pub struct Vector {
    dtype: DType,
    pub width: usize,
}

impl Vector {
    /// No wider than this.
    pub fn at_most(self, width: usize) -> Self {
        let width = self.width.min(width);
        Vector { width, ..self }
    }

    /// The type's name in the names of kernels.
    pub fn key(self) -> &'static str {
        let is_this =
            |&&(_, dtype, width): &&(_, DType, usize)| (dtype, width) == (self.dtype, self.width);
        let named = VECTORS.iter().find(is_this);
        named.map_or(key(self.dtype), |&(name, ..)| name)
    }
}

/// An element type in the names of kernels.
pub fn key(dtype: DType) -> &'static str {
    dtype.word()
}

/// The most elements of a tensor that are one access: the widest vector of its type where all rows start at multiples of
/// its size, else one.
fn widest(tensor: &Tensor, one_row: bool) -> usize {
    let of_type = VECTORS.iter().filter(|vector| vector.1 == tensor.dtype());
    let width = of_type.map(|vector| vector.2).max().unwrap_or(1);
    let bytes = (width * tensor.dtype().bytes()) as u64;
    let start = tensor.memory().address().unwrap_or(0) + tensor.byte_range().start as u64;
    let aligned = start.is_multiple_of(bytes) && (one_row || tensor.ld().is_multiple_of(width));
    if aligned { width } else { 1 }
}

pub struct Launch<'a> {
    op: &'static str,
    ctx: &'a Context,
    cuda: &'a Cuda,
}

impl<'a> Launch<'a> {
    /// # Errors
    /// When the context is not of a CUDA device.
    pub fn new(op: &'static str, ctx: &'a Context) -> Result<Self> {
        let Device::Cuda(cuda) = ctx.device() else {
            return Err(Error::operation(op, "not on the CUDA device"));
        };
        Ok(Launch { op, ctx, cuda })
    }

    pub fn multiprocessors(&self) -> usize {
        self.cuda.facts().multiprocessors as usize
    }

    /// Bytes of shared memory that a block may have.
    pub fn shared_memory(&self) -> usize {
        self.cuda.facts().shared
    }

    /// The arithmetic for products of tensors of this type, as kernels have it in their names. f32 that is left beside bf16 is
    /// multiplied as tf32.
    pub fn arithmetic(&self, dtype: DType) -> &'static str {
        match (dtype, self.cuda.precision()) {
            (DType::F32, Precision::Tf32 | Precision::Bf16) => "tf32",
            (other, _) => key(other),
        }
    }

    /// A size as kernels take it.
    pub fn size(&self, size: usize) -> Result<i32> {
        let refuse =
            |_| Error::operation(self.op, format!("{size} is more than kernels can count"));
        i32::try_from(size).map_err(refuse)
    }

    /// The widest vectors of which the rows of all these tensors are made. They have the element type of the first; where
    /// types differ, the widest type says how many elements a vector has.
    pub fn vector(&self, tensors: &[&Tensor]) -> Vector {
        let whole = |tensor: &&Tensor| {
            let width = widest(tensor, false);
            if tensor.cols().is_multiple_of(width) {
                width
            } else {
                1
            }
        };
        Vector {
            dtype: tensors[0].dtype(),
            width: tensors.iter().map(whole).min().unwrap_or(1),
        }
    }

    /// As [`Launch::vector`] of `streams`, beside f32 tensors of which a thread takes a vector in accesses of 16 bytes.
    pub fn vector_beside(&self, streams: &[&Tensor], beside: &[&Tensor]) -> Vector {
        let vector = self.vector(streams);
        if beside.iter().all(|tensor| widest(tensor, false) > 1) {
            return vector;
        }
        vector.at_most(1)
    }

    /// As [`Launch::vector`], for kernels that take what is left at the end of a row one by one. With `one_row` the tensors
    /// are one row each, or dense and taken as one.
    pub fn vector_and_rest(&self, tensors: &[&Tensor], one_row: bool) -> Vector {
        let widths = tensors.iter().map(|tensor| widest(tensor, one_row));
        Vector {
            dtype: tensors[0].dtype(),
            width: widths.min().unwrap_or(1),
        }
    }

    /// Queues the kernel of this key.
    ///
    /// # Errors
    /// When there is none for the key, a tensor has another element type than it takes, or is on another device, or one that
    /// is written overlaps another.
    pub fn run<A: Arguments>(&self, key: &[&str], blocks: Blocks, arguments: A) -> Result<()> {
        let Some(member) = A::FAMILY.member(key) else {
            let message = format!("the CUDA device has no kernel for {}", key.join(", "));
            return Err(Error::operation(self.op, message));
        };
        let bytes = Cell::new(0);
        let mut tensors = Tensors {
            op: self.op,
            device: self.ctx.device(),
            elements: member.elements,
            given: Given::new(self.op),
            bytes: &bytes,
        };
        arguments.with_addresses(&mut tensors, |addresses| {
            let work = Work {
                bytes: bytes.get(),
                flops: blocks.flops,
            };
            // SAFETY: the addresses are of one value for each parameter of the kernel, of its type, as build.rs has written
            // both from one declaration. Tensors are checked. What a kernel does with the sizes that it is given is for the
            // operation that calls it to answer for, and is checked by running its tests under an emulator that watches
            // every access.
            unsafe {
                let grid = blocks.grid(&member.kernel);
                self.cuda.launch(&member.kernel, grid, work, addresses)
            }
        })
    }
}

/// The tensors of a run, as far as they are gathered.
pub struct Tensors<'a> {
    op: &'static str,
    device: &'a Device,
    elements: &'static [DType],
    given: Given,
    bytes: &'a Cell<usize>,
}

impl Tensors<'_> {
    /// The address of the next tensor; 0 where there is none.
    pub fn input(&mut self, tensor: Input) -> Result<u64> {
        self.give(tensor.0, false)
    }

    /// As [`Tensors::input`].
    pub fn output(&mut self, tensor: Output) -> Result<u64> {
        self.give(tensor.0.as_deref(), true)
    }

    fn give(&mut self, tensor: Option<&Tensor>, written: bool) -> Result<u64> {
        let (&elements, rest) = self.elements.split_first().expect("a tensor per pointer");
        self.elements = rest;
        let Some(tensor) = tensor else {
            return Ok(0);
        };
        let refuse = |message: String| Err(Error::operation(self.op, message));
        let Some(base) = tensor.memory().address() else {
            return refuse(format!("{tensor:?} is not in device memory"));
        };
        if !tensor.device().same(self.device) {
            return refuse(format!("{tensor:?} is on another device"));
        }
        let address = self.given.add(tensor, elements, base, written)?;
        self.bytes.set(self.given.bytes());
        Ok(address)
    }
}
