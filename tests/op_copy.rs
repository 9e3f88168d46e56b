//! Copies keep padding out, casts round to nearest even.

mod support;

use half::{bf16, f16};
use showtell::DType;
use showtell::ops::copy;
use showtell::tensor::{Element, Tensor};
use support::{Numbers, cpu, zeros};

fn cast<X: Element, Y: Element>(values: &[X]) -> Vec<Y> {
    let ctx = cpu();
    let x = Tensor::from_slice(ctx.device(), [1, values.len()], values).unwrap();
    let mut y = zeros(&ctx, [1, values.len()], Y::DTYPE);
    copy::forward(&ctx, &x, &mut y).unwrap();
    y.to_vec().unwrap()
}

#[test]
fn copies_between_paddings() {
    let ctx = cpu();
    let x = Numbers::new(3).f32(&ctx, [700, 41]);
    let x = x.columns(3, 30).unwrap();
    let y = zeros(&ctx, [700, 33], DType::F32);
    let mut inner = y.columns(1, 30).unwrap();
    copy::forward(&ctx, &x, &mut inner).unwrap();
    assert_eq!(inner.to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
    for beside in [0, 31, 32] {
        let beside = y.columns(beside, 1).unwrap().to_vec::<f32>().unwrap();
        assert!(beside.iter().all(|&v| v == 0.0));
    }
}

#[test]
fn casts_round_to_nearest_even() {
    // One bit below and half a bit above the 8 and 11 bits of the mantissas: ties go to even.
    let ties: [f32; 4] = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.0, 3e38];
    let expected = [1.0, 1.0 + 4.0 / 256.0, -1.0, 3e38].map(bf16::from_f64);
    assert_eq!(cast::<f32, bf16>(&ties), expected);
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
    assert_eq!(cast::<f32, bf16>(&cast::<bf16, f32>(&b)), b);
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
}
