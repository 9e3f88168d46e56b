//! `atom` and `red`.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use super::super::FaultKind;
use super::super::cta::{Common, Warp};
use super::super::engine::{Engine, Outcome, WINDOW, trouble};
use super::super::lanes::{File, LANES, lanes};
use super::super::numeric::{Format, fma_odd, max, min};
use super::super::op::{Atomic, AtomicOp, Inst, Place, Round, Type};
use super::{Request, addresses, space};

impl Engine<'_> {
    /// `atom` and `red`, lane by lane.
    pub fn atomic(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        mask: u32,
        inst: &Inst,
        atomic: Atomic,
    ) -> Outcome {
        let at = addresses(&warp.file, inst.a, inst.imm, atomic.wide);
        let size = u64::from(atomic.ty.bytes());
        self.check_alignment(&at, mask, size)?;
        let (mut globals, mut stored) = (0u32, false);
        for lane in lanes(mask) {
            let (place, address) = match atomic.place {
                Place::Generic => match space(at[lane]) {
                    Place::Shared => (Place::Shared, at[lane] & !WINDOW),
                    _ => (Place::Global, at[lane]),
                },
                place => (place, at[lane]),
            };
            let cell = if place == Place::Shared {
                self.shared_cell(common, lane, address, size)?
            } else {
                let first = globals == 0;
                let cell = self.global_cell(common, lane, address, atomic, first)?;
                globals |= u32::from(cell.is_some()) << lane;
                cell
            };
            let Some(cell) = cell else {
                continue;
            };
            let (old, changed) = apply(&warp.file, inst, atomic, lane, cell);
            stored |= changed && place == Place::Global;
            if !atomic.silent {
                if size == 8 {
                    warp.file.get_mut::<u64>(inst.d)[lane] = old;
                } else {
                    warp.file.get_mut::<u32>(inst.d)[lane] = old as u32;
                }
            }
        }
        if globals != 0 {
            self.tally.global_atomics += 1;
            self.changed |= stored;
            // An atomic that changes nothing is how a CTA waits for others.
            self.polls = if stored { 0 } else { self.polls + 1 };
            if self.field.checks.global_races {
                self.field.order.acquire(common.index);
            }
        }
        Ok(())
    }

    /// The bytes in shared memory that a lane's atomic changes; `None` if they are outside and the
    /// check of bounds is off.
    fn shared_cell(
        &self,
        common: &mut Common,
        lane: usize,
        address: u64,
        size: u64,
    ) -> Outcome<Option<*mut u8>> {
        let at = &[address; LANES];
        let request = Request::plain(1 << lane, at, size as u8);
        if self.shared_bounds(common, request, "atomic")? == 0 {
            return Ok(None);
        }
        let (from, bytes) = (address as usize, size as usize);
        if self.shadowed() {
            if self.field.checks.uninitialised && !common.shadow.is_written(from, bytes) {
                let message = format!("atomic at shared {address:#x}, which was never written");
                return trouble(FaultKind::Uninitialised, lane, message);
            }
            if let Err(conflict) = common.shadow.atomic(from, bytes, true) {
                self.shared_trouble(conflict, lane, address, size, "atomic")?;
            }
        }
        Ok(Some(common.shared[from..from + bytes].as_mut_ptr()))
    }

    /// The bytes in global memory that a lane's atomic changes; `None` if they are in no allocation
    /// and the check of bounds is off. `first`: no lane before it had any.
    fn global_cell(
        &mut self,
        common: &Common,
        lane: usize,
        address: u64,
        atomic: Atomic,
        first: bool,
    ) -> Outcome<Option<*mut u8>> {
        let size = u64::from(atomic.ty.bytes());
        let Some(view) = self.view(address, address.saturating_add(size)) else {
            if self.field.checks.bounds {
                return self.stray(lane, address, size as u32, "atomic");
            }
            return Ok(None);
        };
        let offset = (address - view.base) as usize;
        let reads = atomic.op != AtomicOp::Exch;
        if self.field.checks.uninitialised
            && reads
            && !view.allocation.is_written(offset, size as usize)
        {
            let message = format!("atomic at {address:#x}, which was never written");
            return trouble(FaultKind::Uninitialised, lane, message);
        }
        view.touched.store(true, Relaxed);
        view.written.store(true, Relaxed);
        view.allocation.mark_written(offset, size as usize);
        if self.field.counters {
            self.count_sectors(view, &[address; LANES], 1 << lane, size, false);
        }
        if first && self.field.checks.global_races {
            // Before another CTA can see the new value.
            self.field.order.release(common.index);
        }
        // SAFETY: the view holds the whole range.
        Ok(Some(unsafe { view.allocation.data.add(offset) }))
    }
}

/// Executes the atomic of one lane. Returns the old value, and whether memory changed.
fn apply(file: &File, inst: &Inst, atomic: Atomic, lane: usize, cell: *mut u8) -> (u64, bool) {
    let (op, ty) = (atomic.op, atomic.ty);
    let operand = |slot: u32| match ty.bytes() {
        8 => file.get::<u64>(slot)[lane],
        2 => u64::from(file.get::<u32>(slot)[lane] & 0xffff),
        _ => u64::from(file.get::<u32>(slot)[lane]),
    };
    let (b, c) = (
        operand(inst.b),
        if op == AtomicOp::Cas {
            operand(inst.c)
        } else {
            0
        },
    );
    let f = |old: u64| combine(op, ty, old, b, c);
    // SAFETY: `cell` is inside an allocation or shared memory, and aligned to the type because the
    // memory is aligned to 16 bytes and the offset was checked. If the check of alignment is off,
    // x86 allows the access all the same.
    unsafe {
        match ty.bytes() {
            8 => {
                let cell = AtomicU64::from_ptr(cell.cast());
                let old = cell.fetch_update(SeqCst, SeqCst, |old| Some(f(old)));
                let old = old.unwrap_or_default();
                (old, f(old) != old)
            }
            4 => {
                let cell = AtomicU32::from_ptr(cell.cast());
                let old = cell.fetch_update(SeqCst, SeqCst, |old| Some(f(u64::from(old)) as u32));
                let old = u64::from(old.unwrap_or_default());
                (old, f(old) as u32 != old as u32)
            }
            2 => {
                let cell = AtomicU16::from_ptr(cell.cast());
                let old = cell.fetch_update(SeqCst, SeqCst, |old| Some(f(u64::from(old)) as u16));
                let old = u64::from(old.unwrap_or_default());
                (old, f(old) as u16 != old as u16)
            }
            bytes => unreachable!("the decoder accepts no atomic of {bytes} bytes"),
        }
    }
}

/// What the atomic stores: `old` is in memory, `b` and `c` are its operands.
fn combine(op: AtomicOp, ty: Type, old: u64, b: u64, c: u64) -> u64 {
    if ty.is_float() {
        return combine_floats(op, ty, old, b);
    }
    let signed = |x: u64| {
        if ty.bytes() == 8 {
            x as i64
        } else {
            i64::from(x as u32 as i32)
        }
    };
    let either = |first: bool, x: u64, y: u64| if first { x } else { y };
    match op {
        AtomicOp::Add => old.wrapping_add(b),
        AtomicOp::Min if ty.is_signed() => either(signed(b) < signed(old), b, old),
        AtomicOp::Max if ty.is_signed() => either(signed(b) > signed(old), b, old),
        AtomicOp::Min => old.min(b),
        AtomicOp::Max => old.max(b),
        AtomicOp::And => old & b,
        AtomicOp::Or => old | b,
        AtomicOp::Xor => old ^ b,
        AtomicOp::Exch => b,
        AtomicOp::Cas => either(old == b, c, old),
        AtomicOp::Inc => either(old >= b, 0, old.wrapping_add(1)),
        AtomicOp::Dec => either(old == 0 || old > b, b, old.wrapping_sub(1)),
    }
}

fn not_for_floats(op: AtomicOp) -> ! {
    unreachable!("the decoder accepts no atomic {op:?} of this float type")
}

fn combine_floats(op: AtomicOp, ty: Type, old: u64, b: u64) -> u64 {
    if ty == Type::F64 {
        if op != AtomicOp::Add {
            not_for_floats(op);
        }
        return (f64::from_bits(old) + f64::from_bits(b)).to_bits();
    }
    if ty == Type::F32 {
        let (x, y) = (f32::from_bits(old as u32), f32::from_bits(b as u32));
        let out = match op {
            AtomicOp::Min => min(x, y, false),
            AtomicOp::Max => max(x, y, false),
            AtomicOp::Add => x + y,
            _ => not_for_floats(op),
        };
        return u64::from(out.to_bits());
    }
    let format = Format::of(ty);
    let half = |old: u64, b: u64| {
        let [x, y] = [old, b].map(|bits| format.widen(bits as u32 & 0xffff));
        let out = match op {
            AtomicOp::Min => f64::from(min(x, y, false)),
            AtomicOp::Max => f64::from(max(x, y, false)),
            AtomicOp::Add => fma_odd(f64::from(x), 1.0, f64::from(y)),
            _ => not_for_floats(op),
        };
        u64::from(format.narrow(out, Round::Near))
    };
    match ty {
        Type::F16x2 | Type::Bf16x2 => half(old, b) | half(old >> 16, b >> 16) << 16,
        _ => half(old, b),
    }
}
