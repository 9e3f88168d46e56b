//! Additive attention at the recipe's sizes, B=32, 64 cells seen as P=196, A=256, D=2048, and the regulariser. B/s,
//! of keys, values and what is as large.

use crate::support;
use criterion::{Criterion, criterion_group};
use showtell::ops::attention::{self, CellMix, Gradients, Inputs, KeyGradients, Outputs};
use showtell::ops::{Accumulate, regulariser};
use showtell::{Context, Tensor};
use support::{Family, floats, floats_moved, operands, operands_moved, operations, zeros};

const KEYS: usize = 32 * 196 * 256;
const VALUES: usize = 32 * 64 * 2048;

/// A batch of images, and what a step reads and writes.
struct Batch {
    mix: CellMix,
    keys: Tensor,
    values: Tensor,
    weight: Tensor,
    bias: Tensor,
    query: Tensor,
    alpha: Tensor,
    beta: Tensor,
    context: Tensor,
    d_query: Tensor,
    d_scores: Tensor,
}

impl Batch {
    fn new(ctx: &Context) -> Self {
        Batch {
            mix: CellMix::new([8, 8], [14, 14]).unwrap(),
            keys: operands(ctx, [32, 196, 256]),
            values: operands(ctx, [32, 64, 2048]),
            weight: floats(ctx, [1, 256]),
            bias: floats(ctx, [1]),
            query: floats(ctx, [32, 256]),
            alpha: zeros(ctx, [32, 196]),
            beta: zeros(ctx, [32, 64]),
            context: zeros(ctx, [32, 2048]),
            d_query: operands(ctx, [32, 256]),
            d_scores: zeros(ctx, [32, 196]),
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            mix: &self.mix,
            keys: &self.keys,
            values: &self.values,
            weight: &self.weight,
            bias: &self.bias,
        }
    }
}

fn steps(c: &mut Criterion) {
    let mut family = Family::new(c, "attention");
    let both = operands_moved(KEYS + VALUES);
    family.bench("step forward", both.clone(), Batch::new, |ctx, batch| {
        let (mut alpha, mut beta) = (batch.alpha.clone(), batch.beta.clone());
        let mut context = batch.context.clone();
        let outputs = Outputs {
            alpha: &mut alpha,
            beta: &mut beta,
            context: &mut context,
        };
        attention::forward(ctx, batch.inputs(), &batch.query, outputs)
    });
    family.bench("step backward", both, Batch::new, |ctx, batch| {
        let (mut query, mut scores) = (batch.d_query.clone(), batch.d_scores.clone());
        let gradients = Gradients {
            query: &mut query,
            scores: &mut scores,
        };
        let (query, alpha, d_context) = (&batch.query, &batch.alpha, &batch.context);
        attention::backward(
            ctx,
            batch.inputs(),
            query,
            alpha,
            d_context,
            None,
            gradients,
        )
    });
}

/// What is done once for all T=24 steps.
fn batches(c: &mut Criterion) {
    let mut family = Family::new(c, "attention");
    let mix = CellMix::new([8, 8], [14, 14]).unwrap();
    let no = Accumulate::No;
    let make = |ctx: &Context| (floats(ctx, [32, 64, 256]), operands(ctx, [32, 196, 256]));
    family.bench("mix", operands_moved(KEYS), make, |ctx, (cells, keys)| {
        attention::mix_forward(ctx, &mix, cells, keys)
    });
    let make = |ctx: &Context| (floats(ctx, [32, 196, 256]), operands(ctx, [32, 64, 256]));
    let work = floats_moved(KEYS);
    family.bench("mix backward", work, make, |ctx, (d_keys, d_cells)| {
        attention::mix_backward(ctx, &mix, d_keys, no, d_cells)
    });
    let make = |ctx: &Context| (operands(ctx, [32, 64, 2048]), operands(ctx, [32, 2048]));
    let work = operands_moved(VALUES);
    family.bench("mean", work, make, |ctx, (values, mean)| {
        attention::mean_forward(ctx, &mix, values, mean)
    });
    let make = |ctx: &Context| (floats(ctx, [32, 2048]), zeros(ctx, [32, 64, 2048]));
    let work = floats_moved(VALUES);
    family.bench("mean backward", work, make, |ctx, (d_mean, d_values)| {
        attention::mean_backward(ctx, &mix, d_mean, no, d_values)
    });
    let make = |ctx: &Context| {
        let (queries, d_scores) = (floats(ctx, [24, 32, 256]), floats(ctx, [24, 32, 196]));
        let d_keys = zeros(ctx, [32, 196, 256]);
        let small = (zeros(ctx, [1, 256]), zeros(ctx, [1]));
        (Batch::new(ctx), queries, d_scores, d_keys, small)
    };
    let name = "keys backward T=24";
    family.bench(name, floats_moved(2 * KEYS), make, |ctx, set| {
        let (batch, queries, d_scores, keys, (weight, bias)) = set;
        let gradients = KeyGradients { keys, weight, bias };
        attention::keys_backward(ctx, batch.inputs(), queries, d_scores, no, gradients)
    });
    let make = |ctx: &Context| {
        let (beta, d_context) = (floats(ctx, [24, 32, 64]), floats(ctx, [24, 32, 2048]));
        (beta, d_context, zeros(ctx, [32, 64, 2048]))
    };
    let name = "values backward T=24, FLOP/s";
    family.bench(name, operations(2 * 24 * VALUES), make, |ctx, set| {
        let (beta, d_context, d_values) = set;
        attention::values_backward(ctx, beta, d_context, Accumulate::No, d_values)
    });
}

fn regularisers(c: &mut Criterion) {
    let mut family = Family::new(c, "regulariser");
    let make = |ctx: &Context| {
        let alphas = floats(ctx, [24, 32, 196]);
        (alphas, zeros(ctx, [1]), zeros(ctx, [32, 196]))
    };
    let work = floats_moved(24 * 32 * 196);
    family.bench(
        "forward T=24",
        work.clone(),
        make,
        |ctx, (alphas, loss, _)| regulariser::forward(ctx, alphas, 1.0, loss),
    );
    family.bench("backward T=24", work, make, |ctx, (alphas, _, d_alpha)| {
        regulariser::backward(ctx, alphas, 1.0, d_alpha)
    });
}

criterion_group!(benches, steps, batches, regularisers);
