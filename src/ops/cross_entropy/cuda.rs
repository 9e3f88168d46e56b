//! Cross-entropy on the CUDA device: a block for each row, then one block for the mean.

use super::OP;
use crate::error::Result;
use crate::ops::kernels::cross_entropy as kernels;
use crate::ops::launch::{Blocks, Launch};
use crate::tensor::{Context, DType, Tensor};

pub fn forward(
    ctx: &Context,
    logits: &Tensor,
    targets: &Tensor,
    ignore: u32,
    losses: &mut Tensor,
    loss: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    if logits.rows() > 0 {
        let vector = launch.vector_and_rest(&[logits], false);
        let arguments = kernels::CrossEntropyLoss {
            cols: launch.size(logits.cols())?,
            ld: launch.size(logits.ld())?,
            ignore,
            logits: logits.into(),
            targets: targets.into(),
            losses: (&mut *losses).into(),
        };
        launch.run(
            &[vector.key()],
            Blocks::new([logits.rows(), 1, 1]),
            arguments,
        )?;
    }
    mean(&launch, losses, targets, ignore, loss)
}

pub fn forward_backward(
    ctx: &Context,
    logits: &mut Tensor,
    targets: &Tensor,
    ignore: u32,
    losses: &mut Tensor,
    loss: &mut Tensor,
) -> Result<()> {
    let launch = Launch::new(OP, ctx)?;
    if logits.rows() > 0 {
        ctx.scope(|| {
            let mut counted = ctx.empty([1], DType::F32)?;
            let count = kernels::CrossEntropyCount {
                rows: launch.size(targets.len())?,
                ignore,
                targets: targets.into(),
                counted: (&mut counted).into(),
            };
            launch.run(&[], Blocks::new([1, 1, 1]), count)?;
            gradient(&launch, logits, targets, ignore, &counted, losses)
        })?;
    }
    mean(&launch, losses, targets, ignore, loss)
}

/// With the row in shared memory where it fits there.
fn gradient(
    launch: &Launch,
    logits: &mut Tensor,
    targets: &Tensor,
    ignore: u32,
    counted: &Tensor,
    losses: &mut Tensor,
) -> Result<()> {
    let row = kernels::row_shared_bytes(logits.cols());
    let vector = launch.vector_and_rest(&[logits], false);
    let blocks = Blocks::new([logits.rows(), 1, 1]);
    let (cols, ld) = (launch.size(logits.cols())?, launch.size(logits.ld())?);
    if row + kernels::REDUCTION_BYTES <= launch.shared_memory() {
        let arguments = kernels::CrossEntropyGradient {
            cols,
            ld,
            ignore,
            logits: logits.into(),
            targets: targets.into(),
            counted: counted.into(),
            losses: losses.into(),
        };
        launch.run(&[vector.key()], blocks.shared(row), arguments)
    } else {
        let arguments = kernels::CrossEntropyGradientTwice {
            cols,
            ld,
            ignore,
            logits: logits.into(),
            targets: targets.into(),
            counted: counted.into(),
            losses: losses.into(),
        };
        launch.run(&[vector.key()], blocks, arguments)
    }
}

fn mean(
    launch: &Launch,
    losses: &Tensor,
    targets: &Tensor,
    ignore: u32,
    loss: &mut Tensor,
) -> Result<()> {
    let arguments = kernels::CrossEntropyMean {
        rows: launch.size(targets.len())?,
        ignore,
        losses: losses.into(),
        targets: targets.into(),
        loss: loss.into(),
    };
    launch.run(&[], Blocks::new([1, 1, 1]), arguments)
}
