//! Decoded instructions.

/// A register: the index of its first 128-byte unit in a warp's register file, or of a predicate.
pub type Slot = u32;

/// Scalar types as instructions name them; `b` types count as unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    Tf32,
    F32,
    F64,
    Pred,
}

impl Type {
    pub fn bytes(self) -> u32 {
        use Type::*;
        match self {
            U8 | S8 => 1,
            U16 | S16 | F16 | Bf16 => 2,
            U32 | S32 | F16x2 | Bf16x2 | Tf32 | F32 => 4,
            U64 | S64 | F64 => 8,
            Pred => 0,
        }
    }

    pub fn is_float(self) -> bool {
        use Type::*;
        matches!(self, F16 | Bf16 | F16x2 | Bf16x2 | Tf32 | F32 | F64)
    }

    pub fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }
}

/// Rounding: to nearest even, to zero, down, up, to nearest with ties away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Round {
    #[default]
    Near,
    Zero,
    Down,
    Up,
    Away,
}

/// Modifiers of float instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mods {
    pub round: Round,
    /// To an integral value (`cvt.rni` and its kind).
    pub integral: bool,
    pub ftz: bool,
    pub sat: bool,
    pub nan: bool,
    pub relu: bool,
    /// `min`/`max` of magnitudes, with the sign of the product.
    pub xor_sign: bool,
}

/// Integer operations of two operands. 16-bit values are kept zero-extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int2 {
    Add,
    Sub,
    Mul,
    MulHi,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    AddSat,
    SubSat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int1 {
    Not,
    Neg,
    Abs,
    Cnot,
    Clz,
    Popc,
    Brev,
    Bfind,
    BfindShift,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int3 {
    Mad,
    MadHi,
    Sad,
    Bfe,
    ShfLeftWrap,
    ShfLeftClamp,
    ShfRightWrap,
    ShfRightClamp,
    Dp4a,
}

/// Float operations of two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float2 {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    CopySign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float1 {
    Abs,
    Neg,
    Rcp,
    Sqrt,
    Rsqrt,
    Sin,
    Cos,
    Lg2,
    Ex2,
    Tanh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classify {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// Where an address points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

/// A load or store: `count` values of `width` bytes a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub place: Place,
    pub width: u8,
    pub count: u8,
    pub signed: bool,
    /// Volatile, relaxed, acquire or release: takes part in synchronisation.
    pub strong: bool,
    /// The address register has 64 bits.
    pub wide: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Atomic {
    pub op: AtomicOp,
    pub ty: Type,
    pub place: Place,
    pub wide: bool,
    /// `red`: no result.
    pub silent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduxOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarMode {
    Sync,
    Arrive,
    And,
    Or,
    Popc,
}

/// Shapes and operand types of `mma.sync`, all m16n8 with A by rows and B by columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mma {
    pub k: u8,
    pub operand: Type,
    /// F32, F16 or S32.
    pub accumulate: Type,
    /// Signedness of A and B when integer.
    pub b_operand: Type,
}

impl Mma {
    /// Registers a lane holds of A, of B, and of C.
    pub fn registers(self) -> (usize, usize, usize) {
        let bytes = self.operand.bytes() as usize;
        let words = |elements: usize| elements * bytes / (32 * 4);
        let c = if self.accumulate == Type::F16 { 2 } else { 4 };
        (words(16 * self.k as usize), words(8 * self.k as usize), c)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Cycles32,
    Cycles64,
    Nanoseconds,
}

/// What an instruction does. Fields of [`Inst`] hold the operands.
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
    /// Two 16- or 32-bit factors to twice the width; then plus the third operand.
    MulWide(Type),
    MadWide(Type),
    Lop3(u8),
    Prmt(u8),
    Bfi(Type),
    /// Carry chains: `a ± b ± carry`, writing the carry when asked.
    Carry {
        ty: Type,
        subtract: bool,
        carry_in: bool,
        carry_out: bool,
    },
    /// The same over `lo`/`hi` of a product.
    CarryMad {
        ty: Type,
        high: bool,
        carry_in: bool,
        carry_out: bool,
    },
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
    /// Two f32 into a pair, the first operand high.
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
    Setp {
        compare: Compare,
        ty: Type,
        logic: Option<Logic>,
        ftz: bool,
        two: bool,
    },
    /// `set`: a mask of ones, or 1.0 when `float`.
    Set {
        compare: Compare,
        ty: Type,
        logic: Option<Logic>,
        ftz: bool,
        to: Type,
    },
    PredLogic(Logic),
    PredNot,
    PredMov,
    /// `count` parts of `bits` bits into one register, and back.
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
    Bra,
    Brx,
    Exit,
    Trap,
    Bar {
        mode: BarMode,
        aligned: bool,
        counted: bool,
    },
    WarpBar,
    Shfl {
        mode: ShflMode,
        pred: bool,
    },
    Vote(VoteMode),
    MatchAny(Type),
    MatchAll(Type, bool),
    Redux(ReduxOp, bool),
    Elect,
    Activemask,
    Fence,
    Sleep,
    ReadClock(Clock),
}

/// Classes that warp instructions are counted by.
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
    /// What the instruction counts as.
    pub fn class(&self) -> Class {
        use Op::*;
        match self {
            Mov32 | Mov64 | Pack { .. } | Unpack { .. } | Selp32 | Selp64 | Slct { .. } => {
                Class::Move
            }
            Add32
            | Int32(..)
            | Int64(..)
            | Int32Un(..)
            | Int64Un(..)
            | Int32Tern(..)
            | Int64Tern(..)
            | MulWide(..)
            | MadWide(..)
            | Lop3(..)
            | Prmt(..)
            | Bfi(..)
            | Carry { .. }
            | CarryMad { .. }
            | ToGeneric(..)
            | FromGeneric(..) => Class::Integer,
            FmaF32 | AddF32 | MulF32 | Fma32(..) => Class::Float,
            Float32(Float2::Div, _) => Class::Special,
            Float32(..) | Float32Un(Float1::Abs | Float1::Neg, _) => Class::Float,
            Float32Un(..) => Class::Special,
            Float64(..) | Float64Un(..) | Fma64(..) => Class::Double,
            Half2(..) | Half1(..) | HalfFma(..) => Class::Half,
            Convert { .. } | ConvertPair { .. } | SignExtend32 | ZeroExtend32 | Truncate64 => {
                Class::Convert
            }
            Setp { .. }
            | Set { .. }
            | PredLogic(..)
            | PredNot
            | PredMov
            | Testp(..)
            | IsSpace(..) => Class::Predicate,
            Bra | Brx | Exit | Trap => Class::Control,
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
            Shfl { .. }
            | Vote(..)
            | MatchAny(..)
            | MatchAll(..)
            | Redux(..)
            | Elect
            | Activemask => Class::Warp,
            Bar { .. } | WarpBar => Class::Barrier,
            Nop | Fence | Sleep | ReadClock(..) => Class::Other,
        }
    }
}

/// Guard value of an instruction without one.
pub const UNGUARDED: u32 = u32::MAX;

/// A decoded instruction.
#[derive(Debug, Clone, Copy)]
pub struct Inst {
    pub op: Op,
    /// Twice the predicate's slot, plus one when negated; or [`UNGUARDED`].
    pub guard: u32,
    /// The destination; or, for instructions with more operands than fit, where their slots
    /// start in [`Code::more`].
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
    /// PTX line of each instruction.
    pub lines: Vec<u32>,
    /// Source file number and line of each instruction, (0, 0) when not known.
    pub locations: Vec<(u32, u32)>,
    /// Slots of instructions with many operands: destinations, then sources.
    pub more: Vec<Slot>,
    /// Targets of `brx.idx`.
    pub targets: Vec<u32>,
    /// What registers start with.
    pub initial: Vec<(Slot, Initial)>,
    pub units: u32,
    pub predicates: u32,
    /// Narrowest access to shared memory, in bytes: the grain of its checks.
    pub shared_grain: u32,
}

/// A register's value at the start of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Initial {
    Const32(u32),
    Const64(u64),
    Pred(bool),
    /// Address of a variable of module scope, plus an offset.
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
    /// An environment register that is not used.
    Env,
    /// The workspace of a cooperative grid: the halves of its address.
    WorkspaceHigh,
    WorkspaceLow,
    /// Where dynamic shared memory starts.
    DynamicBase,
}
