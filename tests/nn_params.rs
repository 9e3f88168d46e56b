//! Parameters that lie so that two of them are one tensor.

use crate::support;
use half::bf16;
use showtell::device::Precision;
use showtell::nn::params::{Declarations, Init, Joined, Params, Role};
use showtell::{DType, Result, Tensor};
use support::{cpu, cuda, cuda_with};

const ZERO: Init = Init::Constant(0.0);

/// Odd sizes, so that rows and starts are padded. What is written to one of the two is read from both together, and gradients too.
#[test]
fn joined_tensors_are_one() {
    for ctx in std::iter::once(cpu()).chain(cuda()) {
        let mut declare = Declarations::default();
        let mut add = |name: &str, shape: &[usize]| declare.add(name, shape, Role::Decoder, ZERO);
        let (before, a) = (add("before", &[3]), add("a", &[5, 7]));
        let (left, right) = (add("left", &[4, 5]), add("right", &[4, 3]));
        let (b, after) = (add("b", &[2, 7]), add("after", &[1, 9]));
        let (bias, other) = (add("bias", &[5]), add("other", &[2]));
        let rows = declare.below(a, b).unwrap();
        let columns = declare.beside(left, right).unwrap();
        let biases = declare.below(bias, other).unwrap();
        let params = declare.build(ctx.device(), DType::F32).unwrap();
        for (number, id) in params.ids().enumerate() {
            let len = params.value(id).len();
            let values: Vec<f32> = (0..len).map(|i| (100 * (number + 1) + i) as f32).collect();
            params.import(id, &values).unwrap();
            params.write(id, params.gradient(id), &values).unwrap();
        }
        let [a, b, left, right, bias, other] =
            [a, b, left, right, bias, other].map(|id| params.export(id).unwrap());
        let views: [fn(&Params, Joined) -> Result<Tensor>; 2] =
            [Params::joined, Params::joined_gradient];
        for view in views {
            let one = |joined| view(&params, joined).unwrap();
            assert_eq!(one(rows).shape().dims(), [7, 7]);
            assert_eq!(
                one(rows).to_vec::<f32>().unwrap(),
                [&a[..], &b[..]].concat()
            );
            assert_eq!(
                one(biases).to_vec::<f32>().unwrap(),
                [&bias[..], &other[..]].concat()
            );
            let beside: Vec<f32> = (0..4)
                .flat_map(|row| [&left[5 * row..][..5], &[0.0; 3], &right[3 * row..][..3]].concat())
                .collect();
            assert_eq!(one(columns).shape().dims(), [4, 11]);
            assert_eq!(one(columns).to_vec::<f32>().unwrap(), beside);
        }
        // Neighbours are where they were.
        assert_eq!(params.export(before).unwrap(), [100.0, 101.0, 102.0]);
        assert_eq!(params.export(after).unwrap()[8], 608.0);
    }
}

/// Where products read bf16, they read what is stored in f32, rounded to the nearest: after the tensors are set to their initial values,
/// and after others are restored. A filter is stored in another order than PyTorch's.
#[test]
fn operands_are_the_values_rounded() {
    let Some(ctx) = cuda_with(Precision::Bf16) else {
        return;
    };
    let mut declare = Declarations::default();
    let uniform = Init::Uniform(1.0);
    let a = declare.add("a", &[5, 7], Role::Decoder, uniform);
    let b = declare.add("b", &[2, 7], Role::Decoder, uniform);
    declare.add("filter", &[3, 5, 2, 2], Role::Encoder, uniform);
    let rows = declare.below(a, b).unwrap();
    let params = declare.build(ctx.device(), DType::F32).unwrap();
    params.initialise(3).unwrap();
    let bits = |values: Vec<f32>| -> Vec<u32> { values.into_iter().map(f32::to_bits).collect() };
    let rounded = |values: Vec<f32>| values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
    let check = || {
        for id in params.ids() {
            let (value, operand) = (params.value(id), params.operand(id));
            assert_eq!(operand.dtype(), DType::Bf16, "{}", params.name(id));
            let expected = rounded(value.to_f32().unwrap());
            assert_eq!(bits(operand.to_f32().unwrap()), bits(expected));
        }
        let joined = params.joined_operand(rows).unwrap().to_f32().unwrap();
        let expected = rounded(params.joined(rows).unwrap().to_f32().unwrap());
        assert_eq!(bits(joined), bits(expected));
    };
    check();
    let before = params.export(a).unwrap();
    // Ties to even, numbers that are rounded to infinity, and those with no exponent left.
    let odd = [
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        -0.0,
        3.4e38,
        1e-40,
        f32::NEG_INFINITY,
        2.5,
    ];
    for id in params.ids() {
        let values = odd.iter().cycle().take(params.value(id).len()).copied();
        params.import(id, &values.collect::<Vec<_>>()).unwrap();
    }
    check();
    assert_ne!(params.export(a).unwrap(), before);
}

#[test]
fn tensors_that_do_not_fit_together_are_errors() {
    let mut declare = Declarations::default();
    let mut add = |name: &str, shape: &[usize], role| declare.add(name, shape, role, ZERO);
    let (a, b) = (
        add("a", &[5, 7], Role::Decoder),
        add("b", &[2, 6], Role::Decoder),
    );
    let frozen = add("frozen", &[5, 7], Role::Frozen);
    assert!(declare.beside(a, frozen).is_err());
    for refused in [declare.below(a, b), declare.beside(a, b)] {
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("a [5, 7] and b [2, 6]"), "{told}");
    }
}
