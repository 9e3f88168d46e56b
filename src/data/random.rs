//! Randomness of the data: Philox numbers at addresses (seed, epoch, index), no state.
//!
//! The last word of the counter tells the purposes apart, from one another and from the masks of dropout,
//! whose sites count from 0 up.

use crate::philox;

const SITE_AUGMENT: u32 = u32::MAX - 1;
const SITE_SHUFFLE: u32 = u32::MAX - 2;

/// What randomness is drawn from: the run's seed and the number of the epoch.
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

    /// The numbers 0 .. n in random order: Fisher and Yates' shuffle, in Durstenfeld's form.
    pub fn permutation(self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let [low, high, ..] = self.block(i as u64, SITE_SHUFFLE);
            let random = u64::from(high) << 32 | u64::from(low);
            // A multiple of (i + 1) / 2^64, rounded down: uniform to n / 2^64.
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
