//! Convolutions of ResNet-50 on a batch of 8 images of 256x256, layer by layer: criterion's
//! throughput is floating-point operations, a multiplication and an addition counting two.

use crate::support;
use criterion::{Criterion, criterion_group};
use showtell::ops::Accumulate;
use showtell::ops::conv::{self, Epilogue, Gradients};
use showtell::ops::window::Window;
use showtell::{Context, Tensor};
use support::{Family, floats, operands, operands_moved, operations, zeros};

const IMAGES: usize = 8;

/// Name, window, input size, C, K. Every other layer of the network has one of these shapes.
fn layers() -> Vec<(&'static str, Window, usize, usize, usize)> {
    let (one, half) = (Window::square(1, 1, 0), Window::square(1, 2, 0));
    let (three, three_half) = (Window::square(3, 1, 1), Window::square(3, 2, 1));
    vec![
        ("stem", Window::square(7, 2, 3), 256, 3, 64),
        ("1_first", one, 64, 64, 64),
        ("1_reduce", one, 64, 256, 64),
        ("1_3x3", three, 64, 64, 64),
        ("1_expand", one, 64, 64, 256),
        ("2_3x3_half", three_half, 64, 128, 128),
        ("2_downsample", half, 64, 256, 512),
        ("2_reduce", one, 32, 512, 128),
        ("2_3x3", three, 32, 128, 128),
        ("2_expand", one, 32, 128, 512),
        ("3_downsample", half, 32, 512, 1024),
        ("3_reduce", one, 16, 1024, 256),
        ("3_3x3", three, 16, 256, 256),
        ("3_expand", one, 16, 256, 1024),
        ("4_downsample", half, 16, 1024, 2048),
        ("4_reduce", one, 8, 2048, 512),
        ("4_3x3", three, 8, 512, 512),
        ("4_expand", one, 8, 512, 2048),
    ]
}

/// A layer's tensors: x, filter, bias, residual, y.
fn make(
    ctx: &Context,
    window: Window,
    size: usize,
    channels: usize,
    filters: usize,
) -> [Tensor; 5] {
    let [r, s] = window.kernel;
    let [p, q] = window.output([size, size]);
    [
        operands(ctx, [IMAGES, size, size, channels]),
        operands(ctx, [filters, r, s, channels]),
        floats(ctx, [filters]),
        operands(ctx, [IMAGES, p, q, filters]),
        operands(ctx, [IMAGES, p, q, filters]),
    ]
}

fn flops(window: Window, size: usize, channels: usize, filters: usize) -> usize {
    let ([r, s], [p, q]) = (window.kernel, window.output([size, size]));
    2 * IMAGES * p * q * filters * r * s * channels
}

fn forward(c: &mut Criterion) {
    let mut family = Family::new(c, "conv_forward");
    for (name, window, size, channels, filters) in layers() {
        let make = |ctx: &Context| make(ctx, window, size, channels, filters);
        let work = operations(flops(window, size, channels, filters));
        family.bench(name, work, make, |ctx, [x, filter, bias, residual, y]| {
            let epilogue = Epilogue {
                bias: Some(bias),
                residual: name.ends_with("expand").then_some(residual),
                relu: true,
            };
            conv::forward(ctx, x, filter, window, epilogue, y)
        });
    }
}

/// What fine-tuning does: the gradients of the input and of the filter.
fn backward(c: &mut Criterion) {
    let mut family = Family::new(c, "conv_backward");
    let tuned = |name: &str| name.starts_with(['2', '3', '4']);
    for (name, window, size, channels, filters) in layers() {
        if !tuned(name) {
            continue;
        }
        let make = |ctx: &Context| {
            let gradients = (
                operands(ctx, [IMAGES, size, size, channels]),
                zeros(ctx, [filters, window.kernel[0], window.kernel[1], channels]),
            );
            (make(ctx, window, size, channels, filters), gradients)
        };
        let work = operations(flops(window, size, channels, filters));
        for of_filter in [false, true] {
            let name = format!("{name}/{}", if of_filter { "filter" } else { "data" });
            family.bench(&name, work.clone(), make, |ctx, set| {
                let ([x, filter, _, _, dy], (dx, d_filter)) = set;
                let gradients = Gradients {
                    x: (!of_filter).then_some(dx),
                    filter: of_filter.then_some(d_filter),
                    bias: None,
                };
                conv::backward(ctx, x, filter, window, dy, Accumulate::No, gradients)
            });
        }
    }
}

fn relu(c: &mut Criterion) {
    let mut family = Family::new(c, "relu");
    let shape = [IMAGES, 32, 32, 512];
    let make = |ctx: &Context| (operands(ctx, shape), operands(ctx, shape));
    let work = operands_moved(3 * shape.iter().product::<usize>());
    family.bench("backward", work, make, |ctx, (y, dy)| {
        conv::relu_backward(ctx, y, dy)
    });
}

criterion_group!(benches, forward, backward, relu);
