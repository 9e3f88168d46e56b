//! Expressions of whole numbers, from CUDA C++ to Rust, where they mean the same for numbers that are not negative.
//!
//! An expression is made of numbers, constants, parameters, members of a struct of constants (`large::M`), calls of functions,
//! `sizeof(float)`, brackets and `+ - * / % << >>`. Everything else is refused.

use super::source::{File, Item};
use super::tokens::Token;

/// The names that an expression can hold: what a file and those that it includes declare.
pub struct Scope<'a> {
    /// The file itself comes first.
    pub files: Vec<&'a File>,
}

impl<'a> Scope<'a> {
    pub fn items(&self) -> impl Iterator<Item = &'a Item> {
        self.files.iter().flat_map(|file| &file.items)
    }

    fn has(&self, matches: impl Fn(&Item) -> bool) -> bool {
        self.items().any(matches)
    }

    /// The expression in Rust. `locals` are the names of parameters and members, which are written in small letters in Rust.
    pub fn translate(&self, tokens: &[Token], locals: &[&str]) -> Result<String, String> {
        let mut out = String::new();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let next = |n: usize| tokens.get(at + n).map_or("", |token| token.text.as_str());
            let text = token.text.as_str();
            let refuse = || Err(format!("{text} is not understood in an expression"));
            let mut length = 1;
            if next(1) == "::" {
                let member = next(2);
                if self.has(|item| matches!(item, Item::Alias(a) if a.name.text == text)) {
                    out += &format!("{}.{}", text.to_uppercase(), member.to_lowercase());
                    length = 3;
                } else {
                    // A namespace.
                    length = 2;
                }
            } else if text == "sizeof" {
                let Some(size) = rust_scalar(&[next(2)]) else {
                    return refuse();
                };
                out += &format!("size_of::<{size}>()");
                length = 4;
            } else if ["+", "-", "*", "/", "%", "<<", ">>", "(", ")", ","].contains(&text) {
                out += &format!(" {text} ");
            } else if text.starts_with(|c: char| c.is_ascii_digit()) {
                let number = text.trim_end_matches(['u', 'U', 'l', 'L']);
                if number.parse::<u64>().is_err() {
                    return refuse();
                }
                out += number;
            } else if locals.contains(&text) {
                out += &text.to_lowercase();
            } else if self.has(|item| declares(item, text, next(1) == "(")) {
                out += text;
            } else {
                return refuse();
            }
            at += length;
        }
        if out.is_empty() {
            return Err("an expression is missing".into());
        }
        Ok(out)
    }
}

fn declares(item: &Item, name: &str, called: bool) -> bool {
    match item {
        Item::Constant(constant) => !called && constant.kind == "int" && constant.name.text == name,
        Item::Function(function) => called && function.name.text == name,
        _ => false,
    }
}

/// A type of numbers as Rust has it.
pub fn rust_scalar(words: &[&str]) -> Option<&'static str> {
    Some(match words {
        ["float" | "f32"] => "f32",
        ["double"] => "f64",
        ["int"] => "i32",
        ["unsigned" | "u32"] | ["unsigned", "int"] => "u32",
        ["long", "long"] => "i64",
        ["unsigned", "long", "long"] => "u64",
        ["unsigned", "char"] | ["u8"] => "u8",
        ["__nv_bfloat16" | "bf16"] => "half::bf16",
        _ => return None,
    })
}
