//! Random numbers for the data: Philox, with (seed, epoch, index) as its key and counter, and without state.
//!
//! The last word of the counter is different for each purpose. Dropout masks count their sites up from 0, so
//! the purposes here count down from the largest number.

use crate::philox;

const SITE_AUGMENT: u32 = u32::MAX - 1;
const SITE_SHUFFLE: u32 = u32::MAX - 2;

/// What the random numbers of an epoch depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The seed of the run.
    pub seed: u64,
    /// The number of the epoch.
    pub epoch: u32,
}

impl Epoch {
    /// 128 random bits for the augmentation of a sample.
    pub(super) fn augmentation(self, sample: usize) -> [u32; 4] {
        self.block(sample as u64, SITE_AUGMENT)
    }

    /// The numbers from 0 to n − 1 in random order: the Fisher-Yates shuffle, in Durstenfeld's form.
    pub fn permutation(self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let [low, high, ..] = self.block(i as u64, SITE_SHUFFLE);
            let random = u64::from(high) << 32 | u64::from(low);
            // random · (i + 1) / 2^64, rounded down: uniform to within n / 2^64.
            let chosen = (u128::from(random) * (i as u128 + 1)) >> 64;
            order.swap(i, chosen as usize);
        }
        order
    }

    fn block(self, index: u64, site: u32) -> [u32; 4] {
        let (low, high) = (index as u32, (index >> 32) as u32);
        philox::block(self.seed, [low, high, self.epoch, site])
    }
}
