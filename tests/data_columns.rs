//! Tables of captions as programs write them: every separator, beside names and captions that hold other ones, a first line
//! that names the separator, and several columns of captions.

use crate::support;
use support::checked::{checked, owned, read};
use support::cli::{says, stdout, succeeded};
use support::tiny::Tiny;

/// Names and captions with every separator in them.
const ROWS: [(&str, &str); 9] = [
    ("New York, 2019.jpg", "A dog; it runs | a cat"),
    ("a;b.jpg", "One, two, three"),
    ("c|d.jpg", "Four, five"),
    ("e, f, g.png", "a tab\there"),
    ("plain.jpg", "Nothing"),
    ("plain.jpg", "Six; seven"),
    ("h.jpg", "Eight, nine | ten"),
    ("i.jpg", "1,234 birds"),
    ("j.jpg", "Stop"),
];

fn rows(separator: char, quote: &str) -> Vec<(&'static str, &'static str)> {
    let holds = |row: &(&str, &str)| row.0.contains(separator) || row.1.contains(separator);
    let rows = ROWS.into_iter();
    rows.filter(|row| !quote.is_empty() || !holds(row))
        .collect()
}

#[test]
fn the_separator_is_the_one_that_divides_all_rows() {
    for separator in [',', '\t', ';', '|'] {
        for quote in ["\"", ""] {
            let rows = rows(separator, quote);
            assert!(rows.len() > 2);
            let line = |(name, caption): &(&str, &str)| {
                format!("{quote}{name}{quote}{separator}{quote}{caption}{quote}\n")
            };
            let body: String = rows.iter().map(line).collect();
            // One row of several captions, as they are read.
            let mut expected: Vec<(String, Vec<String>)> = Vec::new();
            for (name, caption) in rows {
                match expected.iter_mut().find(|(known, _)| known == name) {
                    Some((_, captions)) => captions.push(caption.to_lowercase()),
                    None => expected.push((name.into(), vec![caption.to_lowercase()])),
                }
            }
            for header in [String::new(), format!("image{separator}caption\n")] {
                let table = header + &body;
                let found = read("captions.csv", &table);
                let sorted = found.map(|mut images| {
                    images.sort();
                    images
                });
                let mut expected = expected.clone();
                expected.sort();
                assert_eq!(sorted, Ok(expected), "{table}");
            }
        }
    }
}

/// Names that have no extension to be known by.
#[test]
fn the_separator_is_found_without_names_of_files() {
    let expected = owned(&[
        ("17", &["a dog, running, fast"]),
        ("18", &["a cat; it sits"]),
    ]);
    for header in [
        "",
        "image|caption\n",
        "id of the image, as a number|caption\n",
    ] {
        let table = format!("{header}17|A dog, running, fast\n18|A cat; it sits\n");
        assert_eq!(
            read("captions.csv", &table).as_ref(),
            Ok(&expected),
            "{table}"
        );
    }
}

/// A quote that opens in one row and closes in another swallows the rows between, wherever the names of images stand.
#[test]
fn a_lone_quote_is_refused_in_every_order_of_columns() {
    for table in [
        "0,a.jpg,\"A dog runs\n1,b.jpg,A cat sits\"\n2,c.jpg,A bird\n",
        "a.jpg,\"A dog runs\nb.jpg,A cat sits\"\nc.jpg,A bird\n",
        "caption,image\n\"A dog runs,a.jpg\nA cat sits\",b.jpg\nA bird,c.jpg\n",
    ] {
        let error = read("captions.csv", table).unwrap_err();
        says(&error, &["one of the two quotes is alone"]);
    }
    // A line break inside a caption is none.
    let found = read(
        "captions.csv",
        "0,a.jpg,\"A dog,\nthen a cat\"\n1,b.jpg,A bird\n",
    );
    let expected = owned(&[("a.jpg", &["a dog,\nthen a cat"]), ("b.jpg", &["a bird"])]);
    assert_eq!(found, Ok(expected));
}

/// A caption behind its number goes to the end of the line; but if all do, there is another column.
#[test]
fn a_column_behind_the_captions_is_no_part_of_them() {
    for header in ["", "image,number,caption\n"] {
        let table = format!("{header}a.jpg,0,A dog,train\nb.jpg,0,A cat,val\nc.jpg,0,A fish,,\n");
        let error = read("captions.csv", &table).unwrap_err();
        says(&error, &["every row has 4 fields or more"]);
    }
    let found = read(
        "captions.csv",
        "a.jpg,0,A dog, running\na.jpg,1,A cat\nb.jpg,0,A fish, swimming\n",
    );
    let expected = owned(&[
        ("a.jpg", &["a dog, running", "a cat"]),
        ("b.jpg", &["a fish, swimming"]),
    ]);
    assert_eq!(found, Ok(expected));
}

/// As spreadsheet programs write it.
#[test]
fn a_first_line_may_name_the_separator() {
    let expected = owned(&[("a.jpg", &["a dog, a cat", "one | two"])]);
    let table = |separator: char| {
        format!(
            "image{separator}caption\na.jpg{separator}\"A dog, a cat\"\na.jpg{separator}One | two\n"
        )
    };
    for (first, separator) in [
        ("sep=;\n", ';'),
        ("\u{feff}sep=,\r\n", ','),
        ("SEP=\t\n", '\t'),
        ("\"sep=;\"\n", ';'),
        ("sep=^\n", '^'),
    ] {
        let table = first.to_string() + &table(separator);
        assert_eq!(
            read("captions.csv", &table).as_ref(),
            Ok(&expected),
            "{table}"
        );
    }
    // The line counts, as it does in an editor.
    let error = read("captions.csv", "sep=;\nimage;caption\na.jpg\n").unwrap_err();
    says(&error, &["captions.csv: line 3: "]);
    // It names the separator even where another one divides the rows as well.
    let found = read("captions.csv", "sep=|\na.jpg;x|y;z\n").unwrap();
    assert_eq!(found, owned(&[("a.jpg;x", &["y;z"])]));
}

#[test]
fn several_columns_of_captions_are_several_captions() {
    let expected = owned(&[
        ("a.jpg", &["one", "two", "three"]),
        ("b.jpg", &["four", "five"]),
    ]);
    for header in [
        "image,caption,caption.1,caption.2",
        "image,caption,caption,caption",
        "file name,comment_0,comment_1,comment_2",
        "image,Caption 1,Caption 2,Caption 3",
    ] {
        // A field that is empty is no caption.
        let table = format!("{header}\na.jpg,One,Two,Three\nb.jpg,Four,,Five\n");
        assert_eq!(
            read("captions.csv", &table).as_ref(),
            Ok(&expected),
            "{table}"
        );
    }
    // A row without any caption is one empty caption, as in a table with one column, so that it is told of.
    let found = read(
        "captions.csv",
        "image,caption,caption.1\na.jpg,,\nb.jpg,One,\n",
    );
    assert_eq!(
        found.unwrap(),
        owned(&[("a.jpg", &[""]), ("b.jpg", &["one"])])
    );
    // The number of a caption is none, and columns of another name are others.
    let found = read(
        "captions.csv",
        "image,caption_number,caption,text_1\na.jpg,0,One,x\na.jpg,1,Two,y\n",
    );
    assert_eq!(found.unwrap(), owned(&[("a.jpg", &["one", "two"])]));
}

#[test]
fn several_columns_of_captions_are_told_of_once() {
    let tiny = Tiny::new();
    let mut table = "image,comment_0,comment_1,comment_2,comment_3,comment_4\n".to_string();
    for lines in tiny
        .read("Flickr8k.token.txt")
        .lines()
        .collect::<Vec<_>>()
        .chunks(5)
    {
        let image = lines[0].split('#').next().unwrap();
        let captions = lines.iter().map(|line| line.split_once('\t').unwrap().1);
        let captions = captions.map(|caption| format!(",\"{caption}\""));
        table += &format!("{image}{}\n", captions.collect::<String>());
    }
    std::fs::remove_file(tiny.data().join("Flickr8k.token.txt")).unwrap();
    tiny.write("captions.csv", table);
    let told = "captions.csv: the 5 columns comment_0, comment_1, comment_2, comment_3, comment_4 hold captions: all are read";
    let output = checked(&tiny.data());
    succeeded(&output);
    let text = stdout(&output);
    says(
        &text,
        &["9 images, 45 captions, 9 images decoded: 0 errors, 1 warning, usable"],
    );
    assert_eq!(text.matches(told).count(), 1, "{text}");
    let trained = succeeded(&tiny.train_once("run"));
    assert_eq!(trained.matches(told).count(), 1, "{trained}");
}
