//! Philox4x32-10, the counter-based random generator of Salmon, Moraes, Dror and Shaw, "Parallel random
//! numbers: as easy as 1, 2, 3" (2011).
//!
//! Random bits are a function of a key and a counter: no state, so a number depends on nothing but its
//! address. The key is the 64-bit seed. Two layouts of the counter share it without ever meeting:
//!
//! - masks: [column / 4, row, step, site], lane column % 4, with row = b << 12 | t ([`row_id`]). Neither the
//!   length of the padded batch, nor threads, nor the device enter.
//! - streams ([`word`], [`uniform`], [`normal`]): [index / 4, its high half, stream, 2^32 - 1], so that
//!   no site may have the number 2^32 - 1.

use crate::error::{Error, Result};

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// The golden ratio and √3 - 1, as the paper has them.
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: u32 = 10;

/// The site that streams use.
pub(crate) const STREAM_SITE: u32 = u32::MAX;

const T_BITS: u32 = 12;
const B_BITS: u32 = 20;

/// The four words at one counter.
pub fn block(seed: u64, counter: [u32; 4]) -> [u32; 4] {
    blocks(seed, counter.map(|word| [word])).map(|[word]| word)
}

/// The words at N counters at once: entry `i` of each array belongs to counter `i`. Vectorises.
#[inline(always)]
pub(crate) fn blocks<const N: usize>(seed: u64, counters: [[u32; N]; 4]) -> [[u32; N]; 4] {
    let (mut key_low, mut key_high) = (seed as u32, (seed >> 32) as u32);
    let [mut a, mut b, mut c, mut d] = counters;
    for _ in 0..ROUNDS {
        for i in 0..N {
            let first = u64::from(MULTIPLIERS[0]) * u64::from(a[i]);
            let second = u64::from(MULTIPLIERS[1]) * u64::from(c[i]);
            a[i] = (second >> 32) as u32 ^ b[i] ^ key_low;
            b[i] = second as u32;
            c[i] = (first >> 32) as u32 ^ d[i] ^ key_high;
            d[i] = first as u32;
        }
        key_low = key_low.wrapping_add(KEY_STEPS[0]);
        key_high = key_high.wrapping_add(KEY_STEPS[1]);
    }
    [a, b, c, d]
}

/// The steps of a sequence that have masks.
pub const MOST_STEPS: usize = 1 << T_BITS;

/// The row word of a mask: step `t` of sequence `b`.
///
/// # Errors
/// From 4,096 steps or 2^20 sequences on.
pub fn row_id(t: usize, b: usize) -> Result<u32> {
    if t < MOST_STEPS && b < 1 << B_BITS {
        return Ok((b << T_BITS | t) as u32);
    }
    let message = format!("step {t} of sequence {b}: masks reach step 4095 of sequence 1048575");
    Err(Error::operation("philox", message))
}

/// 32 random bits: number `index` of a stream.
pub fn word(seed: u64, stream: u32, index: u64) -> u32 {
    stream_block(seed, stream, index / 4)[(index % 4) as usize]
}

fn stream_block(seed: u64, stream: u32, block_index: u64) -> [u32; 4] {
    let (low, high) = (block_index as u32, (block_index >> 32) as u32);
    block(seed, [low, high, stream, STREAM_SITE])
}

/// Uniform in [0, 1): a multiple of 2^-24, from the high bits of [`word`].
pub fn uniform(seed: u64, stream: u32, index: u64) -> f32 {
    (word(seed, stream, index) >> 8) as f32 / (1u32 << 24) as f32
}

/// Normal with mean 0 and variance 1, by Box and Muller (1958): two uniform words u, v in (0, 1] give
/// √(-2 ln u) cos 2πv and √(-2 ln u) sin 2πv, numbers 2i and 2i + 1 of the stream. |x| < 6.7.
pub fn normal(seed: u64, stream: u32, index: u64) -> f32 {
    let words = stream_block(seed, stream, index / 4);
    let pair = 2 * (index / 2 % 2) as usize;
    let unit = |word: u32| (f64::from(word) + 1.0) / (1u64 << 32) as f64;
    let radius = (-2.0 * unit(words[pair]).ln()).sqrt();
    let angle = std::f64::consts::TAU * unit(words[pair + 1]);
    let value = match index % 2 {
        0 => radius * angle.cos(),
        _ => radius * angle.sin(),
    };
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The authors' known answers (kat_vectors of Random123), key as low word, high word.
    #[test]
    fn known_answers() {
        let key = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        assert_eq!(
            block(0, [0; 4]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            block(u64::MAX, [u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            block(key(0xa409_3822, 0x299f_31d0), pi),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn many_counters_at_once_give_what_one_gives() {
        let counters = [[3, 7, 9], [1, 2, u32::MAX], [5, 5, 6], [0, 8, 9]];
        let at_once = blocks(77, counters);
        for i in 0..3 {
            let alone = block(77, counters.map(|words| words[i]));
            assert_eq!(alone, at_once.map(|words| words[i]));
        }
    }

    #[test]
    fn rows_have_distinct_ids_up_to_the_limits() {
        assert_eq!(row_id(4095, (1 << 20) - 1).unwrap(), u32::MAX);
        assert_eq!(row_id(5, 3).unwrap(), 3 << 12 | 5);
        assert!(row_id(4096, 0).is_err() && row_id(0, 1 << 20).is_err());
    }

    /// Mean and variance of 2^16 numbers, within five standard errors.
    #[test]
    fn moments() {
        let n = 1u64 << 16;
        let moments = |number: &dyn Fn(u64) -> f32| {
            let values: Vec<f64> = (0..n).map(|i| f64::from(number(i))).collect();
            let mean = values.iter().sum::<f64>() / n as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
            (mean, variance)
        };
        let root = (n as f64).sqrt();
        let (mean, variance) = moments(&|i| uniform(1, 2, i));
        // The uniform distribution's fourth central moment is 1/80.
        assert!((mean - 0.5).abs() < 5.0 * (1f64 / 12.0).sqrt() / root);
        assert!((variance - 1.0 / 12.0).abs() < 5.0 * (1f64 / 80.0 - 1.0 / 144.0).sqrt() / root);
        let (mean, variance) = moments(&|i| normal(1, 2, i));
        assert!(mean.abs() < 5.0 / root);
        assert!((variance - 1.0).abs() < 5.0 * 2f64.sqrt() / root);
    }

    /// Neighbours in the stream, the two halves of a Box-Muller pair among them, are independent.
    #[test]
    fn neighbours_do_not_correlate() {
        let n = 1u64 << 16;
        for distance in 1..=4 {
            let product = |i| f64::from(normal(9, 0, i)) * f64::from(normal(9, 0, i + distance));
            let correlation = (0..n).map(product).sum::<f64>() / n as f64;
            assert!(correlation.abs() < 5.0 / (n as f64).sqrt(), "{correlation}");
        }
    }
}
