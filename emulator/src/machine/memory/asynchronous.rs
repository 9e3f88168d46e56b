//! `cp.async` and `ldmatrix`.

use super::super::cta::{Common, Pending, Warp};
use super::super::engine::{Engine, Outcome, WINDOW};
use super::super::lanes::{FULL, LANES, lanes};
use super::super::op::Inst;
use super::{Request, addresses, first, follow, range};

impl Engine<'_> {
    /// `cp.async`: noted now, copied at the wait.
    pub fn cp_async(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        mask: u32,
        inst: &Inst,
        bytes: u8,
        sized: bool,
    ) -> Outcome {
        let to = addresses(&warp.file, inst.a, 0, true);
        let from = addresses(&warp.file, inst.b, 0, true);
        let mut size = [bytes; LANES];
        if sized {
            let given = warp.file.get::<u32>(inst.c);
            for lane in 0..LANES {
                size[lane] = given[lane].min(u32::from(bytes)) as u8;
            }
        }
        let width = u64::from(bytes);
        self.check_alignment(&to, mask, width)?;
        let reads = lanes(mask)
            .filter(|&lane| size[lane] != 0)
            .fold(0, |m, lane| m | 1 << lane);
        self.check_alignment(&from, reads, width)?;
        let target = Request::plain(mask, &to, bytes);
        let mask = self.shared_bounds(common, target, "cp.async")?;
        let full = lanes(reads).all(|lane| size[lane] == bytes);
        let groups = if full {
            vec![(reads, bytes)]
        } else {
            by_size(reads, &size)
        };
        for (group, bytes) in groups {
            self.note_source(common, Request::plain(group, &from, bytes))?;
        }
        self.note_target(common, warp.index, Request { mask, ..target })?;
        if self.field.counters {
            self.count_banks(&to, mask, u32::from(bytes));
        }
        let to = to.map(|address| address as u32);
        let group = warp.committed;
        warp.pending.push(Pending {
            mask,
            group,
            to,
            from,
            size,
            bytes,
        });
        Ok(())
    }

    /// Checks and counts the read of global memory.
    fn note_source(&mut self, common: &Common, request: Request) -> Outcome {
        let Request { mask, at, .. } = request;
        let size = request.size();
        if mask == 0 {
            return Ok(());
        }
        let (low, high) = range(at, mask);
        if let Some(view) = self.view(low, high.saturating_add(size)) {
            let contiguous = mask == FULL && follow(at, size);
            return self.note_load(common, view, request, contiguous);
        }
        self.lane_by_lane(request, "cp.async", |engine, request| {
            engine.note_source(common, request)
        })
    }

    /// Notes that copies into shared memory are on their way.
    fn note_target(&self, common: &mut Common, warp: usize, request: Request) -> Outcome {
        if !self.shadowed() {
            return Ok(());
        }
        let (at, size) = (request.at, request.size());
        for lane in lanes(request.mask) {
            let me = (warp * 32 + lane) as u32;
            let (to, races) = (at[lane] as usize, self.field.checks.shared_races);
            if let Err(conflict) = common.shadow.expect(to, size as usize, me, races) {
                self.shared_trouble(conflict, lane, at[lane], size, "cp.async")?;
            }
        }
        Ok(())
    }

    /// Finishes the copies whose group, for a lane, is below the limit of that lane.
    pub fn cp_arrive(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        mask: u32,
        limit: impl Fn(u32) -> u32,
    ) {
        let limits = warp.committed.map(limit);
        let shadowed = self.shadowed();
        let mut pending = std::mem::take(&mut warp.pending);
        pending.retain_mut(|copy| {
            for lane in lanes(copy.mask & mask) {
                if copy.group[lane] >= limits[lane] {
                    continue;
                }
                copy.mask &= !(1 << lane);
                let (to, bytes) = (copy.to[lane] as usize, copy.bytes as usize);
                let size = u64::from(copy.size[lane]);
                let target = &mut common.shared[to..to + bytes];
                target.fill(0);
                if let Some(view) = self.view(copy.from[lane], copy.from[lane] + size)
                    && size > 0
                {
                    let offset = (copy.from[lane] - view.base) as usize;
                    let target = target.as_mut_ptr();
                    // SAFETY: the slice of shared memory has at least `size` bytes, and the view
                    // holds the whole source.
                    unsafe {
                        let source = view.allocation.data.add(offset);
                        std::ptr::copy_nonoverlapping(source, target, size as usize);
                    }
                }
                if shadowed {
                    common
                        .shadow
                        .arrive(to, bytes, (warp.index * 32 + lane) as u32);
                }
            }
            copy.mask != 0
        });
        warp.pending = pending;
    }

    /// `ldmatrix`: register j receives matrix j, whose rows are at the addresses that lanes 8j to
    /// 8j+7 give.
    pub fn ldmatrix(
        &mut self,
        common: &mut Common,
        warp: &mut Warp,
        inst: &Inst,
        count: u8,
        trans: bool,
        slots: &[u32],
    ) -> Outcome {
        let mut at = addresses(&warp.file, inst.a, 0, true);
        let used = u32::MAX >> (32 - 8 * u32::from(count));
        for address in &mut at {
            *address &= !WINDOW;
        }
        self.check_alignment(&at, used, 16)?;
        let request = Request::plain(used, &at, 16);
        let used = self.shared_bounds(common, request, "ldmatrix")?;
        if self.shadowed() {
            let request = Request {
                mask: used,
                ..request
            };
            self.note_shared_read(common, warp.index, request)?;
        }
        if self.field.counters {
            self.count_banks(&at, used, 16);
        }
        for (matrix, &slot) in slots.iter().enumerate() {
            let mut rows = [[0u16; 8]; 8];
            for (row, values) in rows.iter_mut().enumerate() {
                let lane = 8 * matrix + row;
                if used >> lane & 1 == 1 {
                    let start = at[lane] as usize;
                    for (column, value) in values.iter_mut().enumerate() {
                        let byte = start + 2 * column;
                        *value = u16::from_le_bytes([common.shared[byte], common.shared[byte + 1]]);
                    }
                }
            }
            let out = std::array::from_fn(|lane| {
                let (row, column) = (lane / 4, 2 * (lane % 4));
                let [low, high] = if trans {
                    [rows[column][row], rows[column + 1][row]]
                } else {
                    [rows[row][column], rows[row][column + 1]]
                };
                u32::from(low) | u32::from(high) << 16
            });
            warp.file.put::<u32>(slot, FULL, &out);
        }
        Ok(())
    }
}

/// Lanes grouped by how many bytes they copy.
fn by_size(mut mask: u32, size: &[u8; LANES]) -> Vec<(u32, u8)> {
    let mut groups = Vec::new();
    while mask != 0 {
        let bytes = size[first(mask)];
        let same = lanes(mask).filter(|&lane| size[lane] == bytes);
        let group = same.fold(0, |group, lane| group | 1 << lane);
        groups.push((group, bytes));
        mask &= !group;
    }
    groups
}
