//! What a model declares of its parameters, and how they are laid out in arenas.

use super::{Params, Stored};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, ROW_ALIGNMENT, Shape, Tensor};
use std::rc::Rc;

/// Tensors start at multiples of this many elements: 64 bytes of f32, 32 of bf16.
const START_ALIGNMENT: usize = 16;

/// A declared tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub(super) usize);

/// Two declared tensors that lie so that together they are one tensor, too.
#[derive(Clone, Copy, Debug)]
pub struct Joined(pub(super) usize);

/// What [`Joined`] stands for.
pub(super) struct Pair {
    pub ids: [Id; 2],
    /// From the first element of the first to that of the second, in elements.
    distance: usize,
    /// Of both together.
    pub shape: Shape,
    pub ld: usize,
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

pub(super) struct Entry {
    pub name: String,
    /// As PyTorch has it: (K, C, R, S) for filters.
    pub shape: Vec<usize>,
    pub role: Role,
    pub init: Init,
}

impl Entry {
    pub fn is_filter(&self) -> bool {
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
        let of_operands = dtype.of_activations(device.precision());
        let rounded = match of_operands == dtype {
            true => None,
            false => Some(Rc::new(device.allocate(end * of_operands.bytes())?)),
        };
        let mut tensors: Vec<Option<Stored>> = vec![None; self.entries.len()];
        let tensor = |memory: &Rc<_>, place: &Place, dtype| {
            let shape = self.entries[place.entry].memory_shape();
            Tensor::in_memory(Rc::clone(memory), place.offset, shape, place.ld, dtype)
        };
        for place in &trained {
            let rounded = rounded.as_ref();
            let rounded = rounded.map(|memory| tensor(memory, place, of_operands));
            tensors[place.entry] = Some(Stored {
                value: tensor(&values, place, dtype)?,
                gradient: Some(tensor(&gradients, place, dtype)?),
                rounded: rounded.transpose()?,
            });
        }
        for place in &fixed {
            tensors[place.entry] = Some(Stored {
                value: tensor(&frozen, place, dtype)?,
                gradient: None,
                rounded: None,
            });
        }
        let whole = |memory, dtype| Tensor::in_memory(memory, 0, [end], end, dtype);
        let rounded = rounded.map(|memory| whole(memory, of_operands));
        let names = self.entries.iter().enumerate();
        Ok(Params {
            names: names.map(|(i, e)| (e.name.clone(), Id(i))).collect(),
            tensors: tensors.into_iter().flatten().collect(),
            entries: self.entries,
            joined: self.joined,
            values: whole(values, dtype)?,
            gradients: whole(gradients, dtype)?,
            rounded: rounded.transpose()?,
            decoder: 0..decoder_end,
            encoder: decoder_end..end,
            dtype,
        })
    }
}
