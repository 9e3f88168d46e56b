//! Weight files: memory-mapped tensors by name, in the safetensors format or in PyTorch's own formats.
//!
//! The content of a file decides its format, never its name. All sizes and positions that a file states are checked
//! when it is opened, so that the bytes of every tensor are known to be inside the file. A file can cause neither
//! large allocations nor the execution of code.

mod pth;
mod recognise;
pub mod safetensors;
mod stored;
pub mod torchvision;

pub use stored::{StoredTensor, StoredType};

use crate::error::{Error, Result};
use crate::files;
use crate::words;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use stored::Entry;

#[cfg(target_endian = "big")]
compile_error!("weight files are little-endian and are used without conversion");

/// An opened weight file.
///
/// The file must not be changed while it is open (see [`files::map`]).
pub struct WeightFile {
    path: PathBuf,
    map: files::Content,
    format: Format,
    metadata: BTreeMap<String, String>,
    state_dict: Vec<&'static str>,
    /// In file order.
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

words! {
    /// The format of a weight file.
    pub enum Format {
        /// <https://huggingface.co/docs/safetensors>
        Safetensors = "safetensors",
        /// `torch.save` since PyTorch 1.6: a zip archive.
        TorchZip = "PyTorch (zip)",
        /// `torch.save` before PyTorch 1.6: a sequence of pickles, followed by the storages.
        TorchLegacy = "PyTorch (legacy)",
    }
}

/// The result of the reader of a format: the tensors, each checked to lie inside the file.
struct Contents {
    metadata: BTreeMap<String, String>,
    /// The keys, from the outermost on, that lead to the state dict in a checkpoint of PyTorch.
    state_dict: Vec<&'static str>,
    entries: Vec<Entry>,
}

/// The error says what is wrong with the content of a file; the caller adds which file.
type Checked<T> = std::result::Result<T, String>;

impl WeightFile {
    /// Opens a file and checks everything that it states about its tensors.
    ///
    /// # Errors
    /// When the file cannot be read, has an unknown format, is truncated, or contradicts itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let in_file = |message: String| Error::file(&path, message);
        if std::fs::metadata(&path).is_ok_and(|about| about.is_file() && about.len() == 0) {
            let message = "is empty: a download or a copy of it was cut off; get it again";
            return Err(in_file(message.into()));
        }
        let map = files::map(&path)?;
        let format = recognise::format(&map).map_err(in_file)?;
        let read = match format {
            Format::Safetensors => safetensors::read,
            Format::TorchZip => pth::read_zip,
            Format::TorchLegacy => pth::read_legacy,
        };
        let contents = read(&map).map_err(in_file)?;
        let mut by_name = HashMap::with_capacity(contents.entries.len());
        for (i, entry) in contents.entries.iter().enumerate() {
            if by_name.insert(entry.name.clone(), i).is_some() {
                let message = format!("holds tensor \"{}\" twice", entry.name);
                return Err(Error::file(&path, message));
            }
        }
        Ok(WeightFile {
            path,
            map,
            format,
            metadata: contents.metadata,
            state_dict: contents.state_dict,
            entries: contents.entries,
            by_name,
        })
    }

    /// The path under which the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format of the file.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The notes in the file, by key. PyTorch's formats have none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The keys, from the outermost on, under which the state dict lies in a checkpoint of PyTorch that holds other
    /// values, too.
    pub fn state_dict_keys(&self) -> &[&'static str] {
        &self.state_dict
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = StoredTensor<'_>> {
        self.entries.iter().map(|entry| self.stored(entry))
    }

    /// The tensor called `name`, if there is one.
    pub fn find(&self, name: &str) -> Option<StoredTensor<'_>> {
        let &i = self.by_name.get(name)?;
        Some(self.stored(&self.entries[i]))
    }

    /// The tensor called `name`, which must have this shape.
    ///
    /// # Errors
    /// When there is no such tensor, or when it has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<StoredTensor<'_>> {
        let Some(tensor) = self.find(name) else {
            return Err(self.error(format!("has no tensor \"{name}\" of shape {shape:?}")));
        };
        tensor.check_shape(shape)?;
        Ok(tensor)
    }

    fn stored<'a>(&'a self, entry: &'a Entry) -> StoredTensor<'a> {
        StoredTensor { file: self, entry }
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::file(&self.path, message)
    }
}

impl std::fmt::Debug for WeightFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, tensors) = (
            self.path.display(),
            words::count(self.entries.len(), "tensor"),
        );
        write!(f, "{path} ({}, {tensors})", self.format)
    }
}
