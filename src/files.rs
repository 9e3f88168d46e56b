//! How every layer reads and writes files: it maps them for reading, and replaces them as a whole when it writes.

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// Makes a folder and those around it, where they do not exist.
///
/// # Errors
/// When something else stands in the place of one of them, or the operating system refuses.
pub fn make_folder(path: &Path) -> Result<()> {
    let is_no_folder = |place: &&Path| fs::symlink_metadata(place).is_ok() && !place.is_dir();
    fs::create_dir_all(path).map_err(|cause| match path.ancestors().find(is_no_folder) {
        Some(file) => {
            let message = "is a file, but a folder is needed in its place: give another name, or move the file away";
            Error::file(file, message)
        }
        None => Error::io(path)(cause),
    })
}

/// Replaces the file `path` by what `content` writes, completely or not at all.
///
/// The content is written to `<name>.<process>.<n>.showtell-tmp` in the same directory, synced to disk and renamed to
/// `path`; then the directory is synced. After a crash or an error at any moment, either the old file or the new
/// one is there, never a part of one. After an error, the temporary file is removed.
///
/// A device or a pipe (`/dev/stdout`) is written to directly, because replacing it would take it away from
/// everybody. Where `path` is a symbolic link, the file that it points to is replaced, and the link stays.
///
/// # Errors
/// What `content` returns, or an error of the operating system with the name of the file.
pub fn write_atomically(
    path: impl AsRef<Path>,
    content: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    if is_special(path) {
        let special = OpenOptions::new().write(true).open(path);
        return fill(special.map_err(Error::io(path))?, path, content).map(drop);
    }
    let path = &*destination(path)?;
    let (file, aside) = create_aside(path)?;
    let renamed = fill(file, path, content).and_then(|file| {
        file.sync_all().map_err(Error::io(path))?;
        fs::rename(&aside, path).map_err(Error::io(path))
    });
    if renamed.is_err() {
        // If this fails, too, the first error is the one to report.
        let _ = fs::remove_file(&aside);
    }
    renamed?;
    sync_directory(path)
}

/// Finds out early whether [`write_atomically`] can write to `path`, so that no long work ends with nowhere to put its
/// result. Changes nothing.
///
/// # Errors
/// When the folder does not exist or cannot be written to, or `path` is a folder.
pub fn check_writable(path: &Path) -> Result<()> {
    // A pipe is not opened: its reader would take the end of this check for the end of the file.
    if is_special(path) {
        return Ok(());
    }
    let path = &*destination(path)?;
    if path.is_dir() {
        return Err(Error::file(
            path,
            "is a folder, expected the name of a file",
        ));
    }
    let (_locked, aside) = create_aside(path)?;
    fs::remove_file(&aside).map_err(Error::io(&aside))
}

/// What exists, but is neither a file nor a folder.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir())
}

/// What a path means behind its symbolic links. The file itself need not exist.
fn destination(path: &Path) -> Result<PathBuf> {
    /// More links than any system follows.
    const MOST: usize = 64;
    let mut path = path.to_path_buf();
    for _ in 0..MOST {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            // Not a link, or nothing.
            Err(_) => return Ok(path),
        }
    }
    Err(Error::file(path, "is a symbolic link that leads to itself"))
}

/// Refuses a pipe, a socket or a device in the place of a file: opening it could wait forever.
///
/// # Errors
/// When it is one.
pub fn refuse_special(path: &Path) -> Result<()> {
    match is_special(path) {
        true => Err(Error::file(path, "is not a regular file")),
        false => Ok(()),
    }
}

/// Replaces the file `path` by this text, as [`write_atomically`].
///
/// # Errors
/// As [`write_atomically`].
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    write_atomically(path, |file| {
        file.write_all(text.as_bytes()).map_err(Error::io(path))
    })
}

/// The longest name that all file systems take has 255 bytes; the end of a temporary file's name has less than these.
const MOST_OF_NAME: usize = 200;

/// A name as it is, or its beginning if a temporary file's would be too long.
fn shortened(name: &OsStr) -> OsString {
    if name.len() <= MOST_OF_NAME {
        return name.to_os_string();
    }
    let text = name.to_string_lossy();
    let end = (0..=MOST_OF_NAME)
        .rev()
        .find(|&end| text.is_char_boundary(end));
    text[..end.unwrap_or(0)].into()
}

/// How the names of temporary files end. It says whose they are, since those of killed processes are removed.
const ASIDE: &str = "showtell-tmp";

/// Creates a new file in the directory of `path`. While it is open, [`remove_leftovers`] of other processes spares it.
fn create_aside(path: &Path) -> Result<(File, PathBuf)> {
    let Some(name) = path.file_name() else {
        return Err(Error::file(path, "the path has no file name"));
    };
    for n in 0u32.. {
        let mut aside_name = shortened(name);
        aside_name.push(format!(".{}.{n}.{ASIDE}", std::process::id()));
        let aside = path.with_file_name(aside_name);
        match File::create_new(&aside) {
            Ok(file) => {
                // On a file system without locks, nothing is locked.
                let _ = file.try_lock();
                return Ok((file, aside));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
    Err(Error::file(
        path,
        "every name for a temporary file exists already",
    ))
}

/// Removes the temporary files of processes that were killed inside [`write_atomically`]. Those of processes that are still
/// writing are locked, and stay; on a file system without locks, no process may be writing to the directory.
///
/// # Errors
/// When the directory cannot be read or a file cannot be removed.
pub fn remove_leftovers(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(is_aside) && !is_being_written(&path) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io(&path)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether a process has the lock of a temporary file.
fn is_being_written(path: &Path) -> bool {
    let locked = |file: File| matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    File::open(path).is_ok_and(locked)
}

/// Whether a name has the form that `create_aside` gives.
fn is_aside(name: &str) -> bool {
    let is_number = |part: Option<&str>| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut parts = name.rsplit('.');
    parts.next() == Some(ASIDE) && is_number(parts.next()) && is_number(parts.next())
}

/// Writes the content and flushes it.
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

/// Syncs the directory of a renamed file. On Unix the rename is only then safe from a crash.
fn sync_directory(path: &Path) -> Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let handle = File::open(directory).map_err(Error::io(directory))?;
    allow_unsupported(handle.sync_all()).map_err(Error::io(directory))
}

/// Some network and shared file systems cannot sync a directory, and say that the request is invalid. They have their own
/// ways to keep a rename.
fn allow_unsupported(synced: io::Result<()>) -> io::Result<()> {
    match synced {
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Maps a file into memory for reading.
///
/// The file must not be shortened or rewritten in place while it is mapped: a reader would see the change, or a
/// bus error would end the process. [`write_atomically`] never does so. It replaces the old file by a new one, and
/// the old one exists until its last map is dropped.
///
/// Some network and shared file systems cannot map a file. There the file is read instead.
///
/// # Errors
/// When the file is missing, unreadable or empty, or when it is not a regular file.
pub fn map(path: &Path) -> Result<Content> {
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
    let mut file = File::open(path).map_err(Error::io(path))?;
    // SAFETY: the map is read-only. That nobody changes the file meanwhile is a condition that this function
    // documents; the operating system has no way to enforce it.
    let mapped = unsafe { Mmap::map(&file) };
    content(mapped, &mut file).map_err(Error::io(path))
}

/// The map of a file, or the bytes that are read from it when it could not be mapped.
fn content(mapped: io::Result<Mmap>, file: &mut File) -> io::Result<Content> {
    match mapped {
        Ok(map) => Ok(Content::Mapped(map)),
        Err(_) => read(file),
    }
}

/// Reads a whole file.
fn read(file: &mut File) -> io::Result<Content> {
    let too_large = |_| io::Error::from(ErrorKind::OutOfMemory);
    let length = usize::try_from(file.metadata()?.len()).map_err(|_| ErrorKind::FileTooLarge)?;
    let mut words: Vec<u64> = Vec::new();
    words
        .try_reserve_exact(length.div_ceil(size_of::<u64>()))
        .map_err(too_large)?;
    words.resize(length.div_ceil(size_of::<u64>()), 0);
    file.read_exact(&mut bytemuck::cast_slice_mut(&mut words)[..length])?;
    Ok(Content::Read { words, length })
}

/// The bytes of a file.
pub enum Content {
    /// Mapped into memory.
    Mapped(Mmap),
    /// Read from a file that cannot be mapped. Words of eight bytes are aligned for every type of number.
    Read {
        /// The bytes, and zeros up to a whole word.
        words: Vec<u64>,
        /// Number of bytes of the file.
        length: usize,
    },
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Content::Mapped(map) => map,
            Content::Read { words, length } => &bytemuck::cast_slice(words)[..*length],
        }
    }
}

/// For serde's `serialize_with`: a path as text. JSON has no other texts than Unicode, so that other bytes in a path
/// become U+FFFD.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_lossy<S: serde::Serializer>(
    path: impl AsRef<Path>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.as_ref().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_synced_is_no_error() {
        for kind in [ErrorKind::InvalidInput, ErrorKind::Unsupported] {
            assert!(allow_unsupported(Err(kind.into())).is_ok());
        }
        assert!(allow_unsupported(Err(ErrorKind::StorageFull.into())).is_err());
        assert!(allow_unsupported(Ok(())).is_ok());
    }

    #[test]
    fn what_is_being_written_is_no_leftover() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("captions.txt");
        fs::write(
            directory.path().join("captions.txt.1.0.showtell-tmp"),
            "killed",
        )
        .unwrap();
        // Somebody else's.
        fs::write(directory.path().join("backup.2024.12.tmp"), "old").unwrap();
        let written = write_atomically(&path, |file| {
            remove_leftovers(directory.path())?;
            file.write_all(b"captions").map_err(Error::io(&path))
        });
        written.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"captions");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_mapped_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weights");
        for length in [1, 8, 4099] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            fs::write(&path, &bytes).unwrap();
            let refused = Err(io::Error::other("No such device (ENODEV)"));
            let content = content(refused, &mut File::open(&path).unwrap()).unwrap();
            assert!(matches!(content, Content::Read { .. }));
            assert_eq!(*content, bytes);
            assert_eq!(*map(&path).unwrap(), bytes);
        }
    }
}
