//! Additive attention at the recipe's sizes: B=32, 64 cells seen as P=196, A=256, D=2048; the regulariser.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use showtell::DType;
use showtell::ops::attention::{self, CellMix, Gradients, Inputs, KeyGradients, Outputs};
use showtell::ops::{Accumulate, regulariser};
use support::{cpu, floats, zeros};

fn steps(c: &mut Criterion) {
    let ctx = cpu();
    let mix = CellMix::new([8, 8], [14, 14]).unwrap();
    let (cells, values) = (floats(&ctx, [32, 64, 256]), floats(&ctx, [32, 64, 2048]));
    let (weight, bias, query) = (
        floats(&ctx, [1, 256]),
        floats(&ctx, [1]),
        floats(&ctx, [32, 256]),
    );
    let f32 = |rows, cols| zeros(&ctx, [rows, cols], DType::F32);
    let mut keys = zeros(&ctx, [32, 196, 256], DType::F32);
    c.bench_function("attention/mix", |bench| {
        bench.iter(|| attention::mix_forward(&ctx, &mix, &cells, &mut keys).unwrap());
    });
    let inputs = Inputs {
        mix: &mix,
        keys: &keys,
        values: &values,
        weight: &weight,
        bias: &bias,
    };
    let (mut alpha, mut beta, mut context) = (f32(32, 196), f32(32, 64), f32(32, 2048));
    c.bench_function("attention/step forward", |bench| {
        bench.iter(|| {
            let outputs = Outputs {
                alpha: &mut alpha,
                beta: &mut beta,
                context: &mut context,
            };
            attention::forward(&ctx, inputs, &query, outputs).unwrap();
        });
    });
    let (mut d_query, mut d_scores) = (f32(32, 256), f32(32, 196));
    c.bench_function("attention/step backward", |bench| {
        bench.iter(|| {
            let gradients = Gradients {
                query: &mut d_query,
                scores: &mut d_scores,
            };
            attention::backward(&ctx, inputs, &query, &alpha, &context, None, gradients).unwrap();
        });
    });
    let (queries, d_scores) = (floats(&ctx, [24, 32, 256]), floats(&ctx, [24, 32, 196]));
    let (mut d_weight, mut d_bias) = (f32(1, 256), zeros(&ctx, [1], DType::F32));
    let mut d_keys = zeros(&ctx, [32, 196, 256], DType::F32);
    c.bench_function("attention/keys backward T=24", |bench| {
        bench.iter(|| {
            let gradients = KeyGradients {
                keys: &mut d_keys,
                weight: &mut d_weight,
                bias: &mut d_bias,
            };
            let no = Accumulate::No;
            attention::keys_backward(&ctx, inputs, &queries, &d_scores, no, gradients).unwrap();
        });
    });
    let alphas = floats(&ctx, [24, 32, 196]);
    let mut d_alpha = f32(32, 196);
    c.bench_function("regulariser/backward T=24", |bench| {
        bench.iter(|| regulariser::backward(&ctx, &alphas, 1.0, &mut d_alpha).unwrap());
    });
}

criterion_group!(benches, steps);
criterion_main!(benches);
