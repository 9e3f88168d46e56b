//! A run's records: one JSON object per line, appended during training.

use crate::error::{Error, Result};
use crate::files;
use crate::words;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// A line of `steps.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps taken, this one included.
    pub step: u64,
    /// What is minimised.
    pub loss: f32,
    /// Cross-entropy, mean over tokens.
    pub ce: f32,
    /// Norm of all gradients before clipping.
    pub grad_norm: f32,
    /// The learning rate of the decoder.
    pub lr: f64,
    /// Milliseconds the step took, waiting for data included.
    pub ms: f64,
}

/// A line of `epochs.jsonl`. Losses are unweighted means over batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// Steps taken up to its end.
    pub step: u64,
    /// Mean over the epoch of what is minimised.
    pub train_loss: f64,
    /// Mean over the epoch of the cross-entropy.
    pub train_ce: f64,
    /// None when the run does not validate.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub validation: Option<ValidationRecord>,
    /// The decoder's learning rate at the end of the epoch.
    pub lr: f64,
    /// How long training and validation took.
    pub seconds: f64,
}

/// What an epoch's validation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationRecord {
    /// What training minimises, on the validation split.
    pub validation_loss: f64,
    /// Cross-entropy on the validation split.
    pub validation_ce: f64,
    /// Corpus BLEU-1 … BLEU-4, 0 to 1.
    pub bleu: [f64; 4],
}

/// A file of records, open for appending.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens a log and keeps its first `records` records; what follows them is cut off.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn cut(path: impl AsRef<Path>, records: u64) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        files::refuse_special(&path)?;
        let options = OpenOptions::new().append(true).create(true).open(&path);
        let file = options.map_err(Error::io(&path))?;
        let mut reader = BufReader::new(File::open(&path).map_err(Error::io(&path))?);
        let (mut end, mut line) = (0, Vec::new());
        for found in 0..records {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            end += read.map_err(Error::io(&path))? as u64;
            if line.last() != Some(&b'\n') {
                let checkpoint = path.with_file_name("last.safetensors");
                let message = format!(
                    "holds {}, but the checkpoint was made after {records}: put the whole file back, or start another run \
                     with `init = \"{}\"`",
                    words::count(found as usize, "record"),
                    checkpoint.display()
                );
                return Err(Error::file(&path, message));
            }
        }
        file.set_len(end).map_err(Error::io(&path))?;
        Ok(Log { path, file })
    }

    /// Waits until all records are on the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }

    /// Writes a record as one line, in one piece.
    pub fn write(&mut self, record: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(record);
        let mut line = text.map_err(|e| Error::file(&self.path, e.to_string()))?;
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.map_err(Error::io(&self.path))
    }
}

/// Reads a log back.
pub fn read<T: for<'a> Deserialize<'a>>(path: impl AsRef<Path>) -> Result<Vec<T>> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let lines = text.lines().enumerate();
    lines
        .map(|(number, line)| {
            serde_json::from_str(line)
                .map_err(|e| Error::file(path, format!("line {}: {e}", number + 1)))
        })
        .collect()
}
