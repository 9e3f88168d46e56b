//! Batch normalisation on the CUDA device: `kernels/batch_norm.cu`.

use super::{
    Affine, BatchNorm, Epilogue, Gradients, OP, Running, RunningStatistics, Saved, Statistics,
};
use crate::device::cuda::{Grid, Kernel, Read, Write, kernel_struct};
use crate::error::Result;
use crate::ops::gemm::Accumulate;
use crate::ops::kernels::batch_norm as kernels;
use crate::ops::launch::{Launch, by_dtype};
use crate::tensor::{Context, DType, Element, Tensor};

/// Threads of every block.
const THREADS: usize = 256;

/// Blocks that share out the rows of a sum down the columns: enough for the largest GPUs, a number of its own so that
/// results do not depend on the GPU.
const SUMMING_BLOCKS: usize = 512;

/// Rows that a thread takes at least, so that reading the channels' parameters does not matter.
const ROWS: usize = 8;

/// Channels of a block that merges blocks' sums.
const MERGED: usize = 8;

/// Elements of a filter that a block folds.
const FOLDED: usize = 1024;

kernel_struct! {
    /// How a launch walks a matrix: see the kernels.
    pub struct BatchNormTask {
        pub rows: i32,
        pub cols: i32,
        pub wide: i32,
        pub lanes: i32,
        pub step: i32,
    }
}

/// How a launch walks a matrix.
struct Walk {
    task: BatchNormTask,
    grid: Grid,
    /// Blocks along the rows, and the rows of each.
    slices: usize,
    step: usize,
}

impl Walk {
    /// Blocks of about [`ROWS`] rows a thread.
    fn each_row(launch: &Launch, tensors: &[&Tensor]) -> Result<Walk> {
        Walk::new(launch, tensors, usize::MAX)
    }

    /// [`SUMMING_BLOCKS`], or fewer if there are fewer rows.
    fn summing(launch: &Launch, tensors: &[&Tensor]) -> Result<Walk> {
        Walk::new(launch, tensors, SUMMING_BLOCKS)
    }

    /// For tensors of the same number of rows and columns; threads take 16 bytes of a row where all allow it.
    fn new(launch: &Launch, tensors: &[&Tensor], blocks: usize) -> Result<Walk> {
        let (rows, cols) = (tensors[0].rows(), tensors[0].cols());
        let width = launch.width(tensors);
        let groups = cols / width;
        let lanes = groups.next_power_of_two().min(32);
        let across = groups.div_ceil(lanes);
        let parts = THREADS / lanes;
        let share = rows.div_ceil((blocks / across).max(1));
        let step = share.max(ROWS * parts).next_multiple_of(parts);
        let slices = rows.div_ceil(step);
        let task = BatchNormTask {
            rows: launch.size(rows)?,
            cols: launch.size(cols)?,
            wide: (width > 1).into(),
            lanes: lanes.ilog2() as i32,
            step: launch.size(step)?,
        };
        Ok(Walk {
            task,
            grid: Grid::blocks([slices, across, 1], THREADS as u32),
            slices,
            step,
        })
    }

    /// Room for two sums of every channel from every block along the rows.
    fn partial(&self, ctx: &Context, cols: usize) -> Result<Tensor> {
        ctx.empty([self.slices, 2, cols], DType::F32)
    }
}

/// The blocks of a merge.
fn merging(cols: usize) -> Grid {
    Grid::blocks([cols.div_ceil(MERGED), 1, 1], THREADS as u32)
}

pub fn running_forward(
    ctx: &Context,
    x: &Tensor,
    affine: Affine,
    running: RunningStatistics,
    epilogue: Epilogue,
    statistics: &mut Statistics,
    y: &mut Tensor,
) -> Result<()> {
    let running = [running.mean, running.var];
    let statistics = [&*statistics.mean, &*statistics.invstd].map(Some);
    normalise(ctx, x, affine, running, statistics, epilogue, y)
}

pub fn batch_forward(
    ctx: &Context,
    x: &Tensor,
    affine: Affine,
    running: Option<Running>,
    epilogue: Epilogue,
    statistics: &mut Statistics,
    y: &mut Tensor,
) -> Result<()> {
    if x.cols() == 0 {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    by_dtype!(
        launch,
        x.dtype(),
        [
            kernels::BATCH_NORM_MOMENTS_F32,
            kernels::BATCH_NORM_MOMENTS_BF16
        ] as T,
        |kernel| batch_statistics::<T>(ctx, kernel, x, running, statistics)
    )?;
    let statistics = [&*statistics.mean, &*statistics.invstd];
    normalise(ctx, x, affine, statistics, [None, None], epilogue, y)
}

type Moments<T> = Kernel<(Read<T>, Write<f32>, i32, BatchNormTask)>;

fn batch_statistics<T: Element>(
    ctx: &Context,
    kernel: &Moments<T>,
    x: &Tensor,
    running: Option<Running>,
    statistics: &mut Statistics,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let (rows, cols) = (x.rows(), x.cols());
    ctx.scope(|| {
        let walk = Walk::summing(&launch, &[x])?;
        let partial = walk.partial(ctx, cols)?;
        let args = (
            launch.read(x)?,
            launch.write(&partial)?,
            launch.size(x.ld())?,
            walk.task,
        );
        launch.run(kernel, walk.grid, args)?;

        let launch = Launch::new(OP, ctx)?;
        let factor = running.as_ref().map_or(0.0, |r| r.momentum.factor());
        let (mean, var) = running
            .map(|running| (&*running.mean, &*running.var))
            .unzip();
        let args = (
            launch.read(&partial)?,
            launch.write(statistics.mean)?,
            launch.write(statistics.invstd)?,
            launch.write_some(mean)?,
            launch.write_some(var)?,
            factor,
            1.0 / rows as f64,
            1.0 / (rows as f64 - 1.0),
            walk.task.rows,
            walk.task.cols,
            walk.task.step,
        );
        launch.run(&kernels::BATCH_NORM_MERGE_MOMENTS_F32, merging(cols), args)
    })
}

/// y from mean and invstd, or from the running mean and variance where `statistics` take what normalised.
fn normalise(
    ctx: &Context,
    x: &Tensor,
    affine: Affine,
    [mean, spread]: [&Tensor; 2],
    [mean_to, invstd_to]: [Option<&Tensor>; 2],
    epilogue: Epilogue,
    y: &mut Tensor,
) -> Result<()> {
    if x.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    by_dtype!(
        launch,
        x.dtype(),
        [
            kernels::BATCH_NORM_NORMALISE_F32,
            kernels::BATCH_NORM_NORMALISE_BF16
        ] as T,
        |kernel| {
            let tensors = [Some(x), epilogue.residual, Some(&*y)];
            let tensors: Vec<_> = tensors.into_iter().flatten().collect();
            let walk = Walk::each_row(&launch, &tensors)?;
            let args = (
                launch.read::<T>(x)?,
                launch.read_some::<T>(epilogue.residual)?,
                launch.read(affine.gamma)?,
                launch.read(affine.beta)?,
                launch.read(mean)?,
                launch.read(spread)?,
                launch.write_some(mean_to)?,
                launch.write_some(invstd_to)?,
                launch.write::<T>(y)?,
                launch.size(x.ld())?,
                launch.size(epilogue.residual.map_or(0, Tensor::ld))?,
                launch.size(y.ld())?,
                epilogue.relu.into(),
                walk.task,
            );
            launch.run(kernel, walk.grid, args)
        }
    )
}

pub fn backward(
    ctx: &Context,
    mode: BatchNorm,
    saved: Saved,
    dy: &Tensor,
    accumulate: Accumulate,
    gradients: Gradients,
) -> Result<()> {
    if saved.x.cols() == 0 {
        return Ok(());
    }
    let pass = Backward {
        ctx,
        saved,
        dy,
        accumulate,
    };
    let launch = Launch::new(OP, ctx)?;
    by_dtype!(
        launch,
        saved.x.dtype(),
        [kernels::BATCH_NORM_SUMS_F32, kernels::BATCH_NORM_SUMS_BF16] as T,
        |sums| {
            ctx.scope(|| match mode {
                BatchNorm::Running => pass.running::<T>(sums, gradients),
                BatchNorm::Batch => pass.batch::<T>(sums, gradients),
            })
        }
    )
}

type Sums<T> = Kernel<(
    Read<T>,
    Read<T>,
    Read<f32>,
    Read<f32>,
    Read<f32>,
    Write<T>,
    Write<f32>,
    i32,
    i32,
    i32,
    BatchNormTask,
)>;

struct Backward<'a> {
    ctx: &'a Context,
    saved: Saved<'a>,
    dy: &'a Tensor,
    accumulate: Accumulate,
}

impl Backward<'_> {
    /// dx takes nothing from the sums: one pass over x and dy makes all.
    fn running<T: Element>(&self, kernel: &Sums<T>, gradients: Gradients) -> Result<()> {
        let (walk, partial) = self.sum::<T>(kernel, gradients.x.as_deref())?;
        if gradients.gamma.is_none() && gradients.beta.is_none() {
            return Ok(());
        }
        let parameters = [gradients.gamma.as_deref(), gradients.beta.as_deref()];
        self.merge(&walk, &partial, parameters, [None, None])
    }

    fn batch<T: Element>(&self, kernel: &Sums<T>, gradients: Gradients) -> Result<()> {
        let (walk, partial) = self.sum::<T>(kernel, None)?;
        let cols = self.saved.x.cols();
        let shift = self.ctx.empty([cols], DType::F32)?;
        let slope = self.ctx.empty([cols], DType::F32)?;
        let parameters = [gradients.gamma.as_deref(), gradients.beta.as_deref()];
        let coefficients = [&shift, &slope];
        self.merge(&walk, &partial, parameters, coefficients.map(Some))?;
        match gradients.x {
            Some(dx) => self.gradient(coefficients, dx),
            None => Ok(()),
        }
    }

    /// Every block's sums, and, with `dx`, the gradient of running mode.
    fn sum<T: Element>(&self, kernel: &Sums<T>, dx: Option<&Tensor>) -> Result<(Walk, Tensor)> {
        let launch = Launch::new(OP, self.ctx)?;
        let (
            Saved {
                x,
                gamma,
                mean,
                invstd,
            },
            dy,
        ) = (self.saved, self.dy);
        let tensors: Vec<_> = [Some(x), Some(dy), dx].into_iter().flatten().collect();
        let walk = Walk::summing(&launch, &tensors)?;
        let partial = walk.partial(self.ctx, x.cols())?;
        let args = (
            launch.read(x)?,
            launch.read(dy)?,
            launch.read(gamma)?,
            launch.read(mean)?,
            launch.read(invstd)?,
            launch.write_some(dx)?,
            launch.write(&partial)?,
            launch.size(x.ld())?,
            launch.size(dy.ld())?,
            launch.size(dx.map_or(0, Tensor::ld))?,
            walk.task,
        );
        if walk.slices > 0 {
            launch.run(kernel, walk.grid, args)?;
        }
        Ok((walk, partial))
    }

    fn merge(
        &self,
        walk: &Walk,
        partial: &Tensor,
        [d_gamma, d_beta]: [Option<&Tensor>; 2],
        [shift, slope]: [Option<&Tensor>; 2],
    ) -> Result<()> {
        let launch = Launch::new(OP, self.ctx)?;
        let x = self.saved.x;
        let args = (
            launch.read(partial)?,
            launch.read(self.saved.invstd)?,
            launch.write_some(d_gamma)?,
            launch.write_some(d_beta)?,
            launch.write_some(shift)?,
            launch.write_some(slope)?,
            self.accumulate.flag(),
            1.0 / x.rows() as f64,
            walk.task.rows,
            walk.task.cols,
            launch.size(walk.step)?,
        );
        let grid = merging(x.cols());
        launch.run(&kernels::BATCH_NORM_MERGE_SUMS_F32, grid, args)
    }

    /// The gradient of batch mode.
    fn gradient(&self, [shift, slope]: [&Tensor; 2], dx: &Tensor) -> Result<()> {
        if dx.is_empty() {
            return Ok(());
        }
        let launch = Launch::new(OP, self.ctx)?;
        let (
            Saved {
                x,
                gamma,
                mean,
                invstd,
            },
            dy,
        ) = (self.saved, self.dy);
        by_dtype!(
            launch,
            x.dtype(),
            [
                kernels::BATCH_NORM_GRADIENT_F32,
                kernels::BATCH_NORM_GRADIENT_BF16
            ] as T,
            |kernel| {
                let walk = Walk::each_row(&launch, &[x, dy, dx])?;
                let args = (
                    launch.read::<T>(x)?,
                    launch.read::<T>(dy)?,
                    launch.read(gamma)?,
                    launch.read(mean)?,
                    launch.read(invstd)?,
                    launch.read(shift)?,
                    launch.read(slope)?,
                    launch.write::<T>(dx)?,
                    launch.size(x.ld())?,
                    launch.size(dy.ld())?,
                    launch.size(dx.ld())?,
                    walk.task,
                );
                launch.run(kernel, walk.grid, args)
            }
        )
    }
}

pub fn fold(
    ctx: &Context,
    filter: &Tensor,
    affine: Affine,
    RunningStatistics { mean, var }: RunningStatistics,
    folded: &mut Tensor,
    bias: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let chunks = filter.cols().div_ceil(FOLDED).max(1);
    let grid = Grid::blocks([bias.len(), chunks, 1], THREADS as u32);
    by_dtype!(
        launch,
        folded.dtype(),
        [kernels::BATCH_NORM_FOLD_F32, kernels::BATCH_NORM_FOLD_BF16] as T,
        |kernel| {
            let args = (
                launch.read(filter)?,
                launch.read(affine.gamma)?,
                launch.read(affine.beta)?,
                launch.read(mean)?,
                launch.read(var)?,
                launch.write::<T>(folded)?,
                launch.write(bias)?,
                launch.size(filter.ld())?,
                launch.size(folded.ld())?,
                launch.size(filter.cols())?,
            );
            launch.run(kernel, grid, args)
        }
    )
}
