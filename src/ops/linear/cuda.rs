//! The gradient of a bias on the CUDA device: `kernels/linear.cu`.

use super::OP;
use crate::error::Result;
use crate::ops::gemm::Accumulate;
use crate::ops::kernels::linear as kernels;
use crate::ops::launch::{Blocks, Launch, key};
use crate::tensor::{Context, DType, Tensor};

/// Fewer rows than this are not worth a second launch.
const SHORTEST: usize = 128;

/// Column sums of dy (R, O), f32 or bf16, into db (O), f32.
pub fn sum_rows(ctx: &Context, dy: &Tensor, accumulate: Accumulate, db: &mut Tensor) -> Result<()> {
    let (rows, cols) = (dy.rows(), dy.cols());
    if cols == 0 {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let wanted = (2 * launch.multiprocessors()).div_ceil(cols.div_ceil(kernels::COLUMNS));
    let parts = wanted.clamp(1, rows.div_ceil(SHORTEST).max(1));
    let part_rows = rows.div_ceil(parts).max(1);
    let parts = rows.div_ceil(part_rows).max(1);
    if parts == 1 {
        return sum_parts(&launch, dy, part_rows, accumulate, db);
    }
    ctx.scope(|| {
        let mut sums = ctx.empty([parts, cols], DType::F32)?;
        sum_parts(&launch, dy, part_rows, Accumulate::No, &mut sums)?;
        sum_parts(&launch, &sums, parts, accumulate, db)
    })
}

/// The sums of `part_rows` rows each, one after the other in `y`.
fn sum_parts(
    launch: &Launch,
    dy: &Tensor,
    part_rows: usize,
    accumulate: Accumulate,
    y: &mut Tensor,
) -> Result<()> {
    let (rows, cols) = (dy.rows(), dy.cols());
    let blocks = [
        cols.div_ceil(kernels::COLUMNS),
        rows.div_ceil(part_rows).max(1),
        1,
    ];
    let arguments = kernels::LinearSumRows {
        rows: launch.size(rows)?,
        cols: launch.size(cols)?,
        ld: launch.size(dy.ld())?,
        part_rows: launch.size(part_rows)?,
        accumulate: accumulate.flag(),
        dy: dy.into(),
        y: y.into(),
    };
    launch.run(&[key(dy.dtype())], Blocks::new(blocks), arguments)
}
