//! The memory that an operation or a kernel was given, so that none of it is written and used at once.

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// What was given so far.
pub struct Given {
    op: &'static str,
    ranges: Vec<Addresses>,
    bytes: usize,
}

struct Addresses {
    start: u64,
    end: u64,
    written: bool,
}

impl Given {
    pub fn new(op: &'static str) -> Self {
        let ranges = Vec::with_capacity(16);
        let bytes = 0;
        Given { op, ranges, bytes }
    }

    /// The address of a tensor of these elements, whose memory begins at `base`. It is refused if it overlaps another and
    /// one of the two is written.
    pub fn add(
        &mut self,
        tensor: &Tensor,
        elements: DType,
        base: u64,
        written: bool,
    ) -> Result<u64> {
        let refuse = |message: String| Err(Error::operation(self.op, message));
        if tensor.dtype() != elements {
            return refuse(format!("expected {elements}, found {tensor:?}"));
        }
        let range = tensor.byte_range();
        let (start, end) = (base + range.start as u64, base + range.end as u64);
        let overlaps = |g: &Addresses| (written || g.written) && start < g.end && g.start < end;
        if start < end && self.ranges.iter().any(overlaps) {
            return refuse(format!("{tensor:?} overlaps another argument"));
        }
        self.bytes += tensor.len() * elements.bytes();
        self.ranges.push(Addresses {
            start,
            end,
            written,
        });
        Ok(start)
    }

    /// Bytes of what was given, without padding between rows.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
