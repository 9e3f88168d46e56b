//! The element types that CPU operations are generic over: f32 to work, f64 to check against.

use crate::ops::gemm::cpu::Multiply;
use crate::tensor::Element;

/// An element type of the CPU operations.
pub trait Float:
    Element
    + Multiply
    + num_traits::Float
    + num_traits::NumAssign
    + std::iter::Sum
    + Default
    + std::fmt::Display
{
    /// Exact for f32 and f64.
    fn to_f64(self) -> f64;
    /// Rounded to the type.
    fn of(value: f64) -> Self;
    /// e^x in a form that vectorises: within 2 ulp for f32; 0 below the smallest normal result.
    fn fast_exp(self) -> Self;

    /// 1 / (1 + e^-x)
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::one() / (Self::one() + (-self).fast_exp())
    }

    /// (1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x.
    #[inline(always)]
    fn fast_tanh(self) -> Self {
        let e = (self.abs() * Self::of(-2.0)).fast_exp();
        ((Self::one() - e) / (Self::one() + e)).copysign(self)
    }
}

impl Float for f64 {
    fn to_f64(self) -> f64 {
        self
    }

    fn of(value: f64) -> Self {
        value
    }

    fn fast_exp(self) -> Self {
        self.exp()
    }
}

impl Float for f32 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.into()
    }

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    /// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2, e^r by its Taylor series up to r^7
    /// (remainder below 2^-26). ln 2 is split in two so that r is exact (Cody and Waite, 1980).
    #[inline(always)]
    fn fast_exp(self) -> Self {
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        /// Adding it leaves the nearest integer in the low bits of the mantissa.
        const ROUND: f32 = 12_582_912.0;
        const LOWEST: f32 = -87.336_54;
        const HIGHEST: f32 = 88.722_83;
        let x = if self > HIGHEST { HIGHEST } else { self };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        let mut series = 1.0 / 5040.0;
        for coefficient in [
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
            1.0,
            1.0,
        ] {
            series = series * r + coefficient;
        }
        // n = 128 only at the very top: two factors keep the scale finite there. Wrapping, since checks for
        // overflow, as the tests have them, would keep the loop around this from being vectorised.
        let half = |bits: i32| f32::from_bits((bits.wrapping_add(127) << 23) as u32);
        let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
        let low = exponent >> 1;
        let scaled = series * half(low) * half(exponent.wrapping_sub(low));
        let value = if self < LOWEST { 0.0 } else { scaled };
        let value = if self > HIGHEST { f32::INFINITY } else { value };
        if self.is_nan() { self } else { value }
    }
}

#[cfg(test)]
mod tests {
    use super::Float;

    #[test]
    fn exp_is_within_two_ulp_everywhere() {
        for i in -870_000..=887_000 {
            let x = i as f32 * 1e-4;
            let (got, exact) = (f64::from(x.fast_exp()), f64::from(x).exp());
            let ulp = exact * f64::from(f32::EPSILON);
            assert!((got - exact).abs() <= ulp, "exp({x}): {got} for {exact}");
        }
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(f32::NEG_INFINITY.fast_exp(), 0.0);
        assert_eq!((-200f32).fast_exp(), 0.0);
        assert_eq!(f32::INFINITY.fast_exp(), f32::INFINITY);
        assert_eq!(89f32.fast_exp(), f32::INFINITY);
        assert_eq!(0f32.fast_exp(), 1.0);
        assert!(f32::NAN.fast_exp().is_nan());
        assert!(f32::NAN.sigmoid().is_nan() && f32::NAN.fast_tanh().is_nan());
    }

    #[test]
    fn sigmoid_and_tanh_follow_the_library() {
        for i in -4000..=4000 {
            let x = i as f32 * 0.01;
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!(
                (f64::from(x.sigmoid()) - exact).abs() <= 4.0 * exact * f64::from(f32::EPSILON)
            );
            let error = f64::from(x.fast_tanh()) - f64::from(x).tanh();
            assert!(error.abs() <= 2.0 * f64::from(f32::EPSILON), "tanh({x})");
        }
    }
}
