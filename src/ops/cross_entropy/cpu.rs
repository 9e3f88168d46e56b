//! Cross-entropy on the CPU, one row at a time while it lies in the nearest caches.

use super::OP;
use crate::error::{Error, Result};
use crate::ops::Float;
use crate::ops::host::Host;
use crate::ops::host::simd::{self, simd, sum_of};
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

pub fn forward<T: Float>(
    ctx: &Context,
    logits: &Tensor,
    targets: &Tensor,
    ignore: u32,
    losses: &mut Tensor,
    loss: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let logits = host.read::<T>(logits)?;
    let targets = host.read::<u32>(targets)?.data();
    let mut losses = host.write::<T>(losses)?;
    let mut loss = host.write::<T>(loss)?;
    let count = count(targets, ignore, logits.cols)?;
    let losses = losses.data();
    losses.par_iter_mut().enumerate().for_each(|(row, loss)| {
        *loss = if targets[row] == ignore {
            T::zero()
        } else {
            simd(|| row_loss(logits.row(row), targets[row] as usize))
        };
    });
    loss.data()[0] = mean(losses, count);
    Ok(())
}

pub fn forward_backward<T: Float>(
    ctx: &Context,
    logits: &mut Tensor,
    targets: &Tensor,
    ignore: u32,
    losses: &mut Tensor,
    loss: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let mut logits = host.write::<T>(logits)?;
    let targets = host.read::<u32>(targets)?.data();
    let mut losses = host.write::<T>(losses)?;
    let mut loss = host.write::<T>(loss)?;
    let count = count(targets, ignore, logits.cols)?;
    let losses = losses.data();
    let share = T::of(1.0 / count as f64);
    let each = logits.par_rows().zip(losses.par_iter_mut()).zip(targets);
    each.for_each(|((row, loss), &target)| {
        if target == ignore {
            *loss = T::zero();
            row.fill(T::zero());
        } else {
            *loss = simd(|| row_gradient(row, target as usize, share));
        }
    });
    loss.data()[0] = mean(losses, count);
    Ok(())
}

/// How many targets are not ignored.
fn count(targets: &[u32], ignore: u32, words: usize) -> Result<usize> {
    let beyond = |&&target: &&u32| target != ignore && target as usize >= words;
    match targets.iter().find(beyond) {
        None => Ok(targets.iter().filter(|&&target| target != ignore).count()),
        Some(target) => {
            let message = format!("target {target} among {words} words");
            Err(Error::operation(OP, message))
        }
    }
}

/// A NaN among the logits reaches the sum, and so the loss, although `max` passes it over.
#[inline(always)]
fn row_loss<T: Float>(row: &[T], target: usize) -> T {
    let max = simd::max(row);
    let sum = sum_of(row, row, |x, _| (x - max).fast_exp());
    sum.ln() + (max - row[target])
}

/// The row's loss; the row becomes its gradient, times `share`.
#[inline(always)]
fn row_gradient<T: Float>(row: &mut [T], target: usize, share: T) -> T {
    let max = simd::max(row);
    let below_max = max - row[target];
    for x in row.iter_mut() {
        *x = (*x - max).fast_exp();
    }
    let sum = simd::sum(row);
    let scale = share / sum;
    for x in row.iter_mut() {
        *x *= scale;
    }
    row[target] -= share;
    sum.ln() + below_max
}

fn mean<T: Float>(losses: &[T], count: usize) -> T {
    let sum: f64 = losses.iter().copied().map(Float::to_f64).sum();
    T::of(sum / count as f64)
}
