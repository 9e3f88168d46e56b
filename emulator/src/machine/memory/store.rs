//! `st`.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::super::FaultKind;
use super::super::cta::{Common, Warp};
use super::super::engine::{Engine, Outcome, trouble};
use super::super::lanes::{FULL, File, lanes};
use super::super::op::{Access, Inst, Place};
use super::{Addresses, addresses, first, follow, outside, range};

/// Writes the lanes' values.
///
/// # Safety
/// Each active lane's pointer must be writable for the whole access.
#[inline(always)]
unsafe fn put(
    file: &File,
    mask: u32,
    access: Access,
    slots: &[u32],
    to: impl Fn(usize) -> *mut u8,
) {
    macro_rules! parts {
        ($raw:ty, $lane:ty) => {
            for (part, &slot) in slots.iter().enumerate() {
                let from = file.get::<$lane>(slot);
                for lane in lanes(mask) {
                    // SAFETY: the caller's.
                    unsafe {
                        to(lane)
                            .cast::<$raw>()
                            .add(part)
                            .write_unaligned(from[lane] as $raw)
                    };
                }
            }
        };
    }
    match access.width {
        1 => parts!(u8, u32),
        2 => parts!(u16, u32),
        4 => parts!(u32, u32),
        _ => parts!(u64, u64),
    }
}

impl Engine<'_> {
    /// `st`. `slots` are the sources.
    #[inline(always)]
    pub fn store(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        mask: u32,
        inst: &Inst,
        access: Access,
        slots: &[u32],
    ) -> Outcome {
        let at = addresses(&warp.file, inst.a, inst.imm, access.wide);
        self.store_at(common, warp, mask, access, slots, at)
    }

    fn store_at(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        mask: u32,
        access: Access,
        slots: &[u32],
        at: Addresses,
    ) -> Outcome {
        let size = u64::from(access.bytes());
        self.check_alignment(&at, mask, size)?;
        match access.place {
            Place::Global => self.store_global(common, warp, mask, access, slots, &at),
            Place::Shared => self.store_shared(common, warp, mask, access, slots, &at),
            Place::Local => self.store_local(warp, mask, access, slots, &at),
            Place::Param => trouble(
                FaultKind::OutOfBounds,
                first(mask),
                "store to a kernel's parameters",
            ),
            Place::Generic => self.by_space(mask, access, at, |engine, mask, access, at| {
                engine.store_at(common, warp, mask, access, slots, at)
            }),
        }
    }

    fn store_global(
        &mut self,
        common: &Common,
        warp: &Warp,
        mask: u32,
        access: Access,
        slots: &[u32],
        at: &Addresses,
    ) -> Outcome {
        let size = u64::from(access.bytes());
        let (low, high) = range(at, mask);
        let Some(view) = self.view(low, high.saturating_add(size)) else {
            return self.lane_by_lane(mask, at, size as u32, "store", |engine, mask| {
                engine.store_global(common, warp, mask, access, slots, at)
            });
        };
        let contiguous = mask == FULL && follow(at, size);
        view.touched.store(true, Relaxed);
        view.written.store(true, Relaxed);
        self.changed = true;
        let checks = self.field.checks;
        if checks.global_races && !access.strong {
            self.global_race(common, view, mask, at, size, contiguous, true)?;
        }
        let offset = |lane: usize| (at[lane] - view.base) as usize;
        if contiguous {
            view.allocation.mark_written(offset(0), 32 * size as usize);
        } else {
            lanes(mask).for_each(|lane| view.allocation.mark_written(offset(lane), size as usize));
        }
        if self.field.counters {
            let sectors = self.count_sectors(view, at, mask, size, contiguous);
            self.tally.global_stores += 1;
            self.tally.global_store_bytes += size * u64::from(mask.count_ones());
            self.tally.global_store_sectors += sectors;
        }
        if access.strong {
            std::sync::atomic::fence(SeqCst);
            self.field.order.release(common.index);
        }
        let data = view.allocation.data;
        // SAFETY: the view holds all addresses from `low` to `high + size`.
        unsafe {
            put(&warp.file, mask, access, slots, |lane| {
                data.add(offset(lane))
            })
        };
        Ok(())
    }

    fn store_shared(
        &mut self,
        common: &mut Common,
        warp: &Warp,
        mask: u32,
        access: Access,
        slots: &[u32],
        at: &Addresses,
    ) -> Outcome {
        let size = u64::from(access.bytes());
        let mask = self.shared_bounds(common, mask, at, size, "store")?;
        if self.field.counters {
            self.count_banks(at, mask, size as u32);
        }
        let data = common.shared.as_mut_ptr();
        if !self.shadowed() {
            // SAFETY: `shared_bounds` checked each lane of the mask.
            unsafe {
                put(&warp.file, mask, access, slots, |lane| {
                    data.add(at[lane] as usize)
                })
            };
            return Ok(());
        }
        let races = self.field.checks.shared_races;
        for lane in lanes(mask) {
            let me = (warp.index * 32 + lane) as u32;
            let (to, bytes) = (at[lane] as usize, size as usize);
            let noted = if access.strong {
                common.shadow.atomic(to, bytes, true)
            } else {
                let shared = &common.shared;
                common.shadow.write(to, bytes, me, races, || {
                    let mut value = [0u8; 32];
                    let inside = value.as_mut_ptr();
                    // SAFETY: an access has at most 32 bytes.
                    unsafe { put(&warp.file, 1 << lane, access, slots, |_| inside) };
                    shared[to..to + bytes] == value[..bytes]
                })
            };
            if let Err(conflict) = noted {
                self.shared_trouble(conflict, lane, at[lane], size, "store")?;
            }
            // SAFETY: `shared_bounds` checked this lane.
            unsafe { put(&warp.file, 1 << lane, access, slots, |_| data.add(to)) };
        }
        Ok(())
    }

    fn store_local(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        access: Access,
        slots: &[u32],
        at: &Addresses,
    ) -> Outcome {
        let size = u64::from(access.bytes());
        let each = u64::from(self.field.local_bytes);
        let bounds = self.field.checks.bounds;
        let mask = outside(mask, at, size, each, "store", "local", bounds)?;
        let place = |lane: usize| lane * each as usize + at[lane] as usize;
        for lane in lanes(mask) {
            warp.local_written[place(lane)..place(lane) + size as usize].fill(true);
        }
        let data = warp.local.as_mut_ptr();
        // SAFETY: `outside` checked each lane of the mask against its part of local memory.
        unsafe {
            put(&warp.file, mask, access, slots, |lane| {
                data.add(place(lane))
            })
        };
        Ok(())
    }
}
