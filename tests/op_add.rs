//! y += x over padded rows, against plain sums.

mod support;

use showtell::ops::add;
use showtell::tensor::Tensor;
use support::{Numbers, contexts, cpu};

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
        let expected = match (2..cols + 2).contains(&col) {
            true => y_values[i] + x_values[row * (cols + 3) + col - 1],
            false => y_values[i],
        };
        assert_eq!(got, expected, "row {row}, column {col}");
    }
}

/// The same sums in f32 on every device.
#[test]
fn sums_on_every_device() {
    for ctx in contexts() {
        let mut numbers = Numbers::new(3);
        let (rows, cols) = (37, 29);
        let x = numbers.f32(&ctx, [rows, cols + 3]);
        let y = numbers.f32(&ctx, [rows, cols + 5]);
        let (before, added) = (y.to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
        let mut inner = y.columns(2, cols).unwrap();
        add::forward(&ctx, &x.columns(1, cols).unwrap(), &mut inner).unwrap();
        for (i, got) in y.to_vec::<f32>().unwrap().into_iter().enumerate() {
            let (row, col) = (i / (cols + 5), i % (cols + 5));
            let expected = match (2..cols + 2).contains(&col) {
                true => before[i] + added[row * (cols + 3) + col - 1],
                false => before[i],
            };
            assert_eq!(
                got,
                expected,
                "{}: row {row}, column {col}",
                ctx.device().name()
            );
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
