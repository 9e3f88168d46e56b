//! The words of an opcode.

use super::super::op::{Compare, Int2, Logic, Mods, Place, Round, Type};

/// An opcode split at its dots.
pub struct Words<'a> {
    pub list: Vec<&'a str>,
}

impl<'a> Words<'a> {
    pub fn new(opcode: &'a str) -> Words<'a> {
        Words {
            list: opcode.split('.').collect(),
        }
    }

    pub fn has(&self, word: &str) -> bool {
        self.list[1..].contains(&word)
    }

    /// Whether a word changes what the instruction does in a way that the emulator does not know:
    /// stochastic rounding, saturation to the largest finite value, memory of a cluster.
    pub fn unsupported(&self) -> bool {
        ["rs", "satfinite", "oob", "shared::cluster"]
            .iter()
            .any(|word| self.has(word))
    }

    /// The types that the opcode names, in their order.
    pub fn types(&self) -> Vec<Type> {
        self.list[1..]
            .iter()
            .filter_map(|word| scalar(word))
            .collect()
    }

    pub fn place(&self) -> Place {
        self.list[1..]
            .iter()
            .find_map(|word| place(word))
            .unwrap_or(Place::Generic)
    }

    pub fn mods(&self) -> Mods {
        let mut mods = Mods::default();
        for &word in &self.list[1..] {
            match word {
                "rn" => mods.round = Round::Near,
                "rz" => mods.round = Round::Zero,
                "rm" => mods.round = Round::Down,
                "rp" => mods.round = Round::Up,
                "rna" => mods.round = Round::Away,
                "rni" | "rzi" | "rmi" | "rpi" => {
                    mods.integral = true;
                    mods.round = match word {
                        "rni" => Round::Near,
                        "rzi" => Round::Zero,
                        "rmi" => Round::Down,
                        _ => Round::Up,
                    };
                }
                "ftz" => mods.ftz = true,
                "sat" => mods.sat = true,
                "NaN" => mods.nan = true,
                "relu" => mods.relu = true,
                "xorsign" => mods.xor_sign = true,
                _ => {}
            }
        }
        mods
    }

    pub fn compare(&self) -> Option<Compare> {
        self.list[1..].iter().find_map(|word| compare(word))
    }

    pub fn logic(&self) -> Option<Logic> {
        self.list[1..].iter().find_map(|word| match *word {
            "and" => Some(Logic::And),
            "or" => Some(Logic::Or),
            "xor" => Some(Logic::Xor),
            _ => None,
        })
    }

    /// The number in `v2`, `v4`, `x2` or `x4`, where `letter` is `v` or `x`; otherwise 1.
    pub fn count(&self, letter: char) -> u8 {
        self.list[1..]
            .iter()
            .find_map(|word| word.strip_prefix(letter)?.parse().ok())
            .unwrap_or(1)
    }
}

pub fn scalar(word: &str) -> Option<Type> {
    Some(match word {
        "b8" | "u8" => Type::U8,
        "s8" => Type::S8,
        "b16" | "u16" => Type::U16,
        "s16" => Type::S16,
        "b32" | "u32" => Type::U32,
        "s32" => Type::S32,
        "b64" | "u64" => Type::U64,
        "s64" => Type::S64,
        "f16" => Type::F16,
        "bf16" => Type::Bf16,
        "f16x2" => Type::F16x2,
        "bf16x2" => Type::Bf16x2,
        "tf32" => Type::Tf32,
        "f32" => Type::F32,
        "f64" => Type::F64,
        "pred" => Type::Pred,
        _ => return None,
    })
}

fn place(word: &str) -> Option<Place> {
    Some(match word {
        "global" | "const" => Place::Global,
        "shared" | "shared::cta" => Place::Shared,
        "local" => Place::Local,
        "param" | "param::entry" | "param::func" => Place::Param,
        _ => return None,
    })
}

fn compare(word: &str) -> Option<Compare> {
    Some(match word {
        "eq" => Compare::Eq,
        "ne" => Compare::Ne,
        "lt" | "lo" => Compare::Lt,
        "le" | "ls" => Compare::Le,
        "gt" | "hi" => Compare::Gt,
        "ge" | "hs" => Compare::Ge,
        "equ" => Compare::Equ,
        "neu" => Compare::Neu,
        "ltu" => Compare::Ltu,
        "leu" => Compare::Leu,
        "gtu" => Compare::Gtu,
        "geu" => Compare::Geu,
        "num" => Compare::Num,
        "nan" => Compare::Nan,
        _ => return None,
    })
}

pub fn int2(word: &str) -> Option<Int2> {
    Some(match word {
        "add" => Int2::Add,
        "sub" => Int2::Sub,
        "div" => Int2::Div,
        "rem" => Int2::Rem,
        "min" => Int2::Min,
        "max" => Int2::Max,
        "and" => Int2::And,
        "or" => Int2::Or,
        "xor" => Int2::Xor,
        "shl" => Int2::Shl,
        "shr" => Int2::Shr,
        _ => return None,
    })
}
