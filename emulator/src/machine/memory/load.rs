//! `ld`.

use super::super::FaultKind;
use super::super::cta::{Common, Warp};
use super::super::engine::{Engine, Outcome, trouble};
use super::super::lanes::{FULL, File, LANES, lanes};
use super::super::op::{Access, Inst, Place};
use super::{Addresses, addresses, follow, outside, range};

/// Reads the lanes' values into registers.
///
/// # Safety
/// Each active lane's pointer must be readable for the whole access.
#[inline(always)]
unsafe fn fetch(
    file: &mut File,
    mask: u32,
    access: Access,
    slots: &[u32],
    from: impl Fn(usize) -> *const u8,
) {
    macro_rules! parts {
        ($raw:ty, $lane:ty) => {
            for (part, &slot) in slots.iter().enumerate() {
                let to = file.get_mut::<$lane>(slot);
                if mask == FULL {
                    for lane in 0..LANES {
                        // SAFETY: the caller's.
                        to[lane] = unsafe { from(lane).cast::<$raw>().add(part).read_unaligned() }
                            as $lane;
                    }
                } else {
                    for lane in lanes(mask) {
                        // SAFETY: the caller's.
                        to[lane] = unsafe { from(lane).cast::<$raw>().add(part).read_unaligned() }
                            as $lane;
                    }
                }
            }
        };
    }
    match (access.width, access.signed) {
        (1, false) => parts!(u8, u32),
        (1, true) => parts!(i8, u32),
        (2, false) => parts!(u16, u32),
        (2, true) => parts!(i16, u32),
        (4, _) => parts!(u32, u32),
        _ => parts!(u64, u64),
    }
}

impl Engine<'_> {
    /// `ld`. `slots` are the destinations.
    #[inline(always)]
    pub fn load(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        mask: u32,
        inst: &Inst,
        access: Access,
        slots: &[u32],
    ) -> Outcome {
        let at = addresses(&warp.file, inst.a, inst.imm, access.wide);
        self.load_at(common, warp, mask, access, slots, at)
    }

    fn load_at(
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
            Place::Global => self.load_global(common, warp, mask, access, slots, &at),
            Place::Shared => self.load_shared(common, warp, mask, access, slots, &at),
            Place::Local => self.load_local(warp, mask, access, slots, &at),
            Place::Param => self.load_param(warp, mask, access, slots, &at),
            Place::Generic => self.by_space(mask, access, at, |engine, mask, access, at| {
                engine.load_at(common, warp, mask, access, slots, at)
            }),
        }
    }

    fn load_global(
        &mut self,
        common: &Common,
        warp: &mut Warp,
        mask: u32,
        access: Access,
        slots: &[u32],
        at: &Addresses,
    ) -> Outcome {
        let size = u64::from(access.bytes());
        let (low, high) = range(at, mask);
        let Some(view) = self.view(low, high.saturating_add(size)) else {
            return self.lane_by_lane(mask, at, size as u32, "load", |engine, mask| {
                engine.load_global(common, warp, mask, access, slots, at)
            });
        };
        let contiguous = mask == FULL && follow(at, size);
        self.note_load(common, view, mask, at, size, contiguous, access.strong)?;
        let data = view.allocation.data;
        // SAFETY: the view holds all addresses from `low` to `high + size`.
        unsafe {
            if contiguous && access.count == 1 && access.width == 4 {
                let from = data.add((low - view.base) as usize).cast::<[u32; LANES]>();
                *warp.file.get_mut::<u32>(slots[0]) = from.read_unaligned();
            } else {
                fetch(&mut warp.file, mask, access, slots, |lane| {
                    data.add((at[lane] - view.base) as usize)
                });
            }
        }
        if access.strong {
            self.poll(common);
        }
        Ok(())
    }

    /// A load that may wait for another CTA.
    fn poll(&mut self, common: &Common) {
        self.polls += 1;
        if self.field.checks.global_races {
            self.field.order.acquire(common.index);
        }
    }

    fn load_shared(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        mask: u32,
        access: Access,
        slots: &[u32],
        at: &Addresses,
    ) -> Outcome {
        let size = u64::from(access.bytes());
        let mask = self.shared_bounds(common, mask, at, size, "load")?;
        if self.shadowed() {
            self.note_shared_read(common, warp.index, mask, at, size, access.strong)?;
        }
        if self.field.counters {
            self.count_banks(at, mask, size as u32);
        }
        let data = common.shared.as_ptr();
        // SAFETY: `shared_bounds` checked each lane of the mask.
        unsafe {
            if mask == FULL && access.count == 1 && access.width == 4 && follow(at, size) {
                let from = data.add(at[0] as usize).cast::<[u32; LANES]>();
                *warp.file.get_mut::<u32>(slots[0]) = from.read_unaligned();
            } else {
                fetch(&mut warp.file, mask, access, slots, |lane| {
                    data.add(at[lane] as usize)
                });
            }
        }
        Ok(())
    }

    fn load_local(
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
        let mask = outside(mask, at, size, each, "load", "local", bounds)?;
        let place = |lane: usize| lane * each as usize + at[lane] as usize;
        if self.field.checks.uninitialised {
            for lane in lanes(mask) {
                let from = place(lane);
                if !warp.local_written[from..from + size as usize]
                    .iter()
                    .all(|&written| written)
                {
                    let message = format!("load of {size} bytes at local {:#x}", at[lane]);
                    return trouble(FaultKind::Uninitialised, lane, message);
                }
            }
        }
        let data = warp.local.as_ptr();
        // SAFETY: `outside` checked each lane of the mask against its part of local memory. Lanes
        // outside the mask are not read: `fetch` reads all only under a full mask.
        unsafe {
            fetch(&mut warp.file, mask, access, slots, |lane| {
                data.add(place(lane))
            })
        };
        Ok(())
    }

    fn load_param(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        access: Access,
        slots: &[u32],
        at: &Addresses,
    ) -> Outcome {
        let size = u64::from(access.bytes());
        let (params, bounds) = (self.field.params, self.field.checks.bounds);
        let mask = outside(
            mask,
            at,
            size,
            params.len() as u64,
            "load",
            "parameter",
            bounds,
        )?;
        // SAFETY: `outside` checked each lane of the mask.
        unsafe {
            fetch(&mut warp.file, mask, access, slots, |lane| {
                params.as_ptr().add(at[lane] as usize)
            });
        }
        Ok(())
    }
}
