//! Loops compiled once for each vector width, chosen at run time, and sums in a fixed order.

use super::Float;

/// Runs `body` compiled for the widest vectors that the processor has. The loops must be in the
/// closure itself (or in `#[inline(always)]` functions) to be vectorised with them.
#[inline(always)]
pub fn simd<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// Partial sums that a loop keeps: enough for two AVX-512 registers of f32. The order of additions is
/// part of the result, so it is the same on every machine.
const LANES: usize = 32;

/// Σ f(a_i, b_i), added up in a fixed order whatever the vector width.
#[inline(always)]
pub fn sum_of<T: Float>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] += f(a, b);
    }
    sum_lanes(lanes)
}

/// The sum of the lanes, halved until one is left: always in the same order.
#[inline(always)]
pub fn sum_lanes<T: Float, const N: usize>(mut lanes: [T; N]) -> T {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `y += x`.
#[inline(always)]
pub fn add<T: Float>(y: &mut [T], x: &[T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// `y += scale x`.
#[inline(always)]
pub fn add_scaled<T: Float>(y: &mut [T], scale: T, x: &[T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

/// Σ a_i b_i in a fixed order.
#[inline(always)]
pub fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    sum_of(a, b, |a, b| a * b)
}

/// Σ a_i in a fixed order.
#[inline(always)]
pub fn sum<T: Float>(a: &[T]) -> T {
    sum_of(a, a, |a, _| a)
}

/// The largest element; NaN elements are passed over, and without any other it is -∞.
#[inline(always)]
pub fn max<T: Float>(a: &[T]) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    let mut lanes = [T::neg_infinity(); LANES];
    let chunks = a.chunks_exact(LANES);
    for (i, &a) in chunks.remainder().iter().enumerate() {
        lanes[i] = larger(lanes[i], a);
    }
    for a in chunks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], a[i]);
        }
    }
    lanes.into_iter().fold(T::neg_infinity(), larger)
}
