//! `st`.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::super::cta::{Common, Warp};
use super::super::engine::{Engine, Outcome, View};
use super::super::lanes::{File, lanes};
use super::Request;

/// Writes the values of the request's lanes from its registers.
///
/// # Safety
/// `to` must give each lane of the request a pointer that is writable for the whole access.
#[inline(always)]
pub(super) unsafe fn put(file: &File, request: Request, to: impl Fn(usize) -> *mut u8) {
    let Request {
        mask,
        access,
        slots,
        ..
    } = request;
    macro_rules! parts {
        ($raw:ty, $lane:ty) => {
            for (part, &slot) in slots.iter().enumerate() {
                let from = file.get::<$lane>(slot);
                for lane in lanes(mask) {
                    // SAFETY: the caller promises it.
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
        8 => parts!(u64, u64),
        width => unreachable!("the decoder accepts no store of {width} bytes"),
    }
}

impl Engine<'_> {
    /// A store to one allocation.
    #[inline(always)]
    pub(super) fn store_global(
        &mut self,
        common: &Common,
        warp: &Warp,
        request: Request,
        view: &View,
        contiguous: bool,
    ) -> Outcome {
        let Request { mask, at, .. } = request;
        let size = request.size();
        view.touched.store(true, Relaxed);
        view.written.store(true, Relaxed);
        self.changed = true;
        if self.field.checks.global_races && !request.access.strong {
            self.global_race(common, view, request, contiguous, true)?;
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
        if request.access.strong {
            std::sync::atomic::fence(SeqCst);
            self.field.order.release(common.index);
        }
        let data = view.allocation.data;
        // SAFETY: the view holds the addresses of all lanes, as the caller has checked.
        unsafe { put(&warp.file, request, |lane| data.add(offset(lane))) };
        Ok(())
    }

    #[inline(always)]
    pub(super) fn store_shared(
        &mut self,
        common: &mut Common,
        warp: &Warp,
        request: Request,
    ) -> Outcome {
        let (at, size) = (request.at, request.size());
        let mask = self.shared_bounds(common, request, "store")?;
        let request = Request { mask, ..request };
        if self.field.counters {
            self.count_banks(at, mask, size as u32);
        }
        let data = common.shared.as_mut_ptr();
        if !self.shadowed() {
            // SAFETY: `shared_bounds` has checked each lane of the mask.
            unsafe { put(&warp.file, request, |lane| data.add(at[lane] as usize)) };
            return Ok(());
        }
        let races = self.field.checks.shared_races;
        for lane in lanes(mask) {
            let me = (warp.index * 32 + lane) as u32;
            let (to, bytes) = (at[lane] as usize, size as usize);
            let one = Request {
                mask: 1 << lane,
                ..request
            };
            let noted = if request.access.strong {
                common.shadow.atomic(to, bytes, true)
            } else {
                let shared = &common.shared;
                common.shadow.write(to, bytes, me, races, || {
                    let mut value = [0u8; 32];
                    let inside = value.as_mut_ptr();
                    // SAFETY: an access has at most 32 bytes.
                    unsafe { put(&warp.file, one, |_| inside) };
                    shared[to..to + bytes] == value[..bytes]
                })
            };
            if let Err(conflict) = noted {
                self.shared_trouble(conflict, lane, at[lane], size, "store")?;
            }
            // SAFETY: `shared_bounds` has checked this lane.
            unsafe { put(&warp.file, one, |_| data.add(to)) };
        }
        Ok(())
    }
}
