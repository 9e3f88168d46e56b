//! What the encoder does besides convolutions: batch-norm, pooling, pixels to floats. Eight images of 256x256.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use showtell::DType;
use showtell::ops::batch_norm::{self, Affine, Epilogue, Statistics};
use showtell::ops::pool;
use showtell::ops::preprocess::{self, Normalisation};
use showtell::ops::window::Window;
use support::{cpu, floats, zeros};

/// After the first residual stage: (8, 64, 64, 256).
fn norms(c: &mut Criterion) {
    let ctx = cpu();
    let x = floats(&ctx, [8, 64, 64, 256]);
    let (gamma, beta) = (floats(&ctx, [256]), floats(&ctx, [256]));
    let affine = || Affine {
        gamma: &gamma,
        beta: &beta,
    };
    let vector = || zeros(&ctx, [256], DType::F32);
    let [mean, mut var] = [vector(), vector()];
    var.copy_from_slice(&[1f32; 256]).unwrap();
    let [mut saved_mean, mut invstd] = [vector(), vector()];
    let mut y = zeros(&ctx, [8, 64, 64, 256], DType::F32);
    let epilogue = Epilogue::default();
    c.bench_function("batch_norm/running forward", |bench| {
        bench.iter(|| {
            let statistics = Statistics {
                mean: &mut saved_mean,
                invstd: &mut invstd,
            };
            let running = [&mean, &var];
            let (x, y) = (&x, &mut y);
            batch_norm::running_forward(&ctx, x, affine(), running, epilogue, statistics, y)
                .unwrap();
        });
    });
    c.bench_function("batch_norm/batch forward", |bench| {
        bench.iter(|| {
            let statistics = Statistics {
                mean: &mut saved_mean,
                invstd: &mut invstd,
            };
            let (x, y) = (&x, &mut y);
            batch_norm::batch_forward(&ctx, x, affine(), None, epilogue, statistics, y).unwrap();
        });
    });
}

fn pooling(c: &mut Criterion) {
    let ctx = cpu();
    let x = floats(&ctx, [8, 128, 128, 64]);
    let mut y = zeros(&ctx, [8, 64, 64, 64], DType::F32);
    let window = Window::square(3, 2, 1);
    c.bench_function("pool/max forward", |bench| {
        bench.iter(|| pool::max_forward(&ctx, &x, window, &mut y).unwrap());
    });
    let map = floats(&ctx, [8, 8, 8, 2048]);
    let mut pooled = zeros(&ctx, [8, 2048], DType::F32);
    c.bench_function("pool/average forward", |bench| {
        bench.iter(|| pool::average_forward(&ctx, &map, &mut pooled).unwrap());
    });
    let mut adapted = zeros(&ctx, [8, 14, 14, 2048], DType::F32);
    c.bench_function("pool/adaptive forward", |bench| {
        bench.iter(|| pool::adaptive_forward(&ctx, &map, &mut adapted).unwrap());
    });
    let pixels = zeros(&ctx, [8, 256, 256, 3], DType::U8);
    let mut images = zeros(&ctx, [8, 256, 256, 3], DType::F32);
    c.bench_function("preprocess/forward", |bench| {
        let normalisation = Normalisation::IMAGENET;
        bench.iter(|| preprocess::forward(&ctx, &pixels, normalisation, &mut images).unwrap());
    });
}

criterion_group!(benches, norms, pooling);
criterion_main!(benches);
