//! All steps of attention, forward and backward, as a decoder runs them.

use super::paddings;
use super::typed::unwritten;
use showtell::ops::Accumulate;
use showtell::ops::attention::{self, Gradients, Inputs, KeyGradients, Outputs};
use showtell::tensor::{Context, Tensor};

/// The gradients of a backward loop over the steps and of what follows it. They are NaN at first.
pub struct All {
    pub queries: Tensor,
    pub keys: Tensor,
    pub weight: Tensor,
    pub bias: Tensor,
}

/// All steps backward, last to first; queries (T, B, A), alphas (T, B, P), d_contexts (T, B, D).
pub fn backward(
    ctx: &Context,
    inputs: Inputs,
    [queries, alphas, d_contexts]: [&Tensor; 3],
    d_alpha: Option<&Tensor>,
) -> All {
    let [steps, _, a] = queries.shape().dims().try_into().unwrap();
    let dtype = queries.dtype();
    let mut all = All {
        queries: unwritten(ctx, queries.shape(), 16, inputs.keys.dtype()),
        keys: unwritten(ctx, inputs.keys.shape(), 20, dtype),
        weight: unwritten(ctx, [1, a], 0, dtype),
        bias: unwritten(ctx, [1], 0, dtype),
    };
    let d_scores = unwritten(ctx, alphas.shape(), 24, dtype);
    for t in (0..steps).rev() {
        let [query, alpha, d_context] = [queries, alphas, d_contexts].map(|x| x.index(t).unwrap());
        let gradients = Gradients {
            query: &mut all.queries.index(t).unwrap(),
            scores: &mut d_scores.index(t).unwrap(),
        };
        attention::backward(ctx, inputs, &query, &alpha, &d_context, d_alpha, gradients).unwrap();
    }
    let gradients = KeyGradients {
        keys: &mut all.keys,
        weight: &mut all.weight,
        bias: &mut all.bias,
    };
    attention::keys_backward(ctx, inputs, queries, &d_scores, Accumulate::No, gradients).unwrap();
    all
}

/// All steps forward: α (T, B, P), β (T, B, C), contexts (T, B, D), each with a padding of its own.
pub fn forward(ctx: &Context, inputs: Inputs, queries: &Tensor) -> [Tensor; 3] {
    let [steps, batch, _] = queries.shape().dims().try_into().unwrap();
    let cols = [
        inputs.mix.positions(),
        inputs.mix.cells(),
        inputs.values.cols(),
    ];
    let mut paddings = paddings(4);
    let outputs = cols.map(|cols| {
        let padding = paddings.next().unwrap();
        unwritten(ctx, [steps, batch, cols], padding, queries.dtype())
    });
    for t in 0..steps {
        let [mut alpha, mut beta, mut context] = outputs.each_ref().map(|x| x.index(t).unwrap());
        let outputs = Outputs {
            alpha: &mut alpha,
            beta: &mut beta,
            context: &mut context,
        };
        attention::forward(ctx, inputs, &queries.index(t).unwrap(), outputs).unwrap();
    }
    outputs
}
