//! Tensors: memory on a device, a shape, an element type; views; no arithmetic.
//!
//! A tensor is a matrix of `rows` x `cols`: `cols` is the last dimension, `rows` all others together,
//! and consecutive rows lie `ld` elements apart (`ld >= cols`, so rows may be padded). That covers all
//! views the models need: a range along the first dimension, a range of columns, another grouping of
//! the leading dimensions.
//!
//! A tensor is a handle, as an `Rc` is: its clones and views refer to the same memory, and what is written through one is
//! seen through all. `&mut Tensor` among the parameters of a function therefore says that the function writes the tensor's
//! elements; it does not say that nobody else has a handle to them. Whether what an operation writes overlaps another of
//! its arguments is checked on the addresses, when the operation runs. To write where only `&Tensor` is at hand, make a
//! handle of one's own: a view, or [`Tensor::handle`].

mod context;
mod dtype;
mod shape;

pub use context::Context;
pub use dtype::{DType, Element};
pub use shape::Shape;

use crate::device::{Device, Memory};
use crate::error::{Error, Result};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;
use std::rc::Rc;

/// Rows that a matrix product reads start at multiples of this many elements.
pub const ROW_ALIGNMENT: usize = 8;

/// A view of elements in the memory of a device. A clone is a view of the same elements.
#[derive(Clone)]
pub struct Tensor {
    memory: Rc<Memory>,
    /// First element, in elements from the start of the memory.
    offset: usize,
    shape: Shape,
    ld: usize,
    dtype: DType,
}

impl Tensor {
    /// A zeroed tensor with memory of its own.
    pub fn zeros(device: &Device, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        let memory = Rc::new(device.allocate(shape.len() * dtype.bytes())?);
        Tensor::in_memory(memory, 0, shape, shape.cols(), dtype)
    }

    /// A tensor with memory of its own, filled from `values` in row-major order.
    pub fn from_slice<T: Element>(
        device: &Device,
        shape: impl Into<Shape>,
        values: &[T],
    ) -> Result<Self> {
        let mut tensor = Tensor::zeros(device, shape, T::DTYPE)?;
        tensor.copy_from_slice(values)?;
        Ok(tensor)
    }

    /// A tensor over part of a block of memory. `offset` and `ld` count elements.
    ///
    /// # Errors
    /// When the tensor would not lie inside the block, or `ld` is shorter than a row.
    pub fn in_memory(
        memory: Rc<Memory>,
        offset: usize,
        shape: impl Into<Shape>,
        ld: usize,
        dtype: DType,
    ) -> Result<Self> {
        let tensor = Tensor {
            memory,
            offset,
            shape: shape.into(),
            ld,
            dtype,
        };
        let end = (offset + tensor.extent()) * dtype.bytes();
        if ld < tensor.cols() || end > tensor.memory.bytes() {
            return Err(Error::operation(
                "tensor",
                format!(
                    "{:?} of {dtype} with rows {ld} apart at element {offset} does not fit in {} bytes",
                    tensor.shape,
                    tensor.memory.bytes()
                ),
            ));
        }
        Ok(tensor)
    }

    /// The device whose memory holds the elements.
    pub fn device(&self) -> &Device {
        self.memory.device()
    }

    /// The dimensions.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Elements between the starts of consecutive rows.
    pub fn ld(&self) -> usize {
        self.ld
    }

    /// The product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.rows()
    }

    /// The last dimension; 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.shape.cols()
    }

    /// Number of elements, padding not counted.
    pub fn len(&self) -> usize {
        self.shape.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the rows follow each other without padding.
    pub fn is_dense(&self) -> bool {
        self.ld == self.cols() || self.rows() <= 1
    }

    /// Elements from the first to the last, padding between rows included.
    pub(crate) fn extent(&self) -> usize {
        match self.rows() {
            0 => 0,
            rows => (rows - 1) * self.ld + self.cols(),
        }
    }

    pub(crate) fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    /// The bytes of the memory that the tensor spans.
    pub(crate) fn byte_range(&self) -> Range<usize> {
        let size = self.dtype.bytes();
        self.offset * size..(self.offset + self.extent()) * size
    }

    fn refuse(&self, view: String) -> Error {
        Error::operation("tensor", format!("{view} of a tensor {:?}", self.shape))
    }

    /// Another handle to the same elements, to write them through.
    pub fn handle(&self) -> Self {
        self.clone()
    }

    /// Entries `start .. start + len` along the first dimension.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let (first, rest) = self.shape.split_first();
        if self.shape.rank() < 2 || start + len > first {
            return Err(self.refuse(format!("entries {start}..{}", start + len)));
        }
        let rows_per_entry = rest.rows();
        Ok(Tensor {
            offset: self.offset + start * rows_per_entry * self.ld,
            shape: rest.prepend(len),
            ..self.clone()
        })
    }

    /// Entry `i` along the first dimension, which disappears.
    pub fn index(&self, i: usize) -> Result<Self> {
        let one = self.narrow(i, 1)?;
        let (_, rest) = self.shape.split_first();
        Ok(Tensor { shape: rest, ..one })
    }

    /// Columns `start .. start + len` of every row.
    pub fn columns(&self, start: usize, len: usize) -> Result<Self> {
        if start + len > self.cols() {
            return Err(self.refuse(format!("columns {start}..{}", start + len)));
        }
        Ok(Tensor {
            offset: self.offset + start,
            shape: self.shape.with_cols(len),
            ..self.clone()
        })
    }

    /// The same elements grouped otherwise. The last dimension must stay unless the tensor is dense.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.len() != self.len() || !(self.is_dense() || shape.cols() == self.cols()) {
            return Err(self.refuse(format!("{shape:?} as a view")));
        }
        let ld = if shape.cols() == self.cols() {
            self.ld
        } else {
            shape.cols()
        };
        Ok(Tensor {
            shape,
            ld,
            ..self.clone()
        })
    }

    /// Fills the tensor from the host, row-major, without padding.
    pub fn copy_from_slice<T: Element>(&mut self, values: &[T]) -> Result<()> {
        self.check_host::<T>(values.len())?;
        let (start, size) = (self.byte_range().start, self.dtype.bytes());
        if self.is_dense() {
            return self.memory.upload(start, bytemuck::cast_slice(values));
        }
        for (row, values) in values.chunks_exact(self.cols().max(1)).enumerate() {
            let offset = start + row * self.ld * size;
            self.memory.upload(offset, bytemuck::cast_slice(values))?;
        }
        Ok(())
    }

    /// Fills the tensor from numbers on the host, row-major, without padding, in its own type: f32, f64, or bf16, to the nearest.
    pub fn copy_from_f32(&mut self, values: &[f32]) -> Result<()> {
        match self.dtype {
            DType::F64 => self.copy_converted(values, f64::from),
            DType::Bf16 => self.copy_converted(values, bf16::from_f32),
            _ => self.copy_from_slice(values),
        }
    }

    /// As [`Tensor::copy_from_slice`], converted a piece at a time, so that there is no second copy of what is large.
    fn copy_converted<T: Element>(
        &mut self,
        values: &[f32],
        convert: impl Fn(f32) -> T + Sync,
    ) -> Result<()> {
        /// Elements of a piece, and the fewest of a thread.
        const PIECE: usize = 1 << 20;
        const SHARE: usize = 1 << 15;
        self.check_host::<T>(values.len())?;
        let piece = if self.is_dense() { PIECE } else { self.cols() };
        let distance = if self.is_dense() { PIECE } else { self.ld };
        let (start, size) = (self.byte_range().start, self.dtype.bytes());
        let mut converted = Vec::new();
        for (i, values) in values.chunks(piece.max(1)).enumerate() {
            let values = values.par_iter().with_min_len(SHARE);
            (values.map(|&value| convert(value))).collect_into_vec(&mut converted);
            let offset = start + i * distance * size;
            (self.memory).upload(offset, bytemuck::cast_slice(&converted))?;
        }
        Ok(())
    }

    /// The elements on the host, in row-major order, of a tensor of f32, bf16, or f64, which is rounded.
    ///
    /// # Errors
    /// When the tensor has other elements, or the device fails.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        Ok(match self.dtype {
            DType::F64 => self.to_vec()?.into_iter().map(|v: f64| v as f32).collect(),
            DType::Bf16 => self.to_vec()?.into_iter().map(bf16::to_f32).collect(),
            _ => self.to_vec()?,
        })
    }

    /// Copies the tensor to the host, row-major, without padding.
    pub fn copy_to_slice<T: Element>(&self, values: &mut [T]) -> Result<()> {
        self.check_host::<T>(values.len())?;
        let (start, size) = (self.byte_range().start, self.dtype.bytes());
        if self.is_dense() {
            let bytes = bytemuck::cast_slice_mut(values);
            return self.memory.download(start, bytes);
        }
        for (row, values) in values.chunks_exact_mut(self.cols().max(1)).enumerate() {
            let offset = start + row * self.ld * size;
            let bytes = bytemuck::cast_slice_mut(values);
            self.memory.download(offset, bytes)?;
        }
        Ok(())
    }

    /// Begins to copy a dense tensor of few elements to the host; a GPU goes on meanwhile.
    pub fn download_later<T: Element>(&self) -> Result<Pending<T>> {
        self.check_host::<T>(self.len())?;
        if !self.is_dense() {
            return Err(self.refuse("padded rows as one copy".into()));
        }
        let range = self.byte_range();
        Ok(Pending {
            bytes: self.memory.download_later(range.start, range.len())?,
            len: self.len(),
            element: std::marker::PhantomData,
        })
    }

    /// A copy of the elements on the host, in row-major order.
    ///
    /// # Errors
    /// When `T` is not the tensor's element type, or the device fails.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.len()];
        self.copy_to_slice(&mut values)?;
        Ok(values)
    }

    fn check_host<T: Element>(&self, len: usize) -> Result<()> {
        if T::DTYPE == self.dtype && len == self.len() {
            return Ok(());
        }
        Err(self.refuse(format!(
            "{len} host values of {} for the {} elements ({})",
            T::DTYPE,
            self.len(),
            self.dtype
        )))
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// Values on their way to the host.
pub struct Pending<T> {
    bytes: crate::device::Pending,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Pending<T> {
    /// Waits for the values.
    pub fn wait(self) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.len];
        self.bytes.wait(bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
}
