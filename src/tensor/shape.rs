//! Up to four dimensions, held inline so that making a view allocates nothing.

/// The dimensions of a tensor: none for a scalar, at most four.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dims: [usize; 4],
    rank: usize,
}

impl Shape {
    /// The dimensions, the last of which varies fastest in memory.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last dimension; 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.dims()[..self.rank.saturating_sub(1)].iter().product()
    }

    /// The first dimension and the shape of one entry along it. A scalar counts as one entry.
    pub(super) fn split_first(&self) -> (usize, Shape) {
        match self.dims() {
            [] => (1, *self),
            [first, rest @ ..] => (*first, Shape::new(rest)),
        }
    }

    pub(super) fn prepend(&self, first: usize) -> Shape {
        let mut dims = [0; 4];
        dims[0] = first;
        dims[1..=self.rank].copy_from_slice(self.dims());
        let rank = self.rank + 1;
        Shape { dims, rank }
    }

    pub(super) fn with_cols(mut self, cols: usize) -> Shape {
        self.rank = self.rank.max(1);
        self.dims[self.rank - 1] = cols;
        self
    }

    /// # Panics
    /// On more than four dimensions.
    pub fn new(from: &[usize]) -> Self {
        let mut dims = [0; 4];
        dims[..from.len()].copy_from_slice(from);
        let rank = from.len();
        Shape { dims, rank }
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        const { assert!(N <= 4, "a shape has at most four dimensions") }
        Shape::new(&dims)
    }
}

impl PartialEq<[usize]> for Shape {
    fn eq(&self, other: &[usize]) -> bool {
        self.dims() == other
    }
}

impl<const N: usize> PartialEq<[usize; N]> for Shape {
    fn eq(&self, other: &[usize; N]) -> bool {
        self.dims() == other
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}
