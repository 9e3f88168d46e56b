//! `ld`.

use super::super::cta::{Common, Warp};
use super::super::engine::{Engine, Outcome, View};
use super::super::lanes::{FULL, File, LANES, lanes};
use super::{Request, follow, inside};

/// Reads the values of the request's lanes into its registers.
///
/// # Safety
/// `from` must give each lane of the request a pointer that is readable for the whole access.
#[inline(always)]
pub(super) unsafe fn fetch(file: &mut File, request: Request, from: impl Fn(usize) -> *const u8) {
    let Request {
        mask,
        access,
        slots,
        ..
    } = request;
    macro_rules! parts {
        ($raw:ty, $lane:ty) => {
            for (part, &slot) in slots.iter().enumerate() {
                let to = file.get_mut::<$lane>(slot);
                if mask == FULL {
                    for lane in 0..LANES {
                        // SAFETY: the caller promises it.
                        to[lane] = unsafe { from(lane).cast::<$raw>().add(part).read_unaligned() }
                            as $lane;
                    }
                } else {
                    for lane in lanes(mask) {
                        // SAFETY: the caller promises it.
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
        (8, _) => parts!(u64, u64),
        (width, _) => unreachable!("the decoder accepts no load of {width} bytes"),
    }
}

impl Engine<'_> {
    /// A load from one allocation.
    #[inline(always)]
    pub(super) fn load_global(
        &mut self,
        common: &Common,
        warp: &mut Warp,
        request: Request,
        view: &View,
        contiguous: bool,
    ) -> Outcome {
        self.note_load(common, view, request, contiguous)?;
        let (at, access) = (request.at, request.access);
        let data = view.allocation.data;
        // SAFETY: the view holds the addresses of all lanes, as the caller has checked.
        unsafe {
            if contiguous && access.count == 1 && access.width == 4 {
                let from = data
                    .add((at[0] - view.base) as usize)
                    .cast::<[u32; LANES]>();
                *warp.file.get_mut::<u32>(request.slots[0]) = from.read_unaligned();
            } else {
                fetch(&mut warp.file, request, |lane| {
                    data.add((at[lane] - view.base) as usize)
                });
            }
        }
        if access.strong {
            self.poll(common);
        }
        Ok(())
    }

    /// Notes a load with which a CTA may wait for another one.
    fn poll(&mut self, common: &Common) {
        self.polls += 1;
        if self.field.checks.global_races {
            self.field.order.acquire(common.index);
        }
    }

    #[inline(always)]
    pub(super) fn load_shared(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        request: Request,
    ) -> Outcome {
        let (access, at) = (request.access, request.at);
        let mask = self.shared_bounds(common, request, "load")?;
        let request = Request { mask, ..request };
        if self.shadowed() {
            self.note_shared_read(common, warp.index, request)?;
        }
        if self.field.counters {
            self.count_banks(at, mask, access.bytes());
        }
        let data = common.shared.as_ptr();
        // SAFETY: `shared_bounds` has checked each lane of the mask.
        unsafe {
            if mask == FULL && access.count == 1 && access.width == 4 && follow(at, 4) {
                let from = data.add(at[0] as usize).cast::<[u32; LANES]>();
                *warp.file.get_mut::<u32>(request.slots[0]) = from.read_unaligned();
            } else {
                fetch(&mut warp.file, request, |lane| data.add(at[lane] as usize));
            }
        }
        Ok(())
    }

    /// A load of a kernel's parameter.
    pub(super) fn load_param(&mut self, warp: &mut Warp, request: Request) -> Outcome {
        let (params, bounds) = (self.field.params, self.field.checks.bounds);
        let mask = inside(request, params.len() as u64, "load", "parameter", bounds)?;
        // SAFETY: `inside` has checked each lane of the mask.
        unsafe {
            fetch(&mut warp.file, Request { mask, ..request }, |lane| {
                params.as_ptr().add(request.at[lane] as usize)
            });
        }
        Ok(())
    }
}
