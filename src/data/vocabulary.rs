//! The vocabulary: words and their ids.

use super::digest;
use crate::error::{Error, Result};
use crate::files;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// Token id that pads captions to the longest of their batch; as a target it does not count.
pub const PAD: u32 = 0;
/// Token id that starts every caption.
pub const SOS: u32 = 1;
/// Token id of words outside the vocabulary.
pub const UNK: u32 = 2;
/// Token id that ends every caption.
pub const EOS: u32 = 3;

const SPECIALS: [&str; 4] = ["<pad>", "<sos>", "<unk>", "<eos>"];

/// Splits a caption into words in the same way as torchtext's `basic_english`: the text becomes lower-case;
/// `'` and each of `. , ( ) ! ?` become words of their own; `"` is removed; `;`, `:` and `<br />` become a space;
/// then the text is split at white space.
pub fn tokenize(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace('"', "").replace("<br />", " ");
    let mut spaced = String::with_capacity(2 * text.len());
    for c in text.chars() {
        match c {
            '\'' | '.' | ',' | '(' | ')' | '!' | '?' => spaced.extend([' ', c, ' ']),
            ';' | ':' => spaced.push(' '),
            _ => spaced.push(c),
        }
    }
    spaced
        .split(is_space)
        .filter(|w| !w.is_empty())
        .map(str::to_string)
        .collect()
}

/// Whether a caption looks as if its words had no spaces between them: it is of a script that needs none, and has long runs of
/// letters.
pub(super) fn lacks_spaces(caption: &str) -> bool {
    /// More letters than words of these scripts have on average.
    const LONG: usize = 6;
    let runs = caption
        .split(is_space)
        .map(|run| run.chars().filter(|&c| needs_no_spaces(c)).count());
    let runs: Vec<usize> = runs.filter(|&letters| letters > 0).collect();
    runs.iter().sum::<usize>() > LONG * runs.len()
}

/// Thai, Lao, Myanmar, Khmer, Japanese's two syllabaries, and the Chinese signs.
fn needs_no_spaces(c: char) -> bool {
    let scripts = [
        '\u{e00}'..='\u{eff}',
        '\u{1000}'..='\u{109f}',
        '\u{1780}'..='\u{17ff}',
        '\u{3040}'..='\u{30ff}',
        '\u{3400}'..='\u{9fff}',
        '\u{20000}'..='\u{323af}',
    ];
    scripts.iter().any(|script| script.contains(&c))
}

/// Whether Python's `str.split` splits at this character: white space of Unicode, or one of four ASCII
/// separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// V words with ids from 0 to V − 1. Ids 0 to 3 are the special words `<pad> <sos> <unk> <eos>`. The other words
/// follow by descending count; words with the same count are in the order of their code points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    words: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// Builds the vocabulary of all words of `captions`.
    pub fn build<'a>(captions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for word in captions.into_iter().flat_map(tokenize) {
            *counts.entry(word).or_default() += 1;
        }
        // If a caption spells out a special word, it means that special word.
        counts.retain(|word, _| !SPECIALS.contains(&&**word));
        let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
        counts.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
        let specials = SPECIALS.map(str::to_string).into_iter();
        let words = specials.chain(counts.into_iter().map(|(word, _)| word));
        Vocabulary::index(words.collect())
    }

    /// The vocabulary of exactly these words, in this order.
    ///
    /// # Errors
    /// When the first four words are not the special ones, or when a word occurs twice, is empty or contains
    /// white space.
    pub fn from_words(words: Vec<String>) -> Result<Self> {
        if !words.iter().take(4).eq(SPECIALS.iter()) {
            let expected = SPECIALS.join(" ");
            return Err(Error::Config(format!(
                "a vocabulary must start with {expected}"
            )));
        }
        if let Some(id) = words
            .iter()
            .position(|w| w.is_empty() || w.contains(is_space))
        {
            return Err(Error::Config(format!(
                "word {id} is empty or contains white space"
            )));
        }
        let vocabulary = Vocabulary::index(words);
        let twice = (vocabulary.words.iter().zip(0u32..)).find(|(w, id)| vocabulary.ids[*w] != *id);
        match twice {
            Some((word, _)) => Err(Error::Config(format!("word '{word}' occurs twice"))),
            None => Ok(vocabulary),
        }
    }

    fn index(words: Vec<String>) -> Self {
        let ids = words.iter().cloned().zip(0..).collect();
        Vocabulary { words, ids }
    }

    /// V, the number of words, including the special ones.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are no words.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// All words, in the order of their ids.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The id of a word; [`UNK`] if the word is not in the vocabulary.
    pub fn id(&self, word: &str) -> u32 {
        self.ids.get(word).copied().unwrap_or(UNK)
    }

    /// The word of an id; `<unk>` if there is no such id.
    pub fn word(&self, id: u32) -> &str {
        let word = self.words.get(id as usize);
        word.map_or(SPECIALS[UNK as usize], String::as_str)
    }

    /// The ids of `<sos> w1 … wn <eos>`, where w1 … wn are the words of the caption.
    pub fn encode(&self, caption: &str) -> Vec<u32> {
        let words = tokenize(caption).into_iter().map(|word| self.id(&word));
        std::iter::once(SOS).chain(words).chain([EOS]).collect()
    }

    /// The words before the first `<eos>`, without `<sos>` and `<pad>`, joined by spaces.
    pub fn decode(&self, ids: &[u32]) -> String {
        let ids = ids.iter().take_while(|&&id| id != EOS);
        let words = ids.filter(|&&id| id != PAD && id != SOS);
        let words: Vec<&str> = words.map(|&id| self.word(id)).collect();
        words.join(" ")
    }

    /// SHA-256 of the file that [`save`](Self::save) writes, in hexadecimal: two vocabularies with the same hash have the
    /// same words under the same ids.
    pub fn sha256(&self) -> String {
        digest::hexadecimal(&Sha256::digest(self.text()))
    }

    fn text(&self) -> String {
        self.words.join("\n") + "\n"
    }

    /// Writes the words to a file, one per line, in the order of their ids. The file appears whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        files::write_text(path, &self.text())
    }

    /// Reads a file that [`save`](Self::save) has written.
    ///
    /// # Errors
    /// When the file cannot be read or is not a vocabulary (see [`from_words`](Self::from_words)).
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        files::refuse_special(path)?;
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let words = text.lines().map(str::to_string).collect();
        Vocabulary::from_words(words).map_err(|e| Error::file(path, e.to_string()))
    }
}
