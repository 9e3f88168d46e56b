//! The library's errors: values that say which file or tensor, what was expected, what was found.

use crate::words::printable;
use std::fmt;
use std::path::{Path, PathBuf};

/// What can go wrong in the library. Every variant prints as one line, without control characters.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation was given tensors that do not fit together.
    Operation {
        /// The operation's name.
        op: &'static str,
        /// What was found and what was expected.
        message: String,
    },
    /// A file's content is not what it should be.
    File {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// The operating system refused something on a file.
    Io {
        /// The file.
        path: PathBuf,
        /// Part of the message, hence no `source`: whoever prints a chain would print it twice.
        cause: std::io::Error,
    },
    /// A setting is missing, unknown, or has a value that cannot work.
    Setting {
        /// The setting's name in `config.toml`.
        key: String,
        /// What was found and what was expected. Other settings stand in it between backticks, as `lr` or `lr = 0.1`.
        message: String,
    },
    /// What was asked for cannot work.
    Config(String),
    /// A loss, a gradient or a weight became infinite or not a number.
    Diverged(String),
    /// A device is missing or has no memory left.
    Device(String),
    /// An [observer](crate::train::Observer) asked to stop.
    Stopped(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match self {
            Error::Operation { op, message } => format!("{op}: {message}"),
            Error::File { path, message } => format!("{}: {message}", path.display()),
            Error::Io { path, cause } => format!("{}: {cause}", path.display()),
            Error::Setting { key, message } => format!("{key}: {message}"),
            Error::Config(message)
            | Error::Diverged(message)
            | Error::Device(message)
            | Error::Stopped(message) => message.clone(),
        };
        f.write_str(&printable(&line))
    }
}

/// What the library's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the operation `op`.
    pub fn operation(op: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Error::Operation { op, message }
    }

    /// A setting that cannot work.
    pub fn setting(key: impl Into<String>, message: impl Into<String>) -> Self {
        let (key, message) = (key.into(), message.into());
        Error::Setting { key, message }
    }

    /// An error in a file's content.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        let (path, message) = (path.as_ref().to_path_buf(), message.into());
        Error::File { path, message }
    }

    /// For `map_err`: attaches the path to an I/O error.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |cause| Error::Io { path, cause }
    }
}
