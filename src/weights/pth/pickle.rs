//! A restricted reader of pickles. It makes numbers, texts, containers and tensors, and calls no function.
//!
//! A pickle is a list of instructions for a stack machine (source: Python's `pickletools`). This machine knows the
//! instructions that `torch.save` uses for data, protocols 2 to 5. Any other instruction is an error. Names other than
//! those of weights stand for foreign objects, which are skipped. Each instruction adds at most one value, or moves
//! values that other instructions added, so the memory stays proportional to the size of the pickle.

use super::super::Checked;
use super::value::{Heap, Value};
use crate::words;
use std::collections::HashMap;

/// More instructions than any description of weights has.
const MOST_INSTRUCTIONS: usize = 1 << 22;

/// The content of a pickle.
pub struct Pickle<'a> {
    /// The value that it describes.
    pub root: Value<'a>,
    pub heap: Heap<'a>,
    /// Its length in bytes.
    pub length: usize,
}

/// Reads one pickle from the start of `bytes`.
pub fn read(bytes: &[u8]) -> Checked<Pickle<'_>> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        heap: Heap::default(),
    };
    let root = machine.run().map_err(|message| {
        let at = machine.at;
        format!("has a pickle that cannot be read: it {message} (before its byte {at})")
    })?;
    Ok(Pickle {
        root,
        heap: machine.heap,
        length: machine.at,
    })
}

struct Machine<'a> {
    bytes: &'a [u8],
    /// The position of the next byte to read.
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at which MARKs were set.
    marks: Vec<usize>,
    memo: HashMap<usize, Value<'a>>,
    heap: Heap<'a>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Checked<Value<'a>> {
        for _ in 0..MOST_INSTRUCTIONS {
            let [instruction] = self.array()?;
            if instruction == b'.' {
                return self.pop();
            }
            self.step(instruction)?;
        }
        Err(format!("has more than {MOST_INSTRUCTIONS} instructions"))
    }

    fn step(&mut self, instruction: u8) -> Checked<()> {
        match instruction {
            // PROTO, FRAME: of no use here.
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            // MARK, POP, POP_MARK, DUP
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push(top)
            }
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => self.count(1).and_then(|key| self.remember(key)),
            b'r' => self.count(4).and_then(|key| self.remember(key)),
            0x94 => self.remember(self.memo.len()),
            // BINGET, LONG_BINGET
            b'h' => self.count(1).and_then(|key| self.recall(key)),
            b'j' => self.count(4).and_then(|key| self.recall(key)),
            // GLOBAL, STACK_GLOBAL, REDUCE, NEWOBJ, NEWOBJ_EX, BUILD, BINPERSID
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'b' | b'Q' => self.refer(instruction),
            // Instructions that make and fill tuples, lists and dicts
            b')' | b't' | 0x85..=0x87 | b']' | b'l' | b'a' | b'e' | b'}' | b'd' | b's' | b'u' => {
                self.contain(instruction)
            }
            // ADDITEMS: a set is of no use here, nor is what it holds.
            0x90 => self.pop_to_mark().map(drop),
            // FROZENSET
            0x91 => self.pop_to_mark().and_then(|_| self.push(Value::Opaque)),
            _ => {
                let value = self.constant(instruction)?;
                self.push(value)
            }
        }
    }

    /// Names, calls and references.
    fn refer(&mut self, instruction: u8) -> Checked<()> {
        let value = match instruction {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.heap.name(module, name)?
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.heap.name(module, name)?,
                (name, module) => return Err(format!("names {module} in {name}")),
            },
            // Making an object is calling its class.
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.heap.call(function, arguments)?
            }
            0x92 => {
                let (_, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.heap.call(class, arguments)?
            }
            b'b' => {
                let (state, object) = (self.pop()?, self.pop()?);
                self.heap.set_state(object, state)?;
                object
            }
            _ => {
                let id = self.pop()?;
                self.heap.refer(id)?
            }
        };
        self.push(value)
    }

    /// Tuples, lists, dicts.
    fn contain(&mut self, instruction: u8) -> Checked<()> {
        let value = match instruction {
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.heap.new_tuple(Vec::new()),
            0x85..=0x87 => {
                let values = self.pop_many(usize::from(instruction - 0x84))?;
                self.heap.new_tuple(values)
            }
            b't' => {
                let values = self.pop_to_mark()?;
                self.heap.new_tuple(values)
            }
            // EMPTY_LIST, LIST, APPEND, APPENDS
            b']' => self.heap.new_list(),
            b'l' | b'a' | b'e' => {
                let values = match instruction {
                    b'a' => self.pop_many(1)?,
                    _ => self.pop_to_mark()?,
                };
                let list = match instruction {
                    b'l' => self.heap.new_list(),
                    _ => self.pop()?,
                };
                self.heap.append(list, &values)?;
                list
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.heap.new_dict(),
            _ => {
                let values = match instruction {
                    b's' => self.pop_many(2)?,
                    _ => self.pop_to_mark()?,
                };
                let dict = match instruction {
                    b'd' => self.heap.new_dict(),
                    _ => self.pop()?,
                };
                self.heap.insert(dict, &values)?;
                dict
            }
        };
        self.push(value)
    }

    /// A value that the pickle contains directly.
    fn constant(&mut self, instruction: u8) -> Checked<Value<'a>> {
        Ok(match instruction {
            // NONE, NEWTRUE, NEWFALSE
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            // BININT, BININT1, BININT2, LONG1, LONG4
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Value::Int(self.array::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            // BINFLOAT
            b'G' => self.take(8).map(|_| Value::Opaque)?,
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8, then SHORT_BINSTRING, BINSTRING
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'U' => self.text(1)?,
            b'T' => self.text(4)?,
            // EMPTY_SET
            0x8f => Value::Opaque,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => self.counted(1).map(|_| Value::Opaque)?,
            b'B' => self.counted(4).map(|_| Value::Opaque)?,
            0x8e | 0x96 => self.counted(8).map(|_| Value::Opaque)?,
            _ => {
                return Err(format!(
                    "has the instruction 0x{instruction:02x}, which a state dict does not need"
                ));
            }
        })
    }

    fn take(&mut self, count: usize) -> Checked<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count);
        let taken = taken
            .ok_or_else(|| format!("ends {} early", words::count(count - rest.len(), "byte")))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Checked<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// An unsigned number of up to eight bytes.
    fn count(&mut self, bytes: usize) -> Checked<usize> {
        let digits = self.take(bytes)?.iter().rev();
        let count = digits.fold(0u64, |count, &byte| count << 8 | u64::from(byte));
        usize::try_from(count).map_err(|_| format!("counts to {count}"))
    }

    /// Bytes that follow their number.
    fn counted(&mut self, length_bytes: usize) -> Checked<&'a [u8]> {
        let count = self.count(length_bytes)?;
        self.take(count)
    }

    /// Text. Strings of Python 2 can be any bytes.
    fn text(&mut self, length_bytes: usize) -> Checked<Value<'a>> {
        let text = std::str::from_utf8(self.counted(length_bytes)?);
        Ok(text.map_or(Value::Opaque, Value::Text))
    }

    /// A signed integer of any size.
    fn long(&mut self, length_bytes: usize) -> Checked<Value<'a>> {
        let bytes = self.counted(length_bytes)?;
        let is_negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut extended = [if is_negative { 0xff } else { 0 }; 8];
        let Some(digits) = extended.get_mut(..bytes.len()) else {
            return Ok(Value::Opaque);
        };
        digits.copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(extended)))
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Checked<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or("ends within a name")?;
        let line = self.take(end + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|_| "has a name that is not UTF-8".into())
    }

    fn push(&mut self, value: Value<'a>) -> Checked<()> {
        self.stack.push(value);
        Ok(())
    }

    /// The height of the stack below which no instruction may take values: that of the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Checked<Value<'a>> {
        let top = self.stack[self.floor()..].last();
        top.copied()
            .ok_or_else(|| "takes from an empty stack".into())
    }

    fn pop(&mut self) -> Checked<Value<'a>> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Checked<Vec<Value<'a>>> {
        let above = self.stack.len() - self.floor();
        let start = above
            .checked_sub(count)
            .ok_or("takes from an empty stack")?
            + self.floor();
        Ok(self.stack.split_off(start))
    }

    fn pop_to_mark(&mut self) -> Checked<Vec<Value<'a>>> {
        let mark = self
            .marks
            .pop()
            .ok_or("looks for a mark that was never set")?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, key: usize) -> Checked<()> {
        let value = self.top()?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Checked<()> {
        let value = self.memo.get(&key).copied();
        let value = value.ok_or_else(|| format!("recalls {key}, which it never stored"))?;
        self.push(value)
    }
}
