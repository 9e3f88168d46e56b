//! `showtell weights inspect`: lists the tensors in a weight file.

use crate::weights::{StoredTensor, WeightFile, torchvision};
use crate::words::{count, printable};
use serde_json::json;
use std::path::PathBuf;

/// Lists the tensors in a weight file: names, element types and shapes
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// A safetensors file or a PyTorch file (.pth) with a state dict
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints a file's tensors in the order of the file, and how many numbers they hold together.
///
/// # Errors
/// When the file cannot be read as weights or standard output cannot be written.
pub fn inspect(args: InspectArgs) -> anyhow::Result<()> {
    let file = WeightFile::open(&args.file)?;
    super::print(args.json, &as_json(&file), |_| as_table(&file))
}

fn elements(file: &WeightFile) -> usize {
    file.tensors().map(|tensor| tensor.len()).sum()
}

fn as_json(file: &WeightFile) -> serde_json::Value {
    let tensor = |tensor: StoredTensor| {
        json!({
            "name": tensor.name(),
            "dtype": tensor.dtype().to_string(),
            "shape": tensor.shape(),
        })
    };
    json!({
        "file": file.path().to_string_lossy(),
        "format": file.format().to_string(),
        "metadata": file.metadata(),
        "state_dict_keys": file.state_dict_keys(),
        "encoder_prefix": torchvision::encoder_prefix(file),
        "tensors": file.tensors().map(tensor).collect::<Vec<_>>(),
        "elements": elements(file),
    })
}

fn as_table(file: &WeightFile) -> String {
    let width = file
        .tensors()
        .map(|tensor| tensor.name().chars().count())
        .max()
        .unwrap_or(0);
    let mut lines: Vec<String> = file
        .tensors()
        .map(|tensor| {
            let (name, dtype) = (tensor.name(), tensor.dtype().to_string());
            format!("{name:width$}  {dtype:4}  {:?}", tensor.shape())
        })
        .collect();
    lines.extend(
        file.metadata()
            .iter()
            .map(|(key, value)| format!("{key} = {value}")),
    );
    if !file.state_dict_keys().is_empty() {
        let keys = file.state_dict_keys().join("\", in it \"");
        lines.push(format!("the state dict lies under \"{keys}\""));
    }
    let prefix = torchvision::encoder_prefix(file);
    if !prefix.is_empty() {
        lines.push(format!(
            "the names of the encoder's tensors begin with \"{prefix}\", which training leaves out"
        ));
    }
    lines.push(format!(
        "{}: {}, {}, {}",
        file.path().display(),
        file.format(),
        count(file.tensors().count(), "tensor"),
        match elements(file) {
            1 => "1 parameter or buffer".into(),
            elements => grouped(elements) + " parameters and buffers",
        },
    ));
    let printable = lines.iter().map(|line| printable(line));
    printable.collect::<Vec<_>>().join("\n") + "\n"
}

/// A number with its digits in groups of three: 25,557,032.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legacy() -> WeightFile {
        WeightFile::open("tests/pth/legacy.pth").unwrap()
    }

    #[test]
    fn the_table_lists_every_tensor_and_the_total() {
        let table = as_table(&legacy());
        assert!(
            table.starts_with("plain          f32   [2, 3]\nparameter      f32   [3]\n"),
            "{table}"
        );
        let last =
            "tests/pth/legacy.pth: PyTorch (legacy), 17 tensors, 83 parameters and buffers\n";
        assert!(table.ends_with(last), "{table}");
        assert_eq!(
            ["0", "999", "25,557,032"],
            [0, 999, 25_557_032].map(grouped)[..]
        );
    }

    #[test]
    fn json_says_the_same() {
        let value = as_json(&legacy());
        assert_eq!(value["elements"], 83);
        assert_eq!(
            value["tensors"][4],
            json!({"name": "transposed", "dtype": "f32", "shape": [6, 4]})
        );
    }
}
