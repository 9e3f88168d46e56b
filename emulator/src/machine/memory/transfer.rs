//! What `ld` and `st` have in common: the way to the memory that an address belongs to.

use super::super::FaultKind;
use super::super::cta::{Common, Warp};
use super::super::engine::{Engine, Outcome, trouble};
use super::super::lanes::{FULL, lanes};
use super::super::op::{Access, Inst, Place};
use super::load::fetch;
use super::store::put;
use super::{Request, addresses, first, follow, inside, range};

/// The word for a transfer in messages.
fn what<const STORE: bool>() -> &'static str {
    if STORE { "store" } else { "load" }
}

impl Engine<'_> {
    /// `ld`, or `st` if `STORE` is set. `slots` are the registers of the values.
    #[inline(always)]
    pub fn transfer<const STORE: bool>(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        mask: u32,
        inst: &Inst,
        access: Access,
        slots: &[u32],
    ) -> Outcome {
        let at = &addresses(&warp.file, inst.a, inst.imm, access.wide);
        let request = Request {
            mask,
            at,
            access,
            slots,
        };
        self.reach::<STORE>(common, warp, request)
    }

    /// Executes a request in the space of its addresses.
    fn reach<const STORE: bool>(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        request: Request,
    ) -> Outcome {
        self.check_alignment(request.at, request.mask, request.size())?;
        match request.access.place {
            Place::Global => self.global::<STORE>(common, warp, request),
            Place::Shared if STORE => self.store_shared(common, warp, request),
            Place::Shared => self.load_shared(common, warp, request),
            Place::Local => self.local::<STORE>(warp, request),
            Place::Param if STORE => trouble(
                FaultKind::OutOfBounds,
                first(request.mask),
                "store to the parameters of a kernel, which are read-only",
            ),
            Place::Param => self.load_param(warp, request),
            Place::Generic => self.by_space(request, |engine, request| {
                engine.reach::<STORE>(common, warp, request)
            }),
        }
    }

    fn global<const STORE: bool>(
        &mut self,
        common: &Common,
        warp: &mut Warp,
        request: Request,
    ) -> Outcome {
        let Request { mask, at, .. } = request;
        let size = request.size();
        let (low, high) = range(at, mask);
        let Some(view) = self.view(low, high.saturating_add(size)) else {
            return self.lane_by_lane(request, what::<STORE>(), |engine, request| {
                engine.global::<STORE>(common, warp, request)
            });
        };
        let contiguous = mask == FULL && follow(at, size);
        if STORE {
            self.store_global(common, warp, request, view, contiguous)
        } else {
            self.load_global(common, warp, request, view, contiguous)
        }
    }

    /// A transfer with local memory, of which each lane has `each` bytes of its own.
    fn local<const STORE: bool>(&mut self, warp: &mut Warp, request: Request) -> Outcome {
        let (at, size) = (request.at, request.size());
        let each = u64::from(self.field.local_bytes);
        let mask = inside(
            request,
            each,
            what::<STORE>(),
            "local",
            self.field.checks.bounds,
        )?;
        let request = Request { mask, ..request };
        let place = |lane: usize| lane * each as usize + at[lane] as usize;
        for lane in lanes(mask) {
            let written = &mut warp.local_written[place(lane)..place(lane) + size as usize];
            if STORE {
                written.fill(true);
            } else if self.field.checks.uninitialised && written.contains(&false) {
                let message = format!("load of {size} bytes at local {:#x}", at[lane]);
                return trouble(FaultKind::Uninitialised, lane, message);
            }
        }
        // SAFETY: `inside` has checked each lane of the mask against its part of local memory.
        // Other lanes are not accessed.
        unsafe {
            if STORE {
                let data = warp.local.as_mut_ptr();
                put(&warp.file, request, |lane| data.add(place(lane)));
            } else {
                let data = warp.local.as_ptr();
                fetch(&mut warp.file, request, |lane| data.add(place(lane)));
            }
        }
        Ok(())
    }
}
