//! What the encoder does besides convolutions: batch-norm, pooling, pixels to floats. Eight images of 256x256; B/s.

use crate::support;
use criterion::{Criterion, criterion_group};
use showtell::ops::batch_norm::{
    self, Affine, BatchNorm, Epilogue, Gradients, RunningStatistics, Saved, Statistics,
};
use showtell::ops::pool;
use showtell::ops::preprocess::{self, Normalisation};
use showtell::ops::window::Window;
use showtell::ops::{Accumulate, fill};
use showtell::{Context, DType, Tensor};
use support::{Family, floats, operands, operands_moved, zeros};

/// After the first residual stage: (8, 64, 64, 256).
const MAP: [usize; 4] = [8, 64, 64, 256];

struct Norm {
    x: Tensor,
    y: Tensor,
    gamma: Tensor,
    beta: Tensor,
    running: [Tensor; 2],
    mean: Tensor,
    invstd: Tensor,
}

impl Norm {
    fn new(ctx: &Context) -> Self {
        let mut ones = [zeros(ctx, [256]), zeros(ctx, [256])];
        (ones.iter_mut()).for_each(|ones| fill::constant(ctx, 1.0, ones).unwrap());
        let [var, invstd] = ones;
        Norm {
            x: operands(ctx, MAP),
            y: operands(ctx, MAP),
            gamma: floats(ctx, [256]),
            beta: floats(ctx, [256]),
            running: [zeros(ctx, [256]), var],
            mean: zeros(ctx, [256]),
            invstd,
        }
    }

    fn affine(&self) -> Affine<'_> {
        Affine {
            gamma: &self.gamma,
            beta: &self.beta,
        }
    }
}

fn norms(c: &mut Criterion) {
    let mut family = Family::new(c, "batch_norm");
    let elements: usize = MAP.iter().product();
    let epilogue = Epilogue::default();
    let both = operands_moved(2 * elements);
    family.bench("running forward", both.clone(), Norm::new, |ctx, norm| {
        let (mut mean, mut invstd, mut y) =
            (norm.mean.clone(), norm.invstd.clone(), norm.y.clone());
        let statistics = Statistics {
            mean: &mut mean,
            invstd: &mut invstd,
        };
        let [mean, var] = &norm.running;
        let running = RunningStatistics { mean, var };
        let affine = norm.affine();
        batch_norm::running_forward(ctx, &norm.x, affine, running, epilogue, statistics, &mut y)
    });
    family.bench("batch forward", both, Norm::new, |ctx, norm| {
        let (mut mean, mut invstd, mut y) =
            (norm.mean.clone(), norm.invstd.clone(), norm.y.clone());
        let statistics = Statistics {
            mean: &mut mean,
            invstd: &mut invstd,
        };
        let affine = norm.affine();
        batch_norm::batch_forward(ctx, &norm.x, affine, None, epilogue, statistics, &mut y)
    });
    let make = |ctx: &Context| {
        let small = (zeros(ctx, [256]), zeros(ctx, [256]));
        (Norm::new(ctx), operands(ctx, MAP), small)
    };
    for (name, mode) in [
        ("running backward", BatchNorm::Running),
        ("batch backward", BatchNorm::Batch),
    ] {
        family.bench(name, operands_moved(3 * elements), make, |ctx, set| {
            let (norm, dy, (gamma, beta)) = set;
            let saved = Saved {
                x: &norm.x,
                gamma: &norm.gamma,
                mean: &norm.mean,
                invstd: &norm.invstd,
                relu: None,
            };
            let mut dx = norm.y.clone();
            let gradients = Gradients {
                x: Some(&mut dx),
                gamma: Some(gamma),
                beta: Some(beta),
            };
            batch_norm::backward(ctx, mode, saved, dy, Accumulate::No, gradients)
        });
    }
}

fn pools(c: &mut Criterion) {
    let mut family = Family::new(c, "pool");
    let window = Window::square(3, 2, 1);
    let make = |ctx: &Context| {
        let large = || operands(ctx, [8, 128, 128, 64]);
        (large(), operands(ctx, [8, 64, 64, 64]), large())
    };
    let (large, small) = (8 * 128 * 128 * 64, 8 * 64 * 64 * 64);
    family.bench(
        "max forward",
        operands_moved(large + small),
        make,
        |ctx, (x, y, _)| pool::max_forward(ctx, x, window, y),
    );
    let work = operands_moved(2 * large + small);
    family.bench("max backward", work, make, |ctx, (x, dy, dx)| {
        pool::max_backward(ctx, x, window, dy, dx)
    });
    let make = |ctx: &Context| {
        let x = operands(ctx, [8, 8, 8, 2048]);
        let y = operands(ctx, [8, 2048]);
        (x, y, operands(ctx, [8, 14, 14, 2048]))
    };
    // The gradients of averages are f32.
    let make_backward = |ctx: &Context| {
        let dx = operands(ctx, [8, 8, 8, 2048]);
        let dy = floats(ctx, [8, 2048]);
        (dx, dy, floats(ctx, [8, 14, 14, 2048]))
    };
    let [one, map, adapted] = [8 * 2048, 8 * 64 * 2048, 8 * 196 * 2048];
    family.bench(
        "average forward",
        operands_moved(map + one),
        make,
        |ctx, (x, y, _)| pool::average_forward(ctx, x, y),
    );
    family.bench(
        "average backward",
        operands_moved(map + one),
        make_backward,
        |ctx, (dx, dy, _)| pool::average_backward(ctx, dy, dx),
    );
    let work = operands_moved(map + adapted);
    family.bench("adaptive forward", work.clone(), make, |ctx, (x, _, y)| {
        pool::adaptive_forward(ctx, x, y)
    });
    family.bench(
        "adaptive backward",
        work,
        make_backward,
        |ctx, (dx, _, dy)| pool::adaptive_backward(ctx, dy, dx),
    );
}

fn pixels(c: &mut Criterion) {
    let mut family = Family::new(c, "preprocess");
    let shape = [8, 256, 256, 3];
    let make = |ctx: &Context| {
        let pixels = Tensor::zeros(ctx.device(), shape, DType::U8).unwrap();
        (pixels, operands(ctx, shape))
    };
    // A quarter of a float is read for every float written.
    let elements: usize = shape.iter().product();
    family.bench(
        "forward",
        operands_moved(elements + elements / 4),
        make,
        |ctx, set| preprocess::forward(ctx, &set.0, Normalisation::IMAGENET, &mut set.1),
    );
}

criterion_group!(benches, norms, pools, pixels);
