//! From logits on: cross-entropy over all steps of attend's batch, and the best words of a batch. B/s.

use crate::support;
use criterion::{Criterion, criterion_group};
use showtell::ops::{cross_entropy, top_k};
use showtell::{Context, DType, Tensor};
use support::{Family, floats, floats_moved, ids, operands, operands_moved, zeros};

/// R = 24 · 32, V=8,915; rows of logits are padded as the decoder's.
fn columns(padded: Tensor) -> Tensor {
    padded.columns(0, 8915).unwrap()
}

fn losses(c: &mut Criterion) {
    let mut family = Family::new(c, "cross_entropy");
    let make = |ctx: &Context| {
        let (each, mean) = (zeros(ctx, [768]), zeros(ctx, [1]));
        let logits = columns(operands(ctx, [768, 8920]));
        (logits, ids(ctx, [768], 8915), each, mean)
    };
    let elements = 768 * 8915;
    let name = "forward and backward R=768 V=8915";
    family.bench(name, operands_moved(2 * elements), make, |ctx, set| {
        let (logits, targets, each, mean) = set;
        cross_entropy::forward_backward(ctx, logits, targets, 0, each, mean)
    });
    let name = "forward R=768 V=8915";
    family.bench(name, operands_moved(elements), make, |ctx, set| {
        let (logits, targets, each, mean) = set;
        cross_entropy::forward(ctx, logits, targets, 0, each, mean)
    });
}

fn words(c: &mut Criterion) {
    let mut family = Family::new(c, "top_k");
    for (rows, k) in [(32, 1), (32, 5), (160, 5)] {
        let make = |ctx: &Context| {
            let ids = Tensor::zeros(ctx.device(), [rows, k], DType::U32).unwrap();
            let logits = columns(floats(ctx, [rows, 8920]));
            (logits, ids, zeros(ctx, [rows, k]))
        };
        let name = format!("R={rows} V=8915 k={k}");
        family.bench(&name, floats_moved(rows * 8915), make, |ctx, set| {
            let (logits, ids, log_p) = set;
            top_k::forward(ctx, logits, ids, log_p)
        });
    }
}

criterion_group!(benches, losses, words);
