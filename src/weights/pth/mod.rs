//! PyTorch's own formats, which `torch.save(model.state_dict(), …)` writes.
//!
//! Both formats hold a pickle, which describes the tensors and refers to storages by key, and the bytes of the
//! storages. Since PyTorch 1.6 the file is a zip archive of uncompressed records: `<name>/data.pkl` and
//! `<name>/data/<key>`. Before, it is a sequence: a magic number, the version, facts about the machine, the pickle,
//! the list of keys, and for each key the number of elements and their bytes. Source: `torch/serialization.py`.
//!
//! A pickle is a program for a stack machine, which may call any Python function. [`pickle`] knows the few calls that
//! a state dict needs. It never executes anything: other objects beside the state dict are skipped.

mod names;
mod pickle;
mod value;
mod zip;

use super::stored::Entry;
use super::{Checked, Contents};
use names::unwanted;
use pickle::Pickle;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use value::{Heap, Storage, Tensor, Value};

/// The beginning of a legacy file: the magic number 0x1950a86a20f9469cfc6c as a separate pickle.
pub(super) const LEGACY_START: [u8; 15] = *b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// The version of the legacy format, which follows the magic number.
const LEGACY_VERSION: i64 = 1001;

/// The keys of the state dict in checkpoints that hold other values, too. The first one that is there counts.
const STATE_DICT_KEYS: [&str; 5] = ["state_dict", "model_state_dict", "model", "net", "ema"];

/// How many of these keys may lead to the state dict, one inside the other.
const DEEPEST_STATE_DICT: usize = 3;

/// More tensors than any file of weights has.
const MOST_TENSORS: usize = 1 << 17;

/// Finds the tensors of a zip archive.
pub(super) fn read_zip(bytes: &[u8]) -> Checked<Contents> {
    let archive = zip::Archive::open(bytes)?;
    let Some(name) = archive
        .names()
        .find_map(|name| name.strip_suffix("/data.pkl"))
    else {
        return Err(other_zip(&archive));
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

/// What a zip archive is that has no weights of PyTorch.
fn other_zip(archive: &zip::Archive) -> String {
    if archive.names().any(|name| name.ends_with(".npy")) {
        return "is an archive of NumPy arrays (npz): expected safetensors or a PyTorch file"
            .into();
    }
    let is_weights = |name: &&str| {
        let endings = [".pth", ".pt", ".bin", ".safetensors"];
        endings.iter().any(|ending| name.ends_with(ending))
    };
    match archive.names().find(is_weights) {
        Some(name) => {
            format!("is a zip archive with \"{name}\" inside: unpack it, and give that file")
        }
        None => "is a zip archive without data.pkl, so it is not from PyTorch".into(),
    }
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
    let mut keys = Vec::new();
    let found = state_dict(heap, pickle.root, &mut keys);
    let dict = found.and_then(|found| heap.dict(found));
    let dict = dict.ok_or_else(|| no_state_dict(heap, pickle.root))?;
    let (mut entries, mut names) = (Vec::new(), HashSet::new());
    for &(key, value) in dict {
        if let (Value::Text(name), Value::Tensor(tensor)) = (key, value) {
            let tensor = heap.tensor(tensor);
            let tensor = tensor.ok_or_else(|| format!("tensor \"{name}\" never got a content"))?;
            // Before the name is copied: a small file can hold a long one very often.
            if !names.insert(name) {
                return Err(format!("holds tensor \"{name}\" twice"));
            }
            entries.push(entry(heap, name, tensor, &place)?);
        }
        if entries.len() > MOST_TENSORS {
            return Err(format!("holds more than {MOST_TENSORS} tensors"));
        }
    }
    Ok(Contents {
        metadata: BTreeMap::new(),
        state_dict: keys,
        entries,
    })
}

/// The dict that holds tensors by name: the value itself, or one under the usual keys, which are added to `keys`.
fn state_dict<'a>(
    heap: &Heap<'a>,
    value: Value<'a>,
    keys: &mut Vec<&'static str>,
) -> Option<Value<'a>> {
    let entries = heap.dict(value)?;
    if keys.len() < DEEPEST_STATE_DICT {
        for key in STATE_DICT_KEYS {
            keys.push(key);
            let nested = heap.find(value, key);
            if let Some(found) = nested.and_then(|nested| state_dict(heap, nested, keys)) {
                return Some(found);
            }
            keys.pop();
        }
    }
    let is_tensor = |entry: &(Value, Value)| matches!(entry, (Value::Text(_), Value::Tensor(_)));
    entries.iter().any(is_tensor).then_some(value)
}

/// What a file holds that has no state dict, and what to do.
fn no_state_dict(heap: &Heap, root: Value) -> String {
    let mut candidates = STATE_DICT_KEYS
        .iter()
        .filter_map(|key| heap.find(root, key))
        .chain([root]);
    if let Some(class) = candidates.find_map(|value| heap.foreign(value)) {
        return format!(
            "holds an object, expected a state dict: it {}",
            unwanted(&class)
        );
    }
    let Some(dict) = heap.dict(root) else {
        return format!("holds {root}, expected a state dict");
    };
    let found: Vec<_> = dict
        .iter()
        .take(8)
        .map(|(key, _)| key.to_string())
        .collect();
    let [keys @ .., last] = STATE_DICT_KEYS.map(|key| format!("\"{key}\""));
    format!(
        "holds no tensors by name, expected a state dict, alone or under {} or {last}; found a dict of {}",
        keys.join(", "),
        found.join(", ")
    )
}

fn entry(
    heap: &Heap,
    name: &str,
    tensor: Tensor,
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
    let sizes = |tuple| heap.sizes(tuple).unwrap_or_default();
    let (shape, strides) = (sizes(tensor.shape), sizes(tensor.strides));
    Entry::strided(
        name.into(),
        storage.dtype,
        shape,
        strides,
        tensor.first,
        part,
    )
}
