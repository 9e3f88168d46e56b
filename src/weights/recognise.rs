//! Recognises the format of a weight file by its first bytes, and files of other kinds that people take for weights.

use super::{Checked, Format, pth, safetensors};
use crate::words;

/// The format of a file that begins with these bytes.
pub fn format(bytes: &[u8]) -> Checked<Format> {
    if bytes.starts_with(b"PK\x03\x04") {
        Ok(Format::TorchZip)
    } else if bytes.starts_with(&pth::LEGACY_START) {
        Ok(Format::TorchLegacy)
    } else if let Some(kind) = text_kind(bytes) {
        Err(kind)
    } else if bytes.get(safetensors::LENGTH_BYTES) == Some(&b'{') {
        Ok(Format::Safetensors)
    } else if let Some(kind) = binary_kind(bytes) {
        Err(kind)
    } else {
        Err(format!(
            "is not a weight file: its {} begin with {:02x?}, expected safetensors (eight bytes, then \
             '{{') or PyTorch (a zip archive, or a pickle that begins with {:02x?})",
            words::count(bytes.len(), "byte"),
            &bytes[..bytes.len().min(9)],
            pth::LEGACY_START,
        ))
    }
}

/// The most bytes of a text that are looked at.
const LONGEST_TEXT: usize = 1 << 16;

/// What a text is, and what to do. Eight letters in front would be an impossible length of a safetensors header.
fn text_kind(bytes: &[u8]) -> Option<String> {
    let text = &bytes[..bytes.len().min(LONGEST_TEXT)];
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = String::from_utf8_lossy(text.trim_ascii_start());
    let starts_with = |start: &str| {
        let begin = text.get(..start.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(start))
    };
    if starts_with("version https://git-lfs") || starts_with("version https://hawser") {
        let size = text.lines().find_map(|line| line.strip_prefix("size "));
        let size = size.filter(|size| size.len() < 20 && size.bytes().all(|b| b.is_ascii_digit()));
        let of = size.map_or(String::new(), |size| format!(" to a file of {size} bytes"));
        return Some(format!(
            "is a Git LFS pointer{of}, not the weights themselves: get them with `git lfs pull`, or download the file"
        ));
    }
    if starts_with("<!doctype")
        || starts_with("<html")
        || starts_with("<?xml")
        || starts_with("<error")
    {
        return Some(
            "is a web page, not weights: the server answered the download with a page, such as an error or a login; \
             open the file in a browser to see it, and download the weights again"
                .into(),
        );
    }
    if starts_with("{") && text.contains("\"weight_map\"") {
        return Some(
            "is the index of weights that are split over several files, not the weights themselves: expected a \
             single file; load the model with PyTorch and save its state_dict() in one file"
                .into(),
        );
    }
    None
}

/// The first bytes of other kinds of file, what they are, and what to do.
const BINARY_KINDS: [(&[u8], &str); 9] = [
    (
        b"\x1f\x8b",
        "is compressed by gzip: unpack it first, with gunzip or tar -xzf",
    ),
    (
        b"BZh",
        "is compressed by bzip2: unpack it first, with bunzip2 or tar -xjf",
    ),
    (
        b"\xfd7zXZ\0",
        "is compressed by xz: unpack it first, with unxz or tar -xJf",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "is compressed by Zstandard: unpack it first, with unzstd",
    ),
    (
        b"7z\xbc\xaf\x27\x1c",
        "is a 7-Zip archive: unpack it, and give the weights inside",
    ),
    (
        b"Rar!",
        "is a RAR archive: unpack it, and give the weights inside",
    ),
    (
        b"\x93NUMPY",
        "is a NumPy array (npy), which has no names of tensors: expected safetensors or a PyTorch file",
    ),
    (
        b"\x89HDF\r\n",
        "is an HDF5 file, as Keras writes them: expected safetensors or a PyTorch file",
    ),
    (
        b"GGUF",
        "is a GGUF file: expected safetensors or a PyTorch file",
    ),
];

/// Where a tar archive has its magic number.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

/// What a file that is not text is, and what to do.
fn binary_kind(bytes: &[u8]) -> Option<String> {
    if bytes.get(TAR_MAGIC) == Some(b"ustar") {
        let old = [&b"sys_info\0"[..], b"tensors\0", b"storages\0", b"pickle\0"];
        let what = if old.iter().any(|name| bytes.starts_with(name)) {
            "is a tar archive of the first versions of PyTorch: load it with PyTorch, and save its state_dict() again"
        } else {
            "is a tar archive: unpack it with tar -xf, and give the weights inside"
        };
        return Some(what.into());
    }
    if let Some((_, what)) = BINARY_KINDS
        .iter()
        .find(|(magic, _)| bytes.starts_with(magic))
    {
        return Some((*what).into());
    }
    // The protocol of a pickle.
    let pickle = matches!(bytes, [0x80, 2..=5, ..]);
    pickle.then(|| {
        "is a pickle that was not written by torch.save: load it with Python, and save the model's state_dict() by \
         torch.save"
            .into()
    })
}
