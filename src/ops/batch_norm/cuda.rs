//! Batch normalisation on the CUDA device: `kernels/batch_norm.cu`.

use super::{
    Affine, BatchNorm, EPSILON, Epilogue, Gradients, OP, Running, RunningStatistics, Saved,
    Statistics,
};
use crate::error::Result;
use crate::ops::gemm::Accumulate;
use crate::ops::kernels::batch_norm::{
    self as kernels, BatchNormFold, BatchNormGradient, BatchNormMergeMoments, BatchNormMergeSums,
    BatchNormMoments, BatchNormNormalise, BatchNormSums, BatchNormTask,
};
use crate::ops::launch::{Blocks, Launch, Vector, key};
use crate::tensor::{Context, DType, Tensor};

/// Blocks that share out the rows of a sum down the columns: enough for the largest GPUs, a number of its own so that
/// results do not depend on the GPU.
const SUMMING_BLOCKS: usize = 512;

/// Rows that a thread takes at least, so that reading the channels' parameters does not matter.
const ROWS: usize = 8;

// The two halves add the same number to the variance.
const _: () = assert!(kernels::EPSILON == EPSILON as f32);

/// How a run walks a matrix.
struct Walk {
    task: BatchNormTask,
    vector: Vector,
    blocks: Blocks,
    /// Blocks along the rows.
    slices: usize,
}

impl Walk {
    /// Blocks of about [`ROWS`] rows per thread.
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
        let vector = launch.vector(tensors);
        let groups = cols / vector.width;
        let lanes = groups.next_power_of_two().min(kernels::WARP);
        let across = groups.div_ceil(lanes);
        let parts = kernels::THREADS / lanes;
        let share = rows.div_ceil((blocks / across).max(1));
        let step = share.max(ROWS * parts).next_multiple_of(parts);
        let slices = rows.div_ceil(step);
        Ok(Walk {
            task: BatchNormTask {
                rows: launch.size(rows)?,
                cols: launch.size(cols)?,
                log2_lanes: lanes.ilog2() as i32,
                step: launch.size(step)?,
            },
            vector,
            blocks: Blocks::new([slices, across, 1]),
            slices,
        })
    }

    /// Room for two sums of every channel from every block along the rows.
    fn partial(&self, ctx: &Context, cols: usize) -> Result<Tensor> {
        ctx.empty([self.slices, 2, cols], DType::F32)
    }
}

/// The blocks of a merge.
fn merging(cols: usize) -> Blocks {
    Blocks::new([cols.div_ceil(kernels::MERGED), 1, 1])
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
    let by = Normaliser::Running {
        mean: running.mean,
        var: running.var,
        statistics,
    };
    normalise(ctx, x, affine, by, epilogue, y)
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
    batch_statistics(ctx, x, running, statistics)?;
    normalise(ctx, x, affine, Normaliser::Batch(statistics), epilogue, y)
}

fn batch_statistics(
    ctx: &Context,
    x: &Tensor,
    running: Option<Running>,
    statistics: &mut Statistics,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    let (rows, cols) = (x.rows(), x.cols());
    ctx.scope(|| {
        let walk = Walk::summing(&launch, &[x])?;
        let mut partial = walk.partial(ctx, cols)?;
        let arguments = BatchNormMoments {
            ldx: launch.size(x.ld())?,
            task: walk.task,
            x: x.into(),
            partial: (&mut partial).into(),
        };
        launch.run(&[walk.vector.key()], walk.blocks, arguments)?;
        let momentum = running.as_ref().map_or(0.0, |r| r.momentum.factor());
        let (mean, var) = running.map(|running| (running.mean, running.var)).unzip();
        let arguments = BatchNormMergeMoments {
            momentum,
            per_row: 1.0 / rows as f64,
            per_other_row: 1.0 / (rows as f64 - 1.0),
            rows: walk.task.rows,
            cols: walk.task.cols,
            step: walk.task.step,
            partial: (&partial).into(),
            mean: (&mut *statistics.mean).into(),
            invstd: (&mut *statistics.invstd).into(),
            running_mean: mean.into(),
            running_var: var.into(),
        };
        launch.run(&[], merging(cols), arguments)
    })
}

/// The statistics that y is made with.
enum Normaliser<'a, 'b> {
    Batch(&'a Statistics<'b>),
    /// They are written to `statistics`.
    Running {
        mean: &'a Tensor,
        var: &'a Tensor,
        statistics: &'a mut Statistics<'b>,
    },
}

fn normalise(
    ctx: &Context,
    x: &Tensor,
    affine: Affine,
    by: Normaliser,
    epilogue: Epilogue,
    y: &mut Tensor,
) -> Result<()> {
    if x.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(OP, ctx)?;
    let tensors = [Some(x), epilogue.residual, Some(&*y)];
    let tensors: Vec<_> = tensors.into_iter().flatten().collect();
    let walk = Walk::each_row(&launch, &tensors)?;
    let (mean, invstd, var, mean_to, invstd_to) = match by {
        Normaliser::Batch(by) => (&*by.mean, Some(&*by.invstd), None, None, None),
        Normaliser::Running {
            mean,
            var,
            statistics: to,
        } => {
            let (mean_to, invstd_to) = (&mut *to.mean, &mut *to.invstd);
            (mean, None, Some(var), Some(mean_to), Some(invstd_to))
        }
    };
    let arguments = BatchNormNormalise {
        ldx: launch.size(x.ld())?,
        ldr: launch.size(epilogue.residual.map_or(0, Tensor::ld))?,
        ldy: launch.size(y.ld())?,
        relu: epilogue.relu.into(),
        task: walk.task,
        x: x.into(),
        residual: epilogue.residual.into(),
        gamma: affine.gamma.into(),
        beta: affine.beta.into(),
        mean: mean.into(),
        invstd: invstd.into(),
        var: var.into(),
        mean_to: mean_to.into(),
        invstd_to: invstd_to.into(),
        y: y.into(),
    };
    launch.run(&[walk.vector.key()], walk.blocks, arguments)
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
        launch: Launch::new(OP, ctx)?,
        ctx,
        saved,
        dy,
        accumulate,
    };
    ctx.scope(|| match mode {
        BatchNorm::Running => pass.running(gradients),
        BatchNorm::Batch => pass.batch(gradients),
    })
}

struct Backward<'a> {
    launch: Launch<'a>,
    ctx: &'a Context,
    saved: Saved<'a>,
    dy: &'a Tensor,
    accumulate: Accumulate,
}

/// What the merge of the blocks' sums writes.
struct Merged<'a> {
    gamma: Option<&'a mut Tensor>,
    beta: Option<&'a mut Tensor>,
    /// What the gradient of batch mode takes from the sums.
    shift: Option<&'a mut Tensor>,
    slope: Option<&'a mut Tensor>,
}

impl Backward<'_> {
    /// dx takes nothing from the sums: one pass over x and dy makes all.
    fn running(&self, gradients: Gradients) -> Result<()> {
        let Gradients { x, gamma, beta } = gradients;
        let (walk, partial) = self.sum(x)?;
        if gamma.is_none() && beta.is_none() {
            return Ok(());
        }
        let merged = Merged {
            gamma,
            beta,
            shift: None,
            slope: None,
        };
        self.merge(&walk, &partial, merged)
    }

    fn batch(&self, gradients: Gradients) -> Result<()> {
        let (walk, partial) = self.sum(None)?;
        let cols = self.saved.x.cols();
        let mut shift = self.ctx.empty([cols], DType::F32)?;
        let mut slope = self.ctx.empty([cols], DType::F32)?;
        let merged = Merged {
            gamma: gradients.gamma,
            beta: gradients.beta,
            shift: Some(&mut shift),
            slope: Some(&mut slope),
        };
        self.merge(&walk, &partial, merged)?;
        match gradients.x {
            Some(dx) => self.gradient(&shift, &slope, dx),
            None => Ok(()),
        }
    }

    /// Every block's sums, and, with `dx`, the gradient of running mode.
    fn sum(&self, dx: Option<&mut Tensor>) -> Result<(Walk, Tensor)> {
        let (launch, saved, dy) = (&self.launch, self.saved, self.dy);
        let tensors = [Some(saved.x), Some(dy), dx.as_deref()];
        let tensors: Vec<_> = tensors.into_iter().flatten().collect();
        let walk = Walk::summing(launch, &tensors)?;
        let mut partial = walk.partial(self.ctx, saved.x.cols())?;
        if walk.slices > 0 {
            let arguments = BatchNormSums {
                ldx: launch.size(saved.x.ld())?,
                ldy: launch.size(dy.ld())?,
                ldd: launch.size(dx.as_deref().map_or(0, Tensor::ld))?,
                task: walk.task,
                x: saved.x.into(),
                dy: dy.into(),
                gamma: saved.gamma.into(),
                beta: saved.relu.into(),
                mean: saved.mean.into(),
                invstd: saved.invstd.into(),
                dx: dx.into(),
                partial: (&mut partial).into(),
            };
            launch.run(&[walk.vector.key()], walk.blocks, arguments)?;
        }
        Ok((walk, partial))
    }

    fn merge(&self, walk: &Walk, partial: &Tensor, merged: Merged) -> Result<()> {
        let x = self.saved.x;
        let arguments = BatchNormMergeSums {
            accumulate: self.accumulate.flag(),
            per_row: 1.0 / x.rows() as f64,
            rows: walk.task.rows,
            cols: walk.task.cols,
            step: walk.task.step,
            partial: partial.into(),
            invstd: self.saved.invstd.into(),
            d_gamma: merged.gamma.into(),
            d_beta: merged.beta.into(),
            shift: merged.shift.into(),
            slope: merged.slope.into(),
        };
        self.launch.run(&[], merging(x.cols()), arguments)
    }

    /// The gradient of batch mode.
    fn gradient(&self, shift: &Tensor, slope: &Tensor, dx: &mut Tensor) -> Result<()> {
        if dx.is_empty() {
            return Ok(());
        }
        let (launch, saved, dy) = (&self.launch, self.saved, self.dy);
        let walk = Walk::each_row(launch, &[saved.x, dy, dx])?;
        let arguments = BatchNormGradient {
            ldx: launch.size(saved.x.ld())?,
            ldy: launch.size(dy.ld())?,
            ldd: launch.size(dx.ld())?,
            task: walk.task,
            x: saved.x.into(),
            dy: dy.into(),
            gamma: saved.gamma.into(),
            beta: saved.relu.into(),
            mean: saved.mean.into(),
            invstd: saved.invstd.into(),
            shift: shift.into(),
            slope: slope.into(),
            dx: dx.into(),
        };
        launch.run(&[walk.vector.key()], walk.blocks, arguments)
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
    let chunks = filter.cols().div_ceil(kernels::FOLDED).max(1);
    let (blocks, key) = (Blocks::new([bias.len(), chunks, 1]), key(folded.dtype()));
    let arguments = BatchNormFold {
        ldf: launch.size(filter.ld())?,
        ldt: launch.size(folded.ld())?,
        cols: launch.size(filter.cols())?,
        filter: filter.into(),
        gamma: affine.gamma.into(),
        beta: affine.beta.into(),
        mean: mean.into(),
        var: var.into(),
        folded: folded.into(),
        bias: bias.into(),
    };
    launch.run(&[key], blocks, arguments)
}
