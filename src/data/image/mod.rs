//! Reads image files as RGB images.
//!
//! Colours are converted as by Pillow's `convert("RGB")`: a gray value is copied to all three channels, palette
//! indices are replaced by their colours, alpha is dropped without blending, and CMYK is converted. Samples of 16
//! bits keep their high byte. (Pillow does so for colour, but saturates 16-bit gray at 255, which loses the
//! picture.) The EXIF orientation is ignored, as is usual in training pipelines.

pub(super) mod foreign;
mod gif;
mod jpeg;

use super::resize::resize;
use crate::error::{Error, Result};
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::io::Cursor;
use std::panic::{UnwindSafe, catch_unwind};
use std::path::Path;

/// Images with more pixels are refused before they are decoded, because a small file can claim a huge image. Pillow
/// has the same limit: twice the pixels from which on it warns.
const MAX_PIXELS: u64 = 178_956_970;
/// The bound of what a decoder allocates, in bytes: four samples of 16 bits per pixel. It is reached only by images with
/// that many pixels and samples; a photo takes 3 bytes per pixel. A file with more bytes is not read.
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
    read_as(path, |bytes| {
        decode_bytes(bytes).map(|image| resize(&image, size, size))
    })
}

/// Decodes a JPEG, PNG, WebP, GIF or BMP file; of an animation, the first picture.
///
/// # Errors
/// When the file cannot be read, is not a regular file, has another format, is damaged or cut short, has a layout
/// that no decoder here reads, or has more than 178,956,970 pixels. The error names the file.
pub fn decode(path: &Path) -> Result<Rgb> {
    read_as(path, decode_bytes)
}

/// The image that `decode` makes of a file's bytes. If it panics on a damaged file, only that file is lost.
fn read_as(
    path: &Path,
    decode: impl FnOnce(&[u8]) -> Result<Rgb, String> + UnwindSafe,
) -> Result<Rgb> {
    let bytes = read(path)?;
    let decoded = catch_unwind(|| decode(&bytes));
    let decoded = decoded.unwrap_or_else(|_| Err("the decoder panicked on this image".into()));
    decoded.map_err(|message| Error::file(path, message))
}

/// The bytes of a regular file. A pipe would be waited for, and a device may never end.
fn read(path: &Path) -> Result<Vec<u8>> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    if metadata.is_dir() {
        return Err(Error::file(path, "this is a folder, not an image"));
    }
    if !metadata.is_file() {
        let message =
            "not a regular file (it is a pipe, a socket or a device), so it is not opened";
        return Err(Error::file(path, message));
    }
    if metadata.len() > MAX_BYTES {
        let message = format!(
            "not an image: it has {} bytes, and the limit is {MAX_BYTES}",
            metadata.len()
        );
        return Err(Error::file(path, message));
    }
    std::fs::read(path).map_err(Error::io(path))
}

fn decode_bytes(bytes: &[u8]) -> Result<Rgb, String> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    match image::guess_format(bytes) {
        Ok(Jpeg) => jpeg::decode(bytes),
        Ok(Gif) => gif::decode(bytes),
        Ok(format @ (Bmp | Png | WebP)) => decode_with_image(bytes, format),
        _ => Err(format!(
            "not a JPEG, PNG, WebP, GIF or BMP image{}",
            foreign::describe(bytes)
        )),
    }
}

/// Decodes by the crate `image`.
fn decode_with_image(bytes: &[u8], format: ImageFormat) -> Result<Rgb, String> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(describe)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let image = DynamicImage::from_decoder(decoder).map_err(describe)?;
    Ok(Rgb {
        width: width as usize,
        height: height as usize,
        pixels: rgb_of(image),
    })
}

/// Red, green and blue of every pixel, one byte each: gray stands for all three, alpha is dropped, samples of 16 bits keep their
/// high byte (none of our formats has wider ones). `image` converts, too, but is not optimised (see Cargo.toml).
fn rgb_of(image: DynamicImage) -> Vec<u8> {
    let colour = image.color();
    if colour == ColorType::Rgb8 {
        return image.into_bytes();
    }
    let (channels, width) = (colour.channel_count(), colour.bytes_per_pixel());
    let sample = usize::from(width / channels);
    let high = if cfg!(target_endian = "little") {
        sample - 1
    } else {
        0
    };
    let mut rgb = Vec::with_capacity(image.as_bytes().len() / usize::from(width) * 3);
    for pixel in image.as_bytes().chunks_exact(width.into()) {
        let channel = |i: usize| pixel[i * sample + high];
        rgb.extend(match channels {
            1 | 2 => [channel(0); 3],
            _ => [channel(0), channel(1), channel(2)],
        });
    }
    rgb
}

fn check_size(width: u32, height: u32) -> Result<(), String> {
    match u64::from(width) * u64::from(height) {
        0 => Err(format!("the image has {width} x {height} pixels")),
        pixels if pixels > MAX_PIXELS => Err(format!(
            "the image has {width} x {height} pixels; the limit is {MAX_PIXELS} pixels. \
             Make it smaller, for example with: magick photo.jpg -resize 4000x4000 smaller.jpg"
        )),
        _ => Ok(()),
    }
}

fn describe(error: ImageError) -> String {
    match error {
        ImageError::Limits(error) => {
            format!("{error} (the limit is {MAX_PIXELS} pixels, {MAX_BYTES} bytes)")
        }
        error => format!("cannot be decoded: {error}"),
    }
}
