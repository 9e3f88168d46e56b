//! PTX text to a module's syntax tree. Names are resolved, and opcodes understood, by
//! [`crate::machine`].

mod lexer;
mod parser;

pub use parser::parse;

use std::collections::HashMap;

/// Text that is not PTX.
#[derive(Debug, Clone)]
pub struct SyntaxError {
    pub line: u32,
    pub message: String,
}

/// State spaces that variables live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A module: variables and functions, in their order.
#[derive(Debug, Default)]
pub struct Source {
    pub variables: Vec<Variable>,
    pub functions: Vec<Function>,
    /// `.file` numbers and names.
    pub files: HashMap<u32, String>,
}

/// A variable or a parameter.
#[derive(Debug, Clone)]
pub struct Variable {
    pub name: String,
    pub space: Space,
    pub align: u64,
    /// Bytes; `None` for an array without a size.
    pub size: Option<u64>,
    /// Initial bytes, maybe fewer than `size`.
    pub init: Vec<u8>,
    pub line: u32,
}

/// An entry point or a device function.
#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub line: u32,
    pub entry: bool,
    pub returns: Vec<Variable>,
    pub params: Vec<Variable>,
    /// Product of `.maxntid` or `.reqntid`.
    pub max_threads: Option<u32>,
    /// `None` for a declaration.
    pub body: Option<Vec<Statement>>,
}

/// One statement of a function's body.
#[derive(Debug, Clone)]
pub enum Statement {
    Open,
    Close,
    Label(String),
    /// `.reg .b32 %r<54>`: the type, the name and how many.
    Registers {
        kind: String,
        name: String,
        count: Option<u32>,
        line: u32,
    },
    Variable(Variable),
    /// `.branchtargets`: labels that the label before names.
    Targets(Vec<String>),
    /// `.loc`: file number and line of what follows.
    Location {
        file: u32,
        line: u32,
    },
    Instruction(Instruction),
}

/// One instruction.
#[derive(Debug, Clone)]
pub struct Instruction {
    pub line: u32,
    /// The predicate, and whether it is negated.
    pub guard: Option<(String, bool)>,
    pub opcode: String,
    pub operands: Vec<Operand>,
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register, special register, variable, function or label; `_` is a sink.
    Name(String),
    /// `!p`.
    Not(String),
    /// `p|q`.
    Pair(String, String),
    /// An integer, as 64 bits.
    Int(u64),
    Single(u32),
    Double(u64),
    /// `name+offset` outside brackets.
    Offset(String, i64),
    /// `[base+offset]`.
    Address(Option<String>, i64),
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `(a, b)` of a call.
    Group(Vec<Operand>),
}

/// Bytes of a fundamental type without its dot.
pub fn type_bytes(name: &str) -> Option<u64> {
    Some(match name {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" | "tf32" => 4,
        "b64" | "u64" | "s64" | "f64" | "f32x2" => 8,
        "b128" => 16,
        _ => return None,
    })
}
