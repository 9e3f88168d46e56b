//! The gradient of a bias on the CUDA device: `kernels/linear.cu`.

use super::OP;
use crate::device::cuda::{Grid, Kernel, Read, Write};
use crate::error::Result;
use crate::ops::gemm::Accumulate;
use crate::ops::kernels::linear as kernels;
use crate::ops::launch::Launch;
use crate::tensor::{Context, DType, Element, Tensor};
use half::bf16;

/// dy, sums, rows, columns, rows' distance, rows of a part, whether to add to what is there.
type SumRows<T> = Kernel<(Read<T>, Write<f32>, i32, i32, i32, i32, i32)>;

const THREADS: u32 = 128;
/// Columns of a block.
const COLUMNS: usize = 64;
/// Fewer rows than this are not worth a second launch.
const SHORTEST: usize = 128;

/// Column sums of dy (R, O), f32 or bf16, into db (O), f32.
pub fn sum_rows(ctx: &Context, dy: &Tensor, accumulate: Accumulate, db: &mut Tensor) -> Result<()> {
    match dy.dtype() {
        DType::F32 => run::<f32>(ctx, &kernels::LINEAR_SUM_ROWS_F32, dy, accumulate, db),
        DType::Bf16 => run::<bf16>(ctx, &kernels::LINEAR_SUM_ROWS_BF16, dy, accumulate, db),
        other => Launch::new(OP, ctx)?.refuse(other),
    }
}

fn run<T: Element>(
    ctx: &Context,
    kernel: &SumRows<T>,
    dy: &Tensor,
    accumulate: Accumulate,
    db: &mut Tensor,
) -> Result<()> {
    let (rows, cols) = (dy.rows(), dy.cols());
    if cols == 0 {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let blocks = cols.div_ceil(COLUMNS);
    let wanted = (2 * launch.multiprocessors()).div_ceil(blocks);
    let parts = wanted.clamp(1, rows.div_ceil(SHORTEST).max(1));
    let part_rows = rows.div_ceil(parts).max(1);
    let parts = rows.div_ceil(part_rows).max(1);
    let (from, to) = (launch.read::<T>(dy)?, launch.write::<f32>(db)?);
    let [rows, width, ld] = [rows, cols, dy.ld()].map(|size| launch.size(size));
    let (rows, width, ld, part_rows) = (rows?, width?, ld?, launch.size(part_rows)?);
    let accumulate = accumulate.flag();
    let grid = |parts| Grid::blocks([blocks, parts, 1], THREADS);
    if parts == 1 {
        let arguments = (from, to, rows, width, ld, part_rows, accumulate);
        return launch.run(kernel, grid(1), arguments);
    }
    ctx.scope(|| {
        let sums = ctx.empty([parts, cols], DType::F32)?;
        let partial = launch.write::<f32>(&sums)?;
        launch.run(
            kernel,
            grid(parts),
            (from, partial, rows, width, ld, part_rows, 0),
        )?;
        let (sums, parts) = (Read::at(partial.address), launch.size(parts)?);
        let arguments = (sums, to, parts, width, width, parts, accumulate);
        launch.run(&kernels::LINEAR_SUM_ROWS_F32, grid(1), arguments)
    })
}
