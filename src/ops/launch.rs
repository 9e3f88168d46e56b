//! Tensors of the CUDA device as arguments of kernels, for the `cuda.rs` half of operations.
//!
//! The twin of `host.rs`: `Launch` is made anew in every operation; it remembers what it handed out and refuses a
//! tensor that overlaps one it handed out for writing.

use crate::device::cuda::{Arguments, Cuda, Grid, Kernel, Read, Write};
use crate::device::{Device, Precision};
use crate::error::{Error, Result};
use crate::tensor::{Context, DType, Element, Tensor};
use std::cell::RefCell;

pub struct Launch<'a> {
    op: &'static str,
    ctx: &'a Context,
    cuda: &'a Cuda,
    given: RefCell<Vec<Given>>,
}

/// A range of addresses.
struct Given {
    start: u64,
    end: u64,
    written: bool,
}

impl<'a> Launch<'a> {
    /// # Errors
    /// When the context is not of a CUDA device.
    pub fn new(op: &'static str, ctx: &'a Context) -> Result<Self> {
        let Device::Cuda(cuda) = ctx.device() else {
            return Err(Error::operation(op, "not on the CUDA device"));
        };
        let given = RefCell::new(Vec::with_capacity(16));
        Ok(Launch {
            op,
            ctx,
            cuda,
            given,
        })
    }

    pub fn precision(&self) -> Precision {
        self.cuda.precision()
    }

    pub fn multiprocessors(&self) -> usize {
        self.cuda.facts().multiprocessors as usize
    }

    /// Bytes of shared memory that a block may have.
    pub fn shared_memory(&self) -> usize {
        self.cuda.facts().shared
    }

    /// A size as kernels take it.
    pub fn size(&self, size: usize) -> Result<i32> {
        let refuse =
            |_| Error::operation(self.op, format!("{size} is more than kernels can count"));
        i32::try_from(size).map_err(refuse)
    }

    /// The error for an element type that the operation has no kernel for.
    pub fn refuse<T>(&self, dtype: DType) -> Result<T> {
        let message = format!("the CUDA device has no kernel for {dtype}");
        Err(Error::operation(self.op, message))
    }

    pub fn read<T: Element>(&self, tensor: &Tensor) -> Result<Read<T>> {
        Ok(Read::at(self.give::<T>(tensor, false)?))
    }

    /// Also for a tensor that is changed in place.
    pub fn write<T: Element>(&self, tensor: &Tensor) -> Result<Write<T>> {
        Ok(Write::at(self.give::<T>(tensor, true)?))
    }

    /// Address 0 when there is no tensor.
    pub fn read_some<T: Element>(&self, tensor: Option<&Tensor>) -> Result<Read<T>> {
        tensor.map_or(Ok(Read::at(0)), |tensor| self.read(tensor))
    }

    /// Address 0 when there is no tensor.
    pub fn write_some<T: Element>(&self, tensor: Option<&Tensor>) -> Result<Write<T>> {
        tensor.map_or(Ok(Write::at(0)), |tensor| self.write(tensor))
    }

    /// How many columns a thread takes at once: as many as fit in 16 bytes when every row of the tensors, of one element
    /// type, starts at a multiple of 16 bytes and has a multiple of so many, else 1 (`kernels/pack.cuh`,
    /// `kernels/channels.cuh`).
    pub fn width(&self, tensors: &[&Tensor]) -> usize {
        let columns = |x: &Tensor| 16 / x.dtype().bytes();
        let in_groups = |x: &&Tensor| {
            let start = x.memory().address().unwrap_or(0) + x.byte_range().start as u64;
            let columns = columns(x);
            start.is_multiple_of(16)
                && x.ld().is_multiple_of(columns)
                && x.cols().is_multiple_of(columns)
        };
        match tensors.first() {
            Some(first) if tensors.iter().all(in_groups) => columns(first),
            _ => 1,
        }
    }

    /// Queues a kernel.
    pub fn run<A: Arguments>(
        &self,
        kernel: &Kernel<A>,
        grid: Grid,
        mut arguments: A,
    ) -> Result<()> {
        // SAFETY: addresses come from `read` and `write`, so from tensors of this device; what a kernel does with
        // the sizes that it is given is for the operation that calls it to answer for, and is checked by running its
        // tests under an emulator that watches every access.
        unsafe { self.cuda.launch(kernel, grid, &mut arguments) }
    }

    fn give<T: Element>(&self, tensor: &Tensor, written: bool) -> Result<u64> {
        let refuse = |message: String| Err(Error::operation(self.op, message));
        if tensor.dtype() != T::DTYPE {
            return refuse(format!("expected {}, found {tensor:?}", T::DTYPE));
        }
        let Some(base) = tensor.memory().address() else {
            return refuse(format!("{tensor:?} is not in device memory"));
        };
        if !tensor.device().same(self.ctx.device()) {
            return refuse(format!("{tensor:?} is on another device"));
        }
        let range = tensor.byte_range();
        let (start, end) = (base + range.start as u64, base + range.end as u64);
        let mut given = self.given.borrow_mut();
        let overlaps = |g: &Given| (written || g.written) && start < g.end && g.start < end;
        if start < end && given.iter().any(overlaps) {
            return refuse(format!("{tensor:?} overlaps another argument"));
        }
        given.push(Given {
            start,
            end,
            written,
        });
        Ok(start)
    }
}

/// Chooses between the kernels for f32 and bf16 and gives the element type a name:
/// `by_dtype!(launch, dtype, [X_F32, X_BF16] as T, |kernel| run::<T>(kernel))`.
macro_rules! by_dtype {
    ($launch:expr, $dtype:expr, [$f32:path, $bf16:path] as $T:ident, |$kernel:ident| $body:expr) => {
        match $dtype {
            $crate::tensor::DType::F32 => {
                type $T = f32;
                let $kernel = &$f32;
                $body
            }
            $crate::tensor::DType::Bf16 => {
                type $T = half::bf16;
                let $kernel = &$bf16;
                $body
            }
            other => $launch.refuse(other),
        }
    };
}
pub(super) use by_dtype;
