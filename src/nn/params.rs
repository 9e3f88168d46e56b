//! The parameters of a model: all trained tensors in one arena, their gradients in another, and everything else (frozen
//! weights, running statistics) in a third.
//!
//! A model declares its tensors in [`Declarations`] and keeps the [`Id`]s; `build` then lays out
//! the arenas: every tensor starts at a multiple of 64 bytes, rows at multiples of 8 elements. Padding holds
//! zeros in values and gradients, so that clipping and optimisers run over a whole arena at once. The
//! decoder's trainables come first, then the encoder's: each group is one range.
//!
//! Names, shapes and layouts are PyTorch's when seen from outside; inside, convolution filters are KRSC.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::philox;
use crate::tensor::{DType, ROW_ALIGNMENT, Shape, Tensor};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// Tensors start at multiples of this many elements: 64 bytes of f32.
const START_ALIGNMENT: usize = 16;

/// A declared tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(usize);

/// The part that a tensor has in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trained with the decoder's learning rate and weight decay.
    Decoder,
    /// Trained with the encoder's.
    Encoder,
    /// Not changed by an optimiser: frozen weights, and running statistics.
    Frozen,
}

/// How a tensor starts out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All elements the same.
    Constant(f64),
    /// Uniform in ± the bound.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// As `Normal(1)`, its first row zero: PyTorch's embedding with `padding_idx=0`.
    Embedding,
}

impl Init {
    /// Uniform in ±1/√n: PyTorch's default for a layer with n inputs, and for an LSTM of n units.
    pub fn fan_in(n: usize) -> Init {
        Init::Uniform(1.0 / (n as f64).sqrt())
    }
}

struct Entry {
    name: String,
    /// As PyTorch has it: (K, C, R, S) for filters.
    shape: Vec<usize>,
    role: Role,
    init: Init,
}

impl Entry {
    fn is_filter(&self) -> bool {
        self.shape.len() == 4
    }

    /// The shape in memory.
    fn memory_shape(&self) -> Shape {
        match self.shape[..] {
            [k, c, r, s] => Shape::new(&[k, r, s, c]),
            _ => Shape::new(&self.shape),
        }
    }

    /// Rows are padded where a matrix product reads them.
    fn ld(&self) -> usize {
        match self.shape.len() {
            2 => self.shape[1].next_multiple_of(ROW_ALIGNMENT),
            _ => self.memory_shape().cols(),
        }
    }
}

/// The tensors of a model that is being built.
#[derive(Default)]
pub struct Declarations(Vec<Entry>);

impl Declarations {
    /// How many tensors have been declared.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no tensor has been declared.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tensors that were declared after the first `start`.
    pub fn since(&self, start: usize) -> Vec<Id> {
        (start..self.0.len()).map(Id).collect()
    }

    /// Declares a tensor. `shape` is PyTorch's.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], role: Role, init: Init) -> Id {
        let (name, shape) = (name.into(), shape.to_vec());
        self.0.push(Entry {
            name,
            shape,
            role,
            init,
        });
        Id(self.0.len() - 1)
    }

    /// Allocates all tensors that were declared, filled with zeros.
    pub fn build(self, device: &Device, dtype: DType) -> Result<Params> {
        let offsets = |roles: &[Role], start: usize| {
            let mut next = start;
            let chosen = self.0.iter().enumerate();
            let chosen = chosen.filter(|(_, entry)| roles.contains(&entry.role));
            let offsets: Vec<(usize, usize)> = chosen
                .map(|(i, entry)| {
                    let offset = next;
                    let extent = entry.memory_shape().rows() * entry.ld();
                    next = (offset + extent).next_multiple_of(START_ALIGNMENT);
                    (i, offset)
                })
                .collect();
            (offsets, next)
        };
        let (mut trained, decoder_end) = offsets(&[Role::Decoder], 0);
        let (encoder, end) = offsets(&[Role::Encoder], decoder_end);
        let (fixed, fixed_end) = offsets(&[Role::Frozen], 0);
        trained.extend(encoder);

        let block = |len: usize| Ok(Rc::new(device.allocate(len * dtype.bytes())?));
        let (values, gradients, frozen) = (block(end)?, block(end)?, block(fixed_end)?);
        let mut tensors: Vec<Option<(Tensor, Option<Tensor>)>> = vec![None; self.0.len()];
        let place = |memory: &Rc<_>, i: usize, offset| {
            let entry = &self.0[i];
            let shape = entry.memory_shape();
            Tensor::in_memory(Rc::clone(memory), offset, shape, entry.ld(), dtype)
        };
        for &(i, offset) in &trained {
            let gradient = place(&gradients, i, offset)?;
            tensors[i] = Some((place(&values, i, offset)?, Some(gradient)));
        }
        for &(i, offset) in &fixed {
            tensors[i] = Some((place(&frozen, i, offset)?, None));
        }
        let whole = |memory| Tensor::in_memory(memory, 0, [end], end, dtype);
        let names = self.0.iter().enumerate();
        Ok(Params {
            names: names.map(|(i, e)| (e.name.clone(), Id(i))).collect(),
            tensors: tensors.into_iter().flatten().collect(),
            entries: self.0,
            values: whole(values)?,
            gradients: whole(gradients)?,
            decoder: 0..decoder_end,
            encoder: decoder_end..end,
            dtype,
        })
    }
}

/// The parameters of a model on a device.
pub struct Params {
    entries: Vec<Entry>,
    names: HashMap<String, Id>,
    /// Value and, if trained, gradient.
    tensors: Vec<(Tensor, Option<Tensor>)>,
    values: Tensor,
    gradients: Tensor,
    decoder: Range<usize>,
    encoder: Range<usize>,
    dtype: DType,
}

impl Params {
    /// The element type of all of them.
    pub fn dtype(&self) -> DType {
        self.dtype
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

    /// The tensor itself, on the device.
    pub fn value(&self, id: Id) -> &Tensor {
        &self.tensors[id.0].0
    }

    /// A handle to write the gradient to.
    ///
    /// # Panics
    /// When the tensor is frozen: a bug of the model.
    pub fn gradient(&self, id: Id) -> Tensor {
        let gradient = &self.tensors[id.0].1;
        gradient.clone().expect("a frozen tensor has no gradient")
    }

    /// The arena of all trainables.
    pub fn values(&self) -> &Tensor {
        &self.values
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
        self.write(id, self.value(id).handle(), values)
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

    /// The part of a copy of the encoder's range, of any element type, that belongs to one of its trained filters.
    pub fn encoder_slice(&self, id: Id, copy: &Tensor) -> Result<Tensor> {
        let value = self.value(id);
        let start = value.byte_range().start / self.dtype.bytes() - self.encoder.start;
        copy.columns(start, value.len())?.reshape(value.shape())
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
        match self.dtype {
            DType::F64 => {
                let wide: Vec<f64> = inside.iter().map(|&v| v.into()).collect();
                tensor.copy_from_slice(&wide)
            }
            _ => tensor.copy_from_slice(&inside),
        }
    }

    /// Reads a tensor laid out as `id` is into PyTorch's layout.
    pub fn read(&self, id: Id, tensor: &Tensor) -> Result<Vec<f32>> {
        let entry = &self.entries[id.0];
        let inside: Vec<f32> = match self.dtype {
            DType::F64 => {
                let wide = tensor.to_vec::<f64>()?;
                wide.iter().map(|&v| v as f32).collect()
            }
            _ => tensor.to_vec()?,
        };
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
