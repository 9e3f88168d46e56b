//! The structure of the sources: which module uses which, where the files of an operation are, how long files are, and that
//! every `unsafe` says why it is sound. Everything is read from the source files.

use crate::support::data::root;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may use. A room is a module at the top of `src`; what it may use is given as the beginning of a path after
/// `crate::`. Every room may use errors and words.
const USES: [(&str, &[&str]); 17] = [
    (
        "cli",
        &[
            "train", "report", "decode", "metrics", "data", "weights", "model", "settings", "nn",
            "ops", "tensor", "device", "files",
        ],
    ),
    (
        "report",
        &[
            "train", "decode", "metrics", "data", "model", "nn", "ops", "tensor", "device", "files",
        ],
    ),
    (
        "train",
        &[
            "decode", "metrics", "data", "weights", "model", "settings", "nn", "ops", "tensor",
            "device", "files",
        ],
    ),
    (
        "decode",
        &["model", "data::vocabulary", "nn", "ops", "tensor", "device"],
    ),
    (
        "model",
        &[
            "settings",
            "data::vocabulary",
            "weights",
            "nn",
            "ops",
            "tensor",
            "device",
        ],
    ),
    ("settings", &[]),
    ("nn", &["ops", "tensor", "device", "philox"]),
    ("ops", &["tensor", "device", "philox"]),
    ("tensor", &["device"]),
    ("device", &[]),
    ("philox", &[]),
    ("words", &[]),
    ("data", &["files", "philox"]),
    ("weights", &["files", "tensor"]),
    ("metrics", &[]),
    ("files", &[]),
    ("error", &[]),
];

/// Words that must not appear in a room's code, and what they would mean there.
const FOREIGN: [(&str, &[&str], &str); 4] = [
    (
        "nn",
        &["std::fs", "std::io", "std::path", "memmap2", "serde"],
        "a file format",
    ),
    (
        "train",
        &["clap", "indicatif", "println!", "eprintln!", "IsTerminal"],
        "a terminal",
    ),
    ("ops", &["std::fs", "std::io", "std::path"], "files"),
    (
        "data",
        &["clap", "indicatif", "println!", "eprintln!"],
        "a terminal",
    ),
];

/// The most lines that a file may have. A longer one does two things.
const LONGEST: usize = 500;

/// All files under a folder with these endings, in order. Nothing when there is no such folder.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let ending = path.extension().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                folders.push(path);
            } else if endings.contains(&ending.as_ref()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap_or(path);
    path.to_string_lossy().replace('\\', "/")
}

/// A source without its comments. A string that contains `//` loses its end, but no string contains a path.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that a file of `src` is in, from the room on: `src/model/attend/mod.rs` is `model`, `attend`.
fn module(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let parts = inside.with_extension("");
    let parts = parts.iter().map(|part| part.to_string_lossy().into_owned());
    parts.filter(|part| part != "mod").collect()
}

/// The paths that begin behind `text`, which is what follows `crate::`: one, or each of `{a, b::c}`.
fn paths(text: &str) -> Vec<String> {
    let one = |text: &str| -> String {
        let path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        text.trim_start().chars().take_while(|&c| path(c)).collect()
    };
    let Some(group) = text.strip_prefix('{') else {
        return vec![one(text)];
    };
    let (mut depth, mut item, mut items) = (1, String::new(), Vec::new());
    for c in group.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            break;
        }
        match c {
            ',' if depth == 1 => items.push(std::mem::take(&mut item)),
            c => item.push(c),
        }
    }
    items.push(item);
    let paths = items.iter().map(|item| one(item));
    paths.filter(|path| !path.is_empty()).collect()
}

/// Every path from the crate's root that a file of `src` uses: behind `crate::`, and behind as many
/// `super::` as lead there.
fn uses(path: &Path) -> Vec<String> {
    let (code, depth) = (code(path), module(path).len());
    let behind = code.split("crate::").skip(1).flat_map(paths);
    let mut found: Vec<String> = behind.collect();
    // Unit tests are one module deeper; what they reach through `super` is their own file's.
    let own = code.split("#[cfg(test)]").next().unwrap_or("");
    let climb = "super::".repeat(depth);
    for (at, _) in own.match_indices(&climb) {
        let longer = own[..at].ends_with("super::");
        if !longer {
            found.extend(paths(&own[at + climb.len()..]));
        }
    }
    found
}

/// A path as the room that it leads to: `Tensor` is exported at the root for users of the library.
fn through_root(path: &str) -> String {
    let (first, rest) = path.split_once("::").unwrap_or((path, ""));
    match first {
        "Tensor" | "Shape" | "DType" | "Context" => format!("tensor::{rest}"),
        "Device" => format!("device::{rest}"),
        "Error" | "Result" => format!("error::{rest}"),
        "choices" => format!("settings::{rest}"),
        _ => path.to_string(),
    }
}

fn begins_with(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn rooms_use_only_those_below() {
    let mut wrong = Vec::new();
    for file in files("src", &["rs"]) {
        let module = module(&file);
        if ["lib", "main"].contains(&module[0].as_str()) {
            continue;
        }
        let room = &module[0];
        let rules = USES.iter().find(|(name, _)| name == room);
        let Some((_, allowed)) = rules else {
            wrong.push(format!("{}: a room without rules", shown(&file)));
            continue;
        };
        for path in uses(&file) {
            let path = through_root(&path);
            let everywhere = [room.as_str(), "error", "words"];
            let own = everywhere.iter().any(|room| begins_with(&path, room));
            if !own && !allowed.iter().any(|allowed| begins_with(&path, allowed)) {
                wrong.push(format!("{} uses crate::{path}", shown(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_sources_sees_all_spellings() {
    let group = "{nn::{params, resnet}, ops, Device};";
    assert_eq!(paths(group), ["nn::", "ops", "Device"]);
    assert_eq!(paths("nn::params::Id;"), ["nn::params::Id"]);
    assert_eq!(through_root("Tensor"), "tensor::");
    assert!(begins_with("nn::params", "nn") && !begins_with("nnn", "nn"));
    let found = uses(&root().join("src/train/run.rs"));
    for expected in ["data::vocabulary::Vocabulary", "model::", "files"] {
        assert!(found.iter().any(|path| path == expected), "{found:?}");
    }
}

/// The folders of the decoders.
fn decoders() -> Vec<String> {
    let entries = fs::read_dir(root().join("src/model")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let folders = paths.filter(|path| path.is_dir());
    let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut decoders: Vec<String> = folders.map(name).collect();
    decoders.sort();
    decoders
}

/// The lines of a source, unit tests left out, that name a decoder: as its folder, its setting, its type or its constant.
fn lines_naming(decoder: &str, path: &Path) -> Vec<String> {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    let names = [
        decoder.to_string(),
        decoder.replace('_', "-"),
        decoder.split('_').map(capital).collect(),
        decoder.to_uppercase(),
    ];
    let code = code(path);
    let own = code.split("#[cfg(test)]").next().unwrap_or("");
    let naming = own.lines().filter(|line| {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
        words
            .into_iter()
            .any(|word| names.iter().any(|name| name == word))
    });
    naming.map(|line| line.trim().to_string()).collect()
}

/// A decoder is its folder, the line that makes it a module, and its line of the registry with the import that this line
/// needs. The demonstration shows one decoder and names it.
#[test]
fn nothing_outside_its_folder_knows_a_decoder() {
    let decoders = decoders();
    assert_eq!(decoders, ["attend", "show_tell"]);
    let mut wrong = Vec::new();
    for decoder in &decoders {
        let own = format!("src/model/{decoder}/");
        for file in files("src", &["rs"]) {
            let shown = shown(&file);
            let allowed = match &*shown {
                "src/model/mod.rs" => 1,
                "src/model/registry.rs" => 2,
                _ => 0,
            };
            let lines = lines_naming(decoder, &file);
            let free = shown.starts_with(&own) || shown == "src/cli/demo.rs";
            if !free && lines.len() > allowed {
                wrong.push(format!("{shown} names {decoder}: {}", lines.join("; ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rooms_know_nothing_foreign() {
    let mut wrong = Vec::new();
    for (room, words, meaning) in FOREIGN {
        for file in files(&format!("src/{room}"), &["rs"]) {
            let code = code(&file);
            for word in words.iter().filter(|&&word| code.contains(word)) {
                wrong.push(format!("{}: {word} is {meaning}", shown(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Everything above the operations is the same on every device.
#[test]
fn only_operations_and_the_tensors_know_which_device_it_is() {
    for file in files("src", &["rs"]) {
        let module = module(&file);
        if ["device", "tensor", "ops"].contains(&module[0].as_str()) {
            continue;
        }
        let code = code(&file);
        for kind in ["Device::Cpu", "Device::Cuda"] {
            assert!(!code.contains(kind), "{} names {kind}", shown(&file));
        }
    }
}

/// An operation finds its half by `dispatch!`, which has an arm for every kind of device.
#[test]
fn operations_do_not_choose_the_device_by_hand() {
    for file in files("src/ops", &["rs"]) {
        if !file.ends_with("src/ops/mod.rs") {
            let chooses = code(&file).contains("Device::Cpu");
            assert!(!chooses, "{} names Device::Cpu", shown(&file));
        }
    }
}

/// The folders of `src/ops`, but for what the CPU halves share.
fn operations() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("src/ops")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let folders = paths.filter(|path| path.is_dir() && !path.ends_with("host"));
    folders
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect()
}

fn stems(files: &[PathBuf]) -> Vec<String> {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    files.iter().map(stem).collect()
}

#[test]
fn an_operation_has_one_stem_everywhere() {
    let operations = operations();
    assert!(operations.len() >= 18, "{operations:?}");
    for op in &operations {
        for file in ["mod.rs", "cpu.rs", "cuda.rs"] {
            let path = root().join("src/ops").join(op).join(file);
            assert!(path.is_file(), "{} is missing", shown(&path));
        }
        let test = root().join(format!("tests/op_{op}.rs"));
        assert!(test.is_file(), "{} is missing", shown(&test));
        let kernels = root().join(format!("kernels/{op}.cu"));
        assert!(kernels.is_file(), "{} is missing", shown(&kernels));
    }
    for stem in stems(&files("tests", &["rs"])) {
        if let Some(op) = stem.strip_prefix("op_") {
            let op = op.strip_suffix("_devices").unwrap_or(op);
            assert!(
                operations.contains(op),
                "tests/{stem}.rs tests no operation"
            );
        }
    }
    for stem in stems(&files("kernels", &["cu"])) {
        assert!(
            operations.contains(&stem),
            "kernels/{stem}.cu is of no operation"
        );
    }
}

/// Structs, cuts, numbers of threads and sizes of shared memory stand only in kernels/, and build.rs makes them known to Rust;
/// tensors reach a kernel only through a run that checks them.
#[test]
fn facts_of_kernels_stand_in_kernels_alone() {
    let mut wrong = Vec::new();
    for file in files("src/ops", &["rs"]) {
        if code(&file).contains("kernel_struct!") || code(&file).contains("repr(C)") {
            wrong.push(format!(
                "{} has the twin of a struct of kernels/",
                shown(&file)
            ));
        }
    }
    let operations = operations().into_iter();
    let halves = operations.map(|op| root().join(format!("src/ops/{op}/cuda.rs")));
    let shared = ["tile.rs", "matrix.rs"].map(|name| root().join("src/ops").join(name));
    for file in halves.chain(shared) {
        for (words, what) in [
            ("THREADS:", "a number of threads"),
            ("size_of::<f32>()", "a sum of shared memory"),
            ("<< 10", "a size of shared memory"),
            ("Cut::new", "a cut of tiles"),
            ("Kernel", "a kernel by itself, not its family"),
            ("device::cuda", "a launch past the checks of a run"),
        ] {
            if code(&file).contains(words) {
                wrong.push(format!("{} has {what}: {words}", shown(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One dialect, where clang-format cannot make it so.
#[test]
fn kernels_speak_one_dialect() {
    let mut wrong = Vec::new();
    for file in files("kernels", &["cu", "cuh"]) {
        let text = fs::read_to_string(&file).unwrap();
        for (at, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let plain_inline = code.contains("inline") && !code.contains("__forceinline__");
            let counted_up = code.contains("++)") || code.contains("++;");
            if line.contains("///") || plain_inline || counted_up || code.contains("typename T") {
                wrong.push(format!("{}:{}: {}", shown(&file), at + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A file that tests/main.rs does not name would not be compiled, and none of its tests would run.
#[test]
fn every_file_of_tests_is_run() {
    let main = fs::read_to_string(root().join("tests/main.rs")).unwrap();
    let entries = fs::read_dir(root().join("tests")).unwrap();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|ending| ending == "rs") && stem != "main" {
            let declared = main.lines().any(|line| line == format!("mod {stem};"));
            assert!(declared, "tests/main.rs does not name {stem}");
        }
    }
}

#[test]
fn no_file_is_too_long() {
    let endings = ["rs", "cu", "cuh", "py"];
    let folders = [
        "src", "tests", "benches", "build", "kernels", "scripts", "emulator",
    ];
    for folder in folders {
        for file in files(folder, &endings) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= LONGEST, "{} has {lines} lines", shown(&file));
        }
    }
}

/// The comment above line `at`, skipping the lines of the statement that it belongs to.
fn comment_above(lines: &[&str], at: usize) -> String {
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let begins = |line: &&str| line.trim().is_empty() || line.trim_end().ends_with(['{', '}', ';']);
    let above = || lines[..at].iter().rev();
    let rest = above().take_while(|line| !is_comment(line) && !begins(line));
    let comment = above()
        .skip(rest.count())
        .take_while(|line| is_comment(line));
    comment.copied().collect::<Vec<_>>().join("\n")
}

fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    // An attribute: the name of an exported symbol, no memory is touched.
    if code.trim_start().starts_with("#[unsafe(no_mangle)]") {
        return false;
    }
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.into_iter().any(|word| word == "unsafe") && !code.contains('"')
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    let mut seen = 0;
    for folder in ["src", "tests", "benches", "emulator"] {
        for file in files(folder, &["rs"]) {
            let text = fs::read_to_string(&file).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_unsafe(line)) {
                seen += 1;
                let comment = comment_above(&lines, at);
                let says = comment.contains("SAFETY:") || comment.contains("# Safety");
                assert!(says, "{}:{}: {}", shown(&file), at + 1, line.trim());
            }
        }
    }
    assert!(seen > 0, "unsafe is somewhere");
}
