//! Decoded instructions.

pub use super::kind::*;

/// A register, as the index of its first unit of 128 bytes in the register file of a warp; or a predicate, as its index.
pub type Slot = u32;

/// What an instruction does. The fields of [`Inst`] hold its operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    Nop,
    Mov32,
    Mov64,
    Add32,
    FmaF32,
    AddF32,
    MulF32,
    Int32(Int2, Type),
    Int64(Int2, Type),
    Int32Un(Int1, Type),
    Int64Un(Int1, Type),
    Int32Tern(Int3, Type),
    Int64Tern(Int3, Type),
    /// The product of two 16- or 32-bit factors in twice their width; `MadWide` adds the third operand.
    MulWide(Type),
    MadWide(Type),
    Lop3(u8),
    Prmt(u8),
    Bfi(Type),
    /// `add.cc`, `subc` and their kind: `a ± b ± carry`.
    Carry(Carry),
    /// `mad.cc` and `madc`: the low or high half of `a · b`, plus `c` and the carry.
    CarryMad(CarryMad),
    Float32(Float2, Mods),
    Float64(Float2, Mods),
    Float32Un(Float1, Mods),
    Float64Un(Float1, Mods),
    Fma32(Mods),
    Fma64(Mods),
    /// f16, bf16 and their pairs.
    Half2(Float2, Type, Mods),
    Half1(Float1, Type, Mods),
    HalfFma(Type, Mods),
    Testp(Classify, Type),
    Convert {
        to: Type,
        from: Type,
        mods: Mods,
    },
    /// Converts two f32 to a pair; the first operand becomes the high half.
    ConvertPair {
        to: Type,
        mods: Mods,
    },
    SignExtend32,
    ZeroExtend32,
    Truncate64,
    Selp32,
    Selp64,
    Slct {
        ty: Type,
        float: bool,
    },
    /// A comparison into one predicate; if the flag is set, its opposite into a second one.
    Setp(Comparison, bool),
    /// A comparison into a register: all bits set, or 1.0 if the type is f32.
    Set(Comparison, Type),
    PredLogic(Logic),
    PredNot,
    PredMov,
    /// Joins `count` parts of `bits` bits in one register; `Unpack` is the reverse.
    Pack {
        bits: u8,
        count: u8,
    },
    Unpack {
        bits: u8,
        count: u8,
    },
    Load(Access),
    Store(Access),
    Atomic(Atomic),
    CpAsync {
        bytes: u8,
        sized: bool,
    },
    CpCommit,
    CpWait(u32),
    CpWaitAll,
    LdMatrix {
        count: u8,
        trans: bool,
    },
    Mma(Mma),
    /// Converts between generic addresses and those of a space.
    ToGeneric(Place),
    FromGeneric(Place),
    IsSpace(Place),
    Control(Control),
    Activemask,
    Fence,
    Sleep,
    ReadClock(Clock),
}

/// The classes in which warp instructions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Move,
    Integer,
    Float,
    Half,
    Double,
    Special,
    Convert,
    Predicate,
    Control,
    LoadGlobal,
    StoreGlobal,
    LoadShared,
    StoreShared,
    Local,
    Param,
    Atomic,
    Async,
    Matrix,
    Mma,
    Warp,
    Barrier,
    Other,
}

impl Class {
    pub const NAMES: [&str; 22] = [
        "class_move",
        "class_integer",
        "class_float",
        "class_half",
        "class_double",
        "class_special",
        "class_convert",
        "class_predicate",
        "class_control",
        "class_load_global",
        "class_store_global",
        "class_load_shared",
        "class_store_shared",
        "class_local",
        "class_param",
        "class_atomic",
        "class_cp_async",
        "class_ldmatrix",
        "class_mma",
        "class_warp",
        "class_barrier",
        "class_other",
    ];
}

impl Op {
    /// The class in which the instruction is counted.
    pub fn class(&self) -> Class {
        use Op::*;
        match self {
            Mov32 | Mov64 | Pack { .. } | Unpack { .. } | Selp32 | Selp64 | Slct { .. } => {
                Class::Move
            }
            Add32 | Int32(..) | Int64(..) | Int32Un(..) | Int64Un(..) | Int32Tern(..)
            | Int64Tern(..) | MulWide(..) | MadWide(..) | Lop3(..) | Prmt(..) | Bfi(..)
            | Carry(..) | CarryMad(..) | ToGeneric(..) | FromGeneric(..) => Class::Integer,
            FmaF32 | AddF32 | MulF32 | Fma32(..) => Class::Float,
            Float32(Float2::Div, _) => Class::Special,
            Float32(..) | Float32Un(Float1::Abs | Float1::Neg, _) => Class::Float,
            Float32Un(..) => Class::Special,
            Float64(..) | Float64Un(..) | Fma64(..) => Class::Double,
            Half2(..) | Half1(..) | HalfFma(..) => Class::Half,
            Convert { .. } | ConvertPair { .. } | SignExtend32 | ZeroExtend32 | Truncate64 => {
                Class::Convert
            }
            Setp(..) | Set(..) | PredLogic(..) | PredNot | PredMov | Testp(..) | IsSpace(..) => {
                Class::Predicate
            }
            Load(access) => match access.place {
                Place::Global | Place::Generic => Class::LoadGlobal,
                Place::Shared => Class::LoadShared,
                Place::Local => Class::Local,
                Place::Param => Class::Param,
            },
            Store(access) => match access.place {
                Place::Global | Place::Generic => Class::StoreGlobal,
                Place::Shared => Class::StoreShared,
                Place::Local => Class::Local,
                Place::Param => Class::Param,
            },
            Atomic(..) => Class::Atomic,
            CpAsync { .. } | CpCommit | CpWait(..) | CpWaitAll => Class::Async,
            LdMatrix { .. } => Class::Matrix,
            Mma(..) => Class::Mma,
            Control(control) => control.class(),
            Activemask => Class::Warp,
            Nop | Fence | Sleep | ReadClock(..) => Class::Other,
        }
    }
}

impl Control {
    fn class(self) -> Class {
        match self {
            Control::Branch | Control::BranchByTable | Control::Exit | Control::Trap => {
                Class::Control
            }
            Control::Bar(_) | Control::Collective(Collective::Barrier) => Class::Barrier,
            Control::Collective(_) => Class::Warp,
        }
    }
}

/// The value of `guard` of an instruction without a guard.
pub const UNGUARDED: u32 = u32::MAX;

/// A decoded instruction.
#[derive(Debug, Clone, Copy)]
pub struct Inst {
    pub op: Op,
    /// Twice the slot of the predicate, plus one if it is negated; or [`UNGUARDED`].
    pub guard: u32,
    /// The destination. For instructions with more operands, the index of the first of their slots in [`Code::more`].
    pub d: Slot,
    pub a: Slot,
    pub b: Slot,
    pub c: Slot,
    /// Address offset, branch target, or another constant.
    pub imm: i64,
}

/// A kernel ready to run.
#[derive(Debug, Default)]
pub struct Code {
    pub insts: Vec<Inst>,
    /// The PTX line of each instruction.
    pub lines: Vec<u32>,
    /// The number of the source file and the line of each instruction; (0, 0) if not known.
    pub locations: Vec<(u32, u32)>,
    /// The slots of instructions with many operands: destinations, then sources.
    pub more: Vec<Slot>,
    /// The targets of `brx.idx`.
    pub targets: Vec<u32>,
    /// The initial values of registers.
    pub initial: Vec<(Slot, Initial)>,
    pub units: u32,
    pub predicates: u32,
    /// The size of the narrowest access to shared memory, in bytes: the grain of its checks.
    pub shared_grain: u32,
}

/// The value of a register at the start of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Initial {
    Const32(u32),
    Const64(u64),
    Pred(bool),
    /// The address of a variable of module scope, plus an offset.
    Global(u32, i64),
    Special(Special),
    Special64(Special),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Laneid,
    Warpid,
    Nwarpid,
    Smid,
    Nsmid,
    Gridid,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    DynamicShared,
    TotalShared,
    /// An unused environment register.
    Env,
    /// One half of the address of a cooperative grid's workspace.
    WorkspaceHigh,
    WorkspaceLow,
    /// The offset of dynamic shared memory.
    DynamicBase,
}
