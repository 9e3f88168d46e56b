//! Parses PTX text to a syntax tree. [`crate::machine`] resolves the names and decodes the opcodes.

mod lexer;
mod parser;

pub use parser::parse;

use std::collections::HashMap;

/// Why a text is not PTX.
#[derive(Debug, Clone)]
pub struct SyntaxError {
    /// The line of the error, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub message: String,
}

/// The state space of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// `.global`
    Global,
    /// `.const`
    Const,
    /// `.shared`
    Shared,
    /// `.local`
    Local,
    /// `.param`
    Param,
}

/// A module: its variables and functions, in the order of the text.
#[derive(Debug, Default)]
pub struct Source {
    /// The variables of module scope.
    pub variables: Vec<Variable>,
    /// The entry points and device functions.
    pub functions: Vec<Function>,
    /// The names of source files, by their numbers in `.file`.
    pub files: HashMap<u32, String>,
}

/// A variable or a parameter.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its state space.
    pub space: Space,
    /// Its alignment in bytes.
    pub align: u64,
    /// Its size in bytes; `None` for an array without a size.
    pub size: Option<u64>,
    /// The initial bytes, perhaps fewer than `size`.
    pub init: Vec<u8>,
    /// The line of its declaration.
    pub line: u32,
}

/// An entry point or a device function.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its directive.
    pub line: u32,
    /// Whether it is an entry point: a kernel.
    pub entry: bool,
    /// The results of a device function.
    pub returns: Vec<Variable>,
    /// The parameters.
    pub params: Vec<Variable>,
    /// The number of threads per block by `.maxntid` or `.reqntid`.
    pub max_threads: Option<u32>,
    /// The statements; `None` for a declaration.
    pub body: Option<Vec<Statement>>,
}

/// One statement in the body of a function.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `{`
    Open,
    /// `}`
    Close,
    /// `name:`
    Label(String),
    /// `.reg .b32 %r<54>`
    Registers {
        /// The type.
        kind: String,
        /// The name, or the prefix of the names.
        name: String,
        /// The number of registers with this prefix; `None` for a single register.
        count: Option<u32>,
        /// The line of the declaration.
        line: u32,
    },
    /// A variable in local, shared or parameter space.
    Variable(Variable),
    /// `.branchtargets`: the labels of the table that the label before it names.
    Targets(Vec<String>),
    /// `.loc`: the source of the instructions that follow.
    Location {
        /// The number of the source file.
        file: u32,
        /// The line in it.
        line: u32,
    },
    /// An instruction.
    Instruction(Instruction),
}

/// One instruction.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// Its line.
    pub line: u32,
    /// The predicate that guards it, and whether that is negated.
    pub guard: Option<(String, bool)>,
    /// The opcode with its suffixes.
    pub opcode: String,
    /// The operands in the order of the text.
    pub operands: Vec<Operand>,
}

/// An operand of an instruction.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register, special register, variable, function or label; `_` discards a result.
    Name(String),
    /// `!p`.
    Not(String),
    /// `p|q`.
    Pair(String, String),
    /// An integer, as 64 bits.
    Int(u64),
    /// The bits of an f32.
    Single(u32),
    /// The bits of an f64.
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

/// The size in bytes of a fundamental type, whose name is given without its dot.
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
