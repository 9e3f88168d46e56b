//! y += x over padded rows, against plain sums.

use crate::support;
use half::bf16;
use showtell::DType;
use showtell::ops::add;
use showtell::tensor::Tensor;
use support::typed::{check_padding, random};
use support::{Numbers, contexts, cpu, cuda};

/// Rows with padding around the columns in use; more of them than one task takes.
#[test]
fn sums_padded_rows_and_leaves_the_padding() {
    let ctx = cpu();
    let mut numbers = Numbers::new(1);
    let (rows, cols) = (701, 37);
    let x_values = numbers.vec(rows * (cols + 3));
    let y_values = numbers.vec(rows * (cols + 5));
    let x = Tensor::from_slice(ctx.device(), [rows, cols + 3], &x_values).unwrap();
    let y = Tensor::from_slice(ctx.device(), [rows, cols + 5], &y_values).unwrap();
    let mut inner = y.columns(2, cols).unwrap();
    add::forward(&ctx, &x.columns(1, cols).unwrap(), &mut inner).unwrap();
    for (i, got) in y.to_vec::<f64>().unwrap().into_iter().enumerate() {
        let (row, col) = (i / (cols + 5), i % (cols + 5));
        let expected = if (2..cols + 2).contains(&col) {
            y_values[i] + x_values[row * (cols + 3) + col - 1]
        } else {
            y_values[i]
        };
        assert_eq!(got, expected, "row {row}, column {col}");
    }
}

/// Rows at any alignment; rows of whole vectors and a rest; dense matrices; matrices without elements.
const SHAPES: [[usize; 6]; 5] = [
    [37, 29, 3, 1, 5, 2],
    [19, 61, 3, 0, 7, 4],
    [33, 16, 0, 0, 0, 0],
    [1, 1, 0, 0, 0, 0],
    [0, 4, 0, 0, 0, 0],
];

/// The same sums in f32 on every device.
#[test]
fn sums_on_every_device() {
    for ctx in contexts() {
        for [rows, cols, more_x, first_x, more_y, first_y] in SHAPES {
            let mut numbers = Numbers::new(3);
            let x = numbers.f32(&ctx, [rows, cols + more_x]);
            let y = numbers.f32(&ctx, [rows, cols + more_y]);
            let (before, added) = (y.to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
            let mut inner = y.columns(first_y, cols).unwrap();
            add::forward(&ctx, &x.columns(first_x, cols).unwrap(), &mut inner).unwrap();
            for (i, got) in y.to_vec::<f32>().unwrap().into_iter().enumerate() {
                let (row, col) = (i / (cols + more_y), i % (cols + more_y));
                let expected = if (first_y..first_y + cols).contains(&col) {
                    before[i] + added[row * (cols + more_x) + col - first_y + first_x]
                } else {
                    before[i]
                };
                let device = ctx.device().name();
                assert_eq!(got, expected, "{device}: row {row}, column {col} of {cols}");
            }
        }
    }
}

/// bf16 is added in f32 and rounded once: dense, and in rows of whole vectors with any rest.
#[test]
fn bf16_sums_are_rounded_once() {
    let Some(ctx) = cuda() else { return };
    let mut numbers = Numbers::new(4);
    for (cols, padding) in [(37, 0), (8, 8), (9, 8), (12, 8), (14, 8), (15, 8), (13, 1)] {
        let x = random(&ctx, &mut numbers, [7, cols], padding, DType::Bf16);
        let mut y = random(&ctx, &mut numbers, [7, cols], 2 * padding, DType::Bf16);
        let [added, before] = [&x, &y].map(|t| t.to_vec::<bf16>().unwrap());
        add::forward(&ctx, &x, &mut y).unwrap();
        check_padding();
        let expected = added.iter().zip(&before);
        let expected: Vec<bf16> = expected
            .map(|(x, y)| bf16::from_f32(x.to_f32() + y.to_f32()))
            .collect();
        assert_eq!(y.to_vec::<bf16>().unwrap(), expected, "{cols} columns");
    }
}

#[test]
fn shapes_and_types_must_fit() {
    let ctx = cpu();
    let mut numbers = Numbers::new(2);
    let mut y = numbers.f32(&ctx, [4, 6]);
    let error = add::forward(&ctx, &numbers.f32(&ctx, [6, 4]), &mut y).unwrap_err();
    assert_eq!(
        error.to_string(),
        "add: x should have 4 rows of 6, has shape [6, 4]"
    );
    let error = add::forward(&ctx, &numbers.f64(&ctx, [4, 6]), &mut y).unwrap_err();
    assert_eq!(error.to_string(), "add: x should be f32, is f64");
    let other_grouping = numbers.f32(&ctx, [2, 2, 6]);
    add::forward(&ctx, &other_grouping, &mut y).unwrap();
}
