//! The regulariser on the CPU, image by image: each task sums one image's α over the steps.

use super::OP;
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::simd::{simd, sum_of};
use crate::ops::host::{Host, Rows};
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

pub fn forward<T: Float>(
    ctx: &Context,
    alphas: &Tensor,
    lambda: f64,
    loss: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let batch = alphas.shape().dims()[1];
    let alphas = host.read::<T>(alphas)?;
    let mut loss = host.write::<T>(loss)?;
    let per_image: Vec<f64> = (0..batch)
        .into_par_iter()
        .map_init(
            || vec![T::zero(); alphas.cols],
            |missing, b| {
                simd(|| {
                    not_attended(alphas, batch, b, missing);
                    sum_of(missing, missing, |x, y| x * y).to_f64()
                })
            },
        )
        .collect();
    let elements = (batch * alphas.cols) as f64;
    loss.data()[0] = T::of(lambda * per_image.iter().sum::<f64>() / elements);
    Ok(())
}

pub fn backward<T: Float>(
    ctx: &Context,
    alphas: &Tensor,
    lambda: f64,
    d_alpha: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let batch = alphas.shape().dims()[1];
    let alphas = host.read::<T>(alphas)?;
    let mut d_alpha = host.write::<T>(d_alpha)?;
    let scale = T::of(-2.0 * lambda / (batch * alphas.cols) as f64);
    d_alpha.for_each_block(1, &|b, d_alpha| {
        simd(|| {
            not_attended(alphas, batch, b, d_alpha);
            for d in d_alpha.iter_mut() {
                *d *= scale;
            }
        });
    });
    Ok(())
}

/// 1 - Σ_t α_tbp for each position of image b.
#[inline(always)]
fn not_attended<T: Float>(alphas: Rows<T>, batch: usize, b: usize, missing: &mut [T]) {
    missing.fill(T::one());
    for row in (b..alphas.rows).step_by(batch) {
        for (missing, &alpha) in missing.iter_mut().zip(alphas.row(row)) {
            *missing -= alpha;
        }
    }
}
