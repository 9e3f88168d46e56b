//! PyTorch's own formats, which `torch.save(model.state_dict(), …)` writes.
//!
//! Both formats hold a pickle, which describes the tensors and refers to storages by key, and the bytes of the
//! storages. Since PyTorch 1.6 the file is a zip archive of uncompressed records: `<name>/data.pkl` and
//! `<name>/data/<key>`. Before, it is a sequence: a magic number, the version, facts about the machine, the pickle,
//! the list of keys, and for each key the number of elements and their bytes. Source: `torch/serialization.py`.
//!
//! A pickle is a program for a stack machine, which may call any Python function. [`pickle`] knows the few calls that
//! a state dict needs and refuses all others. It never executes anything.

mod pickle;
mod value;
mod zip;

use super::stored::Entry;
use super::{Checked, Contents};
use pickle::Pickle;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use value::{Heap, Storage, Tensor, Value};

/// The beginning of a legacy file: the magic number 0x1950a86a20f9469cfc6c as a separate pickle.
pub(super) const LEGACY_START: [u8; 15] = *b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// The version of the legacy format, which follows the magic number.
const LEGACY_VERSION: i64 = 1001;

/// The key of the state dict in checkpoints that hold other values, too.
const STATE_DICT: &str = "state_dict";

/// Finds the tensors of a zip archive.
pub(super) fn read_zip(bytes: &[u8]) -> Checked<Contents> {
    let archive = zip::Archive::open(bytes)?;
    let Some(name) = archive
        .names()
        .find_map(|name| name.strip_suffix("/data.pkl"))
    else {
        return Err("is a zip archive without data.pkl, so it is not from PyTorch".into());
    };
    if archive.find(&format!("{name}/constants.pkl"))?.is_some() {
        return Err("is a TorchScript program, expected a state dict".into());
    }
    if let Some(order) = archive.find(&format!("{name}/byteorder"))?
        && &bytes[order.clone()] != b"little"
    {
        return Err("was saved on a big-endian machine, expected little-endian".into());
    }
    let record = |part: &str| {
        let found = archive.find(&format!("{name}/{part}"))?;
        found.ok_or_else(|| format!("has no record {name}/{part}"))
    };
    let root = pickle::read(&bytes[record("data.pkl")?])?;
    collect(&root, |storage| record(&format!("data/{}", storage.key)))
}

/// Finds the tensors of a legacy file.
pub(super) fn read_legacy(bytes: &[u8]) -> Checked<Contents> {
    let mut at = LEGACY_START.len();
    let mut next = || -> Checked<Pickle> {
        let pickle = pickle::read(&bytes[at..])?;
        at += pickle.length;
        Ok(pickle)
    };
    let (version, machine, root, keys) = (next()?, next()?, next()?, next()?);
    match version.root {
        Value::Int(LEGACY_VERSION) => {}
        other => return Err(format!("has version {other}, expected {LEGACY_VERSION}")),
    }
    if machine.heap.find(machine.root, "little_endian") != Some(Value::Bool(true)) {
        return Err("was not saved on a little-endian machine, or does not say so".into());
    }
    let ranges = legacy_storages(bytes, at, &root, &keys)?;
    collect(&root, |storage| {
        let range = ranges.get(storage.key).cloned();
        range.ok_or_else(|| format!("has no storage \"{}\"", storage.key))
    })
}

/// The bytes of each storage. They follow the pickles in the order of the list of keys.
fn legacy_storages<'a>(
    bytes: &[u8],
    mut at: usize,
    root: &Pickle<'a>,
    keys: &Pickle<'a>,
) -> Checked<HashMap<&'a str, Range<usize>>> {
    let sizes: HashMap<&str, usize> = root
        .heap
        .storages
        .iter()
        .map(|storage| (storage.key, storage.dtype.bytes()))
        .collect();
    let Some(keys) = keys.heap.list(keys.root) else {
        return Err("has no list of storages".into());
    };
    let mut ranges = HashMap::new();
    for key in keys {
        let Value::Text(key) = *key else {
            return Err(format!("lists a storage {key}, expected a name"));
        };
        let Some(&size) = sizes.get(key) else {
            return Err(format!("lists a storage \"{key}\" that no tensor uses"));
        };
        let count = bytes[at..]
            .first_chunk()
            .map(|&count| u64::from_le_bytes(count));
        at += size_of::<u64>();
        let end = count
            .and_then(|count| {
                usize::try_from(count)
                    .ok()?
                    .checked_mul(size)?
                    .checked_add(at)
            })
            .filter(|&end| end <= bytes.len());
        let Some(end) = end else {
            let has = bytes.len();
            return Err(format!(
                "is truncated: storage \"{key}\" from byte {at} reaches beyond the file's {has} bytes"
            ));
        };
        ranges.insert(key, at..end);
        at = end;
    }
    Ok(ranges)
}

/// The tensors of the state dict that a pickle describes; `place` finds the bytes of a storage.
fn collect(
    pickle: &Pickle,
    place: impl Fn(&Storage) -> Checked<Range<usize>>,
) -> Checked<Contents> {
    let heap = &pickle.heap;
    let nested = heap
        .find(pickle.root, STATE_DICT)
        .and_then(|value| heap.dict(value));
    let Some(dict) = nested.or_else(|| heap.dict(pickle.root)) else {
        return Err(format!("holds {}, expected a state dict", pickle.root));
    };
    let mut entries = Vec::new();
    for &(key, value) in dict {
        if let (Value::Text(name), Value::Tensor(tensor)) = (key, value) {
            entries.push(entry(heap, name, &heap.tensors[tensor], &place)?);
        }
    }
    if entries.is_empty() {
        let keys: Vec<_> = dict
            .iter()
            .take(8)
            .map(|(key, _)| key.to_string())
            .collect();
        return Err(format!(
            "holds no tensors by name, expected a state dict, alone or under \"{STATE_DICT}\"; found a dict \
             of {}",
            keys.join(", ")
        ));
    }
    Ok(Contents {
        metadata: BTreeMap::new(),
        entries,
    })
}

fn entry(
    heap: &Heap,
    name: &str,
    tensor: &Tensor,
    place: impl Fn(&Storage) -> Checked<Range<usize>>,
) -> Checked<Entry> {
    let storage = &heap.storages[tensor.storage];
    let bytes = place(storage)?;
    let (size, elements) = (storage.dtype.bytes(), storage.elements);
    if elements.checked_mul(size) != Some(bytes.len()) {
        let has = bytes.len() / size;
        return Err(format!(
            "tensor \"{name}\" lies in a storage that should have {elements} elements, has {has}"
        ));
    }
    let part = match storage.view.clone() {
        None => bytes,
        Some(view) if view.end <= elements => {
            bytes.start + view.start * size..bytes.start + view.end * size
        }
        Some(view) => {
            return Err(format!(
                "tensor \"{name}\" lies in elements {view:?} of a storage that has {elements}"
            ));
        }
    };
    let (shape, strides) = (tensor.shape.clone(), tensor.strides.clone());
    Entry::strided(
        name.into(),
        storage.dtype,
        shape,
        strides,
        tensor.first,
        part,
    )
}
