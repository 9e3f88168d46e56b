//! Forward convolutions of ResNet-50 on a batch of 8 images of 256x256, layer by layer: criterion's
//! throughput is floating-point operations, a multiplication and an addition counting two.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use showtell::ops::conv::{self, Epilogue};
use showtell::ops::window::Window;
use showtell::{Context, DType, Device, Tensor};
use std::hint::black_box;

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

fn forward(c: &mut Criterion) {
    let ctx = Context::new(&Device::cpu());
    let ones = |shape: &[usize]| {
        let shape = showtell::Shape::new(shape);
        Tensor::from_slice(ctx.device(), shape, &vec![1f32; shape.len()]).unwrap()
    };
    let mut group = c.benchmark_group("conv_forward");
    group.sample_size(10);
    for (name, window, size, channels, filters) in layers() {
        let [r, s] = window.kernel;
        let [p, q] = window.output([size, size]);
        let x = ones(&[IMAGES, size, size, channels]);
        let filter = ones(&[filters, r, s, channels]);
        let (bias, residual) = (ones(&[filters]), ones(&[IMAGES, p, q, filters]));
        let epilogue = Epilogue {
            bias: Some(&bias),
            residual: name.ends_with("expand").then_some(&residual),
            relu: true,
        };
        let mut y = Tensor::zeros(ctx.device(), [IMAGES, p, q, filters], DType::F32).unwrap();
        let operations = 2 * y.len() * r * s * channels;
        group.throughput(Throughput::Elements(operations as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                conv::forward(&ctx, &x, &filter, window, epilogue, &mut y).unwrap();
                black_box(&mut y);
            });
        });
    }
}

criterion_group!(benches, forward);
criterion_main!(benches);
