//! What the benches share: tensors on the CPU device.

#![allow(dead_code)] // every bench uses its own part

use showtell::{Context, DType, Device, Shape, Tensor};

pub fn cpu() -> Context {
    Context::new(&Device::cpu())
}

/// Numbers in [-0.5, 0.5) that repeat after a thousand.
pub fn floats(ctx: &Context, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let value = |i: usize| (i.wrapping_mul(2_654_435_761) % 1000) as f32 * 1e-3 - 0.5;
    let values: Vec<f32> = (0..shape.len()).map(value).collect();
    Tensor::from_slice(ctx.device(), shape, &values).unwrap()
}

/// Token ids below `limit`, none of them 0.
pub fn ids(ctx: &Context, shape: impl Into<Shape>, limit: u32) -> Tensor {
    let shape = shape.into();
    let id = |i: usize| 1 + (i as u32).wrapping_mul(40_503) % (limit - 1);
    let values: Vec<u32> = (0..shape.len()).map(id).collect();
    Tensor::from_slice(ctx.device(), shape, &values).unwrap()
}

pub fn zeros(ctx: &Context, shape: impl Into<Shape>, dtype: DType) -> Tensor {
    Tensor::zeros(ctx.device(), shape, dtype).unwrap()
}
