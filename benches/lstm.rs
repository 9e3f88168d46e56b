//! The recurrent decoder's operations: the LSTM over a whole batch of captions, its cell, gate, embedding,
//! dropout. Sizes of the two recipes; FLOP/s of sequences, else B/s.

use crate::support;
use criterion::{Criterion, criterion_group};
use showtell::ops::dropout::Site;
use showtell::ops::lstm::{self, Cell, Input, sequence};
use showtell::ops::{Accumulate, dropout, embedding, gate};
use showtell::{Context, Tensor};
use support::{Family, floats, floats_moved, ids, operands, operands_moved, operations, zeros};

/// Show-tell's stack: E=H=256, two layers.
struct Stack([[Tensor; 4]; 2]);

impl Stack {
    fn new(ctx: &Context) -> Self {
        Stack::of(|| operands(ctx, [1024, 256]), || floats(ctx, [1024]))
    }

    fn of_gradients(ctx: &Context) -> Self {
        Stack::of(|| zeros(ctx, [1024, 256]), || zeros(ctx, [1024]))
    }

    fn of(weight: impl Fn() -> Tensor, bias: impl Fn() -> Tensor) -> Self {
        Stack([(); 2].map(|()| [weight(), weight(), bias(), bias()]))
    }

    fn layers(&self) -> [lstm::Layer<'_>; 2] {
        self.0
            .each_ref()
            .map(|[weight_ih, weight_hh, bias_ih, bias_hh]| lstm::Layer {
                weight_ih,
                weight_hh,
                bias_ih,
                bias_hh,
            })
    }

    fn gradients(&mut self) -> Vec<lstm::LayerGradients<'_>> {
        let layers = self.0.iter_mut();
        layers
            .map(
                |[weight_ih, weight_hh, bias_ih, bias_hh]| lstm::LayerGradients {
                    weight_ih,
                    weight_hh,
                    bias_ih,
                    bias_hh,
                },
            )
            .collect()
    }
}

/// T=24, B=128.
fn sequences(c: &mut Criterion) {
    let mut family = Family::new(c, "lstm");
    // Two products with (4H, H) per layer and step.
    let work = 2 * 2 * 2 * 24 * 128 * 1024 * 256;
    let make = |ctx: &Context| (Stack::new(ctx), operands(ctx, [24, 128, 256]));
    let name = "sequence forward T=24 B=128 H=256 L=2";
    family.bench(name, operations(work), make, |ctx, (stack, x)| {
        sequence::forward(ctx, &stack.layers(), x, None, None).map(drop)
    });
    let make = |ctx: &Context| {
        let (dy, dx) = (floats(ctx, [24, 128, 256]), zeros(ctx, [24, 128, 256]));
        (make(ctx), Stack::of_gradients(ctx), dy, dx)
    };
    let name = "sequence forward and backward T=24 B=128 H=256 L=2";
    family.bench(name, operations(3 * work), make, |ctx, set| {
        let ((stack, x), d_stack, dy, dx) = set;
        let layers = stack.layers();
        let saved = sequence::forward(ctx, &layers, x, None, None)?;
        let gradients = sequence::Gradients {
            layers: d_stack.gradients(),
            x: Some(dx),
            initial: None,
        };
        sequence::backward(ctx, &layers, x, &saved, dy, gradients)
    });
}

/// Attend: B=32, H=512, D=2048.
fn cells(c: &mut Criterion) {
    let mut family = Family::new(c, "cell");
    let make = |ctx: &Context| {
        let inputs = (operands(ctx, [32, 2048]), operands(ctx, [2048, 2048]));
        let recurrent = (operands(ctx, [32, 512]), operands(ctx, [2048, 512]));
        let [c_prev, c] = [(); 2].map(|()| floats(ctx, [32, 512]));
        let states = [c_prev, c, operands(ctx, [32, 512])];
        ([inputs, recurrent], floats(ctx, [32, 2048]), states)
    };
    let work = 2 * 32 * 2048 * (2048 + 512);
    let name = "step forward B=32 H=512 K=2560";
    family.bench(name, operations(work), make, |ctx, set| {
        let (inputs, gates, [c_prev, c, h]) = set;
        let inputs = inputs.each_ref().map(|(x, weight)| Input { x, weight });
        lstm::step_forward(ctx, &inputs, gates, c_prev, c, h)
    });
    let make = |ctx: &Context| {
        let states = [(); 4].map(|()| floats(ctx, [32, 512]));
        (floats(ctx, [32, 2048]), states, operands(ctx, [32, 2048]))
    };
    let name = "backward B=32 H=512";
    family.bench(name, floats_moved(13 * 32 * 512), make, |ctx, set| {
        let (gates, [c_prev, c, dh, dc], d_gates) = set;
        let cell = Cell { gates, c_prev, c };
        lstm::cell_backward(ctx, cell, dh, None, dc, d_gates)
    });
}

fn gates(c: &mut Criterion) {
    let mut family = Family::new(c, "gate");
    // g, x, dx and dz; then what products of matrices read, z or dg.
    let make = |ctx: &Context| {
        let sums = [(); 4].map(|()| floats(ctx, [32, 2048]));
        (sums, operands(ctx, [32, 2048]))
    };
    let elements = 32 * 2048;
    let name = "forward B=32 D=2048";
    family.bench(
        name,
        floats_moved(4 * elements),
        make,
        |ctx, ([g, x, ..], z)| gate::forward(ctx, g, x, z),
    );
    let name = "backward B=32 D=2048";
    family.bench(
        name,
        floats_moved(5 * elements),
        make,
        |ctx, ([g, x, dx, dz], dg)| gate::backward(ctx, g, x, dz, dg, dx),
    );
}

/// T=24, B=32, E=512, V=8,915; dropout on show-tell's embeddings.
fn words(c: &mut Criterion) {
    let mut family = Family::new(c, "embedding");
    let rows = 24 * 32 * 512;
    let make = |ctx: &Context| {
        let (weight, y) = (operands(ctx, [8915, 512]), operands(ctx, [24, 32, 512]));
        (weight, ids(ctx, [24, 32], 8915), y)
    };
    let name = "forward T=24 B=32 E=512";
    family.bench(
        name,
        operands_moved(2 * rows),
        make,
        |ctx, (weight, ids, y)| embedding::forward(ctx, weight, ids, y),
    );
    let make = |ctx: &Context| {
        let (dw, dy) = (zeros(ctx, [8915, 512]), floats(ctx, [24, 32, 512]));
        (dw, ids(ctx, [24, 32], 8915), dy)
    };
    let name = "backward T=24 B=32 E=512 V=8915";
    family.bench(
        name,
        floats_moved(rows + 8915 * 512),
        make,
        |ctx, (dw, ids, dy)| embedding::backward(ctx, ids, dy, Some(0), Accumulate::No, dw),
    );
}

fn masks(c: &mut Criterion) {
    let mut family = Family::new(c, "dropout");
    let make = |ctx: &Context| {
        let step = Tensor::from_slice(ctx.device(), [1], &[1u32]).unwrap();
        let (seed, site) = (1, 1);
        (operands(ctx, [24, 128, 256]), Site { seed, step, site })
    };
    let name = "in place T=24 B=128 E=256";
    family.bench(
        name,
        operands_moved(2 * 24 * 128 * 256),
        make,
        |ctx, (x, site)| dropout::in_place(ctx, 0.3, site, 0, x),
    );
}

criterion_group!(benches, sequences, cells, gates, words, masks);
