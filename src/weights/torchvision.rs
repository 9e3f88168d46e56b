//! Pretrained encoders with the names of torchvision, which timm uses, too.

use super::{StoredTensor, WeightFile};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};

/// The prefix of the encoder's names in checkpoints of this program.
const PREFIX: &str = "encoder.";

/// Finds the tensors of an encoder in a file, in the order in which `expected` lists them.
///
/// `expected` has names of torchvision (`layer1.0.conv1.weight`) and shapes of PyTorch (filters K C R S). The
/// classifier `fc.*` and the counters `*.num_batches_tracked` are ignored. If names in the file begin with
/// `encoder.`, it is a checkpoint of this program, and only the tensors with these names are used.
///
/// # Errors
/// When a tensor is missing or has another shape, or when there is a tensor that the architecture does not have. If
/// the file holds another well-known ResNet, the message names it.
pub fn match_encoder<'a>(
    file: &'a WeightFile,
    expected: &[(String, Vec<usize>)],
    architecture: &str,
) -> Result<Vec<StoredTensor<'a>>> {
    let found = encoder_tensors(file);
    let by_name: HashMap<_, _> = found.iter().copied().collect();
    let refuse = |message: String| refuse(file, &found, architecture, message);
    let mut matched = Vec::with_capacity(expected.len());
    for (name, shape) in expected {
        let Some(&tensor) = by_name.get(name.as_str()) else {
            return Err(refuse(format!(
                "has no tensor \"{name}\", expected one of shape {shape:?}"
            )));
        };
        if tensor.shape() != shape {
            let (name, has) = (tensor.name(), tensor.shape());
            return Err(refuse(format!(
                "tensor \"{name}\" should have shape {shape:?}, has {has:?}"
            )));
        }
        matched.push(tensor);
    }
    let known: HashSet<_> = expected.iter().map(|(name, _)| name.as_str()).collect();
    if let Some((_, extra)) = found.iter().find(|(name, _)| !known.contains(name)) {
        let (name, shape) = (extra.name(), extra.shape());
        return Err(refuse(format!(
            "has a tensor \"{name}\" of shape {shape:?}, expected none"
        )));
    }
    Ok(matched)
}

/// The tensors of the encoder, with their names without the prefix, in the order of the file.
fn encoder_tensors(file: &WeightFile) -> Vec<(&str, StoredTensor<'_>)> {
    let ours = file
        .tensors()
        .any(|tensor| tensor.name().starts_with(PREFIX));
    let prefix = if ours { PREFIX } else { "" };
    let named = file
        .tensors()
        .filter_map(|tensor| Some((tensor.name().strip_prefix(prefix)?, tensor)));
    named
        .filter(|(name, _)| !name.starts_with("fc.") && !name.ends_with(".num_batches_tracked"))
        .collect()
}

fn refuse(
    file: &WeightFile,
    found: &[(&str, StoredTensor)],
    architecture: &str,
    message: String,
) -> Error {
    let looks = match resnet_name(found) {
        Some(name) if !is_same(name, architecture) => format!(": the file looks like {name}"),
        _ => String::new(),
    };
    file.error(format!("{message} ({architecture}){looks}"))
}

/// Whether two spellings (`ResNet-50`, `resnet50`) mean the same architecture.
fn is_same(a: &str, b: &str) -> bool {
    let letters = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    letters(a) == letters(b)
}

/// Number of blocks in each of the four stages, whether a block has a third convolution, and the name.
const RESNETS: [([usize; 4], bool, &str); 5] = [
    ([2, 2, 2, 2], false, "ResNet-18"),
    ([3, 4, 6, 3], false, "ResNet-34"),
    ([3, 4, 6, 3], true, "ResNet-50"),
    ([3, 4, 23, 3], true, "ResNet-101"),
    ([3, 8, 36, 3], true, "ResNet-152"),
];

/// More blocks than any stage of a ResNet has.
const MOST_BLOCKS: usize = 64;

/// The ResNet that has these tensors, judged by its blocks and by the width of the first one.
fn resnet_name(found: &[(&str, StoredTensor)]) -> Option<&'static str> {
    let has = |name: String| found.iter().any(|(found, _)| *found == name);
    let blocks = [1, 2, 3, 4].map(|stage| {
        (0..MOST_BLOCKS)
            .take_while(|block| has(format!("layer{stage}.{block}.conv1.weight")))
            .count()
    });
    let bottleneck = has("layer1.0.conv3.weight".into());
    let (_, first) = found
        .iter()
        .find(|(name, _)| *name == "layer1.0.conv2.weight")?;
    let plain = first.shape() == [64, 64, 3, 3];
    let known = RESNETS
        .iter()
        .find(|known| (known.0, known.1) == (blocks, bottleneck))?;
    plain.then_some(known.2)
}
