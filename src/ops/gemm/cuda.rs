//! Products on the CUDA device: which of the kernels of `kernels/gemm.cu`, and in how many parts of k.

use super::{Accumulate, Factor, OP};
use crate::error::Result;
use crate::ops::kernels::gemm::{Gemm, GemmShape, GemmSumParts};
use crate::ops::launch::{Blocks, Launch, Output, key};
use crate::ops::tile::{Parts, Tiles};
use crate::tensor::{Context, DType, Tensor};

/// C = A B, C += A B or C = A B + bias: the device's half of [`super::forward`].
pub fn forward(
    ctx: &Context,
    a: Factor,
    b: Factor,
    bias: Option<&Tensor>,
    accumulate: Accumulate,
    c: &mut Tensor,
) -> Result<()> {
    if c.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let arithmetic = launch.arithmetic(a.tensor().dtype());
    let ((m, k), (_, n)) = (a.dims(), b.dims());
    let (layout, tiles) = match (a, b) {
        (Factor::Plain(_), Factor::Plain(_)) => ("nn", Tiles::new(&launch, arithmetic, [m, n])),
        (Factor::Plain(_), Factor::Transposed(_)) => {
            ("nt", Tiles::new(&launch, arithmetic, [m, n]))
        }
        (Factor::Transposed(_), Factor::Plain(_)) => {
            ("tn", Tiles::new(&launch, arithmetic, [m, n]))
        }
        (Factor::Transposed(_), Factor::Transposed(_)) => ("tt", Tiles::small([m, n])),
    };
    let parts = Parts::new(launch.multiprocessors() / tiles.count, k);
    let multiply = |bias: Option<&Tensor>, accumulate: Accumulate, ldc: usize, c: &mut Tensor| {
        let shape = GemmShape {
            m: launch.size(m)?,
            n: launch.size(n)?,
            k: launch.size(k)?,
            lda: launch.size(a.tensor().ld())?,
            ldb: launch.size(b.tensor().ld())?,
            ldc: launch.size(ldc)?,
            k_split: launch.size(parts.terms)?,
            accumulate: accumulate.flag(),
        };
        let kernel = [arithmetic, layout, tiles.key, key(c.dtype())];
        let arguments = Gemm {
            a: a.tensor().into(),
            b: b.tensor().into(),
            bias: bias.into(),
            c: c.into(),
            shape,
        };
        launch.run(&kernel, tiles.blocks(parts.count, 1), arguments)
    };
    if parts.count == 1 {
        return multiply(bias, accumulate, c.ld(), c);
    }
    sum_parts(ctx, &launch, parts.count, bias, accumulate, c, |sums| {
        multiply(None, Accumulate::No, n, sums)
    })
}

/// Has `make` write `parts` dense matrices of sums, shaped as the matrix `c`, one after the other, and adds them up in
/// order, with the bias, to `c`, which is f32 or bf16.
pub fn sum_parts(
    ctx: &Context,
    launch: &Launch,
    parts: usize,
    bias: Option<&Tensor>,
    accumulate: Accumulate,
    c: &mut Tensor,
    make: impl FnOnce(&mut Tensor) -> Result<()>,
) -> Result<()> {
    let (rows, cols, ldc) = (c.rows(), c.cols(), c.ld());
    ctx.scope(|| {
        let mut sums = ctx.empty([parts, rows * cols], DType::F32)?;
        make(&mut sums)?;
        // C as f32 or as bf16.
        let (c, c16) = match c.dtype() {
            DType::Bf16 => (Output::NONE, c.into()),
            _ => (c.into(), Output::NONE),
        };
        let arguments = GemmSumParts {
            parts: launch.size(parts)?,
            rows: launch.size(rows)?,
            cols: launch.size(cols)?,
            ldc: launch.size(ldc)?,
            accumulate: accumulate.flag(),
            partial: (&sums).into(),
            bias: bias.into(),
            c,
            c16,
        };
        launch.run(&[], Blocks::for_threads(rows * cols), arguments)
    })
}
