//! GIF, of an animation the first picture, with Pillow's pixels: what the picture leaves free of the screen has its transparent
//! colour, or else the first one of its palette, and a picture that reaches over the screen makes that larger.

use super::{MAX_BYTES, Rgb, check_size};
use gif::{ColorOutput, DecodeOptions, Frame, MemoryLimit};
use std::num::NonZeroU64;

pub(super) fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    let describe = |error: gif::DecodingError| format!("cannot be decoded: {error}");
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    if let Some(limit) = NonZeroU64::new(MAX_BYTES) {
        options.set_memory_limit(MemoryLimit::Bytes(limit));
    }
    let mut decoder = options.read_info(bytes).map_err(describe)?;
    let screen = [decoder.width(), decoder.height()].map(usize::from);
    let frame = decoder.next_frame_info().map_err(describe)?.cloned();
    let frame = frame.ok_or("cannot be decoded: there is no picture in it")?;
    let [width, height] = size(screen, &frame);
    check_size(width as u32, height as u32)?;
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(describe)?;
    let palette = frame.palette.as_deref().or(decoder.global_palette());
    let colour = |index: u8| match palette {
        // An index beyond the palette is black.
        Some(palette) => {
            let rest = palette.get(3 * usize::from(index)..).unwrap_or_default();
            rest.first_chunk().copied().unwrap_or([0; 3])
        }
        None => [index; 3],
    };
    let mut pixels = colour(frame.transparent.unwrap_or(0)).repeat(width * height);
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let rows = indices.chunks_exact(usize::from(frame.width).max(1));
    for (y, row) in rows.enumerate() {
        let to = &mut pixels[3 * ((top + y) * width + left)..];
        for (to, &index) in to.chunks_exact_mut(3).zip(row) {
            to.copy_from_slice(&colour(index));
        }
    }
    Ok(Rgb {
        width,
        height,
        pixels,
    })
}

/// Width and height of the image.
fn size(screen: [usize; 2], frame: &Frame) -> [usize; 2] {
    let ends = [
        usize::from(frame.left) + usize::from(frame.width),
        usize::from(frame.top) + usize::from(frame.height),
    ];
    [screen[0].max(ends[0]), screen[1].max(ends[1])]
}
