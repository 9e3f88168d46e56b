//! The names in a pickle: those that describe weights, and those that no honest file has.

use super::super::{Checked, StoredType};

/// The names that describe weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Global {
    OrderedDict,
    /// `torch.Size`, a tuple.
    Size,
    /// A class of tensors, such as `torch.FloatTensor`: PyTorch 0.1 makes an empty object and then gives it its content.
    Tensor,
    /// `torch.nn.Parameter`, which is made from a tensor, or made empty and then given one.
    Parameter,
    RebuildTensor,
    RebuildParameter,
    /// Calls one of the two functions before, and then changes the class of the tensor.
    RebuildFromType,
    Storage(StoredType),
}

/// The names of element types in PyTorch's classes: `torch.FloatStorage`, `torch.FloatTensor`.
const TYPES: [(&str, StoredType); 10] = [
    ("Double", StoredType::F64),
    ("Float", StoredType::F32),
    ("Half", StoredType::F16),
    ("BFloat16", StoredType::Bf16),
    ("Long", StoredType::I64),
    ("Int", StoredType::I32),
    ("Short", StoredType::I16),
    ("Char", StoredType::I8),
    ("Byte", StoredType::U8),
    ("Bool", StoredType::Bool),
];

/// Modules that start programs, load code or reach other machines. A file that names one of them was made to harm
/// whoever reads it with Python. Nothing is executed here; the file is refused to warn its owner.
const HARMFUL_MODULES: [&str; 14] = [
    "os",
    "nt",
    "posix",
    "subprocess",
    "pty",
    "sys",
    "shutil",
    "socket",
    "runpy",
    "importlib",
    "ctypes",
    "webbrowser",
    "pickle",
    "pdb",
];

/// Python's own functions that do the same.
const HARMFUL_FUNCTIONS: [&str; 8] = [
    "eval",
    "exec",
    "execfile",
    "compile",
    "open",
    "__import__",
    "input",
    "breakpoint",
];

impl Global {
    /// The meaning of `module.name`; `None` for a name that weights do not need.
    ///
    /// # Errors
    /// For a name that runs something when Python reads it.
    pub fn named(module: &str, name: &str) -> Checked<Option<Self>> {
        Ok(Some(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch", "Size") => Global::Size,
            ("torch", "Tensor") => Global::Tensor,
            ("torch.nn.parameter" | "torch.nn", "Parameter") => Global::Parameter,
            ("torch.autograd.variable" | "torch.autograd", "Variable") => Global::Parameter,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                Global::RebuildTensor
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Global::RebuildParameter
            }
            ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
            ("torch" | "torch.cuda", _) if element_type(name, "Storage").is_some() => {
                return Ok(element_type(name, "Storage").map(Global::Storage));
            }
            ("torch" | "torch.cuda", _) if element_type(name, "Tensor").is_some() => Global::Tensor,
            _ if is_harmful(module, name) => return Err(unwanted(&format!("{module}.{name}"))),
            _ => return Ok(None),
        }))
    }
}

/// What a message says of a name that is not of weights.
pub fn unwanted(name: &str) -> String {
    format!(
        "names \"{name}\", which a state dict does not need; nothing was executed. Save the model's state_dict() alone"
    )
}

/// The element type in the name of a class.
fn element_type(name: &str, kind: &str) -> Option<StoredType> {
    let name = name.strip_suffix(kind)?;
    let known = TYPES.iter().find(|(known, _)| *known == name);
    known.map(|&(_, dtype)| dtype)
}

fn is_harmful(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or(module);
    HARMFUL_MODULES.contains(&package)
        || (matches!(package, "builtins" | "__builtin__") && HARMFUL_FUNCTIONS.contains(&name))
}
