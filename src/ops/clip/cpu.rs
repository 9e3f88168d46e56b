//! The norm on the CPU: sums of squares of fixed chunks, added up in f64.

use super::{EPSILON, OP};
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::Host;
use crate::ops::host::simd::{dot, simd};
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

/// Elements a chunk; part of the result, since it fixes the order of additions.
const CHUNK: usize = 1 << 14;

pub fn norm<T: Float>(
    ctx: &Context,
    gradients: &Tensor,
    max_norm: f64,
    norm: &mut Tensor,
    factor: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let gradients = host.read::<T>(gradients)?;
    let chunks = gradients.data().par_chunks(CHUNK);
    let squares: Vec<f64> = chunks
        .map(|chunk| simd(|| dot(chunk, chunk)).to_f64())
        .collect();
    let total = squares.iter().sum::<f64>().sqrt();
    let scale = max_norm / (total + EPSILON);
    host.write::<T>(norm)?.row(0)[0] = T::of(total);
    // Written so that NaN stays NaN.
    host.write::<T>(factor)?.row(0)[0] = T::of(if scale > 1.0 { 1.0 } else { scale });
    Ok(())
}
