//! The recurrent decoder's operations: the LSTM over a whole batch of captions, its cell, gate, embedding,
//! dropout. Sizes of the two recipes.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use showtell::DType;
use showtell::ops::lstm::{self, sequence};
use showtell::ops::{Accumulate, dropout, embedding, gate};
use support::{cpu, floats, ids, zeros};

const SITE: dropout::Site = dropout::Site {
    seed: 1,
    step: 1,
    site: 1,
};

/// Show-tell: T=24, B=128, E=H=256, two layers.
fn sequences(c: &mut Criterion) {
    let ctx = cpu();
    let [weight_ih, weight_hh] = [floats(&ctx, [1024, 256]), floats(&ctx, [1024, 256])];
    let [bias_ih, bias_hh] = [floats(&ctx, [1024]), floats(&ctx, [1024])];
    let layer = lstm::Layer {
        weight_ih: &weight_ih,
        weight_hh: &weight_hh,
        bias_ih: &bias_ih,
        bias_hh: &bias_hh,
    };
    let x = floats(&ctx, [24, 128, 256]);
    c.bench_function("lstm/sequence forward T=24 B=128 H=256 L=2", |bench| {
        bench.iter(|| {
            drop(sequence::forward(&ctx, &[layer, layer], &x, None, None).unwrap());
            ctx.reset().unwrap();
        });
    });
}

/// Attend: B=32, H=512, D=2048.
fn cells(c: &mut Criterion) {
    let ctx = cpu();
    let f32 = |rows, cols| zeros(&ctx, [rows, cols], DType::F32);
    let mut gates = floats(&ctx, [32, 2048]);
    let (c_prev, dh) = (floats(&ctx, [32, 512]), floats(&ctx, [32, 512]));
    let (mut next_c, mut next_h, mut dc) = (f32(32, 512), f32(32, 512), f32(32, 512));
    c.bench_function("lstm/cell forward B=32 H=512", |bench| {
        bench.iter(|| {
            lstm::cell_forward(&ctx, &mut gates, &c_prev, &mut next_c, &mut next_h).unwrap()
        });
    });
    let mut d_gates = f32(32, 2048);
    c.bench_function("lstm/cell backward B=32 H=512", |bench| {
        bench.iter(|| {
            lstm::cell_backward(&ctx, &gates, &c_prev, &next_c, &dh, &mut dc, &mut d_gates)
                .unwrap();
        });
    });
    let (mut g, x) = (floats(&ctx, [32, 2048]), floats(&ctx, [32, 2048]));
    let (mut z, mut dg, mut dx) = (f32(32, 2048), f32(32, 2048), f32(32, 2048));
    c.bench_function("gate/forward B=32 D=2048", |bench| {
        bench.iter(|| gate::forward(&ctx, &mut g, &x, &mut z).unwrap());
    });
    c.bench_function("gate/backward B=32 D=2048", |bench| {
        bench.iter(|| gate::backward(&ctx, &g, &x, &z, &mut dg, &mut dx).unwrap());
    });
}

/// T=24, B=32, E=512, V=8,915; dropout on show-tell's embeddings.
fn words(c: &mut Criterion) {
    let ctx = cpu();
    let (weight, tokens) = (floats(&ctx, [8915, 512]), ids(&ctx, [24, 32], 8915));
    let mut y = zeros(&ctx, [24, 32, 512], DType::F32);
    let mut dw = zeros(&ctx, [8915, 512], DType::F32);
    c.bench_function("embedding/forward T=24 B=32 E=512", |bench| {
        bench.iter(|| embedding::forward(&ctx, &weight, &tokens, &mut y).unwrap());
    });
    c.bench_function("embedding/backward T=24 B=32 E=512 V=8915", |bench| {
        let no = Accumulate::No;
        bench.iter(|| embedding::backward(&ctx, &tokens, &y, Some(0), no, &mut dw).unwrap());
    });
    let mut x = floats(&ctx, [24, 128, 256]);
    c.bench_function("dropout/in place T=24 B=128 E=256", |bench| {
        bench.iter(|| dropout::in_place(&ctx, 0.3, SITE, 0, &mut x).unwrap());
    });
}

criterion_group!(benches, sequences, cells, words);
criterion_main!(benches);
