//! SHA-256 as text.

use sha2::{Digest, Sha256};

/// A hash, or the beginning of one, in hexadecimal.
pub fn hexadecimal(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of several texts in their order, in hexadecimal. The length of each is hashed too, so that the same bytes
/// divided otherwise have another hash.
pub fn of_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hexadecimal(&hash.finalize())
}
