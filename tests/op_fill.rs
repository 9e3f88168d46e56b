//! Fills write every element of a view and nothing beside it, in every element type.

mod support;

use half::{bf16, f16};
use showtell::ops::fill;
use showtell::tensor::{Element, Tensor};
use support::cpu;

fn zeroes_only_the_view<T: Element + PartialEq>(one: T) {
    let ctx = cpu();
    let t = Tensor::from_slice(ctx.device(), [5, 7], &[one; 35]).unwrap();
    fill::zero(&ctx, &mut t.columns(1, 4).unwrap()).unwrap();
    for (i, got) in t.to_vec::<T>().unwrap().into_iter().enumerate() {
        let inside = (1..5).contains(&(i % 7));
        assert!(got == if inside { T::zeroed() } else { one }, "element {i}");
    }
}

#[test]
fn zero_clears_every_type() {
    zeroes_only_the_view(1f32);
    zeroes_only_the_view(1f64);
    zeroes_only_the_view(bf16::ONE);
    zeroes_only_the_view(f16::ONE);
    zeroes_only_the_view(1u32);
    zeroes_only_the_view(1u8);
}

#[test]
fn constant_fills_more_rows_than_one_task_takes() {
    let ctx = cpu();
    let mut t = Tensor::zeros(ctx.device(), [9001, 5], showtell::DType::F32).unwrap();
    fill::constant(&ctx, 0.1, &mut t).unwrap();
    assert!(t.to_vec::<f32>().unwrap().iter().all(|&v| v == 0.1));
}
