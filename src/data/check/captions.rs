//! The captions file, row by row.

use super::{Captioned, Check, Problem, Severity};
use crate::data::flickr8k;
use crate::data::layout::Layout;
use crate::data::table::{Fault, Row, Table};
use crate::data::vocabulary::tokenize;
use crate::words;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Captions with more tokens are reported, because one long caption lengthens its whole batch. The longest
/// caption of Flickr8k has 38.
const LONG_CAPTION: usize = 60;

impl Check {
    /// Checks the captions. Returns their lines.
    pub(super) fn captions(&mut self, layout: &Layout) -> Captioned {
        let path = &layout.captions;
        let Some(bytes) = self.bytes(path) else {
            return Captioned::new();
        };
        let Some(text) = self.plain_text(path, &bytes) else {
            return Captioned::new();
        };
        let Table { rows, note } = (layout.read_table)(&text);
        self.duplicates(path, &rows);
        if let Some(message) = note {
            self.add(
                Severity::Warning,
                Problem::CaptionColumns,
                path,
                None,
                message,
            );
        }
        let texts = rows.iter().filter_map(|row| row.content.as_ref().ok());
        let texts = texts.flat_map(|(_, captions)| captions);
        if let Some(message) = flickr8k::unspaced(texts.map(String::as_str)) {
            self.add(Severity::Warning, Problem::NoSpaces, path, None, message);
        }
        let (mut captioned, mut faults) = (Captioned::new(), Vec::new());
        for Row { line, content, .. } in rows {
            match content {
                Ok((name, captions)) => {
                    let lines = captioned.entry(name).or_default();
                    lines.extend(captions.iter().map(|_| line));
                    captions
                        .iter()
                        .for_each(|caption| self.caption(path, line, caption));
                }
                Err(fault) => faults.push((line, fault)),
            }
        }
        if captioned.is_empty() && faults.is_empty() {
            let message = "the file has no captions";
            self.add(Severity::Error, Problem::EmptySplit, path, None, message);
        }
        self.faults(path, faults, captioned.is_empty());
        self.caption_counts(path, &captioned);
        captioned
    }

    /// Reports faults of rows. Those that have one cause are one finding: another encoding, or, when there is no good row
    /// (`all`), another form of the file.
    fn faults(&mut self, path: &Path, faults: Vec<(usize, Fault)>, all: bool) {
        let is_encoding = |(_, fault): &(usize, Fault)| matches!(fault, Fault::NotUtf8(_));
        let (encoding, malformed): (Vec<_>, Vec<_>) = faults.into_iter().partition(is_encoding);
        self.add_as_one(Problem::NotUtf8, path, &encoding);
        if all {
            self.add_as_one(Problem::MalformedLine, path, &malformed);
            return;
        }
        for (line, fault) in malformed {
            let problem = Problem::MalformedLine;
            self.add(Severity::Error, problem, path, line, fault.to_string());
        }
    }

    fn duplicates(&mut self, path: &Path, rows: &[Row]) {
        let mut seen: HashMap<&[u8], usize> = HashMap::new();
        for &Row { line, source, .. } in rows {
            if let Some(first) = seen.insert(source, line) {
                let (problem, message) = (
                    Problem::DuplicateLine,
                    format!("is the same as line {first}"),
                );
                self.add(Severity::Warning, problem, path, line, message);
            }
        }
    }

    fn caption(&mut self, path: &Path, number: usize, caption: &str) {
        use Problem::{EmptyCaption, LongCaption};
        let tokens = tokenize(caption).len();
        if tokens == 0 {
            let message = "the caption is empty";
            self.add(Severity::Warning, EmptyCaption, path, number, message);
        } else if tokens > LONG_CAPTION {
            let message = format!("the caption has {tokens} words and punctuation marks");
            self.add(Severity::Warning, LongCaption, path, number, message);
        }
    }

    /// Finds images that have another number of captions than most images.
    fn caption_counts(&mut self, path: &Path, captioned: &Captioned) {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for lines in captioned.values() {
            *counts.entry(lines.len()).or_default() += 1;
        }
        let usual = counts.iter().max_by_key(|&(_, images)| images);
        let usual = usual.map_or(0, |(&count, _)| count);
        for (name, lines) in captioned.iter().filter(|(_, lines)| lines.len() != usual) {
            let count = words::count(lines.len(), "caption");
            let message = format!("image {name} has {count}, but most images have {usual}");
            let problem = Problem::NumberOfCaptions;
            self.add(Severity::Warning, problem, path, lines[0], message);
        }
    }
}
