//! Instructions that access memory. Here are the addresses, checks and counts that loads, stores,
//! atomics, `cp.async` and `ldmatrix` share.

mod asynchronous;
mod atomic;
mod load;
mod store;
mod transfer;

use super::FaultKind;
use super::cta::Common;
use super::engine::{Engine, LOCAL, Outcome, PARAM, SHARED, View, WINDOW, trouble};
use super::lanes::{FULL, File, LANES, lanes};
use super::op::{Access, Place};
use super::races::Who;
use super::shadow::Conflict;

/// The addresses of a warp's lanes.
type Addresses = [u64; LANES];

/// An access of a warp to memory.
#[derive(Clone, Copy)]
struct Request<'a> {
    /// The lanes that take part.
    mask: u32,
    at: &'a Addresses,
    access: Access,
    /// Registers of the values, one for each part of a vector; empty if registers take no part.
    slots: &'a [u32],
}

impl<'a> Request<'a> {
    /// An access of `bytes` bytes per lane that does not order other accesses, and in which
    /// registers take no part.
    fn plain(mask: u32, at: &'a Addresses, bytes: u8) -> Request<'a> {
        let access = Access {
            place: Place::Generic,
            width: bytes,
            count: 1,
            signed: false,
            strong: false,
            wide: true,
        };
        Request {
            mask,
            at,
            access,
            slots: &[],
        }
    }

    /// Bytes per lane.
    fn size(&self) -> u64 {
        u64::from(self.access.bytes())
    }
}

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

/// Whether the addresses of consecutive lanes are `size` bytes apart.
#[inline(always)]
fn follow(addresses: &Addresses, size: u64) -> bool {
    let first = addresses[0];
    let mut differ = 0;
    for (lane, address) in addresses.iter().enumerate() {
        differ |= address ^ first.wrapping_add(lane as u64 * size);
    }
    differ == 0
}

/// The lowest and the highest address.
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
        let low = if mask == FULL {
            addresses.iter().fold(0, |low, address| low | address)
        } else {
            lanes(mask).fold(0, |low, lane| low | addresses[lane])
        };
        if low & (size - 1) == 0 {
            Ok(())
        } else {
            misaligned(addresses, mask, size)
        }
    }

    /// Splits a generic access by the spaces that its addresses lie in.
    fn by_space(
        &mut self,
        request: Request,
        mut each: impl FnMut(&mut Self, Request) -> Outcome,
    ) -> Outcome {
        let Request {
            mut mask,
            at,
            access,
            slots,
        } = request;
        while mask != 0 {
            let place = space(at[mask.trailing_zeros() as usize]);
            let same = lanes(mask).filter(|&lane| space(at[lane]) == place);
            let part = same.fold(0, |part, lane| part | 1 << lane);
            let inside = if place == Place::Global {
                *at
            } else {
                at.map(|address| address & !WINDOW)
            };
            let request = Request {
                mask: part,
                at: &inside,
                access: Access { place, ..access },
                slots,
            };
            each(self, request)?;
            mask &= !part;
        }
        Ok(())
    }

    /// Executes an access for one lane at a time, because no single allocation holds the addresses
    /// of all lanes.
    #[cold]
    fn lane_by_lane(
        &mut self,
        request: Request,
        what: &str,
        mut each: impl FnMut(&mut Self, Request) -> Outcome,
    ) -> Outcome {
        for lane in lanes(request.mask) {
            let address = request.at[lane];
            let end = address.saturating_add(request.size());
            if self.view(address, end).is_some() {
                let mask = 1 << lane;
                each(self, Request { mask, ..request })?;
            } else if self.field.checks.bounds {
                return self.stray(lane, address, request.access.bytes(), what);
            }
        }
        Ok(())
    }

    /// Checks and counts a read of global memory.
    #[inline(always)]
    fn note_load(
        &mut self,
        common: &Common,
        view: &View,
        request: Request,
        contiguous: bool,
    ) -> Outcome {
        use std::sync::atomic::Ordering::Relaxed;
        let Request { mask, at, .. } = request;
        let size = request.size();
        view.touched.store(true, Relaxed);
        let checks = self.field.checks;
        let offset = |lane: usize| (at[lane] - view.base) as usize;
        if checks.uninitialised {
            let whole = contiguous && view.allocation.is_written(offset(0), 32 * size as usize);
            if !whole {
                for lane in lanes(mask) {
                    if !view.allocation.is_written(offset(lane), size as usize) {
                        let message = format!(
                            "load of {size} bytes at {:#x}, which were not all written before",
                            at[lane]
                        );
                        return trouble(FaultKind::Uninitialised, lane, message);
                    }
                }
            }
        }
        if checks.global_races && !request.access.strong {
            self.global_race(common, view, request, contiguous, false)?;
        }
        if self.field.counters {
            let sectors = self.count_sectors(view, at, mask, size, contiguous);
            self.tally.global_loads += 1;
            self.tally.global_load_bytes += size * u64::from(mask.count_ones());
            self.tally.global_load_sectors += sectors;
        }
        Ok(())
    }

    /// Refuses an access that races with one of another CTA, or of another warp of its own.
    fn global_race(
        &self,
        common: &Common,
        view: &View,
        request: Request,
        contiguous: bool,
        write: bool,
    ) -> Outcome {
        let Request { mask, at, .. } = request;
        let size = request.size();
        let order = &self.field.order;
        let number = self.field.number;
        let who = Who {
            cta: common.index,
            warp: self.warp,
        };
        let offset = |lane: usize| (at[lane] - view.base) as usize;
        let one = |lane: usize, bytes: u64| {
            let span = (offset(lane), bytes as usize);
            order.access(&view.allocation, number, span, who, write)
        };
        let mut rival = None;
        if contiguous {
            match one(0, 32 * size) {
                Ok(()) => return Ok(()),
                Err(found) => rival = Some(found),
            }
        }
        for lane in lanes(mask) {
            if let Err(other) = one(lane, size) {
                let what = if write { "store" } else { "load" };
                let message = format!(
                    "{what} of {size} bytes at {:#x} races with {other}",
                    at[lane]
                );
                return trouble(FaultKind::GlobalRace, lane, message);
            }
        }
        if let Some(rival) = rival {
            let message = format!("access at {:#x} races with {rival}", at[0]);
            return trouble(FaultKind::GlobalRace, 0, message);
        }
        Ok(())
    }

    /// Checks a read of shared memory.
    fn note_shared_read(&mut self, common: &mut Common, warp: usize, request: Request) -> Outcome {
        let Request { mask, at, .. } = request;
        let (size, strong) = (request.size(), request.access.strong);
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
            FaultKind::Uninitialised => format!("{access}, which were not all written before"),
            FaultKind::MissingAsyncWait => {
                format!(
                    "{access}, into which a cp.async of thread {} has not finished copying",
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

    /// The lanes whose addresses are inside shared memory. If the check of bounds is on, any other
    /// lane is a fault.
    #[inline(always)]
    fn shared_bounds(&self, common: &Common, request: Request, what: &str) -> Outcome<u32> {
        let end = common.shared.len() as u64;
        let (_, high) = range(request.at, request.mask);
        if high.saturating_add(request.size()) <= end {
            return Ok(request.mask);
        }
        inside(request, end, what, "shared", self.field.checks.bounds)
    }
}

/// The lowest lane of a mask.
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

/// The lanes whose addresses are inside a space of `end` bytes. Any other lane is a fault if
/// `fault` is set.
fn inside(request: Request, end: u64, what: &str, space: &str, fault: bool) -> Outcome<u32> {
    let Request { mask, at, .. } = request;
    let size = request.size();
    let mut inside = 0;
    for lane in lanes(mask) {
        if at[lane].saturating_add(size) <= end {
            inside |= 1 << lane;
        } else if fault {
            let message = format!(
                "{what} of {size} bytes at {space} {:#x}: the space has {end} bytes",
                at[lane]
            );
            return trouble(FaultKind::OutOfBounds, lane, message);
        }
    }
    Ok(inside)
}
