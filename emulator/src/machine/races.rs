//! Races in global memory between CTAs.
//!
//! For each 4 bytes, the CTA that wrote last and the CTAs that have read since then are recorded. Two accesses of
//! different CTAs, of which at least one is a write, must have an order: the first CTA *releases* after its access (an
//! atomic, a fence, a volatile or release store), and after that the second CTA *acquires* (an atomic, a volatile or
//! acquire load). The variable that carries the order is not considered. Some races between CTAs that also synchronise
//! are therefore missed, but everything that is reported is a race.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use super::heap::Allocation;

/// The CTA of a mark that stands for several readers.
const SEVERAL: u64 = 0xff_ffff;
const REST: u64 = (1 << 36) - 1;

/// The order of releases and acquires in a launch.
pub struct Order {
    time: AtomicU64,
    ctas: Vec<Clock>,
}

#[derive(Default)]
struct Clock {
    /// The times of the releases of the CTA.
    releases: Mutex<Vec<u64>>,
    count: AtomicU64,
    acquired: AtomicU64,
    /// Whether there was an access since the last release. Without one, another release changes nothing.
    accessed: AtomicBool,
}

/// A mark has the number of the CTA plus 1 from bit 40, the bytes from bit 36, and below them the number of releases before
/// the access, or for several readers the time.
fn mark(cta: u64, bytes: u64, rest: u64) -> u64 {
    cta << 40 | bytes << 36 | rest & REST
}

impl Order {
    pub fn new(ctas: usize) -> Order {
        Order {
            time: AtomicU64::new(1),
            ctas: (0..ctas).map(|_| Clock::default()).collect(),
        }
    }

    pub fn release(&self, cta: usize) {
        let Some(clock) = self.ctas.get(cta) else {
            return;
        };
        if !clock.accessed.swap(false, SeqCst) {
            return;
        }
        let mut releases = clock
            .releases
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        releases.push(self.time.fetch_add(1, SeqCst) + 1);
        clock.count.store(releases.len() as u64, SeqCst);
    }

    pub fn acquire(&self, cta: usize) {
        if let Some(clock) = self.ctas.get(cta) {
            clock.acquired.store(self.time.load(SeqCst), SeqCst);
        }
    }

    /// Whether the access that left a mark is ordered before what CTA `me` does now.
    fn ordered(&self, mark: u64, me: usize) -> bool {
        let (cta, rest) = (mark >> 40, mark & REST);
        let acquired = self.ctas[me].acquired.load(SeqCst);
        if cta == SEVERAL {
            return acquired > rest;
        }
        let clock = &self.ctas[cta as usize - 1];
        let releases = clock
            .releases
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        releases
            .get(rest as usize)
            .is_some_and(|&time| time <= acquired)
    }

    /// Notes an access of `bytes` bytes at `at`; the error is the CTA it races with.
    pub fn access(
        &self,
        allocation: &Allocation,
        launch: u32,
        (at, bytes): (usize, usize),
        me: usize,
        write: bool,
    ) -> Result<(), Option<u64>> {
        let Some(clock) = self.ctas.get(me) else {
            return Ok(());
        };
        clock.accessed.store(true, SeqCst);
        let releases = clock.count.load(SeqCst);
        let cta = me as u64 + 1;
        let end = at + bytes;
        for grain in at / 4..end.div_ceil(4) {
            let page = allocation.races(grain * 4, launch);
            let low = at.saturating_sub(grain * 4);
            let high = (end - grain * 4).min(4);
            let touched = 0xf << low & 0xf >> (4 - high);
            let slot = grain % page.writers.len();
            let (writers, readers) = (&page.writers[slot], &page.readers[slot]);
            if write {
                self.write(writers, readers, mark(cta, touched, releases), me)?;
            } else {
                self.read(writers, readers, mark(cta, touched, releases), me)?;
            }
        }
        Ok(())
    }

    fn clash(&self, old: u64, mine: u64, me: usize) -> Result<(), Option<u64>> {
        let overlap = old & mine & 0xf << 36 != 0;
        if old >> 40 != mine >> 40 && overlap && !self.ordered(old, me) {
            let cta = old >> 40;
            return Err((cta != SEVERAL).then(|| cta - 1));
        }
        Ok(())
    }

    fn write(
        &self,
        writers: &AtomicU64,
        readers: &AtomicU64,
        mine: u64,
        me: usize,
    ) -> Result<(), Option<u64>> {
        let old = writers.load(SeqCst);
        if old != mine {
            let kept = if old >> 40 == mine >> 40 {
                old & 0xf << 36
            } else {
                0
            };
            let old = writers.swap(mine | kept, SeqCst);
            if old != 0 {
                self.clash(old, mine, me)?;
            }
        }
        match readers.load(SeqCst) {
            0 => Ok(()),
            readers => self.clash(readers, mine, me),
        }
    }

    fn read(
        &self,
        writers: &AtomicU64,
        readers: &AtomicU64,
        mine: u64,
        me: usize,
    ) -> Result<(), Option<u64>> {
        let old = readers.load(SeqCst);
        let bytes = (old | mine) & 0xf << 36;
        let apart = old & mine & 0xf << 36 == 0;
        let new = match old >> 40 {
            0 => mine,
            // Two CTAs read different bytes of a word. A mark of both would make each a reader of the other's bytes, so only
            // the last one is kept.
            cta if apart && cta != mine >> 40 => mine,
            SEVERAL => SEVERAL << 40 | bytes | self.time.load(SeqCst),
            cta if cta == mine >> 40 => mine | bytes,
            _ if self.ordered(old, me) => mine,
            _ => SEVERAL << 40 | bytes | self.time.load(SeqCst),
        };
        if new != old {
            readers.store(new, SeqCst);
        }
        match writers.load(SeqCst) {
            0 => Ok(()),
            writer => self.clash(writer, mine, me),
        }
    }
}
