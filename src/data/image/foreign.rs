//! Names files that are not read, by their first bytes.

/// The rest of a message about a file that is not read: what the file is, if that can be told, and what to do.
pub fn describe(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return ": the file is empty".into();
    }
    if let Some(format) = image_format(bytes) {
        return format!(
            ", but {format}; convert it to JPEG or PNG, for example with: magick photo.{} photo.png",
            format.rsplit(' ').nth(1).unwrap_or_default().to_lowercase()
        );
    }
    other_kind(bytes).map_or_else(String::new, |kind| format!(", but {kind}"))
}

/// The formats of pictures.
fn image_format(bytes: &[u8]) -> Option<&'static str> {
    let starts = |start: &[u8]| bytes.starts_with(start);
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(by_brands(bytes));
    }
    let signatures: [(&[u8], &str); 8] = [
        (b"II*\0", "a TIFF image"),
        (b"MM\0*", "a TIFF image"),
        (b"II+\0", "a TIFF image"),
        (b"\xFF\x0A", "a JXL image"),
        (b"\0\0\0\x0CJXL \r\n\x87\n", "a JXL image"),
        (b"\0\0\0\x0CjP  \r\n\x87\n", "a JP2 image"),
        (b"8BPS", "a PSD image"),
        (b"\0\0\x01\0", "an ICO image"),
    ];
    let found = signatures.iter().find(|(signature, _)| starts(signature));
    found.map(|&(_, format)| format)
}

/// A file of the ISO base media format lists its brands in its first box: the main one, a version, and those that it is
/// compatible with.
fn by_brands(bytes: &[u8]) -> &'static str {
    let length = bytes.first_chunk().map_or(0, |&l| u32::from_be_bytes(l));
    let end = bytes.len().min(length.min(512) as usize);
    let brands: Vec<&[u8]> = bytes.get(8..end).unwrap_or_default().chunks(4).collect();
    let has = |names: &[&[u8]]| brands.iter().any(|brand| names.contains(brand));
    if has(&[b"avif", b"avis"]) {
        "an AVIF image"
    } else if has(&[
        b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1",
    ]) {
        "a HEIC image"
    } else {
        "a film in an MP4 container"
    }
}

/// What is no picture, or none of pixels.
fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    let start = beginning(bytes);
    let is = |beginnings: &[&str]| beginnings.iter().any(|text| start.starts_with(text));
    if is(&["<svg"]) || (is(&["<?xml"]) && start.contains("<svg")) {
        Some("an SVG drawing")
    } else if is(&["<?xml", "{"]) {
        Some("a text file: the download may have failed")
    } else {
        no_text(bytes)
    }
}

/// The first letters of a text, in lower case.
fn beginning(bytes: &[u8]) -> String {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).to_lowercase();
    let start = start.trim_start_matches('\u{feff}').trim_start();
    start.to_string()
}

/// What is neither a picture nor a text that somebody wrote.
pub fn no_text(bytes: &[u8]) -> Option<&'static str> {
    let start = beginning(bytes);
    let is = |beginnings: &[&str]| beginnings.iter().any(|text| start.starts_with(text));
    if is(&["version https://git-lfs"]) {
        Some("a pointer of Git LFS: `git lfs pull` fetches the file itself")
    } else if is(&["<!doctype html", "<html", "<head", "<body"]) {
        Some("a web page: the download has failed")
    } else if is(&["%pdf"]) {
        Some("a PDF document")
    } else if bytes.starts_with(b"PK\x03\x04") {
        Some("a zip archive")
    } else if bytes.starts_with(&[0x1F, 0x8B]) {
        Some("a file compressed by gzip")
    } else if !bytes.is_empty() && bytes.iter().all(|&byte| byte == 0) {
        Some("a file of zero bytes only: it was not copied whole")
    } else {
        None
    }
}
