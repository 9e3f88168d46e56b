//! The marks of the checks for shared memory. For each grain, which has the size of the kernel's narrowest access, they
//! record the last writer and the readers since then, as stamps of a thread and a time.
//!
//! Each warp has a clock, and every synchronisation of the warp advances it. `known[w][v]` is the latest time of warp v
//! whose accesses are ordered before what warp w does now. A barrier of the whole CTA sets all clocks to one new time,
//! `floor`. Every stamp below it is ordered, and most accesses need only this comparison.

use super::FaultKind;

/// A stamp has the time from bit 12, the kind at bits 10 and 11, and the thread below.
const TIME: u32 = 12;
const SINGLE: u32 = 0;
/// Readers: several lanes of one warp.
const WARP: u32 = 1;
/// Readers: several warps.
const CTA: u32 = 2;
/// Writer: a `cp.async` not yet waited for.
const PENDING: u32 = 3;
/// After this time the clocks start again.
const LAST_TIME: u32 = (1 << (32 - TIME)) - 2;

/// Marks of a CTA's shared memory.
#[derive(Default)]
pub struct Shadow {
    shift: u32,
    writers: Vec<u32>,
    readers: Vec<u32>,
    clock: Vec<u32>,
    known: Vec<[u32; 32]>,
    floor: u32,
}

/// Why an access is wrong: the kind of fault, and the other thread.
pub struct Conflict {
    pub kind: FaultKind,
    pub other: u32,
}

fn time(stamp: u32) -> u32 {
    stamp >> TIME
}

fn kind(stamp: u32) -> u32 {
    stamp >> 10 & 3
}

fn thread(stamp: u32) -> u32 {
    stamp & 0x3ff
}

impl Shadow {
    /// Starts a CTA: nothing written, nothing read.
    pub fn reset(&mut self, bytes: usize, grain: u32, warps: usize) {
        self.shift = grain.trailing_zeros();
        let grains = bytes.div_ceil(grain as usize);
        self.writers.clear();
        self.writers.resize(grains, 0);
        self.readers.clear();
        self.readers.resize(grains, 0);
        self.clock.clear();
        self.clock.resize(warps, 2);
        self.known.clear();
        self.known.resize(warps, [1; 32]);
        self.floor = 2;
    }

    #[inline(always)]
    fn grains(&self, at: usize, bytes: usize) -> std::ops::Range<usize> {
        at >> self.shift..(at + bytes + (1 << self.shift) - 1) >> self.shift
    }

    #[inline(always)]
    fn stamp(&self, thread: u32) -> u32 {
        self.clock[thread as usize / 32] << TIME | thread
    }

    /// Whether the access that left a stamp is ordered before what `me` does now.
    fn ordered(&self, stamp: u32, me: u32) -> bool {
        let (warp, at) = (me as usize / 32, time(stamp));
        match kind(stamp) {
            _ if at < self.floor => true,
            SINGLE if thread(stamp) == me => true,
            CTA => self.clock[warp] > at,
            _ => at <= self.known[warp][thread(stamp) as usize / 32],
        }
    }

    fn conflict(&self, stamp: u32, me: u32) -> Conflict {
        let other = thread(stamp);
        let same_warp = kind(stamp) != CTA && other / 32 == me / 32;
        let kind = if same_warp {
            FaultKind::MissingWarpSync
        } else {
            FaultKind::SharedRace
        };
        Conflict { kind, other }
    }

    /// Notes a read by thread `me`.
    #[inline(always)]
    pub fn read(&mut self, at: usize, bytes: usize, me: u32, races: bool) -> Result<(), Conflict> {
        let limit = self.floor << TIME;
        let mine = self.stamp(me);
        for grain in self.grains(at, bytes) {
            let writer = self.writers[grain];
            if writer.wrapping_sub(1) >= limit - 1 {
                self.read_after(writer, me, races)?;
            }
            let reader = self.readers[grain];
            if reader != mine {
                self.readers[grain] = if reader < limit {
                    mine
                } else {
                    self.join(reader, mine, me)
                };
            }
        }
        Ok(())
    }

    /// A read of a grain that was never written, or whose writer is above the floor.
    #[cold]
    fn read_after(&self, writer: u32, me: u32, races: bool) -> Result<(), Conflict> {
        if writer == 0 {
            return Err(Conflict {
                kind: FaultKind::Uninitialised,
                other: me,
            });
        }
        if kind(writer) == PENDING && races {
            return Err(Conflict {
                kind: FaultKind::MissingAsyncWait,
                other: thread(writer),
            });
        }
        if races && !self.ordered(writer, me) {
            Err(self.conflict(writer, me))
        } else {
            Ok(())
        }
    }

    /// The stamp of the readers after another reader.
    fn join(&self, reader: u32, mine: u32, me: u32) -> u32 {
        let same_warp = kind(reader) != CTA && thread(reader) / 32 == me / 32;
        if same_warp && time(reader) == time(mine) {
            if kind(reader) == SINGLE && thread(reader) == me {
                return mine;
            }
            return time(mine) << TIME | WARP << 10 | me & !31;
        }
        if self.ordered(reader, me) {
            return mine;
        }
        time(reader).max(time(mine)) << TIME | CTA << 10
    }

    /// Notes a write by thread `me`; `same` says whether the write leaves the bytes unchanged.
    #[inline(always)]
    pub fn write(
        &mut self,
        at: usize,
        bytes: usize,
        me: u32,
        races: bool,
        same: impl Fn() -> bool,
    ) -> Result<(), Conflict> {
        let limit = self.floor << TIME;
        let mine = self.stamp(me);
        for grain in self.grains(at, bytes) {
            let (writer, reader) = (self.writers[grain], self.readers[grain]);
            if (writer >= limit || reader >= limit) && races {
                self.write_after(writer, reader, me, &same)?;
            }
            self.writers[grain] = mine;
        }
        Ok(())
    }

    #[inline(never)]
    fn write_after(
        &self,
        writer: u32,
        reader: u32,
        me: u32,
        same: &impl Fn() -> bool,
    ) -> Result<(), Conflict> {
        if kind(writer) == PENDING {
            return Err(Conflict {
                kind: FaultKind::MissingAsyncWait,
                other: thread(writer),
            });
        }
        if !self.ordered(reader, me) {
            return Err(self.conflict(reader, me));
        }
        if !self.ordered(writer, me) {
            // Lanes of one warp may store the same value at the same time.
            let together = thread(writer) / 32 == me / 32 && time(writer) == time(self.stamp(me));
            if !(together && same()) {
                return Err(self.conflict(writer, me));
            }
        }
        Ok(())
    }

    /// Notes that a copy into these bytes has begun.
    pub fn expect(
        &mut self,
        at: usize,
        bytes: usize,
        me: u32,
        races: bool,
    ) -> Result<(), Conflict> {
        self.write(at, bytes, me, races, || false)?;
        let pending = self.stamp(me) | PENDING << 10;
        for grain in self.grains(at, bytes) {
            self.writers[grain] = pending;
        }
        Ok(())
    }

    /// Notes that a copy has finished, because thread `me` waited for it.
    pub fn arrive(&mut self, at: usize, bytes: usize, me: u32) {
        let mine = self.stamp(me);
        for grain in self.grains(at, bytes) {
            self.writers[grain] = mine;
        }
    }

    /// Notes an atomic or volatile access. It initialises the bytes, and races with no other access.
    pub fn atomic(&mut self, at: usize, bytes: usize, writes: bool) -> Result<(), Conflict> {
        for grain in self.grains(at, bytes) {
            let writer = self.writers[grain];
            if writer != 0 && kind(writer) == PENDING {
                return Err(Conflict {
                    kind: FaultKind::MissingAsyncWait,
                    other: thread(writer),
                });
            }
            if writer == 0 && writes {
                self.writers[grain] = 1 << TIME;
            }
        }
        Ok(())
    }

    pub fn is_written(&self, at: usize, bytes: usize) -> bool {
        self.grains(at, bytes).all(|grain| self.writers[grain] != 0)
    }

    /// A synchronisation among the lanes of a warp.
    pub fn sync_warp(&mut self, warp: usize) {
        self.known[warp][warp] = self.clock[warp];
        self.clock[warp] += 1;
        if self.clock[warp] >= LAST_TIME {
            self.start_over();
        }
    }

    /// A barrier of the whole CTA.
    pub fn sync_all(&mut self) {
        let next = self.clock.iter().max().map_or(2, |&last| last + 1);
        if next >= LAST_TIME {
            return self.start_over();
        }
        self.clock.fill(next);
        self.floor = next;
        self.known.fill([next - 1; 32]);
    }

    /// A barrier among some warps.
    pub fn sync_some(&mut self, warps: impl Iterator<Item = usize> + Clone) {
        let (mut joint, mut next) = ([0; 32], 0);
        for warp in warps.clone() {
            for (joint, &known) in joint.iter_mut().zip(&self.known[warp]) {
                *joint = known.max(*joint);
            }
            joint[warp] = self.clock[warp];
            next = next.max(self.clock[warp] + 1);
        }
        for warp in warps.clone() {
            joint[warp] = joint[warp].max(self.clock[warp]);
        }
        for warp in warps {
            self.known[warp] = joint;
            self.clock[warp] = next;
        }
        if next >= LAST_TIME {
            self.start_over();
        }
    }

    /// Starts the clocks again. All earlier accesses count as ordered.
    fn start_over(&mut self) {
        for stamp in self.writers.iter_mut().chain(&mut self.readers) {
            let pending = *stamp != 0 && kind(*stamp) == PENDING;
            *stamp = match *stamp {
                0 => 0,
                old if pending => 1 << TIME | old & 0xfff,
                old => 1 << TIME | old & 0x3ff,
            };
        }
        self.clock.fill(2);
        self.known.fill([1; 32]);
        self.floor = 2;
    }
}
