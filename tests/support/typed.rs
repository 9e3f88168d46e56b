//! Tensors of any float type from f64, and back: tests of kernels compare with the CPU in f64, given the same
//! rounded numbers.

use super::{Numbers, announce, cpu, cuda};
use half::bf16;
use showtell::tensor::{Context, Tensor};
use showtell::{DType, Shape};
use std::cell::RefCell;
use std::ops::Range;

/// The devices, with the element types that kernels for images have on them.
pub fn typed_contexts() -> impl Iterator<Item = (Context, DType)> {
    let on_cuda = |dtype| {
        let ctx = cuda()?;
        println!("with elements of {dtype}");
        Some((ctx, dtype))
    };
    let dtypes = [None, Some(DType::F32), Some(DType::Bf16)];
    dtypes.into_iter().filter_map(move |dtype| match dtype {
        Some(dtype) => on_cuda(dtype),
        None => {
            let ctx = cpu();
            announce(&ctx);
            Some((ctx, DType::F32))
        }
    })
}

/// The largest relative error of rounding to the type.
pub fn unit_roundoff(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON / 2.0,
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        DType::Bf16 => f64::from(bf16::EPSILON) / 2.0,
        other => panic!("{other} is not tested"),
    }
}

pub fn fill(tensor: &mut Tensor, values: &[f64]) {
    let narrow = |v: &f64| *v as f32;
    match tensor.dtype() {
        DType::F64 => tensor.copy_from_slice(values),
        DType::F32 => tensor.copy_from_slice(&values.iter().map(narrow).collect::<Vec<_>>()),
        DType::Bf16 => {
            let values = values.iter().map(|v| bf16::from_f32(narrow(v)));
            tensor.copy_from_slice(&values.collect::<Vec<_>>())
        }
        other => panic!("{other} is not tested"),
    }
    .unwrap();
}

pub fn to_f64(tensor: &Tensor) -> Vec<f64> {
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
    match tensor.dtype() {
        DType::F64 => tensor.to_vec().unwrap(),
        DType::F32 => wide(tensor.to_vec().unwrap()),
        DType::Bf16 => {
            let values = tensor.to_vec::<bf16>().unwrap();
            values.into_iter().map(f64::from).collect()
        }
        other => panic!("{other} is not tested"),
    }
}

/// The same numbers in f64 on the CPU.
pub fn in_f64(cpu: &Context, tensor: &Tensor) -> Tensor {
    Tensor::from_slice(cpu.device(), tensor.shape(), &to_f64(tensor)).unwrap()
}

/// The largest difference of two tensors.
pub fn off(got: &Tensor, expected: &Tensor) -> f64 {
    let (got, expected) = (to_f64(got), to_f64(expected));
    let differences = got.iter().zip(&expected).map(|(g, e)| (g - e).abs());
    differences.fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}

/// Random numbers in [-1, 1), rounded to the type, with `padding` columns of NaN on both sides of every row.
pub fn random(
    ctx: &Context,
    numbers: &mut Numbers,
    shape: impl Into<Shape>,
    padding: usize,
    dtype: DType,
) -> Tensor {
    let shape = shape.into();
    let mut tensor = unwritten(ctx, shape, padding, dtype);
    fill(&mut tensor, &numbers.vec(shape.len()));
    tensor
}

/// NaN, so that what is not overwritten shows.
pub fn unwritten(ctx: &Context, shape: impl Into<Shape>, padding: usize, dtype: DType) -> Tensor {
    let shape = shape.into();
    let cols = shape.cols();
    let mut dims = shape.dims().to_vec();
    *dims.last_mut().unwrap() = cols + 2 * padding;
    let mut whole = Tensor::zeros(ctx.device(), Shape::new(&dims), dtype).unwrap();
    let len = whole.len();
    fill(&mut whole, &vec![f64::NAN; len]);
    let inside = padding..padding + cols;
    let view = whole.columns(padding, cols).unwrap();
    if padding > 0 {
        WATCHED.with_borrow_mut(|watched| watched.push((whole, inside)));
    }
    view
}

thread_local! {
    /// The tensors around the views that this thread has made, and the columns of the views.
    static WATCHED: RefCell<Vec<(Tensor, Range<usize>)>> = const { RefCell::new(Vec::new()) };
}

/// Checks that nobody wrote into the padding of what [`random`] and [`unwritten`] have made since the last call.
pub fn check_padding() {
    for (whole, inside) in WATCHED.take() {
        let cols = whole.cols();
        for (i, value) in to_f64(&whole).into_iter().enumerate() {
            let beside = !inside.contains(&(i % cols));
            assert!(
                !beside || value.is_nan(),
                "row {} of {:?}: {value} in column {} of the padding",
                i / cols,
                whole.shape(),
                i % cols
            );
        }
    }
}
