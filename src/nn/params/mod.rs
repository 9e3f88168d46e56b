//! The parameters of a model: all trained tensors in one arena, their gradients in another, and everything else (frozen
//! weights, running statistics) in a third. On a device that computes in bf16 a fourth one holds the trained tensors rounded to it: the
//! operands of products.
//!
//! A model declares its tensors in [`Declarations`] and keeps the [`Id`]s; `build` then lays out
//! the arenas: every tensor starts at a multiple of 16 elements (64 bytes of f32), rows at multiples of 8 elements. Padding holds
//! zeros in values and gradients, so that clipping and optimisers run over a whole arena at once. The
//! decoder's trainables come first, then the encoder's: each group is one range. Tensors that are [`Joined`] lie so that they are one,
//! too, for products that read both.
//!
//! Names, shapes and layouts are PyTorch's when seen from outside; inside, convolution filters are KRSC.

mod declarations;

pub use declarations::{Declarations, Id, Init, Joined, Role};

use crate::error::{Error, Result};
use crate::philox;
use crate::tensor::{DType, Tensor};
use declarations::{Entry, Pair};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// A tensor on the device.
#[derive(Clone)]
struct Stored {
    value: Tensor,
    /// If it is trained.
    gradient: Option<Tensor>,
    /// As products read it, where that is not the value.
    rounded: Option<Tensor>,
}

/// The parameters of a model on a device.
pub struct Params {
    entries: Vec<Entry>,
    joined: Vec<Pair>,
    names: HashMap<String, Id>,
    tensors: Vec<Stored>,
    values: Tensor,
    gradients: Tensor,
    rounded: Option<Tensor>,
    decoder: Range<usize>,
    encoder: Range<usize>,
    dtype: DType,
}

impl Params {
    /// The element type of all of them.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The element type of [`Params::operand`], and so of activations that are multiplied by it.
    pub fn operands(&self) -> DType {
        self.rounded.as_ref().map_or(self.dtype, Tensor::dtype)
    }

    /// All tensors, in the order of their declaration.
    pub fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        (0..self.entries.len()).map(Id)
    }

    /// The tensor of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<Id> {
        self.names.get(name).copied()
    }

    /// The tensor's name, as PyTorch has it.
    pub fn name(&self, id: Id) -> &str {
        &self.entries[id.0].name
    }

    /// PyTorch's shape.
    pub fn shape(&self, id: Id) -> &[usize] {
        &self.entries[id.0].shape
    }

    /// The part that the tensor has in training.
    pub fn role(&self, id: Id) -> Role {
        self.entries[id.0].role
    }

    /// Whether an optimiser changes the tensor.
    pub fn is_trained(&self, id: Id) -> bool {
        self.role(id) != Role::Frozen
    }

    /// The tensor itself, on the device. [`Params::import`] is the way to write it: [`Params::operand`] may be a copy.
    pub fn value(&self, id: Id) -> &Tensor {
        &self.tensors[id.0].value
    }

    /// The tensor as products read it: rounded to bf16 where the device computes in it and the tensor is trained.
    pub fn operand(&self, id: Id) -> &Tensor {
        let Stored { value, rounded, .. } = &self.tensors[id.0];
        rounded.as_ref().unwrap_or(value)
    }

    /// A handle to write the gradient to.
    ///
    /// # Panics
    /// When the tensor is frozen: a bug of the model.
    pub fn gradient(&self, id: Id) -> Tensor {
        let gradient = &self.tensors[id.0].gradient;
        gradient.clone().expect("a frozen tensor has no gradient")
    }

    /// Two values as one.
    pub fn joined(&self, joined: Joined) -> Result<Tensor> {
        let pair = &self.joined[joined.0];
        self.as_one(pair, self.value(pair.ids[0]))
    }

    /// Two values as one, as products read them.
    pub fn joined_operand(&self, joined: Joined) -> Result<Tensor> {
        let pair = &self.joined[joined.0];
        self.as_one(pair, self.operand(pair.ids[0]))
    }

    /// A handle to write the gradient of two values to.
    pub fn joined_gradient(&self, joined: Joined) -> Result<Tensor> {
        let pair = &self.joined[joined.0];
        self.as_one(pair, &self.gradient(pair.ids[0]))
    }

    fn as_one(&self, pair: &Pair, first: &Tensor) -> Result<Tensor> {
        let start = first.byte_range().start / first.dtype().bytes();
        let memory = Rc::clone(first.memory());
        Tensor::in_memory(memory, start, pair.shape, pair.ld, first.dtype())
    }

    /// The arena of all trainables.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// The trainables as products read them, in an arena laid out as [`Params::values`], where that is another one. An optimiser that
    /// writes values writes it, too.
    pub fn rounded(&self) -> Option<&Tensor> {
        self.rounded.as_ref()
    }

    /// The arena of all gradients.
    pub fn gradients(&self) -> &Tensor {
        &self.gradients
    }

    /// The part of the arenas that belongs to the decoder, and that of the encoder.
    pub fn groups(&self) -> [Range<usize>; 2] {
        [self.decoder.clone(), self.encoder.clone()]
    }

    /// Number of trained parameters, padding not counted.
    pub fn trained_count(&self) -> usize {
        let trained = self.ids().filter(|&id| self.is_trained(id));
        trained.map(|id| self.value(id).len()).sum()
    }

    /// Sets every tensor to its initial value.
    ///
    /// # Errors
    /// When the device fails.
    pub fn initialise(&self, seed: u64) -> Result<()> {
        self.initialise_only(self.ids(), seed)
    }

    /// Sets some tensors to their initial values. A number depends only on the seed, the tensor's name and its
    /// place in PyTorch's layout.
    ///
    /// # Errors
    /// When the device fails.
    pub fn initialise_only(&self, ids: impl IntoIterator<Item = Id>, seed: u64) -> Result<()> {
        for id in ids {
            let entry = &self.entries[id.0];
            let len: usize = entry.shape.iter().product();
            let site = name_hash(&entry.name);
            let value = |i: usize| match entry.init {
                Init::Constant(value) => value as f32,
                Init::Uniform(bound) => {
                    let unit = f64::from(philox::uniform(seed, site, i as u64));
                    ((2.0 * unit - 1.0) * bound) as f32
                }
                Init::Normal(deviation) => philox::normal(seed, site, i as u64) * deviation as f32,
                Init::Embedding if i < entry.shape[1] => 0.0,
                Init::Embedding => philox::normal(seed, site, i as u64),
            };
            let values: Vec<f32> = (0..len).map(value).collect();
            self.import(id, &values)?;
        }
        Ok(())
    }

    /// Sets a tensor from values in PyTorch's layout.
    pub fn import(&self, id: Id, values: &[f32]) -> Result<()> {
        self.write(id, self.value(id).handle(), values)?;
        match &self.tensors[id.0].rounded {
            Some(rounded) => self.write(id, rounded.handle(), values),
            None => Ok(()),
        }
    }

    /// A tensor's values in PyTorch's layout.
    pub fn export(&self, id: Id) -> Result<Vec<f32>> {
        self.read(id, self.value(id))
    }

    /// The slice of another arena of the same layout (an optimiser's state) that belongs to a trained
    /// tensor.
    pub fn slice_of(&self, id: Id, arena: &Tensor) -> Result<Tensor> {
        let value = self.value(id);
        let offset = value.byte_range().start / self.dtype.bytes();
        let memory = Rc::clone(arena.memory());
        Tensor::in_memory(memory, offset, value.shape(), value.ld(), self.dtype)
    }

    /// Writes values in PyTorch's layout to a tensor laid out as `id` is.
    pub fn write(&self, id: Id, mut tensor: Tensor, values: &[f32]) -> Result<()> {
        let entry = &self.entries[id.0];
        if values.len() != tensor.len() {
            let message = format!(
                "{} has shape {:?}, {} values given",
                entry.name,
                entry.shape,
                values.len()
            );
            return Err(Error::operation("parameters", message));
        }
        let inside = if entry.is_filter() {
            permute_filter(&entry.shape, values, true)
        } else {
            values.to_vec()
        };
        tensor.copy_from_f32(&inside)
    }

    /// Reads a tensor laid out as `id` is into PyTorch's layout.
    pub fn read(&self, id: Id, tensor: &Tensor) -> Result<Vec<f32>> {
        let entry = &self.entries[id.0];
        let inside = tensor.to_f32()?;
        if entry.is_filter() {
            Ok(permute_filter(&entry.shape, &inside, false))
        } else {
            Ok(inside)
        }
    }
}

/// A filter (K, C, R, S) to (K, R, S, C), or back. `shape` is (K, C, R, S).
fn permute_filter(shape: &[usize], from: &[f32], inwards: bool) -> Vec<f32> {
    let (k, c, rs) = (shape[0], shape[1], shape[2] * shape[3]);
    let mut to = vec![0.0; from.len()];
    for k in 0..k {
        for c_ in 0..c {
            for p in 0..rs {
                let outside = (k * c + c_) * rs + p;
                let inside = (k * rs + p) * c + c_;
                if inwards {
                    to[inside] = from[outside];
                } else {
                    to[outside] = from[inside];
                }
            }
        }
    }
    to
}

/// FNV-1a, 32 bits: names to Philox streams.
fn name_hash(name: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    name.bytes().fold(2_166_136_261, step)
}
