//! The variants of operations: types, roundings, functions, places, modes.

/// The scalar types that instructions name; `b` types count as unsigned.
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

/// Rounding: to nearest even, to zero, down, up, or to nearest with ties away from zero.
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
    /// Rounds to an integral value (`cvt.rni` and its kind).
    pub integral: bool,
    pub ftz: bool,
    pub sat: bool,
    pub nan: bool,
    pub relu: bool,
    /// `min`/`max` of magnitudes, with the sign of the product.
    pub xor_sign: bool,
}

/// Integer operations on two operands. Registers hold 16-bit values zero-extended.
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
    Dp2aLow,
    Dp2aHigh,
}

/// Addition or subtraction in a carry chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carry {
    pub ty: Type,
    pub subtract: bool,
    pub carry_in: bool,
    pub carry_out: bool,
}

/// Multiplication and addition in a carry chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarryMad {
    pub ty: Type,
    /// The high half of the product instead of the low half.
    pub high: bool,
    pub carry_in: bool,
    pub carry_out: bool,
}

/// Float operations on two operands.
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

/// `set` and `setp`: a comparison, whose result a predicate may be combined with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    pub compare: Compare,
    pub ty: Type,
    pub logic: Option<Logic>,
    pub ftz: bool,
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

/// The memory that an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

/// A load or store of `count` values of `width` bytes per lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub place: Place,
    pub width: u8,
    pub count: u8,
    pub signed: bool,
    /// Volatile, relaxed, acquire or release: the access can order others.
    pub strong: bool,
    /// The address register has 64 bits.
    pub wide: bool,
}

impl Access {
    /// Bytes per lane.
    pub fn bytes(self) -> u32 {
        u32::from(self.width) * u32::from(self.count)
    }
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

/// An instruction after which lanes may be at different instructions, wait or have exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// `bra`.
    Branch,
    /// `brx.idx`.
    BranchByTable,
    Exit,
    Trap,
    Bar(Bar),
    Collective(Collective),
}

/// An instruction that the lanes of its mask execute together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collective {
    /// `bar.warp.sync`.
    Barrier,
    Shfl {
        mode: ShflMode,
        /// A predicate tells whether the lane read from another lane of its segment.
        pred: bool,
    },
    Vote(VoteMode),
    MatchAny(Type),
    MatchAll(Type),
    Redux {
        op: ReduxOp,
        signed: bool,
    },
    Elect,
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

/// A barrier of the CTA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    pub mode: BarMode,
    /// All threads of a warp must execute the same barrier instruction.
    pub aligned: bool,
    /// The instruction gives the number of threads that take part.
    pub counted: bool,
}

/// Shape and types of `mma.sync`. All shapes are m16n8, with A row-major and B column-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mma {
    pub k: u8,
    pub operand: Type,
    /// F32, F16 or S32.
    pub accumulate: Type,
    /// The type of B; with integers it may differ from that of A in its sign.
    pub b_operand: Type,
}

impl Mma {
    /// Number of registers of a lane that hold A, B and C.
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

impl AtomicOp {
    /// The operation that a word of the opcode names.
    pub fn named(word: &str) -> Option<Self> {
        Some(match word {
            "add" => AtomicOp::Add,
            "min" => AtomicOp::Min,
            "max" => AtomicOp::Max,
            "and" => AtomicOp::And,
            "or" => AtomicOp::Or,
            "xor" => AtomicOp::Xor,
            "exch" => AtomicOp::Exch,
            "cas" => AtomicOp::Cas,
            "inc" => AtomicOp::Inc,
            "dec" => AtomicOp::Dec,
            _ => return None,
        })
    }
}
