//! Element types.

use crate::device::Precision;
use half::{bf16, f16};

words! {
    /// The element type of a tensor.
    pub enum DType {
        /// The type of parameters and gradients.
        F32 = "f32",
        /// For checks by finite differences; no model stores it.
        F64 = "f64",
        /// Of activations, and of what tensor cores multiply: the upper 16 bits of an `F32`.
        Bf16 = "bf16",
        /// Of files.
        F16 = "f16",
        /// Token ids.
        U32 = "u32",
        /// Pixels.
        U8 = "u8",
    }
}

impl DType {
    /// Bytes per element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::U32 => 4,
            DType::Bf16 | DType::F16 => 2,
            DType::U8 => 1,
        }
    }
}

impl DType {
    /// The type of activations between convolutions, for parameters of this type.
    pub fn of_activations(self, precision: Precision) -> DType {
        match precision {
            Precision::Bf16 => DType::Bf16,
            Precision::F32 | Precision::Tf32 => self,
        }
    }

    /// The type of parameters, statistics, means and gradients of parameters, beside activations of this type.
    pub fn of_parameters(self) -> DType {
        match self {
            DType::Bf16 => DType::F32,
            other => other,
        }
    }
}

/// A Rust type that tensors can hold.
pub trait Element: bytemuck::Pod + Send + Sync + std::fmt::Debug {
    /// The element type of a tensor that holds it.
    const DTYPE: DType;
}

macro_rules! element {
    ($($type:ty => $dtype:ident),*) => {
        $(impl Element for $type { const DTYPE: DType = DType::$dtype; })*
    };
}
element!(f32 => F32, f64 => F64, bf16 => Bf16, f16 => F16, u32 => U32, u8 => U8);
