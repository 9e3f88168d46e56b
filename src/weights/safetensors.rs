//! The safetensors format: eight bytes with the length of the header, the header in JSON, and the tensors.
//!
//! The header maps each name to `{"dtype", "shape", "data_offsets": [begin, end]}`, where offsets count from the end
//! of the header, and `__metadata__` to strings. The tensors follow each other without gaps, and the last one ends at
//! the end of the file. Source: <https://huggingface.co/docs/safetensors#format>. The format is parsed here, and not
//! by the `safetensors` crate, because the errors of that crate name neither the tensor nor the numbers.

use super::stored::{Entry, StoredType};
use super::{Checked, Contents};
use crate::error::{Error, Result};
use crate::files;
use crate::words;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Number of bytes before the header.
pub(super) const LENGTH_BYTES: usize = 8;

/// The longest header that the format allows.
const LONGEST_HEADER: usize = 100_000_000;

const METADATA: &str = "__metadata__";

/// Finds the tensors of a file.
pub(super) fn read(bytes: &[u8]) -> Checked<Contents> {
    let (header, data_start) = split_header(bytes)?;
    let header: Header = serde_json::from_slice(header)
        .map_err(|error| format!("has an unreadable header: {error}"))?;
    let mut metadata = BTreeMap::new();
    let mut tensors = Vec::with_capacity(header.0.len());
    for (name, value) in header.0 {
        if name == METADATA {
            metadata = serde_json::from_value(value)
                .map_err(|error| format!("has unreadable metadata in its header: {error}"))?;
        } else {
            let about: About = serde_json::from_value(value).map_err(|error| {
                format!("has an unreadable entry for tensor \"{name}\": {error}")
            })?;
            tensors.push((name, about));
        }
    }
    tensors.sort_by_key(|(_, about)| about.data_offsets);
    check_offsets(&tensors, bytes.len() - data_start)?;
    let place = |(name, about): (String, About)| {
        let dtype = parse_type(&name, &about.dtype)?;
        let [begin, end] = about.data_offsets;
        Entry::dense(
            name,
            dtype,
            about.shape,
            data_start + begin..data_start + end,
        )
    };
    let entries = tensors.into_iter().map(place).collect::<Checked<_>>()?;
    Ok(Contents {
        metadata,
        state_dict: Vec::new(),
        entries,
    })
}

/// The bytes of the header, and the position at which the tensors begin.
fn split_header(bytes: &[u8]) -> Checked<(&[u8], usize)> {
    let length = bytes
        .first_chunk()
        .map_or(0, |&length| u64::from_le_bytes(length));
    let rest = &bytes[LENGTH_BYTES.min(bytes.len())..];
    let fits = usize::try_from(length).ok().filter(|&n| n <= rest.len());
    let Some(length) = fits else {
        return Err(format!(
            "is truncated, or not a safetensors file: its header should have {length} bytes, but {} are left",
            rest.len()
        ));
    };
    if length > LONGEST_HEADER {
        return Err(format!(
            "has a header of {length} bytes, longer than the {LONGEST_HEADER} that safetensors allows"
        ));
    }
    Ok((&rest[..length], LENGTH_BYTES + length))
}

/// Checks that the tensors, sorted by offset, follow each other and end at the end of the file.
fn check_offsets(tensors: &[(String, About)], data_bytes: usize) -> Checked<()> {
    let mut at = 0;
    for (name, about) in tensors {
        let [begin, end] = about.data_offsets;
        if begin != at || end < begin {
            return Err(format!(
                "tensor \"{name}\" has offsets {begin}..{end}, expected to begin at {at}: tensors should \
                 follow each other without gaps or overlaps"
            ));
        }
        if end > data_bytes {
            return Err(format!(
                "is truncated: tensor \"{name}\" ends at byte {end} of the data, which has {data_bytes} bytes"
            ));
        }
        at = end;
    }
    if at != data_bytes {
        return Err(format!(
            "has {} after its last tensor, expected none",
            words::count(data_bytes - at, "byte")
        ));
    }
    Ok(())
}

/// The entry of a tensor in the header.
#[derive(serde::Serialize, serde::Deserialize)]
struct About {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The entries of the header in their order. Entries with the same name are kept, so that they can be reported.
struct Header(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object that maps names to tensors")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The name that the format uses for an element type.
fn type_name(dtype: StoredType) -> String {
    dtype.word().to_uppercase()
}

fn parse_type(tensor: &str, name: &str) -> Checked<StoredType> {
    let mut known = StoredType::ALL.into_iter();
    known
        .find(|&dtype| type_name(dtype) == name)
        .ok_or_else(|| {
            let expected = StoredType::ALL.map(type_name).join(", ");
            format!("tensor \"{tensor}\" has element type \"{name}\", expected one of {expected}")
        })
}

/// A tensor to write.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: StoredType,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Spec {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bytes()
    }
}

/// Writes a file, completely or not at all ([`files::write_atomically`]), with one tensor in memory at a time.
///
/// `content(i)` returns the bytes of `specs[i]` in row-major order. It is called once per tensor, in the order of the
/// file: tensors with wide elements first, so that every tensor is aligned, and otherwise in the order of `specs`.
///
/// # Errors
/// When a name occurs twice, when a content does not have the size that its shape requires, or when the file cannot
/// be written.
pub fn write<'a>(
    path: impl AsRef<Path>,
    metadata: &BTreeMap<String, String>,
    specs: &[Spec],
    mut content: impl FnMut(usize) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    let path = path.as_ref();
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(specs[i].dtype.bytes()));
    let header = header(metadata, order.iter().map(|&i| &specs[i]))
        .map_err(|message| Error::file(path, message))?;
    files::write_atomically(path, |writer| {
        let length = (header.len() as u64).to_le_bytes();
        writer.write_all(&length).map_err(Error::io(path))?;
        writer.write_all(&header).map_err(Error::io(path))?;
        for i in order {
            let bytes = content(i)?;
            let (spec, found) = (&specs[i], bytes.len());
            if found != spec.bytes() {
                let (name, expected) = (&spec.name, spec.bytes());
                let message =
                    format!("tensor \"{name}\" should have {expected} bytes, has {found}");
                return Err(Error::file(path, message));
            }
            writer.write_all(&bytes).map_err(Error::io(path))?;
        }
        Ok(())
    })
}

/// The header of a file with these tensors in this order, padded so that the first tensor is aligned.
fn header<'a>(
    metadata: &BTreeMap<String, String>,
    specs: impl Iterator<Item = &'a Spec>,
) -> Checked<Vec<u8>> {
    let value = |value: serde_json::Result<serde_json::Value>| value.map_err(|e| e.to_string());
    let mut entries = serde_json::Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA.into(), value(serde_json::to_value(metadata))?);
    }
    let mut at = 0;
    for spec in specs {
        let about = About {
            dtype: type_name(spec.dtype),
            shape: spec.shape.clone(),
            data_offsets: [at, at + spec.bytes()],
        };
        at += spec.bytes();
        let about = value(serde_json::to_value(about))?;
        if spec.name == METADATA || entries.insert(spec.name.clone(), about).is_some() {
            return Err(format!("cannot hold tensor \"{}\" twice", spec.name));
        }
    }
    let mut header = serde_json::to_vec(&entries).map_err(|error| error.to_string())?;
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
    Ok(header)
}
