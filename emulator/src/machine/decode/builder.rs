//! Turns the statements of a kernel, and of the functions it calls, into instructions over virtual registers.

mod calls;

use std::collections::HashMap;

use super::super::op::{Code, Control, Initial, Op, Special};
use super::names::{Class, Name, Reg, Scope, special};
use super::{Result, allocate, fail};
use crate::ptx::{Function, Instruction, Source, Space, Statement, Variable};

/// An instruction over virtual registers.
#[derive(Debug, Clone)]
pub struct Draft {
    pub op: Op,
    pub guard: Option<(Reg, bool)>,
    pub dst: Vec<Reg>,
    pub src: Vec<Reg>,
    pub imm: i64,
    /// The label that it jumps to; several for `brx.idx`.
    pub labels: Vec<usize>,
    pub line: u32,
    pub location: (u32, u32),
}

/// A decoded kernel and the memory it declares.
pub struct Decoded {
    pub code: Code,
    pub static_shared: u32,
    pub dynamic_align: u32,
    pub local_bytes: u32,
    /// Number of 32-bit registers that are live at once.
    pub registers: u32,
}

/// Decodes an entry point. `globals` gives the index of each module variable; `params` the
/// offset of each parameter.
pub fn function(
    source: &Source,
    entry: &Function,
    globals: &HashMap<String, u32>,
    params: &[(String, usize)],
) -> Result<Decoded> {
    let mut builder = Builder::new(source, globals);
    let mut scope = Scope::default();
    for (name, offset) in params {
        scope
            .names
            .insert(name.clone(), Name::Variable(Space::Param, *offset as u64));
    }
    builder.frame = Frame {
        scopes: vec![scope],
        ..Frame::default()
    };
    builder.body(entry)?;
    builder.emit(Op::Control(Control::Exit), vec![], vec![]);
    allocate::finish(builder)
}

/// The scopes and labels of the body of one function.
#[derive(Default)]
pub struct Frame {
    scopes: Vec<Scope>,
    opened: u32,
    labels: HashMap<(u32, String), usize>,
    tables: HashMap<String, Vec<String>>,
    /// The label that `ret` jumps to in a called function.
    end: Option<usize>,
    name: String,
}

/// The instructions of a kernel while they are made.
pub struct Builder<'a> {
    pub source: &'a Source,
    globals: &'a HashMap<String, u32>,
    pub drafts: Vec<Draft>,
    /// The class of each virtual register.
    pub classes: Vec<Class>,
    pub initial: Vec<(Reg, Initial)>,
    constants: HashMap<Initial, Reg>,
    /// The instruction index of each label.
    pub label_at: Vec<u32>,
    frame: Frame,
    depth: u32,
    pub line: u32,
    location: (u32, u32),
    guard: Option<(Reg, bool)>,
    carry: Option<Reg>,
    pub static_shared: u64,
    shared: HashMap<String, u64>,
    pub dynamic_align: u64,
    pub local_bytes: u64,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Source, globals: &'a HashMap<String, u32>) -> Self {
        Builder {
            source,
            globals,
            drafts: Vec::new(),
            classes: Vec::new(),
            initial: Vec::new(),
            constants: HashMap::new(),
            label_at: Vec::new(),
            frame: Frame::default(),
            depth: 0,
            line: 0,
            location: (0, 0),
            guard: None,
            carry: None,
            static_shared: 0,
            shared: HashMap::new(),
            dynamic_align: 16,
            local_bytes: 0,
        }
    }

    pub fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        fail(self.line, message)
    }

    pub fn fresh(&mut self, class: Class) -> Reg {
        self.classes.push(class);
        self.classes.len() as Reg - 1
    }

    /// A register that has a value from the start and is never written.
    pub fn constant(&mut self, initial: Initial) -> Reg {
        let class = match initial {
            Initial::Const32(_) | Initial::Special(_) => Class::W32,
            Initial::Const64(_) | Initial::Global(..) | Initial::Special64(_) => Class::W64,
            Initial::Pred(_) => Class::Pred,
        };
        if let Some(&reg) = self.constants.get(&initial) {
            return reg;
        }
        let reg = self.fresh(class);
        self.constants.insert(initial, reg);
        self.initial.push((reg, initial));
        reg
    }

    pub fn emit(&mut self, op: Op, dst: Vec<Reg>, src: Vec<Reg>) -> &mut Draft {
        let (guard, line, location) = (self.guard, self.line, self.location);
        self.drafts.push(Draft {
            op,
            guard,
            dst,
            src,
            imm: 0,
            labels: Vec::new(),
            line,
            location,
        });
        self.drafts.last_mut().expect("just pushed")
    }

    /// Emits without the guard: for temporary registers.
    pub fn emit_always(&mut self, op: Op, dst: Vec<Reg>, src: Vec<Reg>) {
        self.emit(op, dst, src).guard = None;
    }

    pub fn carry(&mut self) -> Reg {
        match self.carry {
            Some(reg) => reg,
            None => {
                let reg = self.fresh(Class::Pred);
                self.carry = Some(reg);
                reg
            }
        }
    }

    fn body(&mut self, function: &Function) -> Result<()> {
        let Some(body) = &function.body else {
            return self.fail(format!("`{}` has no body in this module", function.name));
        };
        self.frame.name = function.name.clone();
        self.find_labels(body);
        for (at, statement) in body.iter().enumerate() {
            match statement {
                Statement::Open => {
                    self.frame.opened += 1;
                    let number = self.frame.opened;
                    self.frame.scopes.push(Scope {
                        number,
                        ..Scope::default()
                    });
                }
                Statement::Close => drop(self.frame.scopes.pop()),
                Statement::Label(name) => {
                    if !matches!(body.get(at + 1), Some(Statement::Targets(_))) {
                        let number = self.scope().number;
                        let label = self.frame.labels[&(number, name.clone())];
                        self.place(label);
                    }
                }
                Statement::Targets(_) => {}
                Statement::Registers {
                    kind,
                    name,
                    count,
                    line,
                } => {
                    self.line = *line;
                    self.registers(kind, name, *count)?;
                }
                Statement::Variable(variable) => self.variable(variable)?,
                Statement::Location { file, line } => self.location = (*file, *line),
                Statement::Instruction(instruction) => self.instruction(instruction)?,
            }
        }
        Ok(())
    }

    fn scope(&mut self) -> &mut Scope {
        self.frame.scopes.last_mut().expect("a body has a scope")
    }

    /// Gives every label a number, because a label may be used before its place.
    fn find_labels(&mut self, body: &[Statement]) {
        let (mut open, mut opened) = (vec![0], 0);
        for (at, statement) in body.iter().enumerate() {
            match statement {
                Statement::Open => {
                    opened += 1;
                    open.push(opened);
                }
                Statement::Close => drop(open.pop()),
                Statement::Label(name) => match body.get(at + 1) {
                    Some(Statement::Targets(list)) => {
                        self.frame.tables.insert(name.clone(), list.clone());
                    }
                    _ => {
                        let scope = *open.last().unwrap_or(&0);
                        let label = self.new_label();
                        self.frame.labels.insert((scope, name.clone()), label);
                    }
                },
                _ => {}
            }
        }
    }

    fn new_label(&mut self) -> usize {
        self.label_at.push(u32::MAX);
        self.label_at.len() - 1
    }

    fn place(&mut self, label: usize) {
        self.label_at[label] = self.drafts.len() as u32;
    }

    pub fn label(&self, name: &str) -> Result<usize> {
        let scopes = self.frame.scopes.iter().rev();
        let found = scopes
            .filter_map(|scope| self.frame.labels.get(&(scope.number, name.to_string())))
            .next();
        match found {
            Some(&label) => Ok(label),
            None => self.fail(format!("no label `{name}` here")),
        }
    }

    pub fn table(&self, name: &str) -> Result<Vec<usize>> {
        match self.frame.tables.get(name) {
            Some(list) => list.iter().map(|name| self.label(name)).collect(),
            None => self.fail(format!("no branch targets `{name}`")),
        }
    }

    fn registers(&mut self, kind: &str, name: &str, count: Option<u32>) -> Result<()> {
        let Some(class) = Class::of(kind) else {
            return self.fail(format!("registers of type `{kind}` are not supported"));
        };
        match count {
            Some(count) => {
                self.scope()
                    .families
                    .insert(name.to_string(), (count, class));
            }
            None => {
                let reg = self.fresh(class);
                self.scope().names.insert(name.to_string(), Name::Reg(reg));
            }
        }
        Ok(())
    }

    fn variable(&mut self, variable: &Variable) -> Result<()> {
        self.line = variable.line;
        let name = match variable.space {
            Space::Shared => self.shared_variable(variable),
            Space::Local | Space::Param => {
                Name::Variable(Space::Local, self.reserve_local(variable)?)
            }
            Space::Global | Space::Const => {
                return self.fail("global variables inside a function are not supported");
            }
        };
        self.scope().names.insert(variable.name.clone(), name);
        Ok(())
    }

    fn reserve_local(&mut self, variable: &Variable) -> Result<u64> {
        let Some(size) = variable.size else {
            return self.fail(format!("`{}` has no size", variable.name));
        };
        let at = self.local_bytes.next_multiple_of(variable.align.max(1));
        self.local_bytes = at + size;
        Ok(at)
    }

    /// Shared memory belongs to the CTA: a variable has one place, even if its function is called several times.
    fn shared_variable(&mut self, variable: &Variable) -> Name {
        let Some(size) = variable.size else {
            self.dynamic_align = self.dynamic_align.max(variable.align);
            return Name::DynamicShared;
        };
        let key = format!("{} {} {}", self.frame.name, variable.name, variable.line);
        let at = match self.shared.get(&key) {
            Some(&at) => at,
            None => {
                let at = self.static_shared.next_multiple_of(variable.align.max(1));
                self.static_shared = at + size;
                self.shared.insert(key, at);
                at
            }
        };
        Name::Variable(Space::Shared, at)
    }

    /// The meaning of a name, if it has one.
    pub fn name(&mut self, name: &str) -> Option<Name> {
        for at in (0..self.frame.scopes.len()).rev() {
            let scope = &self.frame.scopes[at];
            if let Some(found) = scope.names.get(name) {
                return Some(*found);
            }
            if let Some(class) = scope.family(name) {
                let reg = self.fresh(class);
                self.frame.scopes[at]
                    .names
                    .insert(name.to_string(), Name::Reg(reg));
                return Some(Name::Reg(reg));
            }
        }
        if let Some(&index) = self.globals.get(name) {
            return Some(Name::Global(index));
        }
        let source = self.source;
        let shared = source
            .variables
            .iter()
            .find(|v| v.space == Space::Shared && v.name == name)?;
        let frame = std::mem::take(&mut self.frame.name);
        let found = self.shared_variable(shared);
        self.frame.name = frame;
        Some(found)
    }

    /// The address that a variable's name stands for, in its own space.
    pub fn address(&mut self, name: Name, offset: i64) -> Option<Reg> {
        Some(match name {
            Name::Reg(_) => return None,
            Name::Variable(_, at) => {
                self.constant(Initial::Const64(at.wrapping_add_signed(offset)))
            }
            Name::Global(index) => self.constant(Initial::Global(index, offset)),
            Name::DynamicShared => {
                let base = self.constant(Initial::Special64(Special::DynamicBase));
                if offset == 0 {
                    return Some(base);
                }
                let shift = self.constant(Initial::Const64(offset as u64));
                let sum = self.fresh(Class::W64);
                let op = Op::Int64(super::super::op::Int2::Add, super::super::op::Type::U64);
                self.emit_always(op, vec![sum], vec![base, shift]);
                sum
            }
        })
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<()> {
        self.line = instruction.line;
        self.guard = None;
        if let Some((name, negated)) = &instruction.guard {
            let reg = self.register(name)?;
            if self.classes[reg as usize] != Class::Pred {
                return self.fail(format!("the guard `{name}` is not a predicate"));
            }
            self.guard = Some((reg, *negated));
        }
        let word = instruction.opcode.split('.').next().unwrap_or_default();
        let result = match word {
            "call" => self.call(&instruction.operands),
            "ret" => self.ret(),
            _ => self.decode(instruction),
        };
        self.guard = None;
        result
    }

    pub fn register(&mut self, name: &str) -> Result<Reg> {
        match self.name(name) {
            Some(Name::Reg(reg)) => Ok(reg),
            Some(_) => self.fail(format!("`{name}` is not a register")),
            None => self.fail(format!("`{name}` is not declared")),
        }
    }

    /// A special register as a constant register.
    pub fn special(&mut self, name: &str) -> Option<Reg> {
        let (special, wide) = special(name)?;
        Some(self.constant(if wide {
            Initial::Special64(special)
        } else {
            Initial::Special(special)
        }))
    }

    fn ret(&mut self) -> Result<()> {
        match self.frame.end {
            Some(end) => {
                self.emit(Op::Control(Control::Branch), vec![], vec![])
                    .labels = vec![end]
            }
            None => drop(self.emit(Op::Control(Control::Exit), vec![], vec![])),
        }
        Ok(())
    }
}
