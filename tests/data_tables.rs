//! Captions and images as people have them: tables of every kind, folders in folders, names that differ in their spelling.
//! The captions of the tables are those that Python's csv module reads.

use crate::support;
use std::fs;
use support::checked::{checked, owned, read, rename, rename_files, unusable, usable};
use support::cli::{failed, says, stdout, succeeded};
use support::tiny::Tiny;

/// The rows of `images`, each with `row`.
fn rows(row: impl Fn(&str, usize, &str) -> String) -> String {
    let captions = [
        ("a.jpg", 0, "a dog, running"),
        ("a.jpg", 1, "a second one"),
        ("b.png", 0, "a cat; it sits"),
    ];
    captions
        .map(|(name, k, caption)| row(name, k, caption))
        .concat()
}

#[test]
fn tables_of_all_kinds_have_the_same_captions() {
    let expected = owned(&[
        ("a.jpg", &["a dog, running", "a second one"]),
        ("b.png", &["a cat; it sits"]),
    ]);
    let quoted = rows(|name, _, caption| format!("{name},\"{caption}\"\n"));
    let tabs = rows(|name, _, caption| format!("{name}\t{caption}\n"));
    let bars = rows(|name, k, caption| format!("{name}| {k}| {caption}\n"));
    let numbered = rows(|name, k, caption| format!("{name}#{k}\t{caption}\n"));
    let tables = [
        ("captions.txt", format!("image,caption\n{quoted}")),
        ("captions.txt", quoted.clone()),
        (
            "captions.csv",
            format!("\u{feff}Image,Caption\r\n{}", quoted.replace('\n', "\r\n")),
        ),
        (
            "captions.txt",
            format!("image,caption\n{quoted}").replace('\n', "\r"),
        ),
        ("captions.txt", format!("image,caption\n\n{quoted}\n\n")),
        ("captions.txt", quoted.trim_end().to_string()),
        ("captions.txt", quoted.replace(",\"", ", \"")),
        ("captions.tsv", format!("image\tcaption\n{tabs}")),
        ("captions.tsv", tabs),
        ("captions.txt", numbered.clone()),
        ("results_20130124.token", numbered),
        (
            "results.csv",
            format!("image_name| comment_number| comment\n{bars}"),
        ),
        ("results.csv", bars),
        (
            "captions.csv",
            "image_name, comment_number, comment\n".to_string()
                + &rows(|name, k, caption| format!("{name}, {k}, {caption}\n")),
        ),
        (
            "captions.csv",
            rows(|name, k, caption| format!("{name},{k},{caption}\n")),
        ),
        (
            "captions.csv",
            "image;caption\n".to_string()
                + &rows(|name, _, caption| format!("{name};\"{caption}\"\n")),
        ),
        (
            "captions.csv",
            ",image,caption\n".to_string()
                + &rows(|name, k, caption| format!("{k},{name},\"{caption}\"\n")),
        ),
        (
            "captions.csv",
            "sentence,split,file name,url\n".to_string()
                + &rows(|name, _, caption| format!("\"{caption}\",train,{name},https://x/?a=b\n")),
        ),
        (
            "captions.csv",
            "image_name, comment_number, comment\n".to_string()
                + &rows(|name, k, caption| format!("{name}, {k}, \"{caption}\"\n")),
        ),
    ];
    for (file, table) in tables {
        assert_eq!(read(file, &table).as_ref(), Ok(&expected), "{table}");
    }
}

/// Two quotes in rows of different images enclose the rows between them, which must not vanish in a caption.
#[test]
fn a_quote_that_is_alone_swallows_no_rows() {
    let rows = "a.jpg,\"Stop the bus\nb.jpg,one\nc.jpg,a man shouts Stop\"\n";
    let error = read("captions.csv", format!("image,caption\n{rows}")).unwrap_err();
    says(
        &error,
        &["line 2: a double quote opens here and closes behind rows of other images"],
    );
    let rows = rows.replace(',', "\t");
    let expected = [
        ("a.jpg", &["\"stop the bus"][..]),
        ("b.jpg", &["one"]),
        ("c.jpg", &["a man shouts stop\""]),
    ];
    let found = read("captions.tsv", format!("image\tcaption\n{rows}"));
    assert_eq!(found.unwrap(), owned(&expected));
    // Carriage returns that end some lines only.
    let found = read("Flickr8k.token.txt", "a.jpg#0\tone\rb.jpg#0\ttwo\n");
    says(&found.unwrap_err(), &["Flickr_8k.trainImages.txt"]);
    let found = read("captions.csv", "image,caption\r\na.jpg,one\rb.jpg,two\r\n");
    assert_eq!(
        found.unwrap(),
        owned(&[("a.jpg", &["one"]), ("b.jpg", &["two"])])
    );
}

/// A table may have several columns that could be meant; those called image and caption are.
#[test]
fn the_plainest_names_of_columns_count() {
    let expected = owned(&[("a.jpg", &["a dog"])]);
    for table in [
        "image,text,caption\na.jpg,ocr,a dog\n",
        "file,image,description,caption\n9.jpg,a.jpg,long,a dog\n",
        "image_id,file_name,caption\n9,a.jpg,a dog\n",
    ] {
        assert_eq!(
            read("captions.csv", table).as_ref(),
            Ok(&expected),
            "{table}"
        );
    }
}

#[test]
fn quotes_enclose_fields_as_csv_has_them() {
    let table = "image,caption\na.jpg,\"two\nlines\"\na.jpg,\"he said \"\"yes\"\"\"\nb.jpg,plain \"quotes\" inside\n\
                 b.jpg,\"\"\n";
    let expected = [
        ("a.jpg", &["two\nlines", "he said \"yes\""][..]),
        ("b.jpg", &["plain \"quotes\" inside", ""]),
    ];
    assert_eq!(read("captions.csv", table).unwrap(), owned(&expected));
    // Lines are counted through quotes.
    let error = read(
        "captions.csv",
        "image,caption\na.jpg,\"two\nlines\"\nb.jpg\n",
    )
    .unwrap_err();
    says(&error, &["captions.csv: line 4: ", "found one"]);
    // Tables with other separators often have captions that begin with a quote.
    let table = "image|caption\na.jpg|\"Stop\" says a sign .\na.jpg|\"a|b\"\na.jpg|\"open\n";
    let expected = [("a.jpg", &["\"stop\" says a sign .", "a|b", "\"open"][..])];
    assert_eq!(read("captions.txt", table).unwrap(), owned(&expected));
}

/// The published results.csv of Flickr30k has such a row, its 19,999th.
#[test]
fn a_row_that_lacks_the_separator_behind_its_number_is_read() {
    let header = "image_name| comment_number| comment\n";
    let table = format!("{header}a.jpg| 0| A dog .\na.jpg| 4   A dog runs across the grass .\n");
    let expected = [("a.jpg", &["a dog .", "a dog runs across the grass ."][..])];
    assert_eq!(read("results.csv", table).unwrap(), owned(&expected));
    let error = read("results.csv", format!("{header}a.jpg| A dog .\n")).unwrap_err();
    says(&error, &["results.csv: line 2: expected 3 fields, found 2"]);
}

#[test]
fn a_first_row_that_is_no_header_is_a_caption() {
    let expected = [("17", &["a dog"][..]), ("18", &["a cat"])];
    assert_eq!(
        read("captions.csv", "17,a dog\n18,a cat\n").unwrap(),
        owned(&expected)
    );
    assert_eq!(
        read("captions.csv", "image_id,caption\n17,a dog\n18,a cat\n").unwrap(),
        owned(&expected)
    );
    let error = read("captions.csv", "one,two,three\na,b,c\nd,e,f\n").unwrap_err();
    says(
        &error,
        &["line 1: found the 3 columns one, two, three; expected a header"],
    );
}

#[test]
fn utf16_is_named_once() {
    let tiny = Tiny::new();
    let text = tiny.read("Flickr8k.token.txt");
    let little = |mark: &[u8]| {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        mark.iter().copied().chain(units).collect::<Vec<u8>>()
    };
    let big = [0xFE, 0xFF]
        .into_iter()
        .chain(text.encode_utf16().flat_map(u16::to_be_bytes));
    for content in [little(&[0xFF, 0xFE]), little(&[]), big.collect()] {
        tiny.write("Flickr8k.token.txt", content);
        unusable(&tiny, 1, &["Flickr8k.token.txt: is UTF-16, expected UTF-8"]);
    }
    tiny.write("Flickr8k.token.txt", &text);
    tiny.write("Flickr_8k.devImages.txt", [0xFF, 0xFE, b'g', 0]);
    unusable(&tiny, 1, &["Flickr_8k.devImages.txt: is UTF-16"]);
}

#[test]
fn images_lie_in_folders() {
    let tiny = Tiny::new();
    // The same folders in the captions as on the disk; the slashes of another system; no folders in the captions.
    rename_files(&tiny, |name| format!("photos/{name}"));
    usable(&tiny, &tiny.data());
    for prefix in ["photos/", "photos\\", "./photos/"] {
        let tiny = Tiny::new();
        rename_files(&tiny, |name| format!("photos/{name}"));
        rename(&tiny, |name| format!("{prefix}{name}"));
        usable(&tiny, &tiny.data());
    }
    // More folders in the captions than there are.
    let tiny = Tiny::new();
    rename(&tiny, |name| format!("Images/{name}"));
    usable(&tiny, &tiny.data());
}

#[test]
fn an_image_of_another_folder_is_not_taken() {
    let tiny = Tiny::new();
    // Two files of the name that the captions say, so that neither is meant.
    fs::create_dir(tiny.images().join("other")).unwrap();
    fs::create_dir(tiny.images().join("photos")).unwrap();
    fs::copy(
        tiny.images().join("a.jpg"),
        tiny.images().join("other/a.jpg"),
    )
    .unwrap();
    fs::rename(
        tiny.images().join("a.jpg"),
        tiny.images().join("photos/a.jpg"),
    )
    .unwrap();
    unusable(
        &tiny,
        1,
        &["a.jpg: is in the train list but does not exist"],
    );
    // Two images of the captions, for one file.
    let tiny = Tiny::new();
    rename(&tiny, |name| match name {
        "a.jpg" => "one/a.jpg".into(),
        "b.png" => "two/a.jpg".into(),
        name => name.into(),
    });
    unusable(
        &tiny,
        2,
        &[
            "one/a.jpg: is in the train list",
            "two/a.jpg: is in the train list",
        ],
    );
}

#[test]
fn names_that_people_take_for_the_same_are_the_same() {
    let tiny = Tiny::new();
    rename(&tiny, |name| format!("\u{f1}and\u{fa}_{name}"));
    rename_files(&tiny, |name| format!("n\u{303}andu\u{301}_{name}"));
    usable(&tiny, &tiny.data());
    let tiny = Tiny::new();
    rename_files(&tiny, |name| name.replace(".jpg", ".JPG"));
    usable(&tiny, &tiny.data());
    // The lists have other spellings than the captions.
    let tiny = Tiny::new();
    let list = tiny.read("Flickr_8k.trainImages.txt");
    tiny.write("Flickr_8k.trainImages.txt", list.replace(".png", ".PNG"));
    usable(&tiny, &tiny.data());
}

#[test]
fn what_macos_writes_beside_images_is_no_image() {
    let tiny = Tiny::new();
    tiny.write_image("._a.jpg", b"\0\x05\x16\x07");
    fs::create_dir(tiny.images().join("__MACOSX")).unwrap();
    tiny.write_image("__MACOSX/a.jpg", b"\0\x05\x16\x07");
    usable(&tiny, &tiny.data());
}

#[test]
fn a_data_set_is_found_in_the_folder_of_its_archive() {
    let tiny = Tiny::new();
    let around = tiny.path("archive");
    fs::create_dir(&around).unwrap();
    fs::rename(tiny.data(), around.join("Flickr8k")).unwrap();
    usable(&tiny, &around);
    fs::create_dir(around.join("second")).unwrap();
    fs::write(
        around.join("second/captions.txt"),
        "image,caption\na.jpg,A dog\n",
    )
    .unwrap();
    let output = checked(&around);
    says(
        &stdout(&output),
        &[
            "several folders have captions; name one of them: ",
            "second/captions.txt",
            "1 error, 0 warnings",
        ],
    );
    // Images beside their captions.
    let flat = Tiny::new();
    rename_files(&flat, |name| format!("../{name}"));
    fs::remove_dir(flat.images()).unwrap();
    usable(&flat, &flat.data());
}

#[test]
fn a_wrong_name_is_told_with_the_most_similar_one() {
    let tiny = Tiny::new();
    let long = |name: &str| format!("1000268201_693b08cb0e_{name}");
    rename(&tiny, long);
    rename_files(&tiny, long);
    let list = tiny.read("Flickr_8k.trainImages.txt");
    tiny.write(
        "Flickr_8k.trainImages.txt",
        list.replace("cb0e_a.jpg", "cb0f_a.jpg"),
    );
    let hint = "image 1000268201_693b08cb0f_a.jpg has no captions; the most similar name is 1000268201_693b08cb0e_a.jpg";
    unusable(&tiny, 1, &[hint]);
    tiny.write("Flickr_8k.trainImages.txt", list);
    rename_files(&tiny, |name| name.replace("_a.jpg", "_aa.jpg"));
    let hint = "does not exist; the most similar name is 1000268201_693b08cb0e_aa.jpg";
    unusable(&tiny, 1, &[hint]);
    says(&failed(&tiny.train_once("run")), &[hint]);
}

#[test]
fn a_data_set_without_an_image_to_train_on_is_not_usable() {
    let tiny = Tiny::new();
    for list in ["train", "dev", "test"] {
        fs::remove_file(tiny.data().join(format!("Flickr_8k.{list}Images.txt"))).unwrap();
    }
    fs::remove_file(tiny.data().join("Flickr8k.token.txt")).unwrap();
    tiny.write("captions.txt", "image,caption\na.jpg,A dog .\n");
    unusable(&tiny, 1, &["too few images"]);
}

#[test]
fn captions_without_spaces_are_warned_of() {
    let tiny = Tiny::new();
    let chinese = [
        "一个男人在雪地里骑自行车",
        "两只狗在草地上奔跑",
        "红色的方块，第一个",
    ];
    let lines: String = (tiny
        .read("Flickr8k.token.txt")
        .lines()
        .zip(chinese.iter().cycle()))
    .map(|(line, caption)| format!("{}\t{caption}\n", line.split('\t').next().unwrap()))
    .collect();
    tiny.write("Flickr8k.token.txt", &lines);
    let warning = "45 of 45 captions are in a script without spaces";
    let output = checked(&tiny.data());
    succeeded(&output);
    assert_eq!(
        stdout(&output).matches(warning).count(),
        1,
        "{}",
        stdout(&output)
    );
    says(&succeeded(&tiny.train_once("run")), &[warning]);
    let spaced = lines
        .replace("男人", " 男人 ")
        .replace("在", " 在 ")
        .replace("自行车", " 自行车 ");
    tiny.write(
        "Flickr8k.token.txt",
        spaced.replace("红色的方块，第一个", "红色 的 方块 ， 第一 个"),
    );
    assert!(!stdout(&checked(&tiny.data())).contains("without spaces"));
}
