//! Augmentation on the CPU: a task for each row of an image.

use super::{FLIP, GRAY, OP};
use crate::error::Result;
use crate::ops::host::Host;
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

pub fn forward(ctx: &Context, photos: &Tensor, changes: &Tensor, y: &mut Tensor) -> Result<()> {
    if y.is_empty() || ctx.device().is_planning() {
        return Ok(());
    }
    let [count, height, width] = [0, 1, 2].map(|i| photos.shape().dims()[i]);
    let host = Host::new(OP, ctx);
    let photos = host.read::<u8>(photos)?;
    let changes = host.read::<u32>(changes)?;
    let mut y = host.write::<u8>(y)?;
    let lines = y.data().par_chunks_exact_mut(3 * width);
    lines.enumerate().for_each(|(line, result)| {
        let (sample, line) = (line / height, (line % height) as i32);
        let [photo, effects, x, y, right_x, down_x, right_y] =
            std::array::from_fn(|i| changes.row(i)[sample] as i32);
        let (photo, effects) = (photo as u32 as usize, effects as usize);
        if photo >= count {
            return result.fill(0);
        }
        let size = 3 * height * width;
        let source = Source {
            pixels: photos.data()[photo * size..][..size].as_chunks().0,
            height,
            width,
            flip: effects & FLIP != 0,
        };
        let (mut x, mut y) = (x + line * down_x, y + line * right_x);
        for pixel in result.as_chunks_mut::<3>().0 {
            *pixel = source.at(x >> 16, y >> 16);
            if effects & GRAY != 0 {
                *pixel = gray(*pixel);
            }
            x += right_x;
            y += right_y;
        }
    });
    Ok(())
}

struct Source<'a> {
    pixels: &'a [[u8; 3]],
    height: usize,
    width: usize,
    flip: bool,
}

impl Source<'_> {
    fn at(&self, x: i32, y: i32) -> [u8; 3] {
        // The conversion makes negative coordinates too large.
        let (column, row) = (x as usize, y as usize);
        if column >= self.width || row >= self.height {
            return [0; 3];
        }
        let column = if self.flip {
            self.width - 1 - column
        } else {
            column
        };
        self.pixels[row * self.width + column]
    }
}

fn gray(pixel: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = pixel.map(u32::from);
    let luma = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    [luma as u8; 3]
}
