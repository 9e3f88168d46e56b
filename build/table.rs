//! What is written for Rust about the files of `kernels/`: a module for each file with its constants, its functions for sizes, its
//! structs, and for every family of kernels a struct with the arguments of a run, under the names of the parameters.
//!
//! Numbers become `usize`. A pointer to const becomes an `Input`, any other pointer an `Output`. A struct that a kernel takes by
//! value keeps its layout and its names. The module of a file also has what the modules of the files that it includes have.

use super::expression::{Scope, rust_scalar};
use super::nvcc::Compiled;
use super::source::{Alias, Constant, File, Item, Kernel, Struct, Template};
use super::tokens::{Token, parts};
use std::fmt::Write;
use std::path::Path;

/// The text of all modules. `compiled` has the code of those `files` that are compiled, in their order.
pub fn write(files: &[File], compiled: &[Option<Compiled>]) -> Result<String, String> {
    let mut compiled = compiled.iter();
    let mut out = String::new();
    for file in files {
        let module = Module {
            file,
            scope: scope(files, file),
            files,
        };
        let image = if is_compiled(file) {
            image(&file.stem, compiled.next().and_then(Option::as_ref))
        } else {
            String::new()
        };
        out += &module.write(&image)?;
    }
    Ok(out)
}

pub fn is_compiled(file: &File) -> bool {
    file.path.extension().is_some_and(|e| e == "cu")
}

/// The file and those that it includes, directly or not.
fn scope<'a>(files: &'a [File], file: &'a File) -> Scope<'a> {
    let mut seen = vec![file];
    let mut next = 0;
    while let Some(file) = seen.get(next).copied() {
        let included = files.iter().filter(|f| file.includes.contains(&f.stem));
        for file in included {
            if !seen.iter().any(|known| known.stem == file.stem) {
                seen.push(file);
            }
        }
        next += 1;
    }
    Scope { files: seen }
}

fn image(stem: &str, compiled: Option<&Compiled>) -> String {
    let include = |path: &Path| format!("include_bytes!({:?})", path.display().to_string());
    let (ptx, cubins) = match compiled {
        None => ("&[]".to_string(), String::new()),
        Some(compiled) => {
            let cubins = compiled.cubins.iter();
            let cubins = cubins.map(|(arch, path)| format!("({arch}, {}), ", include(path)));
            (include(&compiled.ptx), cubins.collect())
        }
    };
    format!("static IMAGE: Image = Image::new({stem:?}, {ptx}, &[{cubins}]);\n")
}

struct Module<'a> {
    file: &'a File,
    scope: Scope<'a>,
    files: &'a [File],
}

/// A kernel's parameter.
enum Parameter {
    /// Whether it is written, and the element type as `DType` has it.
    Pointer(bool, &'static str),
    Value(String),
}

impl Module<'_> {
    fn refuse<T>(&self, at: &Token, message: &str) -> Result<T, String> {
        let path = self.file.path.display();
        Err(format!("{path}:{}: {}: {message}", at.line, at.text))
    }

    fn write(&self, image: &str) -> Result<String, String> {
        let File { path, stem, .. } = self.file;
        let mut out = format!(
            "/// `{}`\npub mod {stem} {{\n#[allow(unused_imports)] use super::prelude::*;\n",
            path.display()
        );
        for include in &self.file.includes {
            out += &format!("#[allow(unused_imports)] pub use super::{include}::*;\n");
        }
        out += image;
        out += &self.vectors();
        let mut families: Vec<(&str, Vec<&Kernel>)> = Vec::new();
        for item in &self.file.items {
            match item {
                Item::Constant(constant) => out += &self.constant(constant)?,
                Item::Function(function) => {
                    let locals: Vec<&str> = function.parameters.iter().map(|p| &**p).collect();
                    let value = self.translate(&function.name, &function.value, &locals)?;
                    let parameters = locals
                        .iter()
                        .map(|p| format!("{}: usize", p.to_lowercase()));
                    let parameters = parameters.collect::<Vec<_>>().join(", ");
                    let name = &function.name.text;
                    out += &format!(
                        "{UNUSED}pub const fn {name}({parameters}) -> usize {{ {value} }}\n"
                    );
                }
                Item::Template(template) => out += &self.template(template)?,
                Item::Alias(alias) => out += &self.alias(alias)?,
                Item::Struct(declared) if self.is_taken(declared) => {
                    out += &self.record(declared)?
                }
                Item::Struct(_) => {}
                Item::Kernel(kernel) => {
                    match families.iter_mut().find(|(name, _)| *name == kernel.family) {
                        Some((_, members)) => members.push(kernel),
                        None => families.push((&kernel.family, vec![kernel])),
                    }
                }
            }
        }
        for (name, members) in families {
            out += &self.family(name, &members)?;
        }
        Ok(out + "}\n")
    }

    fn translate(&self, at: &Token, value: &[Token], locals: &[&str]) -> Result<String, String> {
        let translated = self.scope.translate(value, locals);
        translated.or_else(|message| self.refuse(at, &message))
    }

    fn constant(&self, constant: &Constant) -> Result<String, String> {
        let name = &constant.name.text;
        if constant.kind == "int" {
            let value = self.translate(&constant.name, &constant.value, &[])?;
            return Ok(format!("{UNUSED}pub const {name}: usize = {value};\n"));
        }
        match &constant.value[..] {
            [number] if number.text.trim_end_matches('f').parse::<f32>().is_ok() => {
                let value = number.text.trim_end_matches('f');
                Ok(format!("{UNUSED}pub const {name}: f32 = {value};\n"))
            }
            _ => self.refuse(&constant.name, "a float constant is to be one number"),
        }
    }

    /// A struct with the constants, which its `new` computes from the parameters, and with the name of the alias for it, as
    /// kernels have it in their names.
    fn template(&self, template: &Template) -> Result<String, String> {
        let name = &template.name.text;
        let mut locals: Vec<&str> = template.parameters.iter().map(|p| &**p).collect();
        let parameters = locals
            .iter()
            .map(|p| format!("{}: usize", p.to_lowercase()));
        let parameters = parameters.collect::<Vec<_>>().join(", ");
        let (mut fields, mut body, mut names) = (String::new(), String::new(), String::new());
        for constant in &template.constants {
            let value = self.translate(&constant.name, &constant.value, &locals)?;
            let field = constant.name.text.to_lowercase();
            fields += &format!("pub {field}: usize, ");
            body += &format!("let {field} = {value}; ");
            names += &format!("{field}, ");
            locals.push(&constant.name.text);
        }
        Ok(format!(
            "{UNUSED}#[derive(Clone, Copy, Debug)]\npub struct {name} {{ pub key: &'static str, {fields}}}\n\
             impl {name} {{ pub const fn new(key: &'static str, {parameters}) -> Self {{ {body}{name} {{ key, {names}}} }} }}\n"
        ))
    }

    /// The constant for a struct of constants with these arguments; nothing for aliases of anything else.
    fn alias(&self, alias: &Alias) -> Result<String, String> {
        let template = &alias.template;
        let is_read = |item: &Item| matches!(item, Item::Template(t) if t.name.text == *template);
        if !self.scope.items().any(is_read) {
            return Ok(String::new());
        }
        let arguments = alias.arguments.iter();
        let arguments = arguments.map(|value| self.translate(&alias.name, value, &[]));
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?.join(", ");
        let key = &alias.name.text;
        let name = key.to_uppercase();
        Ok(format!(
            "{UNUSED}pub const {name}: {template} = {template}::new({key:?}, {arguments});\n"
        ))
    }

    /// The aliases of this file for `Vector`: their names, as kernels have them in theirs, element types and widths.
    fn vectors(&self) -> String {
        let vectors = self.file.items.iter().filter_map(|item| match item {
            Item::Alias(alias) if alias.template == "Vector" => match &alias.arguments[..] {
                [element, width] => {
                    let element = dtype(self.scalar(&[&element.first()?.text])?)?;
                    let (name, width) = (&alias.name.text, &width.first()?.text);
                    Some(format!("({name:?}, DType::{element}, {width}), "))
                }
                _ => None,
            },
            _ => None,
        });
        let vectors: String = vectors.collect();
        if vectors.is_empty() {
            return vectors;
        }
        format!("pub const VECTORS: &[(&str, DType, usize)] = &[{vectors}];\n")
    }

    /// Whether a kernel of any file takes the struct by value.
    fn is_taken(&self, declared: &Struct) -> bool {
        let kernels = self.files.iter().flat_map(|file| &file.items);
        let parameters = kernels.flat_map(|item| match item {
            Item::Kernel(kernel) => &kernel.parameters[..],
            _ => &[],
        });
        let words = |p: &Vec<Token>| (p.len() >= 2).then(|| p[p.len() - 2].text.clone());
        let mut types = parameters.filter_map(words);
        let name = &declared.name.text;
        rust_scalar(&[name]).is_none() && types.any(|taken| taken == *name)
    }

    fn record(&self, declared: &Struct) -> Result<String, String> {
        let mut fields = String::new();
        for statement in declared.body.split(|token| token.text == ";") {
            let words: Vec<&str> = statement.iter().map(|token| token.text.as_str()).collect();
            let length = (1..=3.min(words.len())).rev();
            let mut kinds = length.filter_map(|n| Some((n, rust_scalar(&words[..n])?)));
            let Some((length, kind)) = kinds.next() else {
                if words.is_empty() {
                    continue;
                }
                return self.refuse_field(declared, &statement[0]);
            };
            for field in parts(&statement[length..]) {
                let words: Vec<&str> = field.iter().map(|token| token.text.as_str()).collect();
                match words[..] {
                    [name] => write!(fields, "pub {name}: {kind}, "),
                    [name, "[", count, "]"] => write!(fields, "pub {name}: [{kind}; {count}], "),
                    _ => return self.refuse_field(declared, &statement[0]),
                }
                .expect("a string takes all");
            }
        }
        let name = &declared.name.text;
        Ok(format!(
            "#[derive(Clone, Copy, Debug)]\n#[repr(C)]\npub struct {name} {{ {fields}}}\n"
        ))
    }

    fn refuse_field(&self, declared: &Struct, field: &Token) -> Result<String, String> {
        let path = self.file.path.display();
        let (line, name, word) = (field.line, &declared.name.text, &field.text);
        Err(format!(
            "{path}:{line}: {name}: a kernel takes this struct, and its member at `{word}` is not understood"
        ))
    }

    /// The struct of the arguments, and the family behind it.
    fn family(&self, family: &str, members: &[&Kernel]) -> Result<String, String> {
        let first = members[0];
        let struct_name = camel_case(family);
        let taken = |item: &Item| matches!(item, Item::Struct(s) if s.name.text == struct_name);
        if self.scope.items().any(taken) {
            let message = format!("the struct {struct_name} has the name that its arguments get");
            return self.refuse(&first.name, &message);
        }
        let names = parameter_names(first);
        let parameters = self.parameters(first)?;
        let kernels = members.iter().map(|member| self.member(member, first));
        let kernels = kernels.collect::<Result<String, _>>()?;
        let (mut fields, mut values, mut addresses) = (String::new(), String::new(), String::new());
        for (at, (name, parameter)) in names.iter().zip(&parameters).enumerate() {
            fields += &format!("pub {name}: {}, ", parameter.rust());
            values += &match parameter {
                Parameter::Pointer(false, _) => format!("tensors.input(self.{name})?, "),
                Parameter::Pointer(true, _) => format!("tensors.output(self.{name})?, "),
                Parameter::Value(_) => format!("self.{name}, "),
            };
            addresses += &format!("(&raw mut values.{at}).cast(), ");
        }
        Ok(format!(
            "pub struct {struct_name}<'a> {{ {fields}}}\n\
             impl Arguments for {struct_name}<'_> {{\n\
             const FAMILY: Family = Family {{ members: &[\n{kernels}] }};\n\
             fn with_addresses(self, tensors: &mut Tensors, launch: impl FnOnce(&mut [*mut c_void]) -> Result<()>) \
             -> Result<()> {{\n\
             let mut values = ({values});\n\
             launch(&mut [{addresses}])\n\
             }}\n}}\n"
        ))
    }

    /// A kernel of the family of `first`. It has the same parameters; only their element types may differ.
    fn member(&self, member: &Kernel, first: &Kernel) -> Result<String, String> {
        let parameters = self.parameters(member)?;
        let kinds = |parameters: &[Parameter]| -> Vec<String> {
            parameters.iter().map(Parameter::rust).collect()
        };
        let alike = kinds(&parameters) == kinds(&self.parameters(first)?);
        if !alike || parameter_names(member) != parameter_names(first) {
            let message = format!("its parameters are not those of {}", first.name.text);
            return self.refuse(&member.name, &message);
        }
        let elements = parameters.iter().filter_map(|parameter| match parameter {
            Parameter::Pointer(_, element) => Some(format!("DType::{element}, ")),
            Parameter::Value(_) => None,
        });
        let elements: String = elements.collect();
        let threads = self.translate(&member.name, &member.threads, &[])?;
        let (name, key) = (&member.name.text, &member.key);
        Ok(format!(
            "Member {{ key: &{key:?}, kernel: Kernel::new(&IMAGE, {name:?}, ({threads}) as u32), \
             elements: &[{elements}] }},\n"
        ))
    }

    fn parameters(&self, kernel: &Kernel) -> Result<Vec<Parameter>, String> {
        let parameters = kernel.parameters.iter().map(|parameter| {
            let read = self.parameter(parameter);
            read.map_or_else(
                || {
                    let shown: Vec<&str> = parameter.iter().map(|t| t.text.as_str()).collect();
                    let message = format!("not understood: the parameter `{}`", shown.join(" "));
                    self.refuse(&kernel.name, &message)
                },
                Ok,
            )
        });
        parameters.collect()
    }

    fn parameter(&self, tokens: &[Token]) -> Option<Parameter> {
        let words = tokens.iter().map(|token| token.text.as_str());
        let words: Vec<&str> = words.filter(|&word| word != "__restrict__").collect();
        let (_, kind) = words.split_last()?;
        let (is_const, kind) = match kind {
            ["const", rest @ ..] => (true, rest),
            _ => (false, kind),
        };
        if let [pointee @ .., "*"] = kind {
            let element = dtype(self.scalar(pointee)?)?;
            return Some(Parameter::Pointer(!is_const, element));
        }
        if let Some(scalar) = self.scalar(kind) {
            return Some(Parameter::Value(scalar.into()));
        }
        let [name] = kind else { return None };
        let is_struct = |item: &Item| matches!(item, Item::Struct(s) if s.name.text == *name);
        let found = self.scope.items().any(is_struct);
        found.then(|| Parameter::Value(name.to_string()))
    }

    /// A type of numbers, also as the `Element` of a vector type or of a struct.
    fn scalar(&self, words: &[&str]) -> Option<&'static str> {
        let [.., name, "::", "Element"] = words else {
            return rust_scalar(words);
        };
        self.scope.items().find_map(|item| match item {
            Item::Alias(alias) if alias.name.text == *name => {
                rust_scalar(&[alias.arguments.first()?.first()?.text.as_str()])
            }
            Item::Struct(declared) if declared.name.text == *name => {
                let words = declared.body.iter().map(|token| token.text.as_str());
                match words.collect::<Vec<_>>()[..] {
                    ["using", "Element", "=", element, ";", ..] => rust_scalar(&[element]),
                    _ => None,
                }
            }
            _ => None,
        })
    }
}

/// For items that perhaps only CUDA uses.
const UNUSED: &str = "#[allow(dead_code)] ";

impl Parameter {
    fn rust(&self) -> String {
        match self {
            Parameter::Pointer(false, _) => "Input<'a>".into(),
            Parameter::Pointer(true, _) => "Output<'a>".into(),
            Parameter::Value(kind) => kind.clone(),
        }
    }
}

/// The `DType` of a Rust type.
fn dtype(scalar: &str) -> Option<&'static str> {
    match scalar {
        "f32" => Some("F32"),
        "half::bf16" => Some("Bf16"),
        "u32" => Some("U32"),
        "u8" => Some("U8"),
        _ => None,
    }
}

fn parameter_names(kernel: &Kernel) -> Vec<&str> {
    let names = kernel.parameters.iter().filter_map(|tokens| tokens.last());
    names.map(|token| token.text.as_str()).collect()
}

fn camel_case(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    });
    words.collect()
}
