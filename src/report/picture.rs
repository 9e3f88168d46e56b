//! What all pictures share: a canvas of plotters, text in an embedded font, and PNG files.
//!
//! The font is embedded because systems have different sans-serif fonts, and some have none.

use crate::error::{Error, Result};
use crate::files;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use std::path::Path;
use std::sync::Once;

/// DejaVu Sans, reduced to Latin-1 and typographic punctuation: `pyftsubset DejaVuSans.ttf --no-hinting
/// --layout-features=kern --unicodes=U+20-7E,U+A0-FF,U+2013,U+2014,U+2018,U+2019,U+201C,U+201D,U+2026,U+FFFD`
const FONT_BYTES: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans-Latin1.ttf");
const FONT: &str = "DejaVu Sans";

/// The area on which curves and words are drawn.
pub(super) type Canvas<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
pub(super) type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Writes a picture as a PNG file.
///
/// # Errors
/// When the file cannot be written.
pub fn save(picture: &RgbImage, path: &Path) -> Result<()> {
    files::write_atomically(path, |file| {
        let (width, height) = picture.dimensions();
        let encoder = PngEncoder::new(file);
        let written = encoder.write_image(picture, width, height, ExtendedColorType::Rgb8);
        written.map_err(|e| Error::file(path, e.to_string()))
    })
}

/// Draws on a picture.
pub(super) fn draw_on(picture: &mut RgbImage, draw: impl FnOnce(&Canvas) -> Drawn) -> Result<()> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let registered = register_font(FONT, FontStyle::Normal, FONT_BYTES);
        assert!(registered.is_ok(), "the embedded font is valid");
    });
    let size = picture.dimensions();
    let canvas = BitMapBackend::with_buffer(picture, size).into_drawing_area();
    let drawn = draw(&canvas).and_then(|()| Ok(canvas.present()?));
    drawn.map_err(|e| Error::operation("picture", e.to_string()))
}

/// The style of text of this height, in pixels.
pub(super) fn text(size: f64) -> TextStyle<'static> {
    (FONT, size).into_font().color(&BLACK)
}
