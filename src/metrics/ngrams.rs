//! Runs of words, counted.

use std::collections::HashMap;
use std::hash::Hash;

/// The n-grams of a text with their counts, in the order in which they come first, so that sums over them are the same every time.
pub fn counted<T: Eq + Hash>(words: &[T], n: usize) -> Vec<(&[T], usize)> {
    let mut places: HashMap<&[T], usize> = HashMap::with_capacity(words.len());
    let mut counts: Vec<(&[T], usize)> = Vec::with_capacity(words.len());
    for gram in words.windows(n) {
        let place = *places.entry(gram).or_insert(counts.len());
        match counts.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => counts.push((gram, 1)),
        }
    }
    counts
}
