//! The step arena: what a scope took is given back and, in debug builds, made unreadable; recordings hold no such filling.

use crate::support;
use showtell::ops::{add, copy, fill};
use showtell::{Context, DType, Result, Tensor};
use support::{Numbers, contexts, cuda};

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec().unwrap()
}

/// A tensor of `len` elements, each `value`, from the arena.
fn filled(ctx: &Context, len: usize, value: f64) -> Result<Tensor> {
    let mut tensor = ctx.empty([len], DType::F32)?;
    fill::constant(ctx, value, &mut tensor)?;
    Ok(tensor)
}

#[test]
fn what_leaves_a_scope_is_no_number() {
    for ctx in contexts() {
        ctx.reserve(4096).unwrap();
        let before = filled(&ctx, 5, 1.0).unwrap();
        // As much as fits, and far more than that: another block of memory.
        for len in [100, 10_000] {
            let left = ctx.scope(|| filled(&ctx, len, 2.0)).unwrap();
            let nan = values(&left).iter().all(|value| value.is_nan());
            assert_eq!(nan, cfg!(debug_assertions), "{len} elements");
            assert_eq!(values(&before), [1.0; 5]);
        }
        let again = filled(&ctx, 5, 3.0).unwrap();
        assert_eq!(values(&before), [1.0; 5]);
        assert_eq!(values(&again), [3.0; 5]);
    }
}

#[test]
fn a_scope_in_a_scope_leaves_the_outer_one_alone() {
    for ctx in contexts() {
        let inside = ctx.scope(|| {
            let outer = filled(&ctx, 40, 1.0)?;
            ctx.scope(|| filled(&ctx, 40, 2.0))?;
            Ok(values(&outer))
        });
        assert_eq!(inside.unwrap(), [1.0; 40]);
    }
}

#[test]
fn an_error_leaves_a_scope_as_it_is() {
    for ctx in contexts() {
        let wrong = |_: Tensor| ctx.empty([2, 3], DType::F32)?.reshape([5]);
        let error = ctx
            .scope(|| filled(&ctx, 7, 1.0).and_then(wrong))
            .unwrap_err();
        assert!(error.to_string().contains("as a view"), "{error}");
        ctx.reset().unwrap();
    }
}

/// y += x through scratch: replayed, the scratch is written anew each time and nothing else touches it.
#[test]
fn a_recording_with_scratch_does_the_same_again() {
    let Some(ctx) = cuda() else { return };
    ctx.reserve(4096).unwrap();
    let mut numbers = Numbers::new(1);
    let (x, mut y) = (numbers.f32(&ctx, [33]), numbers.f32(&ctx, [33]));
    let (x_values, mut expected) = (values(&x), values(&y));
    let mut body = || {
        ctx.scope(|| {
            let mut scratch = ctx.empty([33], DType::F32)?;
            copy::forward(&ctx, &x, &mut scratch)?;
            add::forward(&ctx, &scratch, &mut y)?;
            Ok(scratch)
        })
    };
    let scratch = body().unwrap();
    let recording = ctx.device().record(|| body().map(drop)).unwrap();
    recording.replay().unwrap();
    recording.replay().unwrap();
    for (y, x) in expected.iter_mut().zip(&x_values) {
        *y = ((*y + x) + x) + x;
    }
    assert_eq!(values(&y), expected);
    assert_eq!(values(&scratch), x_values, "a recording holds no filling");
}

/// Memory that is dropped while work is recorded is freed once, afterwards, and not by every replay.
#[test]
fn a_recording_frees_nothing() {
    let Some(ctx) = cuda() else { return };
    let mut numbers = Numbers::new(2);
    let (x, mut y) = (numbers.f32(&ctx, [9]), numbers.f32(&ctx, [9]));
    add::forward(&ctx, &x, &mut y).unwrap();
    let mut spare = Some(numbers.f32(&ctx, [1000]));
    let before = ctx.device().bytes_in_use();
    let body = || {
        drop(spare.take());
        add::forward(&ctx, &x, &mut y)
    };
    let recording = ctx.device().record(body).unwrap();
    assert_eq!(ctx.device().bytes_in_use(), before - 4000);
    recording.replay().unwrap();
    recording.replay().unwrap();
    ctx.device().synchronise().unwrap();
}

/// A dry run counts what the device itself takes, computes nothing and gives zeros.
#[test]
fn a_dry_run_counts_and_computes_nothing() {
    for real in contexts() {
        let ctx = Context::new(&real.device().planning());
        let tensor = Tensor::from_slice(ctx.device(), [3], &[1.0_f32; 3]).unwrap();
        ctx.scope(|| filled(&ctx, 1000, 2.0)).unwrap();
        assert_eq!(values(&tensor), [0.0; 3]);
        assert_eq!(
            tensor.download_later::<f32>().unwrap().wait().unwrap(),
            [0.0; 3]
        );
        assert_eq!(ctx.device().peak_bytes(), 12 + 4032);
        assert_eq!(real.device().allocations(), 0);
        assert_eq!(ctx.device().records(), real.device().records());
        let wrong = ctx.empty([5], DType::F32).unwrap();
        assert!(add::forward(&ctx, &wrong, &mut tensor.handle()).is_err());
        if ctx.device().records() {
            let allocates = || ctx.empty([1 << 20], DType::F32).map(drop);
            assert!(ctx.device().record(allocates).is_err());
            ctx.device().record(|| Ok(())).unwrap().replay().unwrap();
        }
    }
}
