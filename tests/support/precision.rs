//! How far off sums of products may be in each precision.

use super::{alone, cuda_with};
use showtell::device::Precision;
use showtell::{Context, DType};

pub const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

/// Set in the environment of tests that are to run kernels of one cut whatever is fastest, in so many parts.
const CUT: &str = "SHOWTELL_CUT";

/// Each arithmetic has a wide cut, tall or large, and the small one.
const CUTS: [&str; 6] = [
    "tall:1", "tall:3", "large:1", "large:3", "small:1", "small:3",
];

/// Runs `check`, of the test of that name in the calling file, in a process of its own for every cut, in every arithmetic whose kernels have it.
#[track_caller]
pub fn in_every_cut(test: &str, check: impl Fn(&Context, DType)) {
    for cut in CUTS {
        if alone(test, &[(CUT, cut)]) {
            return of_cut().for_each(|(ctx, dtype)| check(&ctx, dtype));
        }
    }
}

/// A context and a type of elements for every arithmetic whose kernels have the cut that is set; none without kernels.
fn of_cut() -> impl Iterator<Item = (Context, DType)> {
    let cut = std::env::var(CUT).unwrap();
    let arithmetics = [
        (Precision::F32, DType::F32),
        (Precision::Tf32, DType::F32),
        (Precision::Bf16, DType::Bf16),
    ];
    let (first, count) = match cut.split(':').next() {
        Some("tall") => (0, 1),
        Some("large") => (1, 2),
        _ => (0, 3),
    };
    let of_cut = arithmetics.into_iter().skip(first).take(count);
    of_cut.filter_map(|(precision, dtype)| Some((cuda_with(precision)?, dtype)))
}

/// How far off a sum of k products of numbers in [-1, 1) may be, with factors of type `dtype`.
///
/// Each factor is off by up to u of itself, half the distance between neighbours at 1 (bf16 tensors are not rounded
/// again): the errors add up like a random walk of k steps below u each, 4 of whose deviations are below 2 u √k. Rounding
/// the f32 sums k times adds k 2^-23 at most. Tensor cores do not round a sum but cut it off (Fasi et al. 2021, Numerical
/// behavior of NVIDIA tensor cores), so that errors have one sign: after every 8 products, fewer than 2 units in the last place of a
/// sum that is below 4 of its deviations, 4/3 √k.
pub fn tolerance(precision: Precision, dtype: DType, k: usize) -> f64 {
    let (u, cut_off) = match (dtype, precision) {
        (DType::Bf16, _) => (0.0, 1.0),
        (_, Precision::F32) => (0.0, 0.0),
        // f32 that is left beside bf16 is multiplied as tf32.
        (_, Precision::Tf32 | Precision::Bf16) => (1.0 / 2048.0, 1.0),
    };
    let k = k as f64;
    let lost = cut_off * k / 8.0 * 2.0 * (4.0 / 3.0 * k.sqrt());
    2.0 * u * k.sqrt() + (k + 4.0 + lost) / 8_388_608.0
}

/// What storing a number as `dtype` may add.
pub fn stored(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::Bf16 => value.abs() / 256.0,
        _ => 0.0,
    }
}
