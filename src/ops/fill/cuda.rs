//! Fills on the CUDA device.

use super::OP;
use crate::device::cuda::{Kernel, KernelParameter, Write};
use crate::error::Result;
use crate::ops::kernels::fill as kernels;
use crate::ops::launch::Launch;
use crate::ops::matrix::Matrix;
use crate::tensor::{Context, DType, Element, Tensor};

pub fn zero(ctx: &Context, t: &mut Tensor) -> Result<()> {
    match t.dtype() {
        DType::U32 => fill::<u32, u32>(ctx, &kernels::FILL_U32, 0, t),
        DType::U8 => fill::<u8, u32>(ctx, &kernels::FILL_U8, 0, t),
        _ => constant(ctx, 0.0, t),
    }
}

pub fn constant(ctx: &Context, value: f64, t: &mut Tensor) -> Result<()> {
    let value = value as f32;
    match t.dtype() {
        DType::F32 => fill::<f32, f32>(ctx, &kernels::FILL_F32, value, t),
        DType::Bf16 => fill::<half::bf16, f32>(ctx, &kernels::FILL_BF16, value, t),
        other => Launch::new(OP, ctx)?.refuse(other),
    }
}

fn fill<T: Element, V: KernelParameter>(
    ctx: &Context,
    kernel: &Kernel<(V, Write<T>, i32, i32, i32)>,
    value: V,
    t: &mut Tensor,
) -> Result<()> {
    if t.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let matrix = Matrix::new(&launch, &[t])?;
    let (ld, grid) = (matrix.ld(t)?, matrix.grid(16 / T::DTYPE.bytes()));
    let arguments = (value, launch.write(t)?, matrix.rows, matrix.cols, ld);
    launch.run(kernel, grid, arguments)
}
