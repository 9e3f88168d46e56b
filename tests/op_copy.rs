//! Copies keep padding out, casts round to nearest even.

use crate::support;
use half::{bf16, f16};
use showtell::ops::copy;
use showtell::tensor::{Element, Tensor};
use showtell::{Context, DType};
use support::{contexts, cpu, cuda, zeros};

fn cast_on<X: Element, Y: Element>(ctx: &Context, values: &[X]) -> Vec<Y> {
    let x = Tensor::from_slice(ctx.device(), [1, values.len()], values).unwrap();
    let mut y = zeros(ctx, [1, values.len()], Y::DTYPE);
    copy::forward(ctx, &x, &mut y).unwrap();
    y.to_vec().unwrap()
}

fn cast<X: Element, Y: Element>(values: &[X]) -> Vec<Y> {
    cast_on(&cpu(), values)
}

/// Into zeros, which stay beside the columns that are copied.
fn copies_between_paddings<X: Element, Y: Element + PartialEq>(
    ctx: &Context,
    value: impl Fn(usize) -> X,
    cast: impl Fn(X) -> Y,
) {
    // Rows at any alignment; rows of whole vectors and a rest; as many elements as whole blocks take; no row.
    for (rows, ldx, x0, ldy, y0, cols) in [
        (700, 41, 3, 33, 1, 30),
        (40, 48, 8, 72, 16, 37),
        (9, 48, 8, 72, 16, 38),
        (9, 48, 8, 72, 16, 39),
        (256, 16, 8, 24, 16, 8),
        (256, 5, 1, 6, 2, 4),
        (0, 8, 0, 8, 0, 8),
    ] {
        let values: Vec<X> = (0..rows * ldx).map(&value).collect();
        let x = Tensor::from_slice(ctx.device(), [rows, ldx], &values).unwrap();
        let y = zeros(ctx, [rows, ldy], Y::DTYPE);
        let mut inner = y.columns(y0, cols).unwrap();
        copy::forward(ctx, &x.columns(x0, cols).unwrap(), &mut inner).unwrap();
        for (i, got) in y.to_vec::<Y>().unwrap().into_iter().enumerate() {
            let (row, col) = (i / ldy, i % ldy);
            let expected = if (y0..y0 + cols).contains(&col) {
                cast(values[row * ldx + col - y0 + x0])
            } else {
                Y::zeroed()
            };
            assert!(
                got == expected,
                "{}: row {row}, column {col}",
                ctx.device().name()
            );
        }
    }
}

#[test]
fn padding_stays_as_it_is() {
    for ctx in contexts() {
        // Every one of these is exact in bf16.
        let small = |i: usize| (1 + i % 251) as f32;
        let narrow = |i: usize| bf16::from_f32(small(i));
        copies_between_paddings(&ctx, |i| 1.0 + i as f32, |v| v);
        copies_between_paddings(&ctx, narrow, |v| v);
        copies_between_paddings(&ctx, |i| 1 + i as u32, |v| v);
        copies_between_paddings(&ctx, small, bf16::from_f32);
        copies_between_paddings(&ctx, narrow, bf16::to_f32);
    }
}

#[test]
fn casts_round_to_nearest_even() {
    // One bit below and half a bit above the 8 and 11 bits of the mantissas: ties go to even.
    let ties: [f32; 4] = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.0, 3e38];
    let expected = [1.0, 1.0 + 4.0 / 256.0, -1.0, 3e38].map(bf16::from_f64);
    for ctx in contexts() {
        assert_eq!(cast_on::<f32, bf16>(&ctx, &ties), expected);
        let beyond = cast_on::<f32, bf16>(&ctx, &[f32::MAX, f32::NEG_INFINITY, f32::NAN]);
        assert_eq!(beyond[..2], [bf16::INFINITY, bf16::NEG_INFINITY]);
        assert!(beyond[2].is_nan());
    }
    let ties: [f32; 3] = [1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 1e6];
    let expected = [f16::ONE, f16::from_f64(1.0 + 4.0 / 2048.0), f16::INFINITY];
    assert_eq!(cast::<f32, f16>(&ties), expected);
    assert_eq!(cast::<f64, f32>(&[0.1, 1e300]), [0.1, f32::INFINITY]);
}

#[test]
fn every_bf16_and_f16_survives_the_way_through_f32_and_f64() {
    let bits: Vec<u16> = (0..=u16::MAX).collect();
    let (b, h): (Vec<bf16>, Vec<f16>) = bits
        .iter()
        .map(|&v| (bf16::from_bits(v), f16::from_bits(v)))
        .filter(|(b, h)| !b.is_nan() && !h.is_nan())
        .unzip();
    for ctx in contexts() {
        let wide: Vec<f32> = cast_on(&ctx, &b);
        assert!(wide.iter().zip(&b).all(|(wide, b)| *wide == b.to_f32()));
        assert_eq!(cast_on::<f32, bf16>(&ctx, &wide), b);
    }
    assert_eq!(cast::<f64, bf16>(&cast::<bf16, f64>(&b)), b);
    assert_eq!(cast::<f32, f16>(&cast::<f16, f32>(&h)), h);
    assert_eq!(cast::<f64, f16>(&cast::<f16, f64>(&h)), h);
    let nan = cast::<f32, bf16>(&cast::<f16, f32>(&[f16::NAN]));
    assert!(nan[0].is_nan());
}

#[test]
fn ids_are_not_cast() {
    assert_eq!(cast::<u32, u32>(&[7, u32::MAX]), [7, u32::MAX]);
    let ctx = cpu();
    let ids = zeros(&ctx, [1, 2], DType::U32);
    let error = copy::forward(&ctx, &ids, &mut zeros(&ctx, [1, 2], DType::F32)).unwrap_err();
    assert_eq!(error.to_string(), "copy: no cast from u32 to f32");
    let Some(ctx) = cuda() else { return };
    let (ids, mut wide) = (
        zeros(&ctx, [1, 2], DType::U32),
        zeros(&ctx, [1, 2], DType::F64),
    );
    let error = copy::forward(&ctx, &ids, &mut wide).unwrap_err();
    let expected = "copy: the CUDA device has no kernel for u32, f64, ";
    assert!(error.to_string().starts_with(expected), "{error}");
}
