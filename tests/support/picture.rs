//! A picture that a formula makes, and the checksum of one, as `tests/goldens/data.py` has them.

use showtell::data::image::Rgb;

/// The image that tests/goldens/data.py computes with the same formula.
pub fn synthetic(width: usize, height: usize) -> Rgb {
    let mut pixels = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let noise = ((x * 73_856_093) ^ (y * 19_349_663) ^ (c * 83_492_791)) >> 5;
                let value = match (x / 9 + y / 7) % 2 {
                    0 => noise,
                    _ => x * 2 + y + c * 40,
                };
                pixels.push((value & 255) as u8);
            }
        }
    }
    Rgb {
        width,
        height,
        pixels,
    }
}

/// FNV-1a, 64 bits.
pub fn checksum(image: &Rgb) -> String {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = image.pixels.iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{hash:016x}")
}
