//! One pass over the arena of attend's 19,238,356 parameters: clip, SGD, Adam, and plain sums, copies and fills to
//! compare with. B/s.

use crate::support;
use criterion::{Criterion, criterion_group};
use half::bf16;
use showtell::ops::clip::{self, Clip};
use showtell::ops::optimiser::{self, Adam, Moments, Sgd, Weights};
use showtell::ops::{add, copy, fill};
use showtell::tensor::Element;
use showtell::{Context, DType, Tensor};
use support::{Family, floats, floats_moved, operand_type, operands, zeros};

const N: usize = 19_238_356;
const SGD: Sgd = Sgd {
    momentum: 0.9,
    weight_decay: 1e-6,
};
const ADAM: Adam = Adam {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 1e-5,
};

/// Gradients, one more arena, and the schedule.
fn arenas<const MORE: usize>(ctx: &Context) -> (Tensor, [Tensor; MORE], Tensor) {
    let schedule = Tensor::from_slice(ctx.device(), [2], &[4e-4f32, 1.0]).unwrap();
    (
        floats(ctx, [N]),
        [(); MORE].map(|()| zeros(ctx, [N])),
        schedule,
    )
}

/// The copy of the weights that products read in bf16.
fn rounded(ctx: &Context) -> Option<Tensor> {
    (operand_type() == DType::Bf16).then(|| operands(ctx, [N]))
}

fn updates(c: &mut Criterion) {
    let mut family = Family::new(c, "optimiser");
    let make = |ctx: &Context| (floats(ctx, [N]), zeros(ctx, [1]), zeros(ctx, [1]));
    family.bench("clip norm", floats_moved(N), make, |ctx, set| {
        let (gradients, norm, factor) = set;
        clip::norm(ctx, gradients, 0.25, norm, factor)
    });
    let copied = if operand_type() == DType::Bf16 {
        N / 2
    } else {
        0
    };
    let make = |ctx: &Context| (arenas::<2>(ctx), rounded(ctx));
    let work = floats_moved(5 * N + copied);
    family.bench("sgd", work, make, |ctx, set| {
        let ((g, [u, values], schedule), rounded) = set;
        let rounded = rounded.as_mut();
        let w = Weights { values, rounded };
        optimiser::sgd(ctx, SGD, schedule, Clip::None, g, u, w)
    });
    let make = |ctx: &Context| (arenas::<3>(ctx), rounded(ctx));
    let work = floats_moved(7 * N + copied);
    family.bench("adam", work, make, |ctx, set| {
        let ((g, [first, second, values], schedule), rounded) = set;
        let rounded = rounded.as_mut();
        let (moments, w) = (Moments { first, second }, Weights { values, rounded });
        optimiser::adam(ctx, ADAM, schedule, Clip::Value(5.0), g, moments, w)
    });
}

fn copies(c: &mut Criterion) {
    let mut family = Family::new(c, "copy");
    family.bench("add", floats_moved(3 * N), arenas::<1>, |ctx, set| {
        let (g, [w], _) = set;
        add::forward(ctx, g, w)
    });
    family.bench("copy", floats_moved(2 * N), arenas::<1>, |ctx, set| {
        let (g, [w], _) = set;
        copy::forward(ctx, g, w)
    });
    let make = |ctx: &Context| {
        let narrow = Tensor::zeros(ctx.device(), [N], bf16::DTYPE).unwrap();
        (floats(ctx, [N]), narrow)
    };
    family.bench("to bf16", floats_moved(N + N / 2), make, |ctx, set| {
        copy::forward(ctx, &set.0, &mut set.1)
    });
    family.bench("fill", floats_moved(N), |ctx| zeros(ctx, [N]), fill::zero);
}

criterion_group!(benches, updates, copies);
