//! Memory as instructions reach it: addresses, checks and counts that loads, stores, atomics,
//! `cp.async` and `ldmatrix` share.

mod asynchronous;
mod atomic;
mod load;
mod store;

use super::FaultKind;
use super::cta::Common;
use super::engine::{Engine, LOCAL, Outcome, PARAM, SHARED, View, WINDOW, trouble};
use super::lanes::{FULL, File, LANES, lanes};
use super::op::{Access, Place};
use super::shadow::Conflict;

/// The addresses of a warp's lanes.
type Addresses = [u64; LANES];

#[inline(always)]
fn addresses(file: &File, slot: u32, imm: i64, wide: bool) -> Addresses {
    let mut out = [0; LANES];
    if wide {
        let base = file.get::<u64>(slot);
        for lane in 0..LANES {
            out[lane] = base[lane].wrapping_add_signed(imm);
        }
    } else {
        let base = file.get::<u32>(slot);
        for lane in 0..LANES {
            out[lane] = u64::from(base[lane]).wrapping_add_signed(imm);
        }
    }
    out
}

/// Whether lane by lane the addresses follow each other without a gap.
#[inline(always)]
fn follow(addresses: &Addresses, size: u64) -> bool {
    let first = addresses[0];
    let mut differ = 0;
    for (lane, address) in addresses.iter().enumerate() {
        differ |= address ^ first.wrapping_add(lane as u64 * size);
    }
    differ == 0
}

#[inline(always)]
fn range(addresses: &Addresses, mask: u32) -> (u64, u64) {
    let (mut low, mut high) = (u64::MAX, 0);
    if mask == FULL {
        for &address in addresses {
            low = low.min(address);
            high = high.max(address);
        }
    } else {
        for lane in lanes(mask) {
            low = low.min(addresses[lane]);
            high = high.max(addresses[lane]);
        }
    }
    (low, high)
}

/// The space of a generic address.
fn space(address: u64) -> Place {
    match address & WINDOW {
        SHARED => Place::Shared,
        LOCAL => Place::Local,
        PARAM => Place::Param,
        _ => Place::Global,
    }
}

impl Engine<'_> {
    #[inline(always)]
    fn check_alignment(&self, addresses: &Addresses, mask: u32, size: u64) -> Outcome {
        if !self.field.checks.alignment {
            return Ok(());
        }
        let mut low = 0;
        for (lane, address) in addresses.iter().enumerate() {
            low |= if mask >> lane & 1 == 1 { *address } else { 0 };
        }
        if low & (size - 1) == 0 {
            Ok(())
        } else {
            misaligned(addresses, mask, size)
        }
    }

    /// Splits a generic access by the spaces that its addresses lie in.
    fn by_space(
        &mut self,
        mut mask: u32,
        access: Access,
        at: Addresses,
        mut each: impl FnMut(&mut Self, u32, Access, Addresses) -> Outcome,
    ) -> Outcome {
        while mask != 0 {
            let place = space(at[mask.trailing_zeros() as usize]);
            let same = lanes(mask).filter(|&lane| space(at[lane]) == place);
            let part = same.fold(0, |part, lane| part | 1 << lane);
            let inside = if place == Place::Global {
                at
            } else {
                at.map(|address| address & !WINDOW)
            };
            each(self, part, Access { place, ..access }, inside)?;
            mask &= !part;
        }
        Ok(())
    }

    /// Lanes one at a time, when no one allocation holds them all.
    #[cold]
    fn lane_by_lane(
        &mut self,
        mask: u32,
        at: &Addresses,
        size: u32,
        what: &str,
        mut each: impl FnMut(&mut Self, u32) -> Outcome,
    ) -> Outcome {
        for lane in lanes(mask) {
            let end = at[lane].saturating_add(u64::from(size));
            if self.view(at[lane], end).is_some() {
                each(self, 1 << lane)?;
            } else if self.field.checks.bounds {
                return self.stray(lane, at[lane], size, what);
            }
        }
        Ok(())
    }

    /// Checks and counts of a global read.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "one access, described once")]
    fn note_load(
        &mut self,
        common: &Common,
        view: &View,
        mask: u32,
        at: &Addresses,
        size: u64,
        contiguous: bool,
        strong: bool,
    ) -> Outcome {
        use std::sync::atomic::Ordering::Relaxed;
        view.touched.store(true, Relaxed);
        let checks = self.field.checks;
        let offset = |lane: usize| (at[lane] - view.base) as usize;
        if checks.uninitialised {
            let whole = contiguous && view.allocation.is_written(offset(0), 32 * size as usize);
            if !whole {
                for lane in lanes(mask) {
                    if !view.allocation.is_written(offset(lane), size as usize) {
                        let message = format!(
                            "load of {size} bytes at {:#x}, not all of them written",
                            at[lane]
                        );
                        return trouble(FaultKind::Uninitialised, lane, message);
                    }
                }
            }
        }
        if checks.global_races && !strong {
            self.global_race(common, view, mask, at, size, contiguous, false)?;
        }
        if self.field.counters {
            let sectors = self.count_sectors(view, at, mask, size, contiguous);
            self.tally.global_loads += 1;
            self.tally.global_load_bytes += size * u64::from(mask.count_ones());
            self.tally.global_load_sectors += sectors;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one access, described once")]
    fn global_race(
        &self,
        common: &Common,
        view: &View,
        mask: u32,
        at: &Addresses,
        size: u64,
        contiguous: bool,
        write: bool,
    ) -> Outcome {
        let order = &self.field.order;
        let number = self.field.number;
        let offset = |lane: usize| (at[lane] - view.base) as usize;
        let one = |lane: usize, bytes: u64| {
            let span = (offset(lane), bytes as usize);
            order.access(&view.allocation, number, span, common.index, write)
        };
        if contiguous && one(0, 32 * size).is_ok() {
            return Ok(());
        }
        for lane in lanes(mask) {
            if let Err(other) = one(lane, size) {
                let what = if write { "store" } else { "load" };
                let other = other.map_or("other CTAs".into(), |cta| format!("CTA {cta}"));
                let message = format!(
                    "{what} of {size} bytes at {:#x} races with {other}",
                    at[lane]
                );
                return trouble(FaultKind::GlobalRace, lane, message);
            }
        }
        match contiguous {
            true => trouble(
                FaultKind::GlobalRace,
                0,
                format!("access at {:#x} races", at[0]),
            ),
            false => Ok(()),
        }
    }

    fn note_shared_read(
        &mut self,
        common: &mut Common,
        warp: usize,
        mask: u32,
        at: &Addresses,
        size: u64,
        strong: bool,
    ) -> Outcome {
        let races = self.field.checks.shared_races;
        for lane in lanes(mask) {
            let me = (warp * 32 + lane) as u32;
            let (from, bytes) = (at[lane] as usize, size as usize);
            let noted = if strong {
                common.shadow.atomic(from, bytes, false)
            } else {
                common.shadow.read(from, bytes, me, races)
            };
            if let Err(conflict) = noted {
                self.shared_trouble(conflict, lane, at[lane], size, "load")?;
            }
        }
        Ok(())
    }

    #[cold]
    fn shared_trouble(
        &self,
        conflict: Conflict,
        lane: usize,
        at: u64,
        size: u64,
        what: &str,
    ) -> Outcome {
        let access = format!("{what} of {size} bytes at shared {at:#x}");
        let message = match conflict.kind {
            FaultKind::Uninitialised if !self.field.checks.uninitialised => return Ok(()),
            FaultKind::Uninitialised => format!("{access}, not all of them written"),
            FaultKind::MissingAsyncWait => {
                format!(
                    "{access}, where a cp.async of thread {} has not arrived",
                    conflict.other
                )
            }
            FaultKind::MissingWarpSync => format!(
                "{access} races with lane {} of the same warp: a __syncwarp is missing",
                conflict.other % 32
            ),
            _ => format!("{access} races with thread {}", conflict.other),
        };
        trouble(conflict.kind, lane, message)
    }

    /// The lanes of the mask that are inside shared memory: all, or a fault.
    #[inline(always)]
    fn shared_bounds(
        &self,
        common: &Common,
        mask: u32,
        at: &Addresses,
        size: u64,
        what: &str,
    ) -> Outcome<u32> {
        let end = common.shared.len() as u64;
        let (_, high) = range(at, mask);
        if high.saturating_add(size) <= end {
            return Ok(mask);
        }
        outside(
            mask,
            at,
            size,
            end,
            what,
            "shared",
            self.field.checks.bounds,
        )
    }
}

fn first(mask: u32) -> usize {
    mask.trailing_zeros() as usize
}

#[cold]
fn misaligned(addresses: &Addresses, mask: u32, size: u64) -> Outcome {
    let lane = lanes(mask)
        .find(|&lane| addresses[lane] & (size - 1) != 0)
        .unwrap_or(0);
    let message = format!("access of {size} bytes at {:#x}", addresses[lane]);
    trouble(FaultKind::Misaligned, lane, message)
}

/// The lanes inside `end` bytes; the others are a fault when `fault`.
fn outside(
    mask: u32,
    at: &Addresses,
    size: u64,
    end: u64,
    what: &str,
    space: &str,
    fault: bool,
) -> Outcome<u32> {
    let mut inside = 0;
    for lane in lanes(mask) {
        if at[lane].saturating_add(size) <= end {
            inside |= 1 << lane;
        } else if fault {
            let message = format!(
                "{what} of {size} bytes at {space} {:#x}, of {end} bytes",
                at[lane]
            );
            return trouble(FaultKind::OutOfBounds, lane, message);
        }
    }
    Ok(inside)
}
