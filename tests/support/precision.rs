//! What the tests of tensor cores share: tensors of either type, widened for the CPU, and how far off sums may be.

use super::Numbers;
use half::bf16;
use showtell::device::Precision;
use showtell::{Context, DType, Shape, Tensor};

pub const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

/// A tensor widened to f64, on the CPU.
pub fn widened(cpu: &Context, x: &Tensor) -> Tensor {
    let values: Vec<f64> = match x.dtype() {
        DType::Bf16 => x
            .to_vec::<bf16>()
            .unwrap()
            .iter()
            .map(|v| v.to_f64())
            .collect(),
        _ => x
            .to_vec::<f32>()
            .unwrap()
            .iter()
            .map(|&v| v.into())
            .collect(),
    };
    Tensor::from_slice(cpu.device(), x.shape(), &values).unwrap()
}

/// Random numbers in [-1, 1), as f32 or rounded to bf16.
pub fn random(
    numbers: &mut Numbers,
    ctx: &Context,
    dtype: DType,
    shape: impl Into<Shape>,
) -> Tensor {
    let exact = numbers.f32(ctx, shape);
    if dtype == DType::F32 {
        return exact;
    }
    let values = exact.to_vec::<f32>().unwrap();
    let rounded: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
    Tensor::from_slice(ctx.device(), exact.shape(), &rounded).unwrap()
}

/// How far off a sum of k products of numbers in [-1, 1) may be, with factors of type `dtype`.
///
/// Each factor is off by up to u of itself, half the distance between neighbours at 1 (bf16 tensors are not rounded
/// again): the errors add up like a random walk of k steps below u each, 4 of whose deviations are below 2 u √k. Rounding
/// the f32 sums k times adds k 2^-23 at most.
pub fn tolerance(precision: Precision, dtype: DType, k: usize) -> f64 {
    let u = match (dtype, precision) {
        (DType::Bf16, _) | (_, Precision::F32) => 0.0,
        (_, Precision::Tf32) => 1.0 / 2048.0,
        (_, Precision::Bf16) => 1.0 / 512.0,
    };
    let k = k as f64;
    2.0 * u * k.sqrt() + (k + 4.0) / 8_388_608.0
}

/// What storing a number as `dtype` may add.
pub fn stored(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::Bf16 => value.abs() / 256.0,
        _ => 0.0,
    }
}
