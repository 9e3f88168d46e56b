//! A loaded module: its decoded kernels and its variables.

use std::collections::HashMap;

use super::decode;
use super::op::Code;
use crate::ptx::{self, Function, Space};

/// A parsed and decoded module. It never changes, and launches share it.
pub struct Module {
    kernels: Vec<Kernel>,
    globals: Vec<GlobalVariable>,
    files: HashMap<u32, String>,
}

/// A variable of module scope in `.global` or `.const` memory.
#[derive(Debug, Clone)]
pub struct GlobalVariable {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its alignment in bytes.
    pub align: u64,
    /// Its initial bytes, padded with zeros to `size`.
    pub init: Vec<u8>,
}

/// An entry point.
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Its parameters, in their order.
    pub params: Vec<Param>,
    /// The size of the whole parameter block in bytes.
    pub param_bytes: usize,
    /// The shared memory that is declared with a size, in bytes per CTA.
    pub static_shared: u32,
    /// The local memory in bytes per thread.
    pub local_bytes: u32,
    /// An estimate of the 32-bit registers per thread: those that are live at once, before ptxas.
    pub registers: u32,
    /// The largest number of threads per CTA: the product of `.maxntid` or `.reqntid`, or 1024.
    pub max_threads: u32,
    /// The line of the `.entry` directive.
    pub line: u32,
    pub(super) dynamic_align: u32,
    pub(super) code: Code,
}

/// A parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Its offset in the parameter block, in bytes.
    pub offset: usize,
    /// Its size in bytes.
    pub size: usize,
}

/// Why a module cannot be loaded.
#[derive(Debug, Clone, thiserror::Error)]
#[error("PTX line {line}: {message}: `{text}`")]
pub struct LoadError {
    /// The line of the PTX text, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub message: String,
    /// The text of the line.
    pub text: String,
}

impl Module {
    /// Parses and decodes PTX text.
    ///
    /// # Errors
    /// When the text is not PTX, or when it has an instruction that the emulator does not know.
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

    /// The entry points, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.iter()
    }

    /// The entry point with this name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// The variables of module scope. [`Launch::globals`](super::Launch::globals) has their addresses in this order.
    pub fn globals(&self) -> &[GlobalVariable] {
        &self.globals
    }

    /// The source file and line of an instruction, if the text has `.loc`.
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
