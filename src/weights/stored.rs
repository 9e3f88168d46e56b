//! A tensor inside a weight file: where its bytes are, and its elements as numbers.

use super::{Checked, WeightFile};
use crate::error::Result;
use crate::tensor::{DType, Element};
use half::{bf16, f16};
use std::borrow::Cow;
use std::ops::Range;

words! {
    /// The element types of weight files. The engine computes with only some of them ([`DType`]).
    pub enum StoredType {
        /// IEEE 754, 64 bits.
        F64 = "f64",
        /// IEEE 754, 32 bits.
        F32 = "f32",
        /// IEEE 754, 16 bits.
        F16 = "f16",
        /// The upper 16 bits of an f32.
        Bf16 = "bf16",
        /// Signed, 64 bits.
        I64 = "i64",
        /// Signed, 32 bits.
        I32 = "i32",
        /// Signed, 16 bits.
        I16 = "i16",
        /// Signed, 8 bits.
        I8 = "i8",
        /// Unsigned, 64 bits.
        U64 = "u64",
        /// Unsigned, 32 bits.
        U32 = "u32",
        /// Unsigned, 16 bits.
        U16 = "u16",
        /// Unsigned, 8 bits.
        U8 = "u8",
        /// One byte, 0 or 1.
        Bool = "bool",
    }
}

impl StoredType {
    /// Bytes per element.
    pub const fn bytes(self) -> usize {
        match self {
            StoredType::F64 | StoredType::I64 | StoredType::U64 => 8,
            StoredType::F32 | StoredType::I32 | StoredType::U32 => 4,
            StoredType::F16 | StoredType::Bf16 | StoredType::I16 | StoredType::U16 => 2,
            StoredType::I8 | StoredType::U8 | StoredType::Bool => 1,
        }
    }
}

impl From<DType> for StoredType {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => StoredType::F32,
            DType::F64 => StoredType::F64,
            DType::Bf16 => StoredType::Bf16,
            DType::F16 => StoredType::F16,
            DType::U32 => StoredType::U32,
            DType::U8 => StoredType::U8,
        }
    }
}

/// The name, type, shape and position of a tensor. An entry exists only after the check that the tensor lies inside
/// the file.
pub(super) struct Entry {
    pub name: String,
    dtype: StoredType,
    shape: Vec<usize>,
    /// The bytes of the file from the first element to the end of the last one.
    range: Range<usize>,
    /// Distance of neighbours along each dimension, in elements. `None` for a row-major tensor without gaps.
    strides: Option<Vec<usize>>,
}

impl Entry {
    /// A row-major tensor that has exactly these bytes of the file.
    pub fn dense(
        name: String,
        dtype: StoredType,
        shape: Vec<usize>,
        range: Range<usize>,
    ) -> Checked<Self> {
        let needs = size_in_bytes(&name, dtype, &shape)?;
        if range.len() != needs {
            let has = range.len();
            return Err(format!(
                "tensor \"{name}\" of {dtype}{shape:?} needs {needs} bytes, has {has}"
            ));
        }
        Ok(Entry {
            name,
            dtype,
            shape,
            range,
            strides: None,
        })
    }

    /// A tensor whose first element is element `first` of a storage, which has these bytes of the file.
    pub fn strided(
        name: String,
        dtype: StoredType,
        shape: Vec<usize>,
        strides: Vec<usize>,
        first: usize,
        storage: Range<usize>,
    ) -> Checked<Self> {
        let needs = size_in_bytes(&name, dtype, &shape)?;
        let elements = storage.len() / dtype.bytes();
        // One past the last element that the strides reach.
        let end = match needs {
            0 => Some(first),
            _ => reach(&shape, &strides).and_then(|reach| reach.checked_add(first)),
        };
        let end = end.filter(|&end| end <= elements).ok_or_else(|| {
            format!(
                "tensor \"{name}\" of shape {shape:?} with strides {strides:?} from element {first} reaches \
                 beyond its storage of {elements} elements"
            )
        })?;
        if needs > storage.len() {
            return Err(format!(
                "tensor \"{name}\" of shape {shape:?} has more elements than its storage ({elements}): \
                 expanded tensors are not read"
            ));
        }
        let byte = |element: usize| storage.start + element * dtype.bytes();
        Ok(Entry {
            range: byte(first)..byte(end),
            strides: (needs > 0 && !is_row_major(&shape, &strides)).then_some(strides),
            name,
            dtype,
            shape,
        })
    }
}

fn size_in_bytes(name: &str, dtype: StoredType, shape: &[usize]) -> Checked<usize> {
    let size = shape
        .iter()
        .try_fold(dtype.bytes(), |size, &extent| size.checked_mul(extent));
    size.ok_or_else(|| format!("tensor \"{name}\" has an impossible shape {shape:?}"))
}

/// The number of elements from the first to the last one, including both, of a tensor that is not empty.
fn reach(shape: &[usize], strides: &[usize]) -> Option<usize> {
    let mut reach = 1usize;
    for (&extent, &stride) in shape.iter().zip(strides) {
        reach = reach.checked_add((extent - 1).checked_mul(stride)?)?;
    }
    Some(reach)
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&extent, &stride)| {
        let fits = extent == 1 || stride == expected;
        expected *= extent;
        fits
    })
}

/// A tensor of an open [`WeightFile`].
#[derive(Clone, Copy)]
pub struct StoredTensor<'a> {
    pub(super) file: &'a WeightFile,
    pub(super) entry: &'a Entry,
}

impl<'a> StoredTensor<'a> {
    /// The name of the tensor.
    pub fn name(&self) -> &'a str {
        &self.entry.name
    }

    /// The type of its elements.
    pub fn dtype(&self) -> StoredType {
        self.entry.dtype
    }

    /// Its shape; filters are K C R S.
    pub fn shape(&self) -> &'a [usize] {
        &self.entry.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.entry.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the elements in row-major order: borrowed from the file, or copied if the file has another order.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        let bytes = &self.file.map[self.entry.range.clone()];
        match &self.entry.strides {
            None => Cow::Borrowed(bytes),
            Some(strides) => Cow::Owned(self.gather(bytes, strides)),
        }
    }

    /// Copies the elements of a strided tensor in row-major order.
    fn gather(&self, bytes: &[u8], strides: &[usize]) -> Vec<u8> {
        let (shape, size) = (self.shape(), self.dtype().bytes());
        let mut index = vec![0; shape.len()];
        let mut gathered = Vec::with_capacity(self.len() * size);
        for _ in 0..self.len() {
            let element: usize = index
                .iter()
                .zip(strides)
                .map(|(i, stride)| i * stride)
                .sum();
            gathered.extend_from_slice(&bytes[element * size..][..size]);
            for (i, &extent) in index.iter_mut().zip(shape).rev() {
                *i += 1;
                if *i < extent {
                    break;
                }
                *i = 0;
            }
        }
        gathered
    }

    /// The elements in row-major order, which must have type `T`. They are borrowed from the file if they are aligned
    /// there.
    ///
    /// # Errors
    /// When the elements have another type.
    pub fn values<T: Element>(&self) -> Result<Cow<'a, [T]>> {
        if self.dtype() != T::DTYPE.into() {
            return Err(self.refuse_type(&T::DTYPE.to_string()));
        }
        Ok(cast(self.bytes()))
    }

    /// The elements as f32 in row-major order: f32 is borrowed from the file if aligned; f16, bf16 and f64 are
    /// converted (f64 is rounded to nearest).
    ///
    /// # Errors
    /// When the elements are not floats.
    pub fn floats(&self) -> Result<Cow<'a, [f32]>> {
        let bytes = self.bytes();
        Ok(match self.dtype() {
            StoredType::F32 => cast(bytes),
            StoredType::F16 => convert(bytes, |x: f16| x.to_f32()),
            StoredType::Bf16 => convert(bytes, |x: bf16| x.to_f32()),
            StoredType::F64 => convert(bytes, |x: f64| x as f32),
            _ => return Err(self.refuse_type("floats (f32, f16, bf16 or f64)")),
        })
    }

    /// The elements as by [`StoredTensor::floats`], all of which must be finite.
    ///
    /// # Errors
    /// When the elements are not floats, or when one of them is infinite or not a number; the message says how many
    /// are, and where the first one is.
    pub fn finite_floats(&self) -> Result<Cow<'a, [f32]>> {
        let values = self.floats()?;
        let Some(first) = values.iter().position(|value| !value.is_finite()) else {
            return Ok(values);
        };
        let count = values.iter().filter(|value| !value.is_finite()).count();
        let (name, value, len) = (self.name(), values[first], values.len());
        Err(self.file.error(format!(
            "tensor \"{name}\" holds an infinity or NaN in {count} of {len} elements, the first one ({value}) \
             at {:?}; expected finite numbers: the file is damaged or from a training that failed, use another one",
            self.index(first)
        )))
    }

    /// The index along each dimension of an element in row-major order.
    fn index(&self, mut element: usize) -> Vec<usize> {
        let mut index = Vec::with_capacity(self.shape().len());
        for &extent in self.shape().iter().rev() {
            index.push(element % extent);
            element /= extent;
        }
        index.reverse();
        index
    }

    /// # Errors
    /// When the tensor has another shape; the message names file, tensor, expected and found.
    pub(super) fn check_shape(&self, expected: &[usize]) -> Result<()> {
        if self.shape() == expected {
            return Ok(());
        }
        let (name, found) = (self.name(), self.shape());
        let message = format!("tensor \"{name}\" should have shape {expected:?}, has {found:?}");
        Err(self.file.error(message))
    }

    fn refuse_type(&self, expected: &str) -> crate::error::Error {
        let (name, found) = (self.name(), self.dtype());
        let message = format!("tensor \"{name}\" should hold {expected}, holds {found}");
        self.file.error(message)
    }
}

impl std::fmt::Debug for StoredTensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}{:?}", self.name(), self.dtype(), self.shape())
    }
}

/// Bytes as numbers: borrowed if the bytes are aligned, otherwise copied.
fn cast<T: Element>(bytes: Cow<'_, [u8]>) -> Cow<'_, [T]> {
    if let Cow::Borrowed(bytes) = bytes
        && let Ok(values) = bytemuck::try_cast_slice(bytes)
    {
        return Cow::Borrowed(values);
    }
    Cow::Owned(bytemuck::pod_collect_to_vec(&bytes))
}

fn convert<'a, T: Element>(bytes: Cow<'_, [u8]>, to_f32: impl Fn(T) -> f32) -> Cow<'a, [f32]> {
    cast(bytes).iter().map(|&x| to_f32(x)).collect()
}
