//! ResNet-50 with batch-norm folded, on a batch of 8 images of 256x256: images per second.

use crate::support;
use criterion::{Criterion, Throughput, criterion_group};
use showtell::nn::params::Declarations;
use showtell::nn::resnet::{Folded, ResNet, ResNetConfig};
use showtell::{DType, Tensor};
use support::{Family, device};

fn encoder(c: &mut Criterion) {
    const IMAGES: usize = 8;
    let device = device();
    let ctx = showtell::Context::new(&device);
    let config = ResNetConfig::resnet50();
    let mut declarations = Declarations::default();
    let encoder = ResNet::declare(&mut declarations, "", &config, None);
    let params = declarations.build(&device, DType::F32).unwrap();
    params.initialise(1).unwrap();
    let folded = Folded::new(&ctx, &encoder, &params, encoder.parts()).unwrap();
    let mut family = Family::on(c, "resnet50", ctx);
    family.bench(
        "folded",
        Throughput::Elements(IMAGES as u64),
        |ctx| {
            let dtype = DType::F32.of_activations(ctx.device().precision());
            let zeros = |shape: [usize; 4]| Tensor::zeros(ctx.device(), shape, dtype).unwrap();
            let features = zeros([IMAGES, 8, 8, config.channels()]);
            (zeros([IMAGES, 256, 256, 3]), features)
        },
        |ctx, (images, features)| folded.forward(ctx, &encoder, images, features),
    );
}

criterion_group!(benches, encoder);
