//! Additive attention at the recipe's sizes, B=32, 64 cells seen as P=196, A=256, D=2048, and the regulariser. B/s,
//! of keys, values and what is as large.

use crate::support;
use criterion::{Criterion, criterion_group};
use showtell::ops::attention::{self, CellMix, Gradients, Inputs, KeyGradients, Outputs};
use showtell::ops::{Accumulate, regulariser};
use showtell::{Context, Tensor};
use support::{Family, floats, floats_moved, operations, zeros};

const KEYS: usize = 32 * 196 * 256;
const VALUES: usize = 32 * 64 * 2048;

/// A batch of images, and what a step reads and writes.
struct Batch {
    mix: CellMix,
    cells: Tensor,
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
            cells: floats(ctx, [32, 64, 256]),
            keys: floats(ctx, [32, 196, 256]),
            values: floats(ctx, [32, 64, 2048]),
            weight: floats(ctx, [1, 256]),
            bias: floats(ctx, [1]),
            query: floats(ctx, [32, 256]),
            alpha: zeros(ctx, [32, 196]),
            beta: zeros(ctx, [32, 64]),
            context: zeros(ctx, [32, 2048]),
            d_query: zeros(ctx, [32, 256]),
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
    let both = floats_moved(KEYS + VALUES);
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
    family.bench("mix", floats_moved(KEYS), Batch::new, |ctx, batch| {
        attention::mix_forward(ctx, &batch.mix, &batch.cells, &mut batch.keys)
    });
    family.bench(
        "mix backward",
        floats_moved(KEYS),
        Batch::new,
        |ctx, batch| {
            let (mix, no) = (&batch.mix, Accumulate::No);
            attention::mix_backward(ctx, mix, &batch.keys, no, &mut batch.cells)
        },
    );
    family.bench("mean", floats_moved(VALUES), Batch::new, |ctx, batch| {
        attention::mean_forward(ctx, &batch.mix, &batch.values, &mut batch.context)
    });
    family.bench(
        "mean backward",
        floats_moved(VALUES),
        Batch::new,
        |ctx, batch| {
            let (mix, no) = (&batch.mix, Accumulate::No);
            attention::mean_backward(ctx, mix, &batch.context, no, &mut batch.values)
        },
    );
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
        let no = Accumulate::No;
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
