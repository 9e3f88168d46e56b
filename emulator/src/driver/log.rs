//! Messages for people, on stderr and in the file that `CUDA_EMULATOR_LOG` names.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;

/// Writes one line. If the file cannot be written, the line is only on stderr.
pub fn line(message: impl Display) {
    let line = format!("cuda-emulator: {message}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("CUDA_EMULATOR_LOG")
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = file.write_all(line.as_bytes());
    }
}
