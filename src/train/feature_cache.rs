//! Features on disk: one file for each set of images, memory-mapped, shared by runs and processes.
//!
//! A file is named by its key, a hash of all that the features depend on: the encoder's weights and running
//! statistics as they are in memory, its structure, the precision it computes in, the preprocessing, the shape of the features, how
//! they are stored, and the images, each by name, length and time of modification (reading 8,000 photos to
//! hash them would take longer than it saves). When any of it changes, the key changes, and so does the file's name.
//!
//! The layout is little-endian. Its length is known in advance if all images can be read:
//!
//! ```text
//! 64 bytes   the header
//! rows       the features of every image that could be read, in the order of the set
//! flags      a byte for every image: 1 when it has a row
//! 32 bytes   SHA-256 of header, flags and the SHA-256 of every row
//! ```
//!
//! It is written under a temporary name and renamed when it is complete; opening it checks that it still is. Two
//! processes that start at the same time both compute the features; the last rename wins, and the map of the other
//! stays valid. A process that is killed while it writes leaves its temporary file behind, which nobody reads and which
//! can be removed.

use super::config::FeatureType;
use crate::data::digest;
use crate::data::flickr8k::Flickr8k;
use crate::error::{Error, Result};
use crate::files;
use crate::model::Engine;
use bytemuck::{Pod, Zeroable};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// It increases when the layout changes, or when the encoder or the preprocessing compute something else.
const VERSION: u32 = 4;

const MAGIC: [u8; 8] = *b"showfeat";

const DIGEST: usize = 32;

/// The first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    magic: [u8; 8],
    version: u32,
    /// Bytes per element.
    element: u32,
    images: u64,
    /// Elements per image.
    size: u64,
    key: [u8; DIGEST],
}

impl Header {
    /// For the features of `images` of the data set, stored as `element`.
    ///
    /// # Errors
    /// When the device fails, or the files of the images cannot be looked at.
    pub fn new(
        engine: &Engine,
        dataset: &Flickr8k,
        images: &[usize],
        element: FeatureType,
    ) -> Result<Self> {
        let config = engine.captioner.config();
        let shape = engine.captioner.feature_shape(1);
        let element = match element {
            FeatureType::F32 => size_of::<f32>(),
            FeatureType::Bf16 => size_of::<bf16>(),
        };
        let mut key = Sha256::new();
        key.update(format!(
            "showtell features {VERSION}\nblocks {:?}\nwidth {}\nstem {}\nprecision {}\nimage size {}\n\
             shape {:?}\nbytes an element {element}\n",
            config.encoder.blocks,
            config.encoder.width,
            config.encoder.stem.kernel[0],
            engine.ctx.device().precision(),
            config.image_size,
            shape.dims(),
        ));
        hash_encoder(engine, &mut key)?;
        hash_images(dataset, images, &mut key)?;
        Ok(Header {
            magic: MAGIC,
            version: VERSION,
            element: element as u32,
            images: images.len() as u64,
            size: shape.len() as u64,
            key: key.finalize().into(),
        })
    }

    /// The file's place in a cache.
    pub fn path(&self, directory: &Path) -> PathBuf {
        directory.join(digest::hexadecimal(&self.key[..16]) + ".features")
    }

    /// Bytes of the file when every image can be read.
    pub fn file_bytes(&self) -> u64 {
        let fixed = (size_of::<Header>() + DIGEST) as u64;
        fixed + self.images * (1 + self.row_bytes() as u64)
    }

    fn row_bytes(&self) -> usize {
        self.size as usize * self.element as usize
    }
}

/// The encoder's tensors, running statistics among them, by ascending name.
fn hash_encoder(engine: &Engine, key: &mut Sha256) -> Result<()> {
    let params = &engine.params;
    let mut ids = engine.captioner.encoder.ids().to_vec();
    ids.sort_by_key(|&id| params.name(id));
    for id in ids {
        key.update(format!("{} {:?}\n", params.name(id), params.shape(id)));
        key.update(bytemuck::cast_slice(&params.export(id)?));
    }
    Ok(())
}

fn hash_images(dataset: &Flickr8k, images: &[usize], key: &mut Sha256) -> Result<()> {
    let paths = dataset.image_paths()?;
    for &image in images {
        let about = match fs::metadata(&paths[image]) {
            Ok(about) => {
                let modified = about.modified().map_err(Error::io(&paths[image]))?;
                let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
                format!("{} bytes, {} ns", about.len(), since.as_nanos())
            }
            // Reading it will be the error.
            Err(_) => "absent".into(),
        };
        key.update(format!("{}\n{about}\n", dataset.images()[image].name));
    }
    Ok(())
}

/// A file of features, mapped.
pub struct FeatureFile {
    map: files::Content,
    header: Header,
}

impl FeatureFile {
    /// Opens a file that must be as `expected`, and complete.
    ///
    /// # Errors
    /// When the file is missing, has another header, or is truncated or damaged.
    pub fn open(path: &Path, expected: &Header) -> Result<Self> {
        let map = files::map(path)?;
        let refuse = |message: &str| Err(Error::file(path, message));
        let file = FeatureFile {
            map,
            header: *expected,
        };
        let fixed = size_of::<Header>() + expected.images as usize + DIGEST;
        if file.map.len() < fixed {
            return refuse("is truncated");
        }
        if file.map[..size_of::<Header>()] != *bytemuck::bytes_of(expected) {
            return refuse("does not have the header that belongs to its name");
        }
        let rows = file.flags().iter().filter(|&&flag| flag == 1).count();
        if file.map.len() - fixed != rows * expected.row_bytes() {
            return refuse("is truncated or damaged: its length is not that of its rows");
        }
        let digests = file.rows().par_chunks(expected.row_bytes());
        let digests: Vec<[u8; DIGEST]> = digests.map(|row| Sha256::digest(row).into()).collect();
        if file.map[file.map.len() - DIGEST..] != checksum(expected, file.flags(), &digests) {
            return refuse("is damaged: its checksum is wrong");
        }
        Ok(file)
    }

    fn rows(&self) -> &[u8] {
        let end = self.map.len() - DIGEST - self.header.images as usize;
        &self.map[size_of::<Header>()..end]
    }

    /// For every image of the set, 1 when it has a row.
    pub fn flags(&self) -> &[u8] {
        let end = self.map.len() - DIGEST;
        &self.map[end - self.header.images as usize..end]
    }

    /// Writes row `row` to `values`.
    pub fn read(&self, row: usize, values: &mut [f32]) {
        let bytes = self.header.row_bytes();
        let stored = &self.rows()[row * bytes..][..bytes];
        if self.header.element as usize == size_of::<f32>() {
            values.copy_from_slice(bytemuck::cast_slice(stored));
        } else {
            bytemuck::cast_slice::<_, bf16>(stored).convert_to_f32_slice(values);
        }
    }
}

fn checksum(header: &Header, flags: &[u8], rows: &[[u8; DIGEST]]) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    hash.update(bytemuck::bytes_of(header));
    hash.update(flags);
    hash.update(rows.as_flattened());
    hash.finalize().into()
}

/// Takes the rows of a file that [`write`] makes.
pub struct RowWriter<'a> {
    out: &'a mut BufWriter<File>,
    path: &'a Path,
    header: Header,
    flags: Vec<u8>,
    digests: Vec<[u8; DIGEST]>,
    rounded: Vec<bf16>,
}

impl RowWriter<'_> {
    /// The features of the image at `position` in the set; positions must ascend.
    pub fn push(&mut self, position: usize, values: &[f32]) -> Result<()> {
        let row: &[u8] = if self.header.element as usize == size_of::<f32>() {
            bytemuck::cast_slice(values)
        } else {
            self.rounded.resize(values.len(), bf16::ZERO);
            self.rounded.convert_from_f32_slice(values);
            bytemuck::cast_slice(&self.rounded)
        };
        self.flags[position] = 1;
        self.digests.push(Sha256::digest(row).into());
        self.out.write_all(row).map_err(Error::io(self.path))
    }
}

/// Writes a file, all or nothing, of the rows that `fill` pushes.
///
/// # Errors
/// Whatever `fill` returns, or what the operating system refuses.
pub fn write<R>(
    path: &Path,
    header: &Header,
    fill: impl FnOnce(&mut RowWriter) -> Result<R>,
) -> Result<R> {
    if let Some(directory) = path.parent() {
        files::make_folder(directory)?;
    }
    let mut result = None;
    files::write_atomically(path, |out| {
        out.write_all(bytemuck::bytes_of(header))
            .map_err(Error::io(path))?;
        let mut rows = RowWriter {
            out,
            path,
            header: *header,
            flags: vec![0; header.images as usize],
            digests: Vec::with_capacity(header.images as usize),
            rounded: Vec::new(),
        };
        result = Some(fill(&mut rows)?);
        let sum = checksum(header, &rows.flags, &rows.digests);
        rows.out.write_all(&rows.flags).map_err(Error::io(path))?;
        rows.out.write_all(&sum).map_err(Error::io(path))
    })?;
    result.ok_or_else(|| Error::file(path, "was not written"))
}
