//! Preprocessing on the CPU: there are only 256 values a channel, so they are looked up.

use super::{Normalisation, OP};
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::Host;
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

/// Pixels that a thread takes at a time.
const PIXELS: usize = 4096;

pub fn forward<T: Float>(
    ctx: &Context,
    images: &Tensor,
    normalisation: Normalisation,
    y: &mut Tensor,
) -> Result<()> {
    let Some(host) = Host::new(OP, ctx) else {
        return Ok(());
    };
    let images = host.read::<u8>(images)?;
    let mut y = host.write::<T>(y)?;
    let table: [[T; 256]; 3] = std::array::from_fn(|c| {
        let mean = T::of(normalisation.mean[c].into());
        let std = T::of(normalisation.std[c].into());
        std::array::from_fn(|v| (T::of(v as f64) / T::of(255.0) - mean) / std)
    });
    let ld = y.ld;
    y.par_row_blocks(PIXELS).for_each(|(first, block)| {
        for (i, y) in block.chunks_mut(ld).enumerate() {
            for ((y, &v), table) in y.iter_mut().zip(images.row(first + i)).zip(&table) {
                *y = table[usize::from(v)];
            }
        }
    });
    Ok(())
}
