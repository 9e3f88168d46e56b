//! ResNet-50 with batch-norm folded, on a batch of 8 images of 256x256: images a second.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use showtell::nn::params::Declarations;
use showtell::nn::resnet::{Config, Folded, ResNet};
use showtell::{Context, DType, Device, Tensor};

fn encoder(c: &mut Criterion) {
    const IMAGES: usize = 8;
    let ctx = Context::new(&Device::cpu());
    let config = Config::resnet50();
    let mut declarations = Declarations::default();
    let encoder = ResNet::declare(&mut declarations, "", &config, None);
    let params = declarations.build(ctx.device(), DType::F32).unwrap();
    params.initialise(1).unwrap();
    let folded = Folded::new(&ctx, &encoder, &params, encoder.parts()).unwrap();
    let zeros = |shape: [usize; 4]| Tensor::zeros(ctx.device(), shape, DType::F32).unwrap();
    let images = zeros([IMAGES, 256, 256, 3]);
    let mut features = zeros([IMAGES, 8, 8, config.channels()]);
    let mut group = c.benchmark_group("resnet50");
    group.sample_size(10);
    group.throughput(Throughput::Elements(IMAGES as u64));
    group.bench_function("folded", |b| {
        b.iter(|| {
            folded
                .forward(&ctx, &encoder, &images, &mut features)
                .unwrap();
            ctx.reset().unwrap();
        });
    });
}

criterion_group!(benches, encoder);
criterion_main!(benches);
