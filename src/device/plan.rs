//! A device that executes nothing and only counts the memory asked of it.

use super::{Portion, Precision, Usage};

pub struct Plan {
    usage: Usage,
    precision: Precision,
    portion: Portion,
}

impl Plan {
    /// Of a device that computes in this precision and this portion.
    pub(super) fn new(precision: Precision, portion: Portion) -> Self {
        Plan {
            usage: Usage::default(),
            precision,
            portion,
        }
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    pub(super) fn portion(&self) -> Portion {
        self.portion
    }

    pub(super) fn allocate(&self, bytes: usize) {
        self.usage.add(bytes);
    }

    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }
}
