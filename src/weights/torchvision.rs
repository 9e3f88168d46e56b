//! Pretrained encoders with the names of torchvision, which timm uses, too.

use super::{StoredTensor, WeightFile};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Parts of names that wrappers put in front of all the encoder's names: `DataParallel`, `torch.compile`, Lightning's
/// modules, models with a head, and checkpoints of this program.
const PREFIX_PARTS: [&str; 5] = ["module.", "_orig_mod.", "model.", "backbone.", "encoder."];

/// The tensors of an encoder.
#[derive(Debug)]
pub struct Matched<'a> {
    /// In the order in which they were expected.
    pub tensors: Vec<StoredTensor<'a>>,
    /// What stands in front of all their names in the file, such as `module.`; mostly nothing.
    pub prefix: &'a str,
}

/// Finds the tensors of an encoder in a file, in the order in which `expected` lists them.
///
/// `expected` has names of torchvision (`layer1.0.conv1.weight`) and shapes of PyTorch (filters K C R S). The
/// classifier `fc.*` and the counters `*.num_batches_tracked` are ignored. If the names in the file have a usual prefix
/// in front, such as `module.` or, in checkpoints of this program, `encoder.`, only the tensors with this prefix are
/// used.
///
/// # Errors
/// When a tensor is missing or has another shape, when there is a tensor that the architecture does not have, or when
/// the names occur under several prefixes. If the file holds another well-known ResNet, the message names it.
pub fn match_encoder<'a>(
    file: &'a WeightFile,
    expected: &[(String, Vec<usize>)],
    architecture: &str,
) -> Result<Matched<'a>> {
    let known: HashSet<_> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let prefix = common_prefix(file, "encoder", |name| known.contains(name))?;
    let found = encoder_tensors(file, prefix);
    let by_name: HashMap<_, _> = found.iter().copied().collect();
    let refuse = |message: String| refuse(file, &found, architecture, message);
    let mut matched = Vec::with_capacity(expected.len());
    for (name, shape) in expected {
        let Some(&tensor) = by_name.get(name.as_str()) else {
            return Err(refuse(missing(file, name, prefix, shape, &known)));
        };
        if tensor.shape() != shape {
            let (name, has) = (tensor.name(), tensor.shape());
            return Err(refuse(format!(
                "tensor \"{name}\" should have shape {shape:?}, has {has:?}"
            )));
        }
        matched.push(tensor);
    }
    if let Some((_, extra)) = found.iter().find(|(name, _)| !known.contains(name)) {
        let (name, shape) = (extra.name(), extra.shape());
        return Err(refuse(format!(
            "has a tensor \"{name}\" of shape {shape:?}, expected none"
        )));
    }
    Ok(Matched {
        tensors: matched,
        prefix,
    })
}

/// What stands in front of the names that are `known`, those of `what`: a usual prefix such as `module.`, or nothing.
///
/// # Errors
/// When the names occur under several prefixes.
pub fn common_prefix<'a>(
    file: &'a WeightFile,
    what: &str,
    known: impl Fn(&str) -> bool,
) -> Result<&'a str> {
    match prefixes(file, known)[..] {
        [] => Ok(""),
        [prefix] => Ok(prefix),
        [first, second, ..] => Err(file.error(format!(
            "has the {what}'s tensors twice, under \"{first}\" and under \"{second}\": save the state dict of the one \
             that is wanted"
        ))),
    }
}

/// The prefix of the encoder's tensors in a file of unknown architecture; nothing if there is none, or more than one.
pub fn encoder_prefix(file: &WeightFile) -> &str {
    match prefixes(file, |name| name == "conv1.weight")[..] {
        [prefix] => prefix,
        _ => "",
    }
}

/// The usual prefixes, including none, under which the file has the most names that are `known`.
fn prefixes(file: &WeightFile, known: impl Fn(&str) -> bool) -> Vec<&str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in file.tensors() {
        if let Some(prefix) = prefix_of(tensor.name(), &known) {
            *counts.entry(prefix).or_default() += 1;
        }
    }
    let most = counts.values().copied().max().unwrap_or(0);
    counts.retain(|_, count| *count == most);
    counts.into_keys().collect()
}

/// What stands in front of a name that is `known`: nothing, or a usual prefix, which can have several parts.
fn prefix_of(name: &str, known: impl Fn(&str) -> bool) -> Option<&str> {
    let mut rest = name;
    while !known(rest) {
        rest = PREFIX_PARTS
            .iter()
            .find_map(|part| rest.strip_prefix(part))?;
    }
    Some(&name[..name.len() - rest.len()])
}

/// The tensors of the encoder, with their names without the prefix, in the order of the file.
fn encoder_tensors<'a>(file: &'a WeightFile, prefix: &str) -> Vec<(&'a str, StoredTensor<'a>)> {
    let named = file
        .tensors()
        .filter_map(|tensor| Some((tensor.name().strip_prefix(prefix)?, tensor)));
    named
        .filter(|(name, _)| !name.starts_with("fc.") && !name.ends_with(".num_batches_tracked"))
        .collect()
}

/// Says that a tensor is missing, and if there is one with an unusual prefix, what to do.
fn missing(
    file: &WeightFile,
    name: &str,
    prefix: &str,
    shape: &[usize],
    known: &HashSet<&str>,
) -> String {
    let message = format!("has no tensor \"{prefix}{name}\", expected one of shape {shape:?}");
    let other = |tensor: StoredTensor| {
        let other = tensor.name().strip_suffix(name)?;
        (other.ends_with('.') && !known.contains(tensor.name())).then(|| other.to_string())
    };
    match file.tensors().find_map(other) {
        Some(other) => format!(
            "{message}; it has \"{other}{name}\": save the state dict without \"{other}\" in its names"
        ),
        None => message,
    }
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
