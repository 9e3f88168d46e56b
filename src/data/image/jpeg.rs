//! Decodes JPEG files to Pillow's pixels, within rounding.
//!
//! Two decoders share the work, because zune-jpeg, the faster one, reads some layouts wrongly and does not notice: several
//! sequential scans, luma with fewer samples than chroma, and the last column where a row of chroma ends inside a block.
//! jpeg-decoder reads all that `tests/goldens/jpeg.py` writes. What neither reads is refused.

mod layout;

use super::{MAX_BYTES, Rgb, check_size, decode_with_image};
use image::ImageFormat;
use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};
use layout::{Coding, Colour, Layout, TRUNCATED};

/// Decodes a JPEG file.
///
/// # Errors
/// When the file is damaged or cut short, is too large, or has a layout that no decoder here reads.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    let layout = Layout::read(bytes)?;
    check_size(layout.width.into(), layout.height.into())?;
    layout.check()?;
    if !layout.has_end {
        return decode_without_end(bytes, &layout);
    }
    if is_read_by_zune(&layout) {
        decode_with_image(bytes, ImageFormat::Jpeg)
    } else {
        decode_with_jpeg_decoder(bytes, &layout)
    }
}

/// Whether zune-jpeg gives Pillow's pixels.
fn is_read_by_zune(layout: &Layout) -> bool {
    let (known_sampling, fills_its_blocks) = match &layout.components[..] {
        [_] => (true, true),
        [luma, cb, cr] => {
            let (h, v) = luma.sampling;
            let known = h <= 2 && v <= 2 && [cb, cr].iter().all(|c| c.sampling == (1, 1));
            (known, h == 1 || layout.width.is_multiple_of(16))
        }
        _ => return false,
    };
    let one_scan = layout.coding == Coding::Progressive || layout.scans.len() == 1;
    // For zune-jpeg an Adobe segment counts more than a JFIF segment; for libjpeg it is the other way round.
    let known_colour = !layout.says_rgb;
    known_sampling && fills_its_blocks && one_scan && known_colour
}

fn decode_with_jpeg_decoder(bytes: &[u8], layout: &Layout) -> Result<Rgb, String> {
    let mut decoder = Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(MAX_BYTES as usize);
    // By default the decoder would weigh the segments in another order than libjpeg.
    match layout.colour {
        Colour::Gray => {}
        Colour::YCbCr => decoder.set_color_transform(ColorTransform::YCbCr),
        Colour::Rgb => decoder.set_color_transform(ColorTransform::RGB),
        Colour::Cmyk => decoder.set_color_transform(ColorTransform::CMYK),
        Colour::Ycck => decoder.set_color_transform(ColorTransform::YCCK),
    }
    let samples = decoder
        .decode()
        .map_err(|error| format!("cannot be decoded: {error}"))?;
    let format = decoder.info().map(|info| info.pixel_format);
    let pixels = match format {
        Some(PixelFormat::L8) => samples.iter().flat_map(|&gray| [gray; 3]).collect(),
        Some(PixelFormat::RGB24) => samples,
        Some(PixelFormat::CMYK32) => samples.chunks_exact(4).flat_map(cmyk_to_rgb).collect(),
        _ => return Err(layout.refusal("is not read")),
    };
    let (width, height) = (usize::from(layout.width), usize::from(layout.height));
    if pixels.len() != 3 * width * height {
        return Err(format!(
            "cannot be decoded: {} bytes for {width} x {height} pixels",
            pixels.len()
        ));
    }
    Ok(Rgb {
        width,
        height,
        pixels,
    })
}

/// Inks on white paper, as in Pillow.
fn cmyk_to_rgb(inks: &[u8]) -> [u8; 3] {
    let white = 255 - u32::from(inks[3]);
    let left = |ink: u8| {
        let product = u32::from(ink) * white + 128;
        white.saturating_sub(((product >> 8) + product) >> 8) as u8
    };
    [left(inks[0]), left(inks[1]), left(inks[2])]
}

/// Decodes a file in which zero bytes stand where the end was. All pixels are there if they are the same whatever bits follow
/// the data: one filler alone may decode to the same pixels as another by chance, [`FILLERS`] of them hardly do.
fn decode_without_end(bytes: &[u8], layout: &Layout) -> Result<Rgb, String> {
    let mut length = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |i| i + 1);
    if length == bytes.len() {
        return Err(TRUNCATED.into());
    }
    // The scans that refine its pixels may be missing as a whole, and nothing would show it.
    if layout.coding == Coding::Progressive {
        return Err(format!(
            "{TRUNCATED}, and a progressive JPEG does not show whether all its pixels are there: open it with a \
             program that shows it whole, and save it again"
        ));
    }
    // A zero after FF belongs to the data: FF and a filler would be a marker, at which a decoder stops, whatever the filler.
    if bytes[..length].ends_with(&[0xFF]) {
        length += 1;
    }
    let missing = || format!("{TRUNCATED}, and zero bytes stand where pixels are missing");
    let followed_by = |filler: usize| {
        let filler = (0..FILLER).map(|at| filler_byte(filler * FILLER + at));
        let filler: Vec<u8> = filler.collect();
        let padded = [&bytes[..length], &filler, &[0xFF, 0xD9]].concat();
        decode_with_jpeg_decoder(&padded, layout).map_err(|_| missing())
    };
    let image = followed_by(0)?;
    for filler in 1..FILLERS {
        if followed_by(filler)? != image {
            return Err(missing());
        }
    }
    Ok(image)
}

/// A byte that looks random (Knuth's multiplicative hash), and is never FF, which would begin a marker.
fn filler_byte(number: usize) -> u8 {
    ((number as u32).wrapping_mul(2_654_435_761) >> 24).min(0xFE) as u8
}

/// How many different bits are tried after the data.
const FILLERS: usize = 16;

/// Bytes after the data of a file without an end: more than a decoder reads ahead.
const FILLER: usize = 64;
