//! The image with the attention of each word, as in figure 3 of Xu et al., "Show, Attend and Tell" (2015).
//!
//! There is one tile per word. The image is bright where the decoder looked when it chose the word, and dark
//! elsewhere. The first tile is the unchanged image.

use super::picture::{draw_on, text};
use crate::data::image::Rgb;
use crate::error::{Error, Result};
use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma, RgbImage};
use plotters::prelude::Text;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The length of the longer side of a tile, in pixels.
pub const TILE: u32 = 224;
/// The height of the label above a tile, in pixels.
const LABEL: u32 = 36;
/// The white space around tiles, in pixels.
const GAP: u32 = 8;
/// Number of tiles per row.
const COLUMNS: usize = 5;
const LETTERS: f64 = 22.0;
/// The brightness of places without attention.
const DARKEST: f32 = 0.3;

/// Draws the attention of all words as one picture: the image, then the image with the map of each word, from left
/// to right and from top to bottom.
///
/// `maps` has one map per word: P weights, row by row, of a `grid` of (rows, columns) that covers the image.
///
/// # Errors
/// When the number of maps is not that of the words, when a map does not have the size of the grid, or when the
/// image is empty.
pub fn attention_grid<W: AsRef<str>>(
    image: &Rgb,
    words: &[W],
    maps: &[Vec<f32>],
    grid: [usize; 2],
) -> Result<RgbImage> {
    if words.len() != maps.len() {
        let message = format!("{} words, but {} maps", words.len(), maps.len());
        return Err(Error::operation("attention grid", message));
    }
    let mut tiles = vec![("", enlarged(image)?)];
    for (word, map) in words.iter().zip(maps) {
        tiles.push((word.as_ref(), under_attention(image, map, grid)?));
    }
    let (width, height) = tiles[0].1.dimensions();
    let columns = tiles.len().min(COLUMNS);
    let rows = tiles.len().div_ceil(columns);
    let (step_x, step_y) = (width + GAP, height + LABEL);
    let size = (columns as u32 * step_x + GAP, rows as u32 * step_y + GAP);
    let mut picture = RgbImage::from_pixel(size.0, size.1, image::Rgb([255; 3]));
    let corner = |tile: usize| {
        let (row, column) = ((tile / columns) as u32, (tile % columns) as u32);
        (GAP + column * step_x, LABEL + row * step_y)
    };
    for (number, (_, tile)) in tiles.iter().enumerate() {
        let (x, y) = corner(number);
        imageops::replace(&mut picture, tile, x.into(), y.into());
    }
    draw_on(&mut picture, |canvas| {
        for (number, (word, _)) in tiles.iter().enumerate() {
            let (x, y) = corner(number);
            let middle = ((x + width / 2) as i32, (y - LABEL / 2) as i32);
            canvas.draw(&Text::new(*word, middle, fitted(word, width)))?;
        }
        Ok(())
    })?;
    Ok(picture)
}

/// A style of centred text in which the word is no wider than a tile.
fn fitted(word: &str, width: u32) -> plotters::style::TextStyle<'static> {
    let style = text(LETTERS).pos(Pos::new(HPos::Center, VPos::Center));
    match style.font.box_size(word) {
        Ok((needed, _)) if needed > width => {
            let size = LETTERS * f64::from(width) / f64::from(needed);
            text(size).pos(Pos::new(HPos::Center, VPos::Center))
        }
        _ => style,
    }
}

/// A tile: the image, scaled so that its longer side is [`TILE`], and dark where the map is small compared with its
/// largest weight. The map is enlarged smoothly, and the centres of its cells keep their positions.
///
/// # Errors
/// When the map does not have the size of the grid, or when the image is empty.
pub fn under_attention(image: &Rgb, map: &[f32], grid: [usize; 2]) -> Result<RgbImage> {
    let mut tile = enlarged(image)?;
    let [rows, columns] = grid;
    let cells = ImageBuffer::<Luma<f32>, _>::from_raw(columns as u32, rows as u32, map);
    let cells = cells.filter(|_| map.len() == rows * columns && !map.is_empty());
    let cells = cells.ok_or_else(|| {
        let message = format!("{} weights for a grid of {rows}x{columns}", map.len());
        Error::operation("attention grid", message)
    })?;
    let (width, height) = tile.dimensions();
    let weights = imageops::resize(&cells, width, height, FilterType::Gaussian);
    let largest = weights.iter().fold(f32::MIN_POSITIVE, |a, &b| a.max(b));
    for (pixel, weight) in tile.pixels_mut().zip(weights.pixels()) {
        let brightness = DARKEST + (1.0 - DARKEST) * weight.0[0] / largest;
        pixel.0 = pixel
            .0
            .map(|value| (f32::from(value) * brightness).round() as u8);
    }
    Ok(tile)
}

/// The image, scaled so that its longer side is [`TILE`].
fn enlarged(image: &Rgb) -> Result<RgbImage> {
    let (width, height) = (image.width as u32, image.height as u32);
    let pixels = RgbImage::from_raw(width, height, image.pixels.clone());
    let longer = width.max(height);
    let pixels = pixels.filter(|_| width.min(height) > 0).ok_or_else(|| {
        let message = format!(
            "an image of {width}x{height} pixels cannot have {} bytes",
            image.pixels.len()
        );
        Error::operation("attention grid", message)
    })?;
    let scaled = |side: u32| {
        (f64::from(side * TILE) / f64::from(longer))
            .round()
            .max(1.0) as u32
    };
    let filter = FilterType::CatmullRom;
    Ok(imageops::resize(
        &pixels,
        scaled(width),
        scaled(height),
        filter,
    ))
}
