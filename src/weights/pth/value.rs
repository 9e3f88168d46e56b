//! The values of a pickle of weights: containers, storages and tensors in a flat heap.
//!
//! Values refer to each other by index, so that neither depth nor cycles can exhaust the stack. Everything that is
//! neither a container nor a tensor is a foreign object: its name is kept, and nothing is done with it.

use super::super::{Checked, StoredType};
use super::names::Global;
use crate::words;
use std::ops::Range;

/// The largest number of dimensions of a tensor.
const MOST_DIMENSIONS: usize = 64;

/// More entries than any state dict has.
const MOST_COPIED: usize = 1 << 20;

/// A value on the stack. Containers, storages and tensors are indices into the [`Heap`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    /// A value that is not needed: a fraction, bytes, or a huge integer.
    Opaque,
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
    /// A function, class or object that weights do not need. It is skipped.
    Foreign(usize),
}

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::None => f.write_str("None"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Text(value) => write!(f, "{value:?}"),
            Value::Opaque => f.write_str("another value"),
            Value::Tuple(_) => f.write_str("a tuple"),
            Value::List(_) => f.write_str("a list"),
            Value::Dict(_) => f.write_str("a dict"),
            Value::Global(_) => f.write_str("a name"),
            Value::Storage(_) => f.write_str("a storage"),
            Value::Tensor(_) => f.write_str("a tensor"),
            Value::Foreign(_) => f.write_str("an object"),
        }
    }
}

/// A block of elements in the file.
pub struct Storage<'a> {
    pub dtype: StoredType,
    pub key: &'a str,
    /// Number of elements of the whole block.
    pub elements: usize,
    /// The elements that belong to the storage; `None` means all.
    pub view: Option<Range<usize>>,
}

/// A tensor in a storage.
#[derive(Clone, Copy)]
pub struct Tensor {
    /// Index of its storage in the heap.
    pub storage: usize,
    /// The index of its first element in the storage.
    pub first: usize,
    /// Indices of two tuples in the heap, which have been checked ([`Heap::sizes`]). They are not copied, because many
    /// tensors can refer to the same tuple.
    pub shape: usize,
    /// Distance of neighbours along each dimension, in elements.
    pub strides: usize,
}

/// Everything that a pickle has made.
#[derive(Default)]
pub struct Heap<'a> {
    tuples: Vec<Vec<Value<'a>>>,
    lists: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    /// Module and name of each foreign object's class or function.
    foreign: Vec<(&'a str, &'a str)>,
    pub storages: Vec<Storage<'a>>,
    /// `None` is a tensor that was made empty, and not yet given its content.
    tensors: Vec<Option<Tensor>>,
    /// Number of values that calls have copied.
    copied: usize,
}

impl<'a> Heap<'a> {
    pub fn new_tuple(&mut self, values: Vec<Value<'a>>) -> Value<'a> {
        self.tuples.push(values);
        Value::Tuple(self.tuples.len() - 1)
    }

    pub fn new_list(&mut self) -> Value<'a> {
        self.lists.push(Vec::new());
        Value::List(self.lists.len() - 1)
    }

    pub fn new_dict(&mut self) -> Value<'a> {
        self.dicts.push(Vec::new());
        Value::Dict(self.dicts.len() - 1)
    }

    fn new_tensor(&mut self, tensor: Option<Tensor>) -> Value<'a> {
        self.tensors.push(tensor);
        Value::Tensor(self.tensors.len() - 1)
    }

    /// The value of `module.name`.
    ///
    /// # Errors
    /// For a name that runs something when Python reads it.
    pub fn name(&mut self, module: &'a str, name: &'a str) -> Checked<Value<'a>> {
        if let Some(global) = Global::named(module, name)? {
            return Ok(Value::Global(global));
        }
        self.foreign.push((module, name));
        Ok(Value::Foreign(self.foreign.len() - 1))
    }

    pub fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Tuple(i) => Some(&self.tuples[i]),
            _ => None,
        }
    }

    pub fn list(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::List(i) => Some(&self.lists[i]),
            _ => None,
        }
    }

    /// The entries of a dict, in the order in which they were added.
    pub fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Dict(i) => Some(&self.dicts[i]),
            _ => None,
        }
    }

    /// The value under a name in a dict.
    pub fn find(&self, dict: Value<'a>, name: &str) -> Option<Value<'a>> {
        let mut entries = self.dict(dict)?.iter();
        entries
            .find(|(key, _)| *key == Value::Text(name))
            .map(|&(_, value)| value)
    }

    /// The content of a tensor; `None` if it never got any.
    pub fn tensor(&self, index: usize) -> Option<Tensor> {
        self.tensors[index]
    }

    /// Module and name of the class or function of a foreign object.
    pub fn foreign(&self, value: Value<'a>) -> Option<String> {
        match value {
            Value::Foreign(i) => Some(format!("{}.{}", self.foreign[i].0, self.foreign[i].1)),
            _ => None,
        }
    }

    pub fn append(&mut self, list: Value<'a>, values: &[Value<'a>]) -> Checked<()> {
        match list {
            Value::List(i) => self.lists[i].extend_from_slice(values),
            Value::Foreign(_) => {}
            _ => return Err(format!("appends to {list}, expected a list")),
        }
        Ok(())
    }

    /// Adds entries to a dict: key, value, key, value, …
    pub fn insert(&mut self, dict: Value<'a>, values: &[Value<'a>]) -> Checked<()> {
        match (dict, values.as_chunks()) {
            (Value::Foreign(_), _) => Ok(()),
            (Value::Dict(i), (pairs, [])) => {
                self.dicts[i].extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            _ => Err(format!("adds {} keys and values to {dict}", values.len())),
        }
    }

    /// The value that `function(*arguments)` stands for.
    pub fn call(&mut self, function: Value<'a>, arguments: Value<'a>) -> Checked<Value<'a>> {
        let given = self.tuple(arguments).unwrap_or_default();
        match (function, given) {
            (Value::Foreign(_), _) => Ok(function),
            (Value::Global(Global::OrderedDict), []) => Ok(self.new_dict()),
            (Value::Global(Global::OrderedDict), &[items]) => self.dict_of(items),
            (Value::Global(Global::Size), &[sizes @ Value::Tuple(_)]) => Ok(sizes),
            (Value::Global(Global::Tensor | Global::Parameter), []) => Ok(self.new_tensor(None)),
            (
                Value::Global(Global::Parameter | Global::RebuildParameter),
                &[tensor @ Value::Tensor(_), ..],
            ) => Ok(tensor),
            // A tensor of a kind that is not read.
            (
                Value::Global(Global::Parameter | Global::RebuildParameter | Global::RebuildTensor),
                &[other @ Value::Foreign(_), ..],
            ) => Ok(other),
            (Value::Global(Global::RebuildTensor), &[storage, first, shape, strides, ..]) => {
                let tensor = self.describe(storage, first, shape, strides)?;
                Ok(self.new_tensor(Some(tensor)))
            }
            (
                Value::Global(Global::RebuildFromType),
                &[
                    function @ Value::Global(Global::RebuildTensor | Global::RebuildParameter),
                    _class,
                    arguments,
                    ..,
                ],
            ) => self.call(function, arguments),
            _ => Err(format!(
                "calls {function} {function:?} with {}",
                words::count(given.len(), "argument")
            )),
        }
    }

    /// Gives an object its state, as Python's `__setstate__` does. Only tensors have one that matters.
    pub fn set_state(&mut self, object: Value<'a>, state: Value<'a>) -> Checked<()> {
        match object {
            // Attributes of an OrderedDict: versions of modules, which are not needed.
            Value::Dict(_) | Value::Foreign(_) => Ok(()),
            Value::Tensor(i) if self.tensors[i].is_some() => Ok(()),
            Value::Tensor(i) => {
                let content = match self.tuple(state) {
                    Some(&[Value::Tensor(data), ..]) => self.tensors[data],
                    Some(&[storage, first, shape, strides, ..]) => {
                        Some(self.describe(storage, first, shape, strides)?)
                    }
                    _ => return Err(format!("gives a tensor the content {state}")),
                };
                self.tensors[i] = content;
                Ok(())
            }
            _ => Err(format!("sets attributes of {object}")),
        }
    }

    /// A dict from a list of pairs: the state of an OrderedDict in Python 2.
    fn dict_of(&mut self, items: Value<'a>) -> Checked<Value<'a>> {
        let not_pairs = || format!("makes a dict from {items}, expected a list of pairs");
        let list = self.list(items).ok_or_else(not_pairs)?;
        // A list can be copied again and again by a few bytes of the pickle each time.
        let copied = self.copied + list.len();
        if copied > MOST_COPIED {
            return Err(format!("copies more than {MOST_COPIED} values"));
        }
        let pair = |&item: &Value<'a>| match self.tuple(item).or_else(|| self.list(item))? {
            &[key, value] => Some((key, value)),
            _ => None,
        };
        let pairs: Option<Vec<_>> = list.iter().map(pair).collect();
        self.copied = copied;
        self.dicts.push(pairs.ok_or_else(not_pairs)?);
        Ok(Value::Dict(self.dicts.len() - 1))
    }

    fn describe(
        &self,
        storage: Value<'a>,
        first: Value<'a>,
        shape: Value<'a>,
        strides: Value<'a>,
    ) -> Checked<Tensor> {
        let impossible = || "describes a tensor with impossible numbers".to_string();
        let (Value::Storage(storage), Value::Tuple(shape), Value::Tuple(strides)) =
            (storage, shape, strides)
        else {
            return Err(impossible());
        };
        let tensor = Tensor {
            storage,
            first: size(first).ok_or_else(impossible)?,
            shape,
            strides,
        };
        let extents = self.sizes(tensor.shape).map(|sizes| sizes.len());
        let steps = self.sizes(tensor.strides).map(|sizes| sizes.len());
        if extents.is_none() || extents != steps {
            return Err(impossible());
        }
        Ok(tensor)
    }

    /// The numbers in a tuple; `None` if they cannot be sizes of a tensor.
    pub fn sizes(&self, tuple: usize) -> Option<Vec<usize>> {
        let values = &self.tuples[tuple];
        if values.len() > MOST_DIMENSIONS {
            return None;
        }
        values.iter().map(|&value| size(value)).collect()
    }

    /// The storage that a persistent id names: `("storage", type, key, location, elements)`. Legacy files have a sixth
    /// value, which is `None` or `(key, first element, elements)` of the part that belongs to the storage.
    /// A storage of a type that is not read, such as complex numbers, is a foreign object.
    pub fn refer(&mut self, id: Value<'a>) -> Checked<Value<'a>> {
        if let Some(&[Value::Text("storage"), other @ Value::Foreign(_), ..]) = self.tuple(id) {
            return Ok(other);
        }
        let storage = self
            .storage(id)
            .ok_or("refers to something that is not a storage")?;
        self.storages.push(storage);
        Ok(Value::Storage(self.storages.len() - 1))
    }

    fn storage(&self, id: Value<'a>) -> Option<Storage<'a>> {
        let id = self.tuple(id)?;
        let &[
            Value::Text("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            _,
            count,
        ] = id.get(..5)?
        else {
            return None;
        };
        let view = match id.get(5) {
            None | Some(Value::None) => None,
            Some(&view) => {
                let &[_, first, count] = self.tuple(view)? else {
                    return None;
                };
                let first = size(first)?;
                Some(first..first.checked_add(size(count)?)?)
            }
        };
        Some(Storage {
            dtype,
            key,
            elements: size(count)?,
            view,
        })
    }
}

fn size(value: Value) -> Option<usize> {
    match value {
        Value::Int(value) => value.try_into().ok(),
        _ => None,
    }
}
