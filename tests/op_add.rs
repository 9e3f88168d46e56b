//! y += x over padded rows, against plain sums.

use crate::support;
use half::bf16;
use showtell::DType;
use showtell::ops::add;
use showtell::tensor::Tensor;
use support::typed::random;
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

/// Rows at any alignment; rows of whole vectors and a rest; as many elements as whole blocks take; dense matrices; matrices
/// without elements.
const SHAPES: [[usize; 6]; 7] = [
    [37, 29, 3, 1, 5, 2],
    [19, 61, 3, 0, 7, 4],
    [256, 8, 4, 4, 8, 4],
    [256, 2, 1, 1, 2, 1],
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

/// bf16 is added in f32 and rounded once: dense, in rows that begin anywhere, and in rows of whole vectors with any rest.
#[test]
fn bf16_sums_are_rounded_once() {
    let Some(ctx) = cuda() else { return };
    let mut numbers = Numbers::new(4);
    let with_rest = (8..16).map(|cols| [cols, 24, 32, 8]);
    for [cols, ldx, ldy, first] in [[37, 37, 37, 0], [13, 15, 17, 1]]
        .into_iter()
        .chain(with_rest)
    {
        let x = random(&ctx, &mut numbers, [7, ldx], 0, DType::Bf16);
        let y = random(&ctx, &mut numbers, [7, ldy], 0, DType::Bf16);
        let [added, before] = [&x, &y].map(|t| t.to_vec::<bf16>().unwrap());
        let mut inner = y.columns(first, cols).unwrap();
        add::forward(&ctx, &x.columns(first, cols).unwrap(), &mut inner).unwrap();
        for (i, got) in y.to_vec::<bf16>().unwrap().into_iter().enumerate() {
            let (row, col) = (i / ldy, i % ldy);
            let expected = if (first..first + cols).contains(&col) {
                bf16::from_f32(added[row * ldx + col].to_f32() + before[i].to_f32())
            } else {
                before[i]
            };
            assert_eq!(got, expected, "row {row}, column {col} of {cols}");
        }
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
