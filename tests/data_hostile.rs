//! Captions and lists that were damaged at random, and tables of random fields: they are read as written or refused, nothing
//! panics, and `data check` refuses what training refuses.

use crate::support::damage::{apply, changes};
use proptest::prelude::*;
use showtell::data::check::check;
use showtell::data::flickr8k::{Flickr8k, Split};
use std::collections::BTreeMap;
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

const SEVERAL: &str =
    "sep=;\r\nimage;caption;caption.1\r\na.jpg;One, two;\"3;4\"\r\nb.jpg;;Five\r\nc.jpg;;\r\n";

/// The files that are damaged, and the captions beside them if they are lists.
static FILES: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let utf16 = TABLE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let captions = [
        ("captions.csv", SEVERAL.into()),
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

/// The name of an image, with every separator but the tab in it. It begins with no number, which could be one of a caption.
fn name(image: usize) -> String {
    format!("photo {image}, of; four|.jpg")
}

/// A table with every field in quotes.
fn quoted(rows: &[(String, String)], separator: &str) -> String {
    let quoted = |field: &str| format!("\"{}\"", field.replace('"', "\"\""));
    let row = |(image, caption): &(String, String)| {
        format!("{}{separator}{}\n", quoted(image), quoted(caption))
    };
    rows.iter().map(row).collect()
}

/// Compares what is read of a table with its rows.
fn read_as_written(table: &str, rows: &[(String, String)]) -> Result<(), TestCaseError> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("captions.csv"), table).unwrap();
    let dataset = Flickr8k::open(folder.path()).unwrap();
    let images = dataset.images().iter();
    let found: BTreeMap<&str, Vec<String>> = images
        .map(|image| (&*image.name, image.captions.clone()))
        .collect();
    let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (image, caption) in rows {
        expected
            .entry(image)
            .or_default()
            .push(caption.to_lowercase());
    }
    prop_assert_eq!(found, expected);
    Ok(())
}

proptest! {
    /// The variable PROPTEST_CASES asks for more cases.
    #[test]
    fn damaged_texts_are_read_or_refused(
        which in 0..9_usize, lists in any::<bool>(), changes in changes(8, 160)
    ) {
        let folder = TempDir::new().unwrap();
        let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
        let contents: Vec<Vec<u8>> = FILES.iter().map(|(_, content)| content.clone()).collect();
        if which >= 6 {
            write("Flickr8k.token.txt", TOKENS.as_bytes());
        }
        if lists || which >= 5 {
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

    /// What has no quotes is read as it was written, whatever separates the fields, and whatever other separators are in them.
    #[test]
    fn plain_fields_are_read_as_written(
        rows in proptest::collection::vec((0..4_usize, "[a-zA-Z,;|\t]{0,12}"), 1..9), separator in "[,;|\t]"
    ) {
        let plain = |text: &str| text.replace(&separator, "");
        let row = |(image, caption): &(usize, String)| (plain(&name(*image)), plain(caption));
        let rows: Vec<(String, String)> = rows.iter().map(row).collect();
        let row = |(image, caption): &(String, String)| format!("{image}{separator}{caption}\n");
        read_as_written(&rows.iter().map(row).collect::<String>(), &rows)?;
    }

    /// What is in quotes is read as it was written, but for its case, whatever separates the fields.
    #[test]
    fn quoted_fields_are_read_as_written(
        rows in proptest::collection::vec((0..4_usize, "[^\r\0]{0,12}"), 1..9), separator in "[,;|\t]"
    ) {
        let rows: Vec<(String, String)> = rows.into_iter().map(|(image, caption)| (name(image), caption)).collect();
        read_as_written(&quoted(&rows, &separator), &rows)?;
    }
}
