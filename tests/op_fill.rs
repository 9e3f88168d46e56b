//! Fills write every element of a view and nothing beside it, in every element type.

use crate::support;
use half::{bf16, f16};
use showtell::ops::fill;
use showtell::tensor::{Element, Tensor};
use showtell::{Context, DType};
use support::{alone, contexts, counters, cpu, cuda, zeros};

/// Fills columns of a matrix whose other elements are `one`: rows at any alignment; rows of whole vectors with a rest;
/// as many elements as whole blocks take; more rows than one task takes.
fn zeroes_only_the_view<T: Element + PartialEq>(ctx: &Context, one: T) {
    for (rows, ld, start, cols) in [
        (5, 7, 1, 4),
        (9, 48, 16, 29),
        (4, 48, 16, 31),
        (256, 48, 16, 16),
        (256, 5, 1, 2),
        (2000, 9, 0, 8),
        (3, 5, 5, 0),
    ] {
        let t = Tensor::from_slice(ctx.device(), [rows, ld], &vec![one; rows * ld]).unwrap();
        fill::zero(ctx, &mut t.columns(start, cols).unwrap()).unwrap();
        for (i, got) in t.to_vec::<T>().unwrap().into_iter().enumerate() {
            let inside = (start..start + cols).contains(&(i % ld));
            let expected = if inside { T::zeroed() } else { one };
            assert!(got == expected, "{}: element {i}", ctx.device().name());
        }
    }
}

#[test]
fn zero_clears_every_type() {
    zeroes_only_the_view(&cpu(), 1f64);
    zeroes_only_the_view(&cpu(), f16::ONE);
    for ctx in contexts() {
        zeroes_only_the_view(&ctx, 1f32);
        zeroes_only_the_view(&ctx, bf16::ONE);
        zeroes_only_the_view(&ctx, 1u32);
        zeroes_only_the_view(&ctx, 1u8);
    }
}

#[test]
fn constant_fills_more_rows_than_one_task_takes() {
    for ctx in contexts() {
        let mut t = zeros(&ctx, [9001, 5], DType::F32);
        fill::constant(&ctx, 0.1, &mut t).unwrap();
        assert!(t.to_vec::<f32>().unwrap().iter().all(|&v| v == 0.1));
    }
}

#[test]
fn types_without_a_kernel_are_errors_on_the_gpu() {
    let Some(ctx) = cuda() else { return };
    let error = fill::zero(&ctx, &mut zeros(&ctx, [2], DType::F64)).unwrap_err();
    let expected = "fill: the CUDA device has no kernel for f64";
    assert_eq!(error.to_string(), expected);
}

/// Nothing is read, and every sector is written once by one request.
#[test]
fn a_fill_writes_each_byte_once() {
    if !alone("a_fill_writes_each_byte_once", &[]) {
        return;
    }
    let Some(ctx) = cuda() else { return };
    let mut t = zeros(&ctx, [64, 100], DType::F32);
    let Some(counts) = counters(|| fill::zero(&ctx, &mut t).unwrap()) else {
        return;
    };
    let of = |what: &str| counts["fill_f32x4"][what].as_u64().unwrap();
    let sectors = 64 * 100 * 4 / 32;
    assert_eq!((of("launches"), of("global_loads")), (1, 0));
    assert_eq!(
        (of("global_store_sectors"), of("distinct_sectors")),
        (sectors, sectors)
    );
}
