//! Scopes: the meanings of names.

use std::collections::HashMap;

use super::super::op::Special;
use crate::ptx::Space;

/// A virtual register.
pub type Reg = u32;

/// The class of a register: what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Pred,
    /// 16 bits, zero-extended to 32.
    W16,
    W32,
    W64,
}

impl Class {
    pub fn of(kind: &str) -> Option<Class> {
        Some(match kind {
            "pred" => Class::Pred,
            "b8" | "u8" | "s8" | "b16" | "u16" | "s16" | "f16" | "bf16" => Class::W16,
            "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => Class::W32,
            "b64" | "u64" | "s64" | "f64" => Class::W64,
            _ => return None,
        })
    }

    /// Number of units of 128 bytes in the register file of a warp.
    pub fn units(self) -> u32 {
        match self {
            Class::Pred => 0,
            Class::W16 | Class::W32 => 1,
            Class::W64 => 2,
        }
    }
}

/// The meaning of a name.
#[derive(Debug, Clone, Copy)]
pub enum Name {
    Reg(Reg),
    /// A variable at an offset of its space; kernel parameters are in `Param`.
    Variable(Space, u64),
    /// The array in shared memory whose size the launch gives.
    DynamicShared,
    /// A module variable in global or constant memory.
    Global(u32),
}

#[derive(Debug, Default)]
pub struct Scope {
    pub names: HashMap<String, Name>,
    /// `%r<54>`: prefix, count and class.
    pub families: HashMap<String, (u32, Class)>,
    /// The number of the scope in its function, in the order of opening braces.
    pub number: u32,
}

impl Scope {
    /// The class of a family's member.
    pub fn family(&self, name: &str) -> Option<Class> {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        // A prefix may itself end in digits: try each split.
        (1..=digits).rev().find_map(|digits| {
            let (prefix, index) = name.split_at(name.len() - digits);
            let (count, class) = self.families.get(prefix)?;
            (index.parse::<u32>().ok()? < *count).then_some(*class)
        })
    }
}

/// Special registers that do not change while a thread runs, and whether they have 64 bits.
pub fn special(name: &str) -> Option<(Special, bool)> {
    let (base, axis) = match name.rsplit_once('.') {
        Some((base, "x")) => (base, 0),
        Some((base, "y")) => (base, 1),
        Some((base, "z")) => (base, 2),
        _ => (name, 0),
    };
    let narrow = match base {
        "%tid" => Special::Tid(axis),
        "%ntid" => Special::Ntid(axis),
        "%ctaid" => Special::Ctaid(axis),
        "%nctaid" => Special::Nctaid(axis),
        "%laneid" => Special::Laneid,
        "%warpid" => Special::Warpid,
        "%nwarpid" => Special::Nwarpid,
        "%smid" => Special::Smid,
        "%nsmid" => Special::Nsmid,
        "%lanemask_eq" => Special::LanemaskEq,
        "%lanemask_le" => Special::LanemaskLe,
        "%lanemask_lt" => Special::LanemaskLt,
        "%lanemask_ge" => Special::LanemaskGe,
        "%lanemask_gt" => Special::LanemaskGt,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "%envreg1" => Special::WorkspaceHigh,
        "%envreg2" => Special::WorkspaceLow,
        "%envreg0" | "%envreg3" => Special::Env,
        "%gridid" => return Some((Special::Gridid, true)),
        _ => return None,
    };
    Some((narrow, false))
}
