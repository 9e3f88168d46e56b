//! Matrix products and linear layers of the decoders: FLOP/s.

use crate::support;
use criterion::{Criterion, criterion_group};
use showtell::Context;
use showtell::ops::gemm::{self, Accumulate, Factor};
use showtell::ops::linear::{self, Gradients};
use support::{Family, floats, operands, operations, zeros};

/// (m, k, n): attend's vocabulary, its keys, one recurrent step; show-tell's vocabulary.
const PRODUCTS: [(usize, usize, usize); 4] = [
    (768, 512, 8915),
    (2048, 2048, 256),
    (32, 512, 2048),
    (3072, 256, 7702),
];

fn products(c: &mut Criterion) {
    let mut family = Family::new(c, "gemm");
    for (m, k, n) in PRODUCTS {
        // Rows of outputs are padded as those of logits and weights are.
        let padded = |ctx: &Context, rows, cols: usize| {
            let padded = operands(ctx, [rows, cols.next_multiple_of(8)]);
            padded.columns(0, cols).unwrap()
        };
        let make = |ctx: &Context| {
            let (a, b) = (operands(ctx, [m, k]), operands(ctx, [n, k]));
            let bias = floats(ctx, [n]);
            (a, b, bias, padded(ctx, m, n))
        };
        let (shape, work) = (format!("{m}x{k}x{n}"), 2 * m * k * n);
        let name = format!("product/{shape}");
        family.bench(&name, operations(work), make, |ctx, (a, b, _, y)| {
            let (a, b) = (Factor::Plain(a), Factor::Transposed(b));
            gemm::forward(ctx, a, b, Accumulate::No, y)
        });
        let name = format!("linear/{shape}");
        family.bench(&name, operations(work), make, |ctx, (x, w, bias, y)| {
            linear::forward(ctx, x, w, Some(bias), y)
        });
        let make = |ctx: &Context| {
            let gradients = (zeros(ctx, [m, k]), zeros(ctx, [n, k]), zeros(ctx, [n]));
            (make(ctx), gradients)
        };
        let name = format!("linear backward/{shape}");
        family.bench(&name, operations(2 * work), make, |ctx, set| {
            let ((x, w, _, dy), (dx, dw, d_bias)) = set;
            let gradients = Gradients {
                x: Some(dx),
                weight: Some(dw),
                bias: Some(d_bias),
            };
            linear::backward(ctx, x, w, dy, Accumulate::No, gradients)
        });
    }
}

criterion_group!(benches, products);
