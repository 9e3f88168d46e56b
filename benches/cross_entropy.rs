//! From logits on: cross-entropy over all steps of attend's batch, and the best words of a batch.

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use showtell::DType;
use showtell::ops::{cross_entropy, top_k};
use support::{cpu, floats, ids, zeros};

/// R = 24 · 32 rows, V=8,915.
fn losses(c: &mut Criterion) {
    let ctx = cpu();
    let mut logits = floats(&ctx, [768, 8915]);
    let targets = ids(&ctx, [768], 8915);
    let (mut each, mut loss) = (zeros(&ctx, [768], DType::F32), zeros(&ctx, [1], DType::F32));
    let rows = cross_entropy::Rows {
        ignore: 0,
        count: 768,
    };
    let mut group = c.benchmark_group("cross_entropy");
    group.throughput(Throughput::Bytes(2 * 4 * 768 * 8915));
    group.bench_function("forward and backward R=768 V=8915", |bench| {
        bench.iter(|| {
            let (each, loss) = (&mut each, &mut loss);
            cross_entropy::forward_backward(&ctx, &mut logits, &targets, rows, each, loss).unwrap();
        });
    });
    group.finish();
    let logits = floats(&ctx, [32, 8915]);
    for k in [1, 5] {
        let (mut best, mut log_p) = (
            zeros(&ctx, [32, k], DType::U32),
            zeros(&ctx, [32, k], DType::F32),
        );
        c.bench_function(&format!("top_k/B=32 V=8915 k={k}"), |bench| {
            bench.iter(|| top_k::forward(&ctx, &logits, &mut best, &mut log_p).unwrap());
        });
    }
}

criterion_group!(benches, losses);
criterion_main!(benches);
