//! A loaded module: its kernels, decoded, and its variables.

use std::collections::HashMap;

use super::decode;
use super::op::Code;
use crate::ptx::{self, Function, Space};

/// A parsed and decoded module: immutable, shared between launches.
pub struct Module {
    kernels: Vec<Kernel>,
    globals: Vec<GlobalVariable>,
    files: HashMap<u32, String>,
}

/// A variable of module scope in `.global` or `.const` memory.
#[derive(Debug, Clone)]
pub struct GlobalVariable {
    pub name: String,
    pub size: u64,
    pub align: u64,
    /// Initial bytes, zero-padded to `size`.
    pub init: Vec<u8>,
}

/// An entry point.
pub struct Kernel {
    pub name: String,
    pub params: Vec<Param>,
    /// Bytes of the whole parameter block.
    pub param_bytes: usize,
    /// Bytes of shared memory declared with a size.
    pub static_shared: u32,
    /// Bytes of local memory a thread.
    pub local_bytes: u32,
    /// 32-bit registers a thread: an estimate (what is live at once, before ptxas).
    pub registers: u32,
    /// `.maxntid` or `.reqntid` as a product; 1024 when absent.
    pub max_threads: u32,
    /// Line of the `.entry` directive.
    pub line: u32,
    pub(super) dynamic_align: u32,
    pub(super) code: Code,
}

/// A kernel's parameter: where it lies in the parameter block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    pub offset: usize,
    pub size: usize,
}

/// Why a module cannot be loaded.
#[derive(Debug, Clone, thiserror::Error)]
#[error("PTX line {line}: {message}: `{text}`")]
pub struct LoadError {
    pub line: u32,
    pub message: String,
    /// The line itself.
    pub text: String,
}

impl Module {
    /// Parses and decodes PTX text. An instruction that is not known is an error with its line.
    pub fn load(ptx: &str) -> Result<Module, LoadError> {
        Module::decode(ptx).map_err(|mut error| {
            let line = ptx.lines().nth((error.line as usize).saturating_sub(1));
            error.text = line.unwrap_or_default().trim().to_string();
            error
        })
    }

    fn decode(text: &str) -> Result<Module, LoadError> {
        let source = ptx::parse(text).map_err(|error| LoadError::new(error.line, error.message))?;
        let mut globals = Vec::new();
        let mut index = HashMap::new();
        for variable in &source.variables {
            if !matches!(variable.space, Space::Global | Space::Const) {
                continue;
            }
            let Some(size) = variable.size else {
                let message = format!("`{}` has no size", variable.name);
                return Err(LoadError::new(variable.line, message));
            };
            let mut init = variable.init.clone();
            init.resize(size as usize, 0);
            index.insert(variable.name.clone(), globals.len() as u32);
            let (name, align) = (variable.name.clone(), variable.align);
            globals.push(GlobalVariable {
                name,
                size,
                align,
                init,
            });
        }
        let entries = source
            .functions
            .iter()
            .filter(|f| f.entry && f.body.is_some());
        let kernels = entries
            .map(|entry| Kernel::decode(&source, entry, &index))
            .collect::<Result<_, _>>()?;
        Ok(Module {
            kernels,
            globals,
            files: source.files,
        })
    }

    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.iter()
    }

    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// The variables of module scope, in the order in which a launch gives their addresses.
    pub fn globals(&self) -> &[GlobalVariable] {
        &self.globals
    }

    /// The source file and line of an instruction, when the text has `.loc`.
    pub(super) fn source_line(&self, location: (u32, u32)) -> Option<(String, u32)> {
        let (file, line) = location;
        (line != 0).then(|| self.files.get(&file).map(|name| (name.clone(), line)))?
    }
}

impl LoadError {
    pub(super) fn new(line: u32, message: impl Into<String>) -> LoadError {
        LoadError {
            line,
            message: message.into(),
            text: String::new(),
        }
    }
}

impl Kernel {
    fn decode(
        source: &ptx::Source,
        entry: &Function,
        globals: &HashMap<String, u32>,
    ) -> Result<Kernel, LoadError> {
        let (mut params, mut named, mut end) = (Vec::new(), Vec::new(), 0);
        for param in &entry.params {
            let size = param.size.unwrap_or(0) as usize;
            let offset = usize::next_multiple_of(end, param.align.max(1) as usize);
            params.push(Param { offset, size });
            named.push((param.name.clone(), offset));
            end = offset + size;
        }
        let decoded = decode::function(source, entry, globals, &named)?;
        Ok(Kernel {
            name: entry.name.clone(),
            params,
            param_bytes: end,
            static_shared: decoded.static_shared,
            local_bytes: decoded.local_bytes,
            registers: decoded.registers,
            max_threads: entry.max_threads.unwrap_or(1024),
            line: entry.line,
            dynamic_align: decoded.dynamic_align,
            code: decoded.code,
        })
    }
}
