//! One pass over the arena of attend's 19,238,356 parameters: clip, SGD, Adam, and plain copies to compare with.

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use showtell::ops::clip::{self, Clip};
use showtell::ops::optimiser::{self, Adam, Moments, Sgd};
use showtell::ops::{add, copy, fill};
use showtell::{DType, Tensor};
use support::{cpu, floats, zeros};

const N: usize = 19_238_356;

fn arena(c: &mut Criterion) {
    let ctx = cpu();
    let gradients = floats(&ctx, [N]);
    let arena = || zeros(&ctx, [N], DType::F32);
    let (mut values, mut first, mut second) = (arena(), arena(), arena());
    let (mut norm, mut factor) = (zeros(&ctx, [1], DType::F32), zeros(&ctx, [1], DType::F32));
    let schedule = Tensor::from_slice(ctx.device(), [2], &[4e-4f32, 1.0]).unwrap();
    let mut group = c.benchmark_group("arena");
    group.sample_size(10);
    let bytes = |passes: usize| Throughput::Bytes((4 * passes * N) as u64);
    group.throughput(bytes(1));
    group.bench_function("clip norm", |bench| {
        bench.iter(|| clip::norm(&ctx, &gradients, 0.25, &mut norm, &mut factor).unwrap());
    });
    group.throughput(bytes(5));
    let settings = Sgd {
        momentum: 0.9,
        weight_decay: 1e-6,
    };
    group.bench_function("sgd", |bench| {
        bench.iter(|| {
            let (clip, u, w) = (Clip::None, &mut first, &mut values);
            optimiser::sgd(&ctx, settings, &schedule, clip, &gradients, u, w).unwrap();
        });
    });
    group.throughput(bytes(7));
    let settings = Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 1e-5,
    };
    group.bench_function("adam", |bench| {
        bench.iter(|| {
            let moments = Moments {
                first: &mut first,
                second: &mut second,
            };
            let (clip, w) = (Clip::Value(5.0), &mut values);
            optimiser::adam(&ctx, settings, &schedule, clip, &gradients, moments, w).unwrap();
        });
    });
    group.throughput(bytes(3));
    group.bench_function("add", |bench| {
        bench.iter(|| add::forward(&ctx, &gradients, &mut values).unwrap());
    });
    group.throughput(bytes(2));
    group.bench_function("copy", |bench| {
        bench.iter(|| copy::forward(&ctx, &gradients, &mut values).unwrap());
    });
    group.throughput(bytes(1));
    group.bench_function("fill", |bench| {
        bench.iter(|| fill::zero(&ctx, &mut values).unwrap())
    });
    group.finish();
}

criterion_group!(benches, arena);
criterion_main!(benches);
