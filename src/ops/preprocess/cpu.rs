//! Preprocessing on the CPU: there are only 256 values a channel, so they are looked up.

use super::{Normalisation, OP};
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::Host;
use crate::tensor::{Context, Tensor};

pub fn forward<T: Float>(
    ctx: &Context,
    images: &Tensor,
    normalisation: Normalisation,
    y: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let images = host.read::<u8>(images)?;
    let mut y = host.write::<T>(y)?;
    let table: [[T; 256]; 3] = std::array::from_fn(|c| {
        let mean = T::of(normalisation.mean[c].into());
        let std = T::of(normalisation.std[c].into());
        std::array::from_fn(|v| (T::of(v as f64) / T::of(255.0) - mean) / std)
    });
    y.for_each_row(|row, y| {
        for ((y, &v), table) in y.iter_mut().zip(images.row(row)).zip(&table) {
            *y = table[usize::from(v)];
        }
    });
    Ok(())
}
