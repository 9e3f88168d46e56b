//! Races in global memory: between CTAs, and between the warps of one.
//!
//! For each 4 bytes, the CTA that wrote last and the CTAs that have read since then are recorded. Two accesses of
//! different CTAs, of which at least one is a write, must have an order: the first CTA *releases* after its access (an
//! atomic, a fence, a volatile or release store), and after that the second CTA *acquires* (an atomic, a volatile or
//! acquire load). The variable that carries the order is not considered. Some races between CTAs that also synchronise
//! are therefore missed, but everything that is reported is a race.
//!
//! Two warps of one CTA have an order if anything happened between their accesses with which warps of that CTA
//! synchronise: a barrier, a release, an acquire. The time of a CTA is counted in such *intervals*. Lanes of one warp are
//! not told apart.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use super::heap::Allocation;

/// The CTA of a mark that stands for several readers.
const SEVERAL: u64 = 0xff_ffff;
const REST: u64 = (1 << 36) - 1;
/// The warp of a mark that stands for several readers of one CTA, in the same interval.
const WARPS: u64 = 32;
/// The warp of a mark for bytes that different warps have accessed: nothing is known of a single byte.
const MIXED: u64 = 33;
/// The last number of releases, and the last interval, that a mark has room for. They stand for all later ones.
const LAST_RELEASE: u64 = (1 << 16) - 1;
const LAST_INTERVAL: u64 = (1 << 14) - 1;

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
    /// The number of the interval.
    interval: AtomicU64,
}

/// A mark has the number of the CTA plus 1 from bit 40, and the bytes from bit 36. Below them a mark of several CTAs has the time;
/// any other one has the number of the CTA's releases before the access, from bit 20, the warp, from bit 14, and the interval.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark(u64);

impl Mark {
    fn of_several(bytes: u64, time: u64) -> Mark {
        Mark(SEVERAL << 40 | bytes << 36 | time & REST)
    }

    fn cta(self) -> u64 {
        self.0 >> 40
    }

    fn bytes(self) -> u64 {
        self.0 >> 36 & 0xf
    }

    fn time(self) -> u64 {
        self.0 & REST
    }

    fn releases(self) -> u64 {
        self.0 >> 20 & LAST_RELEASE
    }

    fn warp(self) -> u64 {
        self.0 >> 14 & 0x3f
    }

    fn interval(self) -> u64 {
        self.0 & LAST_INTERVAL
    }

    fn overlaps(self, other: Mark) -> bool {
        self.bytes() & other.bytes() != 0
    }

    fn with(self, warp: u64, bytes: u64) -> Mark {
        Mark(self.0 & !(0x3f << 14) & !(0xf << 36) | warp << 14 | bytes << 36)
    }

    /// The mark of a CTA after one more access of it.
    fn and(self, mine: Mark) -> Mark {
        let bytes = self.bytes() | mine.bytes();
        let (same_bytes, together) = (
            self.bytes() == mine.bytes(),
            self.interval() == mine.interval(),
        );
        match self.warp() {
            warp if warp == mine.warp() && together => mine.with(warp, bytes),
            _ if same_bytes && together => mine.with(WARPS.max(self.warp()), bytes),
            _ if bytes == mine.bytes() && !together => mine,
            _ => mine.with(MIXED, bytes),
        }
    }

    /// Whether this is an access of another warp of the same CTA, without anything between the two that orders them.
    fn races_within(self, mine: Mark) -> bool {
        self.cta() == mine.cta()
            && self.interval() == mine.interval()
            && mine.interval() != LAST_INTERVAL
            && self.warp() != mine.warp()
            && self.warp() != MIXED
    }
}

/// What an access races with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    Cta(u64),
    /// Several CTAs.
    Ctas,
    /// A warp of the same CTA.
    Warp(u64),
    /// Several warps of the same CTA.
    Warps,
}

impl std::fmt::Display for Rival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rival::Cta(cta) => write!(f, "CTA {cta}"),
            Rival::Ctas => f.write_str("other CTAs"),
            Rival::Warp(warp) => write!(f, "warp {warp} of its CTA: a barrier is missing"),
            Rival::Warps => f.write_str("other warps of its CTA: a barrier is missing"),
        }
    }
}

/// Who accesses memory.
#[derive(Clone, Copy)]
pub struct Who {
    pub cta: usize,
    pub warp: usize,
}

impl Order {
    pub fn new(ctas: usize) -> Order {
        Order {
            time: AtomicU64::new(1),
            ctas: (0..ctas).map(|_| Clock::default()).collect(),
        }
    }

    /// Something orders what the warps of a CTA did before and what they do from now on.
    pub fn synchronise(&self, cta: usize) {
        if let Some(clock) = self.ctas.get(cta) {
            clock.interval.fetch_add(1, SeqCst);
        }
    }

    pub fn release(&self, cta: usize) {
        self.synchronise(cta);
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
        self.synchronise(cta);
        if let Some(clock) = self.ctas.get(cta) {
            clock.acquired.store(self.time.load(SeqCst), SeqCst);
        }
    }

    /// Whether the access that left a mark is ordered before what CTA `me` does now.
    fn ordered(&self, mark: Mark, me: usize) -> bool {
        let acquired = self.ctas[me].acquired.load(SeqCst);
        if mark.cta() == SEVERAL {
            return acquired > mark.time();
        }
        let clock = &self.ctas[mark.cta() as usize - 1];
        let releases = clock
            .releases
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        releases
            .get(mark.releases() as usize)
            .is_some_and(|&time| time <= acquired)
    }

    /// Notes an access of `bytes` bytes at `at`; the error is what it races with.
    pub fn access(
        &self,
        allocation: &Allocation,
        launch: u32,
        (at, bytes): (usize, usize),
        who: Who,
        write: bool,
    ) -> Result<(), Rival> {
        let Some(clock) = self.ctas.get(who.cta) else {
            return Ok(());
        };
        clock.accessed.store(true, SeqCst);
        let releases = clock.count.load(SeqCst).min(LAST_RELEASE);
        let interval = clock.interval.load(SeqCst).min(LAST_INTERVAL);
        let mine = Mark((who.cta as u64 + 1) << 40 | releases << 20 | interval);
        let end = at + bytes;
        for grain in at / 4..end.div_ceil(4) {
            let page = allocation.races(grain * 4, launch);
            let low = at.saturating_sub(grain * 4);
            let high = (end - grain * 4).min(4);
            let touched = 0xf << low & 0xf >> (4 - high);
            let slot = grain % page.writers.len();
            let (writers, readers) = (&page.writers[slot], &page.readers[slot]);
            let mine = mine.with(who.warp as u64, touched);
            if write {
                self.write(writers, readers, mine, who.cta)?;
            } else {
                self.read(writers, readers, mine, who.cta)?;
            }
        }
        Ok(())
    }

    fn clash(&self, old: Mark, mine: Mark, me: usize) -> Result<(), Rival> {
        if old.0 == 0 || !old.overlaps(mine) {
            return Ok(());
        }
        if old.cta() == mine.cta() {
            return match old.warp() {
                _ if !old.races_within(mine) => Ok(()),
                WARPS => Err(Rival::Warps),
                warp => Err(Rival::Warp(warp)),
            };
        }
        if self.ordered(old, me) {
            return Ok(());
        }
        Err(match old.cta() {
            SEVERAL => Rival::Ctas,
            cta => Rival::Cta(cta - 1),
        })
    }

    fn write(
        &self,
        writers: &AtomicU64,
        readers: &AtomicU64,
        mine: Mark,
        me: usize,
    ) -> Result<(), Rival> {
        let old = Mark(writers.load(SeqCst));
        if old != mine {
            let kept = if old.cta() == mine.cta() {
                old.and(mine)
            } else {
                mine
            };
            let old = Mark(writers.swap(kept.0, SeqCst));
            self.clash(old, mine, me)?;
        }
        self.clash(Mark(readers.load(SeqCst)), mine, me)
    }

    fn read(
        &self,
        writers: &AtomicU64,
        readers: &AtomicU64,
        mine: Mark,
        me: usize,
    ) -> Result<(), Rival> {
        let old = Mark(readers.load(SeqCst));
        let several = || {
            let bytes = old.bytes() | mine.bytes();
            Mark::of_several(bytes, self.time.load(SeqCst))
        };
        let new = match old.cta() {
            0 => mine,
            cta if cta == mine.cta() => old.and(mine),
            // Two CTAs read different bytes of a word. A mark of both would make each a reader of the other's bytes, so only
            // the last one is kept.
            _ if !old.overlaps(mine) => mine,
            SEVERAL => several(),
            _ if self.ordered(old, me) => mine,
            _ => several(),
        };
        if new != old {
            readers.store(new.0, SeqCst);
        }
        self.clash(Mark(writers.load(SeqCst)), mine, me)
    }
}
