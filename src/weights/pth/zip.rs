//! Zip archives of uncompressed records, as PyTorch writes them. Finds the bytes of each record.
//!
//! An archive is read from its end. The end record says where the directory is, the directory says where the local
//! header of each record is, and the local header says where the bytes begin. Values that do not fit in 32 bits are
//! in the records of zip64. Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3 and 4.5.3.

use super::super::Checked;
use std::collections::HashMap;
use std::ops::Range;

const LOCAL: &[u8] = b"PK\x03\x04";
const DIRECTORY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const END64_LOCATOR: &[u8] = b"PK\x06\x07";

/// Lengths of the fixed parts, in bytes.
const LOCAL_BYTES: usize = 30;
const DIRECTORY_BYTES: usize = 46;
const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;

/// The longest comment after the end record.
const LONGEST_COMMENT: usize = u16::MAX as usize;

/// The extra field with the values that do not fit in 32 bits.
const ZIP64_FIELD: u64 = 1;

/// A 32-bit field that says "see the zip64 field".
const IN_ZIP64: u64 = u32::MAX as u64;

/// An opened archive.
pub struct Archive<'a> {
    bytes: &'a [u8],
    /// In the order of the directory.
    records: Vec<Record<'a>>,
    by_name: HashMap<&'a str, usize>,
}

struct Record<'a> {
    name: &'a str,
    /// Neither compressed nor encrypted.
    is_stored: bool,
    local_header: usize,
    size: usize,
}

impl<'a> Archive<'a> {
    pub fn open(bytes: &'a [u8]) -> Checked<Self> {
        let mut rest = directory(bytes).ok_or("is a truncated or damaged zip archive")?;
        let mut records = Vec::new();
        while !rest.is_empty() {
            let (record, length) = record(rest).ok_or_else(|| {
                let n = records.len();
                format!("is a damaged zip archive: entry {n} of its directory is unreadable")
            })?;
            records.push(record);
            rest = &rest[length..];
        }
        let by_name = records
            .iter()
            .enumerate()
            .map(|(i, record)| (record.name, i))
            .collect();
        Ok(Archive {
            bytes,
            records,
            by_name,
        })
    }

    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.records.iter().map(|record| record.name)
    }

    /// The position of a record's bytes in the archive; `None` if there is no such record.
    pub fn find(&self, name: &str) -> Checked<Option<Range<usize>>> {
        let Some(&i) = self.by_name.get(name) else {
            return Ok(None);
        };
        let record = &self.records[i];
        if !record.is_stored {
            return Err(format!(
                "has a compressed record {name}, which torch.save never writes"
            ));
        }
        let range = content(self.bytes, record);
        let range = range.ok_or_else(|| {
            format!("is truncated or damaged: record {name} does not lie inside the archive")
        })?;
        Ok(Some(range))
    }
}

/// The little-endian number in `count` bytes from `at`.
fn number(bytes: &[u8], at: usize, count: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(count)?)?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)),
    )
}

fn position(bytes: &[u8], at: usize, count: usize) -> Option<usize> {
    number(bytes, at, count)?.try_into().ok()
}

fn part(bytes: &[u8], start: usize, length: usize) -> Option<&[u8]> {
    bytes.get(start..start.checked_add(length)?)
}

/// The bytes of the directory.
fn directory(bytes: &[u8]) -> Option<&[u8]> {
    let last = bytes.len().checked_sub(END_BYTES)?;
    let is_end = |&at: &usize| {
        let comment = position(bytes, at + 20, 2);
        bytes[at..].starts_with(END) && comment.is_some_and(|n| at + END_BYTES + n == bytes.len())
    };
    let end = (last.saturating_sub(LONGEST_COMMENT)..=last)
        .rev()
        .find(is_end)?;
    let locator = end.checked_sub(LOCATOR_BYTES);
    if let Some(locator) = locator.filter(|&at| bytes[at..].starts_with(END64_LOCATOR)) {
        let end64 = bytes.get(position(bytes, locator + 8, 8)?..)?;
        if !end64.starts_with(END64) {
            return None;
        }
        return part(bytes, position(end64, 48, 8)?, position(end64, 40, 8)?);
    }
    part(
        bytes,
        position(bytes, end + 16, 4)?,
        position(bytes, end + 12, 4)?,
    )
}

/// The first entry of the directory, and its length in bytes.
fn record(entry: &[u8]) -> Option<(Record<'_>, usize)> {
    if !entry.starts_with(DIRECTORY) {
        return None;
    }
    let [name_bytes, extra_bytes, comment_bytes] = [
        position(entry, 28, 2)?,
        position(entry, 30, 2)?,
        position(entry, 32, 2)?,
    ];
    let name = part(entry, DIRECTORY_BYTES, name_bytes)?;
    let extra = part(entry, DIRECTORY_BYTES + name_bytes, extra_bytes)?;
    let length = DIRECTORY_BYTES + name_bytes + extra_bytes + comment_bytes;
    let (flags, method) = (number(entry, 8, 2)?, number(entry, 10, 2)?);
    let mut wide = zip64_field(extra);
    // The zip64 field lists those of the three values that do not fit, in this order.
    let [size, stored_size, local_header] = [(24, 4), (20, 4), (42, 4)].map(|(at, count)| {
        let narrow = number(entry, at, count)?;
        if narrow < IN_ZIP64 {
            return usize::try_from(narrow).ok();
        }
        let value = position(wide, 0, 8)?;
        wide = &wide[8..];
        Some(value)
    });
    let record = Record {
        name: std::str::from_utf8(name).ok()?,
        is_stored: method == 0 && flags & 1 == 0 && size? == stored_size?,
        local_header: local_header?,
        size: size?,
    };
    (length <= entry.len()).then_some((record, length))
}

/// The content of the zip64 field among the extra fields of a record; empty if there is none.
fn zip64_field(mut extra: &[u8]) -> &[u8] {
    while let (Some(kind), Some(size)) = (number(extra, 0, 2), position(extra, 2, 2)) {
        let Some(field) = part(extra, 4, size) else {
            break;
        };
        if kind == ZIP64_FIELD {
            return field;
        }
        extra = &extra[4 + size..];
    }
    &[]
}

/// The position of a record's bytes, found by its local header.
fn content(bytes: &[u8], record: &Record) -> Option<Range<usize>> {
    let local = bytes.get(record.local_header..)?;
    if !local.starts_with(LOCAL) {
        return None;
    }
    let skip = LOCAL_BYTES + position(local, 26, 2)? + position(local, 28, 2)?;
    let start = record.local_header.checked_add(skip)?;
    part(bytes, start, record.size)?;
    Some(start..start + record.size)
}
