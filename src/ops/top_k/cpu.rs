//! Top-k on the CPU: one pass over a row with an insertion list of k entries.

use super::OP;
use crate::error::Result;
use crate::ops::Float;
use crate::ops::host::Host;
use crate::ops::host::simd::{simd, sum_of};
use crate::tensor::{Context, Tensor};
use rayon::prelude::*;

pub fn forward<T: Float>(
    ctx: &Context,
    logits: &Tensor,
    ids: &mut Tensor,
    log_probabilities: &mut Tensor,
) -> Result<()> {
    let host = Host::new(OP, ctx);
    let logits = host.read::<T>(logits)?;
    let (mut ids, mut best) = (host.write::<u32>(ids)?, host.write::<T>(log_probabilities)?);
    let rows = ids.par_rows().zip(best.par_rows()).enumerate();
    rows.for_each(|(row, (ids, best))| {
        let logits = logits.row(row);
        select(logits, ids, best);
        let highest = best[0];
        let total = simd(|| sum_of(logits, logits, |logit, _| (logit - highest).fast_exp()));
        // In this order, large logits cost no digits.
        let total = total.ln();
        (best.iter_mut()).for_each(|value| *value = (*value - highest) - total);
    });
    Ok(())
}

/// The `ids.len()` largest values, best first. An entry moves up only past strictly smaller ones, so the
/// lower id wins a tie; NaN never enters.
fn select<T: Float>(values: &[T], ids: &mut [u32], best: &mut [T]) {
    ids.fill(0);
    best.fill(T::neg_infinity());
    let last = best.len() - 1;
    for (id, &value) in values.iter().enumerate() {
        if value > best[last] {
            let place = best.partition_point(|&kept| kept >= value);
            best[place..].rotate_right(1);
            ids[place..].rotate_right(1);
            (best[place], ids[place]) = (value, id as u32);
        }
    }
}
