//! What the tests share: random tensors, finite differences, error measures.

pub mod attention;
pub mod checked;
pub mod cli;
mod cuda;
pub mod damage;
pub mod data;
mod golden;
pub mod left;
pub mod picture;
pub mod pictures;
pub mod precision;
pub mod tiny;
pub mod training;
pub mod typed;

pub use cuda::{alone, announce, contexts, counters, cuda, cuda_with, driver_folder, in_emulator};
pub use golden::Golden;

use showtell::nn::noise::Noise;
use showtell::ops::dropout::Site;
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Device, Shape};

pub fn cpu() -> Context {
    Context::new(&Device::cpu())
}

/// Noise of one step.
pub fn noise(ctx: &Context, seed: u64, step: u32) -> Noise {
    let mut noise = Noise::new(ctx.device(), seed).unwrap();
    noise.set_step(step).unwrap();
    noise
}

/// Where dropout draws a mask.
pub fn site(ctx: &Context, seed: u64, step: u32, site: u32) -> Site {
    let step = Tensor::from_slice(ctx.device(), [1], &[step]).unwrap();
    Site { seed, step, site }
}

/// Reproducible numbers in [-1, 1) (SplitMix64).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    pub fn vec(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| self.uniform()).collect()
    }

    /// A tensor of f64 with random elements.
    pub fn f64(&mut self, ctx: &Context, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        Tensor::from_slice(ctx.device(), shape, &self.vec(shape.len())).unwrap()
    }

    /// A tensor of f32 with random elements.
    pub fn f32(&mut self, ctx: &Context, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let values: Vec<f32> = self.vec(shape.len()).iter().map(|&v| v as f32).collect();
        Tensor::from_slice(ctx.device(), shape, &values).unwrap()
    }
}

pub fn zeros(ctx: &Context, shape: impl Into<Shape>, dtype: DType) -> Tensor {
    Tensor::zeros(ctx.device(), shape, dtype).unwrap()
}

/// A tensor filled with NaN: an operation that is to overwrite it must not leave any.
pub fn nan(ctx: &Context, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    Tensor::from_slice(ctx.device(), shape, &vec![f64::NAN; shape.len()]).unwrap()
}

/// Paddings that all differ, so that the row distance of another operand shows: `first` and more, multiples of the power of two that
/// `first` is a multiple of, 8 at most, so that all rows are aligned alike. Without a first one there is none.
pub fn paddings(first: usize) -> impl Iterator<Item = usize> {
    let step = match first {
        0 => 0,
        first => 1 << first.trailing_zeros().min(3),
    };
    (0..).map(move |i| first + i * step)
}

/// Σ a_i b_i, on the host.
pub fn inner(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_vec::<f64>().unwrap(), b.to_vec::<f64>().unwrap());
    a.iter().zip(&b).map(|(a, b)| a * b).sum()
}

/// Compares `gradient` of the scalar `loss` with respect to `x` (f64) with central differences, along
/// up to 24 single elements and along one random direction. `loss` must read `x` anew each time.
///
/// With a step h = 2^-17 the truncation error is about h² ≈ 6e-11 and rounding ε/h ≈ 3e-11, each times
/// the size of what is summed up in the loss: 1e-7 relative to the larger of 1 and the gradient's norm leaves
/// three digits for third derivatives and long sums.
pub fn check_gradient(name: &str, x: &Tensor, gradient: &Tensor, loss: impl FnMut() -> f64) {
    check_gradient_within(1e-7, name, x, gradient, loss);
}

pub fn check_gradient_within(
    tolerance: f64,
    name: &str,
    x: &Tensor,
    gradient: &Tensor,
    mut loss: impl FnMut() -> f64,
) {
    const STEP: f64 = 1.0 / 131_072.0;
    assert_eq!(x.shape(), gradient.shape(), "{name}: shape of the gradient");
    let gradient = gradient.to_vec::<f64>().unwrap();
    let values = x.to_vec::<f64>().unwrap();
    let mut handle = x.clone();
    let mut numbers = Numbers::new(values.len() as u64);
    let scale = gradient.iter().map(|g| g * g).sum::<f64>().sqrt().max(1.0);
    let mut directions = vec![numbers.vec(values.len())];
    for sample in 0..values.len().min(24) {
        let element = if values.len() <= 24 {
            sample
        } else {
            numbers.below(values.len())
        };
        let mut unit = vec![0.0; values.len()];
        unit[element] = 1.0;
        directions.push(unit);
    }
    for direction in directions {
        let mut at = |sign: f64| {
            let moved = values.iter().zip(&direction);
            let moved: Vec<f64> = moved.map(|(v, d)| v + sign * STEP * d).collect();
            handle.copy_from_slice(&moved).unwrap();
            loss()
        };
        let difference = (at(1.0) - at(-1.0)) / (2.0 * STEP);
        let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        assert!(
            (difference - exact).abs() <= tolerance * scale * (1.0 + exact.abs() / scale),
            "{name}: backward gives {exact}, differences {difference}"
        );
    }
    handle.copy_from_slice(&values).unwrap();
}

/// ‖a − b‖ / (‖b‖ + 1e-6 √n): the measure of the parity tests.
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |v: f64| v * v;
    let difference: f64 = a
        .iter()
        .zip(b)
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    let norm: f64 = b.iter().map(|&b| square(f64::from(b))).sum();
    difference.sqrt() / (norm.sqrt() + 1e-6 * (b.len() as f64).sqrt())
}
