//! Captions and lists that were damaged at random, and tables of random fields: they are read as written or refused, nothing
//! panics, and `data check` refuses what training refuses.

use crate::support::damage::{apply, changes};
use proptest::prelude::*;
use showtell::data::check::check;
use showtell::data::flickr8k::{Flickr8k, Split};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use tempfile::TempDir;

const LISTS: [(&str, &str); 3] = [
    ("Flickr_8k.trainImages.txt", "a.jpg\nb.jpg\n"),
    ("Flickr_8k.devImages.txt", "c.jpg\n"),
    ("Flickr_8k.testImages.txt", "\u{f1}.jpg\r\n"),
];
const TOKENS: &str = "a.jpg#0\tOne .\nb.jpg#0\tTwo .\nc.JPG#0\tThree\nn\u{303}.jpg#0\t\u{4e00}\n";
const TABLE: &str =
    "image,caption\na.jpg,\"One, \"\"two\"\"\n.\"\r\nb.jpg,Three\nc.jpg, \"x\"\n\"d.jpg\",y\n";
const BARS: &str = "image_name| comment_number| comment\na.jpg| 0| One .\nb.jpg| 1   Two\n\u{f1}.jpg| 2| \u{4e00}\n";
const NUMBERED: &str =
    "0\tx/a.jpg\tOne, two\r1\tb.jpg\t\"Two\"\r2\tc.jpg\t\"a\nb\"\r3\td.jpg\t\"q\r";

/// The files that are damaged, and the captions beside them if they are lists.
static FILES: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let utf16 = TABLE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let captions = [
        ("captions.txt", TABLE.into()),
        ("results.csv", BARS.into()),
        ("captions.tsv", NUMBERED.into()),
        ("captions.csv", utf16),
        ("Flickr8k.token.txt", TOKENS.into()),
    ];
    let lists = LISTS.map(|(name, text)| (name, text.as_bytes().to_vec()));
    captions.into_iter().chain(lists).collect()
});

/// Whether training would begin with what is in `data`; if so, the number of captions.
fn opened(data: &Path) -> Result<usize, String> {
    let dataset = Flickr8k::open(data).map_err(|e| e.to_string())?;
    let ready = dataset.require_training(&[Split::Train, Split::Dev]);
    ready.map_err(|e| e.to_string())?;
    Ok(dataset.all_captions().count())
}

/// Compares the check of `data` with training.
fn compare(data: &Path) -> Result<(), TestCaseError> {
    let report = check(data, false, |_, _| ());
    match opened(data) {
        Ok(captions) => {
            prop_assert!(report.usable, "{:#?}", report.findings);
            prop_assert_eq!(report.captions, captions);
        }
        Err(error) => {
            prop_assert!(!report.usable, "{}", error);
            prop_assert!(error.contains(data.to_str().unwrap()), "{}", error);
            prop_assert!(!error.contains('\0'));
        }
    }
    for finding in report.findings {
        if let Some(line) = finding.line {
            let text = fs::read(&finding.file).unwrap();
            let lines = text.split(|b| b"\r\n".contains(b)).count();
            prop_assert!(
                (1..=lines).contains(&line),
                "{}: line {}",
                finding.message,
                line
            );
        }
    }
    Ok(())
}

/// The captions of images in the order of their names.
type Captions = Vec<(String, Vec<String>)>;

/// A table with every field in quotes.
fn quoted(rows: &[(usize, String)], separator: char) -> String {
    let quoted = |field: &str| format!("\"{}\"", field.replace('"', "\"\""));
    let row = |(image, caption): &(usize, String)| {
        format!(
            "{}{separator}{}\n",
            quoted(&format!("{image}.jpg")),
            quoted(caption)
        )
    };
    rows.iter().map(row).collect()
}

proptest! {
    /// The variable PROPTEST_CASES asks for more cases.
    #[test]
    fn damaged_texts_are_read_or_refused(
        which in 0..8_usize, lists in any::<bool>(), changes in changes(8, 160)
    ) {
        let folder = TempDir::new().unwrap();
        let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
        let contents: Vec<Vec<u8>> = FILES.iter().map(|(_, content)| content.clone()).collect();
        if which >= 5 {
            write("Flickr8k.token.txt", TOKENS.as_bytes());
        }
        if lists || which >= 4 {
            LISTS.iter().for_each(|(name, text)| write(name, text.as_bytes()));
        }
        fs::create_dir(folder.path().join("Images")).unwrap();
        for name in ["a.jpg", "b.JPG", "c.jpg", "\u{f1}.jpg"] {
            write(&format!("Images/{name}"), b"");
        }
        let (name, mut content) = FILES[which].clone();
        changes.iter().for_each(|change| apply(&mut content, change, &contents));
        write(name, &content);
        compare(folder.path())?;
    }

    /// What is in quotes is read as it was written, but for its case, whatever separates the fields.
    #[test]
    fn quoted_fields_are_read_as_written(
        rows in proptest::collection::vec((0..4_usize, "[^\r\0]{0,12}"), 1..9), separator in "[,;|\t]"
    ) {
        let folder = TempDir::new().unwrap();
        let separator = separator.chars().next().unwrap();
        fs::write(folder.path().join("captions.csv"), quoted(&rows, separator)).unwrap();
        let dataset = Flickr8k::open(folder.path()).unwrap();
        let images = dataset.images().iter().map(|image| (image.name.clone(), image.captions.clone()));
        let mut found: Captions = images.collect();
        found.sort();
        let captions = |image: usize| {
            let of_image = rows.iter().filter(|row| row.0 == image).map(|row| row.1.to_lowercase());
            (format!("{image}.jpg"), of_image.collect::<Vec<String>>())
        };
        let expected: Captions = (0..4).map(captions).filter(|(_, captions)| !captions.is_empty()).collect();
        prop_assert_eq!(found, expected);
    }
}
