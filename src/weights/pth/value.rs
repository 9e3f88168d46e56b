//! The values of a pickle of weights: containers, storages and tensors in a flat heap.
//!
//! Values refer to each other by index, so that neither depth nor cycles can exhaust the stack.

use super::super::{Checked, StoredType};
use std::ops::Range;

/// The largest number of dimensions of a tensor.
const MOST_DIMENSIONS: usize = 64;

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
        }
    }
}

/// The names that a pickle may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(StoredType),
}

impl Global {
    /// The meaning of `module.name`.
    ///
    /// # Errors
    /// For every name that a state dict does not need.
    pub fn named(module: &str, name: &str) -> Checked<Self> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "DoubleStorage") => Global::Storage(StoredType::F64),
            ("torch", "FloatStorage") => Global::Storage(StoredType::F32),
            ("torch", "HalfStorage") => Global::Storage(StoredType::F16),
            ("torch", "BFloat16Storage") => Global::Storage(StoredType::Bf16),
            ("torch", "LongStorage") => Global::Storage(StoredType::I64),
            ("torch", "IntStorage") => Global::Storage(StoredType::I32),
            ("torch", "ShortStorage") => Global::Storage(StoredType::I16),
            ("torch", "CharStorage") => Global::Storage(StoredType::I8),
            ("torch", "ByteStorage") => Global::Storage(StoredType::U8),
            ("torch", "BoolStorage") => Global::Storage(StoredType::Bool),
            _ => {
                return Err(format!(
                    "names \"{module}.{name}\", which a state dict does not need; nothing was executed. \
                     Save the model's state_dict() alone"
                ));
            }
        })
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
pub struct Tensor {
    /// Index of its storage in the heap.
    pub storage: usize,
    /// The index of its first element in the storage.
    pub first: usize,
    pub shape: Vec<usize>,
    /// Distance of neighbours along each dimension, in elements.
    pub strides: Vec<usize>,
}

/// Everything that a pickle has made.
#[derive(Default)]
pub struct Heap<'a> {
    tuples: Vec<Vec<Value<'a>>>,
    lists: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub storages: Vec<Storage<'a>>,
    pub tensors: Vec<Tensor>,
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

    pub fn append(&mut self, list: Value<'a>, values: &[Value<'a>]) -> Checked<()> {
        let Value::List(i) = list else {
            return Err(format!("appends to {list}, expected a list"));
        };
        self.lists[i].extend_from_slice(values);
        Ok(())
    }

    /// Adds entries to a dict: key, value, key, value, …
    pub fn insert(&mut self, dict: Value<'a>, values: &[Value<'a>]) -> Checked<()> {
        let (Value::Dict(i), (pairs, [])) = (dict, values.as_chunks()) else {
            return Err(format!("adds {} keys and values to {dict}", values.len()));
        };
        self.dicts[i].extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    /// The value that `function(*arguments)` stands for.
    pub fn call(&mut self, function: Value<'a>, arguments: Value<'a>) -> Checked<Value<'a>> {
        let given = self.tuple(arguments).unwrap_or_default();
        match (function, given) {
            (Value::Global(Global::OrderedDict), []) => Ok(self.new_dict()),
            (Value::Global(Global::RebuildParameter), &[tensor @ Value::Tensor(_), ..]) => {
                Ok(tensor)
            }
            (
                Value::Global(Global::RebuildTensor),
                &[
                    Value::Storage(storage),
                    Value::Int(first),
                    shape,
                    strides,
                    ..,
                ],
            ) => {
                let tensor = self.describe(storage, first, shape, strides);
                let tensor = tensor.ok_or("describes a tensor with impossible numbers")?;
                self.tensors.push(tensor);
                Ok(Value::Tensor(self.tensors.len() - 1))
            }
            _ => Err(format!(
                "calls {function} {function:?} with {} arguments",
                given.len()
            )),
        }
    }

    fn describe(
        &self,
        storage: usize,
        first: i64,
        shape: Value<'a>,
        strides: Value<'a>,
    ) -> Option<Tensor> {
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        (shape.len() == strides.len()).then_some(Tensor {
            storage,
            first: first.try_into().ok()?,
            shape,
            strides,
        })
    }

    fn sizes(&self, tuple: Value<'a>) -> Option<Vec<usize>> {
        let values = self.tuple(tuple)?;
        if values.len() > MOST_DIMENSIONS {
            return None;
        }
        values.iter().map(|&value| size(value)).collect()
    }

    /// The storage that a persistent id names: `("storage", type, key, location, elements)`. Legacy files have a sixth
    /// value, which is `None` or `(key, first element, elements)` of the part that belongs to the storage.
    pub fn refer(&mut self, id: Value<'a>) -> Checked<Value<'a>> {
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
