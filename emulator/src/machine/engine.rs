//! The state of a worker thread that runs CTAs, and the memory of the launch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::cta::Shape;
use super::heap::{Allocation, Heap, zeroed};
use super::lanes::{LANES, lanes};
use super::op::Code;
use super::races::Order;
use super::report::Tally;
use super::{Checks, FaultKind};

/// The windows of generic addresses. Generic addresses below them are global addresses.
pub const LOCAL: u64 = 1 << 56;
pub const SHARED: u64 = 2 << 56;
pub const PARAM: u64 = 3 << 56;
pub const WINDOW: u64 = !((1 << 56) - 1);

/// A fault, as far as the instruction that causes it knows.
#[derive(Debug)]
pub struct Trouble {
    pub kind: FaultKind,
    pub lane: usize,
    pub message: String,
}

pub type Outcome<T = ()> = Result<T, Box<Trouble>>;

#[cold]
pub fn trouble<T>(kind: FaultKind, lane: usize, message: impl Into<String>) -> Outcome<T> {
    Err(Box::new(Trouble {
        kind,
        lane,
        message: message.into(),
    }))
}

/// An allocation, and what a launch does with it.
pub struct View {
    pub allocation: Arc<Allocation>,
    pub base: u64,
    pub end: u64,
    pub touched: AtomicBool,
    pub written: AtomicBool,
    /// One bit per sector: whether it was accessed.
    sectors: OnceLock<Box<[AtomicU64]>>,
}

impl View {
    pub fn new(allocation: Arc<Allocation>) -> View {
        let (base, end) = (allocation.base, allocation.base + allocation.size);
        let (touched, written) = (AtomicBool::new(false), AtomicBool::new(false));
        View {
            allocation,
            base,
            end,
            touched,
            written,
            sectors: OnceLock::new(),
        }
    }

    #[inline]
    fn mark_sector(&self, sector: u64) {
        let words = ((self.end - self.base) as usize).div_ceil(32 * 64);
        let table = self.sectors.get_or_init(|| zeroed(words));
        let (word, bit) = (&table[sector as usize / 64], 1 << (sector % 64));
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    pub fn distinct_sectors(&self) -> u64 {
        let table = self.sectors.get().map_or(&[][..], |table| table);
        table
            .iter()
            .map(|word| u64::from(word.load(Relaxed).count_ones()))
            .sum()
    }
}

/// The state that all workers of a launch share.
pub struct Field<'a> {
    pub code: &'a Code,
    pub shape: Shape<'a>,
    pub params: &'a [u8],
    pub local_bytes: u32,
    pub checks: Checks,
    pub counters: bool,
    pub views: Vec<View>,
    pub heap: &'a Heap,
    pub order: Order,
    /// The number of the launch, for the marks of the race check.
    pub number: u32,
    pub started: Instant,
}

/// A worker.
pub struct Engine<'a> {
    pub field: &'a Field<'a>,
    /// How often warps have executed each instruction.
    pub counts: Vec<u64>,
    pub lane_instructions: u64,
    pub tally: Tally,
    /// The warp that runs.
    pub warp: usize,
    /// The index of the view that was used last.
    pub last: usize,
    /// Number of accesses since the turn began that may be polls.
    pub polls: u32,
    /// Whether the turn has changed anything that another CTA can observe.
    pub changed: bool,
}

impl<'a> Engine<'a> {
    pub fn new(field: &'a Field<'a>) -> Engine<'a> {
        Engine {
            field,
            counts: vec![0; field.code.insts.len()],
            lane_instructions: 0,
            tally: Tally::default(),
            warp: 0,
            last: 0,
            polls: 0,
            changed: false,
        }
    }

    pub fn shadowed(&self) -> bool {
        self.field.checks.shared_races || self.field.checks.uninitialised
    }

    /// The view that holds a whole range of addresses.
    #[inline]
    pub fn view(&mut self, low: u64, end: u64) -> Option<&'a View> {
        let views = &self.field.views;
        if let Some(view) = views.get(self.last)
            && low >= view.base
            && end <= view.end
        {
            return Some(view);
        }
        let at = views
            .partition_point(|view| view.base <= low)
            .checked_sub(1)?;
        let view = &views[at];
        self.last = at;
        (end <= view.end).then_some(view)
    }

    /// The fault of an access to a global address that is in no allocation.
    #[cold]
    pub fn stray<T>(&self, lane: usize, address: u64, bytes: u32, what: &str) -> Outcome<T> {
        if self.field.heap.was_freed(address) {
            let message = format!("{what} of {bytes} bytes at {address:#x}, which was freed");
            return trouble(FaultKind::UseAfterFree, lane, message);
        }
        let before = self.field.views.iter().rfind(|view| view.base <= address);
        let near = match before {
            Some(view) if address - view.end.min(address) < 4096 => format!(
                ", {} bytes past the end of the allocation of {} bytes at {:#x}",
                (address + u64::from(bytes)).saturating_sub(view.end),
                view.end - view.base,
                view.base
            ),
            _ => String::new(),
        };
        let message = format!("{what} of {bytes} bytes at {address:#x}{near}");
        trouble(FaultKind::OutOfBounds, lane, message)
    }

    /// Counts the sectors that a request to one view accesses.
    pub fn count_sectors(
        &mut self,
        view: &View,
        addresses: &[u64; LANES],
        mask: u32,
        size: u64,
        contiguous: bool,
    ) -> u64 {
        if contiguous {
            let low = (addresses[0] - view.base) / 32;
            let high = (addresses[LANES - 1] + size - 1 - view.base) / 32;
            (low..=high).for_each(|sector| view.mark_sector(sector));
            return high - low + 1;
        }
        let (mut sectors, mut count) = ([0u64; 2 * LANES], 0);
        for lane in lanes(mask) {
            let low = (addresses[lane] - view.base) / 32;
            let high = (addresses[lane] + size - 1 - view.base) / 32;
            for sector in [low, high] {
                if count == 0 || sectors[count - 1] != sector {
                    sectors[count] = sector;
                    count += 1;
                }
            }
        }
        let sectors = &mut sectors[..count];
        if !sectors.is_sorted() {
            sectors.sort_unstable();
        }
        let mut distinct = 0;
        for (at, &sector) in sectors.iter().enumerate() {
            if at == 0 || sectors[at - 1] != sector {
                view.mark_sector(sector);
                distinct += 1;
            }
        }
        distinct
    }

    /// Counts an access to shared memory and its bank conflicts. Lanes are served in groups that access at most 128 bytes.
    pub fn count_banks(&mut self, addresses: &[u64; LANES], mask: u32, size: u32) {
        self.tally.shared_accesses += 1;
        let group = (128 / size.max(4)).min(32);
        for first in (0..32).step_by(group as usize) {
            let members = mask & (u32::MAX >> (32 - group)) << first;
            self.tally.bank_conflicts += conflicts(addresses, members, size);
        }
    }
}

/// Number of passes over the 32 banks of 4 bytes, beyond the first one.
fn conflicts(addresses: &[u64; LANES], members: u32, size: u32) -> u64 {
    let (mut words, mut count) = ([0u32; 64], 0);
    for lane in lanes(members) {
        let first = (addresses[lane] / 4) as u32;
        for part in 0..size.div_ceil(4) {
            if count == 0 || words[count - 1] != first + part {
                words[count] = first + part;
                count += 1;
            }
        }
    }
    let words = &mut words[..count];
    if words.windows(2).all(|pair| pair[0] < pair[1])
        && words
            .last()
            .zip(words.first())
            .is_none_or(|(last, first)| last - first < 32)
    {
        return 0;
    }
    words.sort_unstable();
    let mut banks = [0u8; 32];
    for (at, &word) in words.iter().enumerate() {
        banks[word as usize % 32] += u8::from(at == 0 || words[at - 1] != word);
    }
    u64::from(banks.into_iter().max().unwrap_or(1).max(1)) - 1
}
