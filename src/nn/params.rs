//! The parameters of a model: all trained tensors in one arena, their gradients in another, and everything else (frozen
//! weights, running statistics) in a third.
//!
//! A model declares its tensors in [`Declarations`] and keeps the [`Id`]s; `build` then lays out
//! the arenas: every tensor starts at a multiple of 64 bytes, rows at multiples of 8 elements. Padding holds
//! zeros in values and gradients, so that clipping and optimisers run over a whole arena at once. The
//! decoder's trainables come first, then the encoder's: each group is one range. Tensors that are [`Joined`] lie so that they are one,
//! too, for products that read both.
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

/// Two declared tensors that lie so that together they are one tensor, too.
#[derive(Clone, Copy, Debug)]
pub struct Joined(usize);

/// What [`Joined`] stands for.
struct Pair {
    ids: [Id; 2],
    /// From the first element of the first to that of the second, in elements.
    distance: usize,
    /// Of both together.
    shape: Shape,
    ld: usize,
    /// Whether they share rows.
    beside: bool,
}

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

/// Where a tensor lies in its arena.
struct Place {
    entry: usize,
    offset: usize,
    ld: usize,
}

fn unfit(first: &Entry, second: &Entry) -> Error {
    let [(a, shape), (b, other)] = [first, second].map(|entry| (&entry.name, &entry.shape));
    let message = format!("{a} {shape:?} and {b} {other:?} do not fit together");
    Error::operation("parameters", message)
}

/// The tensors of a model that is being built.
#[derive(Default)]
pub struct Declarations {
    entries: Vec<Entry>,
    joined: Vec<Pair>,
}

impl Declarations {
    /// How many tensors have been declared.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no tensor has been declared.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tensors that were declared after the first `start`.
    pub fn since(&self, start: usize) -> Vec<Id> {
        (start..self.entries.len()).map(Id).collect()
    }

    /// Declares a tensor. `shape` is PyTorch's.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], role: Role, init: Init) -> Id {
        let (name, shape) = (name.into(), shape.to_vec());
        self.entries.push(Entry {
            name,
            shape,
            role,
            init,
        });
        Id(self.entries.len() - 1)
    }

    /// The rows of `second` will lie below those of `first`, which has as many columns: (K, C) and (L, C) are (K + L, C), too. So do
    /// biases: (K) and (L) are (K + L).
    ///
    /// # Errors
    /// When the shapes do not fit together.
    pub fn below(&mut self, first: Id, second: Id) -> Result<Joined> {
        self.join([first, second], false)
    }

    /// The columns of `second` will lie beside those of `first`, which has as many rows: (K, C) and (K, D) are (K, C + D), too, C
    /// being padded with zeros to a multiple of 8.
    ///
    /// # Errors
    /// When the shapes do not fit together.
    pub fn beside(&mut self, first: Id, second: Id) -> Result<Joined> {
        self.join([first, second], true)
    }

    fn join(&mut self, ids: [Id; 2], beside: bool) -> Result<Joined> {
        let [a, b] = ids.map(|id| &self.entries[id.0]);
        let distance = match beside {
            true => a.ld(),
            false => a.memory_shape().rows() * a.ld(),
        };
        let (shape, ld) = match (beside, &a.shape[..], &b.shape[..]) {
            _ if a.role != b.role => return Err(unfit(a, b)),
            (false, &[k], &[l]) => (Shape::new(&[k + l]), k + l),
            (false, &[k, c], &[l, d]) if c == d => (Shape::new(&[k + l, c]), a.ld()),
            (true, &[k, _], &[l, d]) if k == l => {
                (Shape::new(&[k, distance + d]), distance + b.ld())
            }
            _ => return Err(unfit(a, b)),
        };
        self.joined.push(Pair {
            ids,
            distance,
            shape,
            ld,
            beside,
        });
        Ok(Joined(self.joined.len() - 1))
    }

    /// The places of all tensors with this part in training, from `start` on, and where they end.
    fn places(&self, role: Role, start: usize) -> (Vec<Place>, usize) {
        let (mut places, mut next) = (Vec::new(), start);
        let chosen = self.entries.iter().enumerate();
        for (entry, declared) in chosen.filter(|(_, entry)| entry.role == role) {
            if self.joined.iter().any(|joined| joined.ids[1] == Id(entry)) {
                continue;
            }
            let offset = next;
            let mut place = |entry: usize, offset, joined: Option<&Pair>| {
                let shared = joined.filter(|joined| joined.beside);
                let ld = shared.map_or(self.entries[entry].ld(), |joined| joined.ld);
                places.push(Place { entry, offset, ld });
            };
            let joined = self.joined.iter().find(|joined| joined.ids[0] == Id(entry));
            place(entry, offset, joined);
            let extent = match joined {
                Some(joined) => {
                    place(joined.ids[1].0, offset + joined.distance, Some(joined));
                    joined.shape.rows() * joined.ld
                }
                None => declared.memory_shape().rows() * declared.ld(),
            };
            next = (offset + extent).next_multiple_of(START_ALIGNMENT);
        }
        (places, next)
    }

    /// Allocates all tensors that were declared, filled with zeros.
    pub fn build(self, device: &Device, dtype: DType) -> Result<Params> {
        let (mut trained, decoder_end) = self.places(Role::Decoder, 0);
        let (encoder, end) = self.places(Role::Encoder, decoder_end);
        let (fixed, fixed_end) = self.places(Role::Frozen, 0);
        trained.extend(encoder);

        let block = |len: usize| Ok(Rc::new(device.allocate(len * dtype.bytes())?));
        let (values, gradients, frozen) = (block(end)?, block(end)?, block(fixed_end)?);
        let mut tensors: Vec<Option<(Tensor, Option<Tensor>)>> = vec![None; self.entries.len()];
        let tensor = |memory: &Rc<_>, place: &Place| {
            let shape = self.entries[place.entry].memory_shape();
            Tensor::in_memory(Rc::clone(memory), place.offset, shape, place.ld, dtype)
        };
        for place in &trained {
            let gradient = tensor(&gradients, place)?;
            tensors[place.entry] = Some((tensor(&values, place)?, Some(gradient)));
        }
        for place in &fixed {
            tensors[place.entry] = Some((tensor(&frozen, place)?, None));
        }
        let whole = |memory| Tensor::in_memory(memory, 0, [end], end, dtype);
        let names = self.entries.iter().enumerate();
        Ok(Params {
            names: names.map(|(i, e)| (e.name.clone(), Id(i))).collect(),
            tensors: tensors.into_iter().flatten().collect(),
            entries: self.entries,
            joined: self.joined,
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
    joined: Vec<Pair>,
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

    /// Two values as one.
    pub fn joined(&self, joined: Joined) -> Result<Tensor> {
        let pair = &self.joined[joined.0];
        self.as_one(pair, self.value(pair.ids[0]))
    }

    /// A handle to write the gradient of two values to.
    pub fn joined_gradient(&self, joined: Joined) -> Result<Tensor> {
        let pair = &self.joined[joined.0];
        self.as_one(pair, &self.gradient(pair.ids[0]))
    }

    fn as_one(&self, pair: &Pair, first: &Tensor) -> Result<Tensor> {
        let start = first.byte_range().start / self.dtype.bytes();
        let memory = Rc::clone(first.memory());
        Tensor::in_memory(memory, start, pair.shape, pair.ld, self.dtype)
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
