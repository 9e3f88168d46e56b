//! Batch normalisation on the CPU.

use super::{
    Affine, BatchNorm, EPSILON, Epilogue, Gradients, OP, Running, RunningStatistics, Saved,
    Statistics,
};
use crate::error::Result;
use crate::ops::Float;
use crate::ops::gemm::Accumulate;
use crate::ops::host::columns;
use crate::ops::host::{Host, Rows};
use crate::tensor::{Context, Tensor};

fn invstd(variance: f64) -> f64 {
    1.0 / (variance + EPSILON).sqrt()
}

pub fn running_forward<T: Float>(
    ctx: &Context,
    x: &Tensor,
    affine: Affine,
    running: RunningStatistics,
    epilogue: Epilogue,
    statistics: &mut Statistics,
    y: &mut Tensor,
) -> Result<()> {
    running_statistics::<T>(ctx, running, statistics)?;
    normalise::<T>(ctx, x, affine, statistics, epilogue, y)
}

pub fn batch_forward<T: Float>(
    ctx: &Context,
    x: &Tensor,
    affine: Affine,
    running: Option<Running>,
    epilogue: Epilogue,
    statistics: &mut Statistics,
    y: &mut Tensor,
) -> Result<()> {
    batch_statistics::<T>(ctx, x, running, statistics)?;
    normalise::<T>(ctx, x, affine, statistics, epilogue, y)
}

fn running_statistics<T: Float>(
    ctx: &Context,
    RunningStatistics { mean, var }: RunningStatistics,
    statistics: &mut Statistics,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let (mean, var) = (host.read::<T>(mean)?, host.read::<T>(var)?);
    let mut mean_to = host.write::<T>(statistics.mean)?;
    let mut invstd_to = host.write::<T>(statistics.invstd)?;
    mean_to.row(0).copy_from_slice(mean.row(0));
    for (to, &var) in invstd_to.row(0).iter_mut().zip(var.row(0)) {
        *to = T::of(invstd(Float::to_f64(var)));
    }
    Ok(())
}

/// Mean and Σ (x − mean)² of the rows so far, for every channel.
struct Moments {
    rows: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn of<T: Float>(x: Rows<T>) -> Self {
        let c = x.cols;
        let none = Moments {
            rows: 0.0,
            mean: vec![0.0; c],
            squares: vec![0.0; c],
        };
        let block = |first: usize, rows: usize, sums: &mut [T]| {
            let (mean, squares) = sums.split_at_mut(c);
            for row in first..first + rows {
                for (mean, &x) in mean.iter_mut().zip(x.row(row)) {
                    *mean += x;
                }
            }
            let part = T::one() / T::of(rows as f64);
            mean.iter_mut().for_each(|mean| *mean *= part);
            for row in first..first + rows {
                for ((square, &mean), &x) in squares.iter_mut().zip(mean.iter()).zip(x.row(row)) {
                    *square += (x - mean) * (x - mean);
                }
            }
        };
        columns::reduce([x.rows, c], 2 * c, none, block, Moments::merge)
    }

    fn merge<T: Float>(&mut self, sums: &[T], rows: usize) {
        let rows = rows as f64;
        let total = self.rows + rows;
        let (means, squares) = sums.split_at(self.mean.len());
        for (c, (&mean, &square)) in means.iter().zip(squares).enumerate() {
            let difference = Float::to_f64(mean) - self.mean[c];
            self.mean[c] += difference * rows / total;
            self.squares[c] +=
                Float::to_f64(square) + difference * difference * self.rows * rows / total;
        }
        self.rows = total;
    }
}

fn batch_statistics<T: Float>(
    ctx: &Context,
    x: &Tensor,
    running: Option<Running>,
    statistics: &mut Statistics,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let moments = Moments::of(host.read::<T>(x)?);
    let mut mean = host.write::<T>(statistics.mean)?;
    let mut inverse = host.write::<T>(statistics.invstd)?;
    for (c, (mean, inverse)) in mean.row(0).iter_mut().zip(inverse.row(0)).enumerate() {
        *mean = T::of(moments.mean[c]);
        *inverse = T::of(invstd(moments.squares[c] / moments.rows));
    }
    let Some(running) = running else {
        return Ok(());
    };
    let factor = running.momentum.factor();
    let mut mean = host.write::<T>(running.mean)?;
    let mut var = host.write::<T>(running.var)?;
    let follow = |to: &mut T, value: f64| {
        *to = T::of((1.0 - factor) * Float::to_f64(*to) + factor * value);
    };
    for (c, (mean, var)) in mean.row(0).iter_mut().zip(var.row(0)).enumerate() {
        follow(mean, moments.mean[c]);
        follow(var, moments.squares[c] / (moments.rows - 1.0));
    }
    Ok(())
}

fn normalise<T: Float>(
    ctx: &Context,
    x: &Tensor,
    affine: Affine,
    statistics: &Statistics,
    epilogue: Epilogue,
    y: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let x = host.read::<T>(x)?;
    let (gamma, beta) = (host.read::<T>(affine.gamma)?, host.read::<T>(affine.beta)?);
    let mean = host.read::<T>(statistics.mean)?.row(0);
    let invstd = host.read::<T>(statistics.invstd)?.row(0);
    let residual = host.read_some::<T>(epilogue.residual)?;
    let beta = beta.row(0);
    let scale: Vec<T> = invstd
        .iter()
        .zip(gamma.row(0))
        .map(|(&i, &g)| i * g)
        .collect();
    let mut y = host.write::<T>(y)?;
    y.for_each_row(|row, y| {
        let channels = mean.iter().zip(&scale).zip(beta);
        for ((y, &x), ((&mean, &scale), &beta)) in y.iter_mut().zip(x.row(row)).zip(channels) {
            *y = (x - mean) * scale + beta;
        }
        if let Some(residual) = &residual {
            for (y, &z) in y.iter_mut().zip(residual.row(row)) {
                *y += z;
            }
        }
        if epilogue.relu {
            for y in y {
                // A NaN stays.
                *y = if *y < T::zero() { T::zero() } else { *y };
            }
        }
    });
    Ok(())
}

pub fn backward<T: Float>(
    ctx: &Context,
    mode: BatchNorm,
    saved: Saved,
    dy: &Tensor,
    accumulate: Accumulate,
    gradients: Gradients,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let (x, dy) = (host.read::<T>(saved.x)?, host.read::<T>(dy)?);
    let gamma = host.read::<T>(saved.gamma)?.row(0);
    let mean = host.read::<T>(saved.mean)?.row(0);
    let invstd = host.read::<T>(saved.invstd)?.row(0);
    let beta = host.read_some::<T>(saved.relu)?.map(|beta| beta.row(0));
    let scale: Vec<T> = gamma.iter().zip(invstd).map(|(&g, &i)| g * i).collect();
    // dy, or what a ReLU behind the normalisation lets through of it: the same terms as in the forward pass.
    let through_relu = |c: usize, x: T, dy: T| match beta {
        None => dy,
        Some(beta) if (x - mean[c]) * scale[c] + beta[c] > T::zero() => dy,
        Some(_) => T::zero(),
    };
    let (c, rows) = (x.cols, x.rows);
    let sums_needed = gradients.gamma.is_some()
        || gradients.beta.is_some()
        || (gradients.x.is_some() && mode == BatchNorm::Batch);
    let sums = if sums_needed {
        gradient_sums(x, dy, mean, invstd, through_relu)
    } else {
        vec![0.0; 2 * c]
    };
    let (d_gamma, d_beta) = sums.split_at(c);
    write_sums::<T>(&host, d_gamma, accumulate, gradients.gamma)?;
    write_sums::<T>(&host, d_beta, accumulate, gradients.beta)?;
    let Some(mut dx) = host.write_some::<T>(gradients.x)? else {
        return Ok(());
    };
    // dx = scale (dy − shift − (x − mean) slope), the last two 0 in running mode.
    let part = if mode == BatchNorm::Batch {
        1.0 / rows as f64
    } else {
        0.0
    };
    let shift: Vec<T> = d_beta.iter().map(|sum| T::of(sum * part)).collect();
    let slope = |(sum, &i): (&f64, &T)| T::of(sum * part * Float::to_f64(i));
    let slope: Vec<T> = d_gamma.iter().zip(invstd).map(slope).collect();
    dx.for_each_row(|row, dx| {
        let (x, dy) = (x.row(row), dy.row(row));
        for c in 0..dx.len() {
            let dy = through_relu(c, x[c], dy[c]);
            dx[c] = scale[c] * (dy - shift[c] - (x[c] - mean[c]) * slope[c]);
        }
    });
    Ok(())
}

/// `to` becomes, or is increased by, `sums`, if it is wanted.
fn write_sums<T: Float>(
    host: &Host,
    sums: &[f64],
    accumulate: Accumulate,
    to: Option<&mut Tensor>,
) -> Result<()> {
    let Some(mut to) = host.write_some::<T>(to)? else {
        return Ok(());
    };
    for (to, &sum) in to.row(0).iter_mut().zip(sums) {
        let before = if accumulate == Accumulate::Yes {
            *to
        } else {
            T::zero()
        };
        *to = before + T::of(sum);
    }
    Ok(())
}

/// Σ dy x̂ of every channel, then Σ dy of every channel.
fn gradient_sums<T: Float>(
    x: Rows<T>,
    dy: Rows<T>,
    mean: &[T],
    invstd: &[T],
    through_relu: impl Fn(usize, T, T) -> T + Sync,
) -> Vec<f64> {
    let c = x.cols;
    columns::sums([x.rows, c], 2 * c, |first, rows, sums: &mut [T]| {
        let (d_gamma, d_beta) = sums.split_at_mut(c);
        for row in first..first + rows {
            let (x, dy) = (x.row(row), dy.row(row));
            for c in 0..c {
                let dy = through_relu(c, x[c], dy[c]);
                d_beta[c] += dy;
                d_gamma[c] += dy * ((x[c] - mean[c]) * invstd[c]);
            }
        }
    })
}

pub fn fold<T: Float>(
    ctx: &Context,
    filter: &Tensor,
    affine: Affine,
    RunningStatistics { mean, var }: RunningStatistics,
    folded: &mut Tensor,
    bias: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let filter = host.read::<T>(filter)?;
    let (gamma, beta) = (host.read::<T>(affine.gamma)?, host.read::<T>(affine.beta)?);
    let (mean, var) = (host.read::<T>(mean)?, host.read::<T>(var)?);
    let mut folded = host.write::<T>(folded)?;
    let mut bias = host.write::<T>(bias)?;
    for (k, bias) in bias.row(0).iter_mut().enumerate() {
        let at = |rows: &Rows<T>| Float::to_f64(rows.row(0)[k]);
        let scale = at(&gamma) * invstd(at(&var));
        *bias = T::of(at(&beta) - at(&mean) * scale);
        for (to, &from) in folded.row(k).iter_mut().zip(filter.row(k)) {
            *to = from * T::of(scale);
        }
    }
    Ok(())
}
