//! Reads JPEG and PNG files as RGB images.
//!
//! Colours are converted as by Pillow's `convert("RGB")`: a gray value is copied to all three channels, palette
//! indices are replaced by their colours, alpha is dropped without blending, and CMYK is converted. Samples of 16
//! bits keep their high byte. (Pillow does so for colour, but saturates 16-bit gray at 255, which loses the
//! picture.) The EXIF orientation is ignored, as is usual in training pipelines.

use super::resize::resize;
use crate::error::{Error, Result};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::Path;

/// Images with more pixels are refused before they are decoded, because a small file can claim a huge image.
const MAX_PIXELS: u64 = 1 << 26;
/// Memory for decoding; a pixel has at most four samples of 16 bits.
const MAX_BYTES: u64 = 8 * MAX_PIXELS;

/// An RGB image in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// W, in pixels.
    pub width: usize,
    /// H, in pixels.
    pub height: usize,
    /// Values 0 to 255 of shape (H, W, 3), row by row from the top.
    pub pixels: Vec<u8>,
}

/// Decodes an image and resizes it to (S, S, 3), where S is `size`.
///
/// # Errors
/// The same as for [`decode`].
pub fn load(path: &Path, size: usize) -> Result<Rgb> {
    Ok(resize(&decode(path)?, size, size))
}

/// Decodes a JPEG or PNG file.
///
/// # Errors
/// When the file cannot be read, is neither JPEG nor PNG, is damaged or cut short, or has more than 2^26
/// pixels. The error names the file.
pub fn decode(path: &Path) -> Result<Rgb> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    // If a decoder panics on a damaged file, only that file is lost.
    let decoded = catch_unwind(|| decode_bytes(&bytes));
    let decoded = decoded.unwrap_or_else(|_| Err("the decoder panicked on this image".into()));
    decoded.map_err(|message| Error::file(path, message))
}

fn decode_bytes(bytes: &[u8]) -> Result<Rgb, String> {
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => format,
        _ => return Err("neither a JPEG nor a PNG image".to_string()),
    };
    // Without this check the decoder would fill the missing part with gray and report no error.
    if format == ImageFormat::Jpeg && !reaches_end_of_image(bytes) {
        return Err("this JPEG is truncated: it has no end-of-image marker".to_string());
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(describe)?;
    let (width, height) = decoder.dimensions();
    match u64::from(width) * u64::from(height) {
        0 => return Err(format!("the image has {width} x {height} pixels")),
        pixels if pixels > MAX_PIXELS => {
            return Err(format!(
                "the image has {width} x {height} pixels; the limit is {MAX_PIXELS} pixels"
            ));
        }
        _ => {}
    }
    let image = DynamicImage::from_decoder(decoder).map_err(describe)?;
    let pixels = match image.color().bytes_per_pixel() / image.color().channel_count() {
        1 => image.into_rgb8().into_raw(),
        _ => {
            let wide = image.into_rgb16().into_raw();
            wide.into_iter().map(|sample| (sample >> 8) as u8).collect()
        }
    };
    Ok(Rgb {
        width: width as usize,
        height: height as usize,
        pixels,
    })
}

fn describe(error: ImageError) -> String {
    match error {
        ImageError::Limits(error) => {
            format!("{error} (the limit is {MAX_PIXELS} pixels, {MAX_BYTES} bytes)")
        }
        error => format!("cannot be decoded: {error}"),
    }
}

/// Whether the segments and the entropy-coded data of a JPEG lead to an end-of-image marker (ITU-T T.81,
/// annex B).
fn reaches_end_of_image(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(start) = rest.iter().position(|&byte| byte == 0xFF) {
        rest = &rest[start + 1..];
        match rest.first() {
            // A fill byte before a marker: the next round starts at it.
            Some(0xFF) => {}
            Some(0xD9) => return true,
            // An escaped 0xFF, TEM, restart markers and the start of the image have no length.
            Some(0x00 | 0x01 | 0xD0..=0xD8) => rest = &rest[1..],
            Some(_) => {
                let Some(&[high, low]) = rest.get(1..3).and_then(|l| l.first_chunk()) else {
                    return false;
                };
                let length = usize::from(u16::from_be_bytes([high, low]));
                rest = rest.get(1 + length..).unwrap_or_default();
            }
            None => return false,
        }
    }
    false
}
