//! Gate: z = σ(g) ∘ x, element by element.
//!
//! g, x and z have the same number of rows and columns. Saves s = σ(g), which takes the place of g.
//! Backward, from dz: dx = dz ∘ s, dg = dz ∘ x ∘ s (1 - s). z and dg, which products of matrices read, may be bf16 where the others are
//! f32.

mod cpu;
mod cuda;

use super::{check, dispatch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};

const OP: &str = "gate";

/// z = σ(g) ∘ x; g becomes σ(g).
pub fn forward(ctx: &Context, g: &mut Tensor, x: &Tensor, z: &mut Tensor) -> Result<()> {
    check_alike(z, z.dtype().of_parameters(), [("g", g), ("x", x)])?;
    dispatch!(ctx, g.dtype(), forward(g, x, z))
}

/// dg and dx from dz; `g` as forward left it, that is σ(g).
pub fn backward(
    ctx: &Context,
    g: &Tensor,
    x: &Tensor,
    dz: &Tensor,
    dg: &mut Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    let dtype = dg.dtype().of_parameters();
    check_alike(dg, dtype, [("g", g), ("x", x)])?;
    check_alike(dg, dtype, [("dz", dz), ("dx", dx)])?;
    dispatch!(ctx, dtype, backward(g, x, dz, dg, dx))
}

fn check_alike(like: &Tensor, dtype: DType, tensors: [(&str, &Tensor); 2]) -> Result<()> {
    for (name, tensor) in tensors {
        check::matrix(OP, name, tensor, [like.rows(), like.cols()], dtype)?;
    }
    Ok(())
}
