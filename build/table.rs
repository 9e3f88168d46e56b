//! The table of kernels: Rust constants with the types of the kernels' parameters, read from the declarations in
//! `kernels/*.cu`. A launch with arguments of other types does not compile.
//!
//! A declaration is written out in one piece:
//! `extern "C" __global__ void __launch_bounds__(256) name(const float* x, float* y, int n)`. Pointers to const are
//! `Read`, others `Write`. A struct by value has a twin in Rust, in the operation's `cuda.rs`.

use super::nvcc::Compiled;
use std::fmt::Write;
use std::fs;
use std::path::Path;

struct Kernel {
    name: String,
    /// As Rust writes them.
    parameters: Vec<String>,
    /// Of `__launch_bounds__`.
    threads: u32,
}

/// The part of the table for one file.
pub fn module(source: &Path, compiled: Option<&Compiled>) -> Result<String, String> {
    let text = fs::read_to_string(source).map_err(|e| format!("{}: {e}", source.display()))?;
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    let kernels = declarations(&without_comments(&text), &stem)
        .map_err(|message| format!("{}: {message}", source.display()))?;
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes all");
    line(format!("/// `kernels/{stem}.cu`"));
    line(format!("pub mod {stem} {{"));
    line("#[allow(unused_imports)] use crate::device::cuda::{Image, Kernel, Read, Write};".into());
    line(image(&stem, compiled));
    for Kernel {
        name,
        parameters,
        threads,
    } in kernels
    {
        let types = parameters.join(", ");
        let constant = name.to_uppercase();
        line(format!(
            "pub const {constant}: Kernel<({types},)> = Kernel::new(&IMAGE, {name:?}, {threads});"
        ));
    }
    line("}".into());
    Ok(out)
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
    format!("pub static IMAGE: Image = Image::new({stem:?}, {ptx}, &[{cubins}]);")
}

/// The text with every comment replaced by a space.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("/*").into_iter().chain(rest.find("//")).min() {
        out.push_str(&rest[..at]);
        out.push(' ');
        let end = match rest[at..].starts_with("//") {
            true => rest[at..].find('\n'),
            false => rest[at..].find("*/").map(|end| end + 2),
        };
        rest = end.map_or("", |end| &rest[at + end..]);
    }
    out + rest
}

fn declarations(text: &str, stem: &str) -> Result<Vec<Kernel>, String> {
    let mut kernels = Vec::new();
    for part in text.split("extern \"C\" __global__").skip(1) {
        let head = part.split('{').next().unwrap_or(part).trim();
        let refuse = || format!("not understood: extern \"C\" __global__ {head}");
        let head = head.strip_prefix("void").ok_or_else(refuse)?.trim_start();
        let (bounds, rest) = head
            .strip_prefix("__launch_bounds__(")
            .and_then(|rest| rest.split_once(')'))
            .ok_or_else(|| format!("{}: its __launch_bounds__ are missing", refuse()))?;
        let threads = bounds.split(',').next().and_then(|n| n.trim().parse().ok());
        let (name, parameters) = rest.split_once('(').ok_or_else(refuse)?;
        let parameters = parameters.rsplit_once(')').ok_or_else(refuse)?.0;
        let types = parameters.split(',').map(|p| rust_type(p.trim(), stem));
        kernels.push(Kernel {
            name: name.trim().into(),
            parameters: types.collect::<Option<_>>().ok_or_else(refuse)?,
            threads: threads.ok_or_else(|| format!("{}: bounds are to be a number", refuse()))?,
        });
    }
    Ok(kernels)
}

/// `const float* x` as `Read<f32>`.
fn rust_type(parameter: &str, stem: &str) -> Option<String> {
    let scalar = |name: &str| {
        Some(match name {
            "float" => "f32",
            "double" => "f64",
            "int" => "i32",
            "unsigned" | "unsigned int" => "u32",
            "long long" => "i64",
            "unsigned long long" => "u64",
            "unsigned char" => "u8",
            "__nv_bfloat16" => "half::bf16",
            _ => return None,
        })
    };
    let parameter = parameter.replace("__restrict__", " ");
    let Some((pointee, _)) = parameter.split_once('*') else {
        let (name, _) = parameter.trim().rsplit_once(char::is_whitespace)?;
        let name = name.trim().trim_start_matches("const ").trim();
        return match scalar(name) {
            Some(rust) => Some(rust.into()),
            None if name.chars().all(char::is_alphanumeric) => {
                Some(format!("crate::ops::{stem}::cuda::{name}"))
            }
            None => None,
        };
    };
    let pointee = pointee.trim();
    match pointee.strip_prefix("const ") {
        Some(name) => Some(format!("Read<{}>", scalar(name.trim())?)),
        None => Some(format!("Write<{}>", scalar(pointee)?)),
    }
}
