//! Convolution filters between PyTorch's order, K C R S, and the engine's, K R S C.
//!
//! K filters, C channels, R x S taps.

/// Filters as PyTorch stores them → as the convolutions read them. `dims` = [K, C, R, S].
pub fn kcrs_to_krsc(filters: &[f32], dims: [usize; 4]) -> Vec<f32> {
    let [k, c, r, s] = dims;
    transpose(filters, k, c, r * s)
}

/// The way back. `dims` = [K, C, R, S], as PyTorch gives them.
pub fn krsc_to_kcrs(filters: &[f32], dims: [usize; 4]) -> Vec<f32> {
    let [k, c, r, s] = dims;
    transpose(filters, k, r * s, c)
}

/// Transposes each of `count` matrices of rows x cols.
fn transpose(matrices: &[f32], count: usize, rows: usize, cols: usize) -> Vec<f32> {
    assert_eq!(
        matrices.len(),
        count * rows * cols,
        "filters that do not fill their shape"
    );
    let mut transposed = Vec::with_capacity(matrices.len());
    for matrix in matrices.chunks_exact((rows * cols).max(1)) {
        for col in 0..cols {
            transposed.extend(matrix[col..].iter().step_by(cols));
        }
    }
    transposed
}
