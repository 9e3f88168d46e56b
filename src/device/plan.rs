//! A device that executes nothing and only counts the memory asked of it.

use super::Usage;

#[derive(Default)]
pub struct Plan {
    usage: Usage,
}

impl Plan {
    pub(super) fn allocate(&self, bytes: usize) {
        self.usage.add(bytes);
    }

    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }
}
