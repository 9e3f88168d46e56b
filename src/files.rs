//! Files as every layer treats them: mapped for reading, replaced as a whole when written.

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

/// Replaces `path` by what `content` writes: all of it or nothing.
///
/// The content goes to `<name>.<process>.<n>.tmp` in the same directory, is synced to disk and renamed
/// over `path`; then the directory is synced. A crash or an error at any moment leaves the old file or
/// the new one, never half of one; after an error the temporary file is removed.
///
/// A device or a pipe (`/dev/stdout`) is written to as it is: replacing it would take it from everybody.
///
/// # Errors
/// Whatever `content` returns, or the operating system's refusal, naming the file.
pub fn write_atomically(
    path: impl AsRef<Path>,
    content: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    if fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir()) {
        let special = OpenOptions::new().write(true).open(path);
        return fill(special.map_err(Error::io(path))?, path, content).map(drop);
    }
    let (file, aside) = create_aside(path)?;
    let written =
        fill(file, path, content).and_then(|file| file.sync_all().map_err(Error::io(path)));
    let renamed = written.and_then(|()| fs::rename(&aside, path).map_err(Error::io(path)));
    if renamed.is_err() {
        // A failure here has nobody to hear of it: the one that matters is on its way already.
        let _ = fs::remove_file(&aside);
    }
    renamed?;
    sync_directory(path)
}

/// Creates a file beside `path` that nobody else has.
fn create_aside(path: &Path) -> Result<(File, PathBuf)> {
    let Some(name) = path.file_name() else {
        return Err(Error::file(path, "is not the name of a file"));
    };
    for n in 0u32.. {
        let mut aside_name = name.to_os_string();
        aside_name.push(format!(".{}.{n}.tmp", std::process::id()));
        let aside = path.with_file_name(aside_name);
        match File::create_new(&aside) {
            Ok(file) => return Ok((file, aside)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
    Err(Error::file(
        path,
        "every name for a temporary file is taken",
    ))
}

/// Removes what a process that was killed inside [`write_atomically`] left in a directory. Nobody may be writing
/// there now.
pub fn remove_leftovers(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(is_aside) {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Whether a file has a name as `create_aside` gives them.
fn is_aside(name: &str) -> bool {
    let is_number = |part: Option<&str>| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut parts = name.rsplit('.');
    parts.next() == Some("tmp") && is_number(parts.next()) && is_number(parts.next())
}

/// Writes all of the content.
fn fill(
    file: File,
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<File> {
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    content(&mut writer)?;
    let flushed = writer.into_inner();
    flushed.map_err(|e| Error::io(path)(e.into_error()))
}

/// Makes the rename last: on Unix the directory's entry is its own to be synced.
fn sync_directory(path: &Path) -> Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let handle = File::open(directory).map_err(Error::io(directory))?;
    handle.sync_all().map_err(Error::io(directory))
}

/// Maps a file into memory for reading.
///
/// The file must not be shortened or rewritten in place while it is mapped: a reader would see the
/// change, or die of a bus error. [`write_atomically`] never does that: it puts a new file in the
/// place of the old one, which lives on until its last map is gone.
///
/// # Errors
/// When the file is missing, unreadable, empty, or no regular file.
pub fn map(path: &Path) -> Result<Mmap> {
    let about = fs::metadata(path).map_err(Error::io(path))?;
    if about.is_dir() {
        return Err(Error::file(path, "is a directory, expected a file"));
    }
    if !about.is_file() {
        return Err(Error::file(path, "is not a regular file"));
    }
    if about.len() == 0 {
        return Err(Error::file(path, "is empty"));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    // SAFETY: the map is read-only, and that nobody changes the file meanwhile is the contract that this
    // function states. The operating system offers no way to enforce it.
    unsafe { Mmap::map(&file) }.map_err(Error::io(path))
}
