//! Matrix products and linear layers of the decoders: FLOP/s.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use showtell::DType;
use showtell::ops::gemm::{self, Accumulate, Factor};
use showtell::ops::linear;
use support::{cpu, floats, zeros};

/// (m, k, n): attend's vocabulary, its keys, one recurrent step; show-tell's vocabulary.
const PRODUCTS: [(usize, usize, usize); 4] = [
    (768, 512, 8915),
    (2048, 2048, 256),
    (32, 512, 2048),
    (3072, 256, 7702),
];

fn products(c: &mut Criterion) {
    let ctx = cpu();
    let mut group = c.benchmark_group("gemm");
    group.sample_size(10);
    for (m, k, n) in PRODUCTS {
        let (a, b) = (floats(&ctx, [m, k]), floats(&ctx, [n, k]));
        let bias = floats(&ctx, [n]);
        let mut y = zeros(&ctx, [m, n], DType::F32);
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        let name = format!("{m}x{k}x{n}");
        group.bench_function(BenchmarkId::new("product", &name), |bench| {
            let (a, b) = (Factor::Plain(&a), Factor::Transposed(&b));
            bench.iter(|| gemm::forward(&ctx, a, b, Accumulate::No, &mut y).unwrap());
        });
        group.bench_function(BenchmarkId::new("linear", &name), |bench| {
            bench.iter(|| linear::forward(&ctx, &a, &b, Some(&bias), &mut y).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);
