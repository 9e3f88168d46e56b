//! Copies and casts on the CUDA device: f32, bf16 and between them; ids.

use super::OP;
use crate::device::cuda::{Kernel, Read, Write};
use crate::error::{Error, Result};
use crate::ops::kernels::copy as kernels;
use crate::ops::launch::Launch;
use crate::ops::matrix::Matrix;
use crate::tensor::{Context, DType, Element, Tensor};
use half::bf16;

/// Two matrices, rows, columns, and what lies between rows.
type Copy<X, Y> = Kernel<(Read<X>, Write<Y>, i32, i32, i32, i32)>;

pub fn forward(ctx: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
    use DType::{Bf16, F32, U32};
    match (x.dtype(), y.dtype()) {
        (F32, F32) => run::<f32, f32>(ctx, &kernels::COPY_F32, 4, x, y),
        (U32, U32) => run::<u32, u32>(ctx, &kernels::COPY_U32, 4, x, y),
        (Bf16, Bf16) => run::<bf16, bf16>(ctx, &kernels::COPY_BF16, 8, x, y),
        (F32, Bf16) => run::<f32, bf16>(ctx, &kernels::COPY_F32_TO_BF16, 4, x, y),
        (Bf16, F32) => run::<bf16, f32>(ctx, &kernels::COPY_BF16_TO_F32, 4, x, y),
        (from, to) => {
            let message = format!("the CUDA device has no cast from {from} to {to}");
            Err(Error::operation(OP, message))
        }
    }
}

fn run<X: Element, Y: Element>(
    ctx: &Context,
    kernel: &Copy<X, Y>,
    width: usize,
    x: &Tensor,
    y: &mut Tensor,
) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let matrix = Matrix::new(&launch, &[x, y])?;
    let (ldx, ldy) = (matrix.ld(x)?, matrix.ld(y)?);
    let (x, y) = (launch.read(x)?, launch.write(y)?);
    let arguments = (x, y, matrix.rows, matrix.cols, ldx, ldy);
    launch.run(kernel, matrix.grid(width), arguments)
}
