//! Checks that operations make on their arguments, worded in one place.

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// `tensor` must have this shape: `shape(OP, "bias", bias, &[o])?`.
pub fn shape(op: &'static str, name: &str, tensor: &Tensor, expected: &[usize]) -> Result<()> {
    if tensor.shape() == *expected {
        return Ok(());
    }
    let message = format!(
        "{name} should have shape {expected:?}, has {:?}",
        tensor.shape()
    );
    Err(Error::operation(op, message))
}

/// `tensor` must have this shape and this element type: `tensor(OP, "bias", bias, &[o], y.dtype())?`.
pub fn tensor(
    op: &'static str,
    name: &str,
    tensor: &Tensor,
    expected: &[usize],
    elements: DType,
) -> Result<()> {
    shape(op, name, tensor, expected)?;
    dtype(op, name, tensor, elements)
}

/// As [`tensor`], when there is one.
pub fn optional(
    op: &'static str,
    name: &str,
    given: Option<&Tensor>,
    expected: &[usize],
    elements: DType,
) -> Result<()> {
    given.map_or(Ok(()), |given| tensor(op, name, given, expected, elements))
}

/// `tensor` must be a matrix of this many rows and columns, however its rows are grouped, of this element type.
pub fn matrix(
    op: &'static str,
    name: &str,
    tensor: &Tensor,
    [rows, cols]: [usize; 2],
    elements: DType,
) -> Result<()> {
    if (tensor.rows(), tensor.cols()) == (rows, cols) {
        return dtype(op, name, tensor, elements);
    }
    let message = format!(
        "{name} should have {rows} rows of {cols}, has shape {:?}",
        tensor.shape()
    );
    Err(Error::operation(op, message))
}

/// `tensor` must hold this element type.
pub fn dtype(op: &'static str, name: &str, tensor: &Tensor, expected: DType) -> Result<()> {
    if tensor.dtype() == expected {
        return Ok(());
    }
    let message = format!("{name} should be {expected}, is {}", tensor.dtype());
    Err(Error::operation(op, message))
}

/// `tensor` must hold the type of `sums`, or bf16 where that is f32: what products or every step read.
pub fn beside(op: &'static str, name: &str, tensor: &Tensor, sums: DType) -> Result<()> {
    that(op, tensor.dtype().of_parameters() == sums, || {
        format!("{name} should fit {sums}, is {}", tensor.dtype())
    })
}

/// A condition between arguments.
pub fn that(op: &'static str, holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::operation(op, message()))
}

/// `tensor` must have N dimensions, which are given back: `let [n, h, w, c] = dims(OP, "x", x)?`.
pub fn dims<const N: usize>(op: &'static str, name: &str, tensor: &Tensor) -> Result<[usize; N]> {
    tensor.shape().dims().try_into().map_err(|_| {
        let message = format!(
            "{name} should have {N} dimensions, has {:?}",
            tensor.shape()
        );
        Error::operation(op, message)
    })
}
