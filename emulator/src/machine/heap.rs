//! Device memory: allocations at virtual addresses, which of their bytes were written, and the marks that
//! the check for races between CTAs keeps for them.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// The lowest address.
const START: u64 = 0x10_0000_0000;
const ALIGN: u64 = 512;
/// Number of freed ranges that are kept, to distinguish use after free from other wrong addresses.
const REMEMBERED: usize = 1 << 16;

/// A copy by the host that accesses memory outside an allocation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes at {address:#x} are not inside one allocation")]
pub struct MemoryFault {
    /// The first address.
    pub address: u64,
    /// The number of bytes.
    pub bytes: u64,
}

/// Device memory: a heap with virtual addresses from `0x10_0000_0000` on. Addresses are never reused after
/// they were freed.
pub struct Heap {
    capacity: u64,
    state: Mutex<State>,
    launching: Mutex<()>,
}

struct State {
    live: BTreeMap<u64, Arc<Allocation>>,
    freed: BTreeMap<u64, u64>,
    used: u64,
    next: u64,
}

impl Heap {
    /// An empty heap with room for `capacity` bytes.
    pub fn new(capacity: u64) -> Heap {
        let (live, freed) = (BTreeMap::new(), BTreeMap::new());
        let state = Mutex::new(State {
            live,
            freed,
            used: 0,
            next: START,
        });
        Heap {
            capacity,
            state,
            launching: Mutex::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until no other launch runs: the marks of the race check belong to a single launch.
    pub(super) fn begin_launch(&self) -> MutexGuard<'_, ()> {
        self.launching
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reserves `bytes` bytes, aligned to 512 bytes, and returns their address. The bytes count as not written.
    /// `None`: the heap has too little memory left.
    pub fn allocate(&self, bytes: u64) -> Option<u64> {
        let size = bytes.max(1);
        let mut state = self.state();
        let used = state.used.checked_add(size)?;
        if used > self.capacity {
            return None;
        }
        let base = state.next;
        let allocation = Allocation::new(base, size)?;
        // A gap, so that an access past the end of an allocation does not hit the next one.
        state.next = (base + size + ALIGN).next_multiple_of(ALIGN);
        state.used = used;
        state.live.insert(base, Arc::new(allocation));
        Some(base)
    }

    /// Frees the allocation that starts at `address`. Returns whether there was one.
    pub fn free(&self, address: u64) -> bool {
        let mut state = self.state();
        let Some(allocation) = state.live.remove(&address) else {
            return false;
        };
        state.used -= allocation.size;
        state.freed.insert(address, allocation.size);
        if state.freed.len() > REMEMBERED {
            state.freed.pop_first();
        }
        true
    }

    /// The number of bytes that are allocated.
    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// The number of bytes that can be allocated.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The allocation that holds a whole range, and the offset of the range in it.
    fn find(&self, address: u64, bytes: u64) -> Result<(Arc<Allocation>, usize), MemoryFault> {
        let state = self.state();
        let found = state
            .live
            .range(..=address)
            .next_back()
            .map(|(_, found)| found);
        match found {
            Some(found)
                if address - found.base <= found.size
                    && bytes <= found.size - (address - found.base) =>
            {
                Ok((Arc::clone(found), (address - found.base) as usize))
            }
            _ => Err(MemoryFault { address, bytes }),
        }
    }

    /// Copies device memory to the host. Bytes that were never written are zero.
    ///
    /// # Errors
    /// When the range is not inside one allocation.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryFault> {
        let (from, at) = self.find(address, into.len() as u64)?;
        // SAFETY: `find` checked the range.
        unsafe { std::ptr::copy_nonoverlapping(from.data.add(at), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies host memory to the device.
    ///
    /// # Errors
    /// When the range is not inside one allocation.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryFault> {
        let (to, at) = self.find(address, from.len() as u64)?;
        // SAFETY: `find` checked the range.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.data.add(at), from.len()) };
        to.mark_written(at, from.len());
        Ok(())
    }

    /// Fills `bytes` bytes, a multiple of the length of `pattern`, with repetitions of it.
    ///
    /// # Errors
    /// When the range is not inside one allocation.
    pub fn fill(&self, address: u64, pattern: &[u8], bytes: u64) -> Result<(), MemoryFault> {
        let (to, at) = self.find(address, bytes)?;
        for (chunk, start) in (at..at + bytes as usize).step_by(pattern.len()).enumerate() {
            let length = pattern.len().min(bytes as usize - chunk * pattern.len());
            // SAFETY: `find` checked the range.
            unsafe { std::ptr::copy_nonoverlapping(pattern.as_ptr(), to.data.add(start), length) };
        }
        to.mark_written(at, bytes as usize);
        Ok(())
    }

    /// Copies inside device memory. Copies of bytes that were never written count as not written.
    ///
    /// # Errors
    /// When one of the ranges is not inside one allocation.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), MemoryFault> {
        let (source, read) = self.find(from, bytes)?;
        let (target, written) = self.find(to, bytes)?;
        // SAFETY: `find` checked both ranges; they may overlap.
        unsafe {
            std::ptr::copy(
                source.data.add(read),
                target.data.add(written),
                bytes as usize,
            );
        }
        if source.is_written(read, bytes as usize) {
            target.mark_written(written, bytes as usize);
        } else {
            let known: Vec<bool> = (0..bytes as usize)
                .map(|at| source.is_written(read + at, 1))
                .collect();
            for (at, known) in known.into_iter().enumerate() {
                if known {
                    target.mark_written(written + at, 1);
                } else {
                    target.mark_unwritten(written + at);
                }
            }
        }
        Ok(())
    }

    /// The address and the size in bytes of each allocation, in the order of addresses.
    pub fn allocations(&self) -> Vec<(u64, u64)> {
        self.state()
            .live
            .values()
            .map(|found| (found.base, found.size))
            .collect()
    }

    pub(super) fn snapshot(&self) -> Vec<Arc<Allocation>> {
        self.state().live.values().cloned().collect()
    }

    /// Whether an address lies in memory that was freed.
    pub(super) fn was_freed(&self, address: u64) -> bool {
        let state = self.state();
        let before = state.freed.range(..=address).next_back();
        before.is_some_and(|(&base, &size)| address - base < size)
    }
}

/// One allocation.
pub(super) struct Allocation {
    pub base: u64,
    pub size: u64,
    pub data: *mut u8,
    layout: Layout,
    /// One bit per byte: whether it was ever written.
    written: Box<[AtomicU64]>,
    /// The marks of the race check, by page. A page is made when it is first accessed.
    races: Box<[OnceLock<Box<RacePage>>]>,
}

// SAFETY: the allocation owns `data`. Kernels and copies by the host access it through raw pointers
// only. Two accesses that overlap without an order are a race of the program under test; they read or
// write plain bytes, for which every bit pattern is valid.
unsafe impl Send for Allocation {}
// SAFETY: as for `Send`.
unsafe impl Sync for Allocation {}

/// Bytes that one page of race marks covers.
const PAGE: usize = 4096;

/// Marks of the race check for each 4 bytes: the last writer, and the readers since then.
pub(super) struct RacePage {
    launch: AtomicU32,
    reset: Mutex<()>,
    pub writers: [AtomicU64; PAGE / 4],
    pub readers: [AtomicU64; PAGE / 4],
}

impl Allocation {
    fn new(base: u64, size: u64) -> Option<Allocation> {
        let layout = Layout::from_size_align(usize::try_from(size).ok()?, 16).ok()?;
        // SAFETY: the size is not zero.
        let data = unsafe { alloc_zeroed(layout) };
        if data.is_null() {
            return None;
        }
        let words = (size as usize).div_ceil(64);
        let written = zeroed(words);
        let races = (0..(size as usize).div_ceil(PAGE))
            .map(|_| OnceLock::new())
            .collect();
        Some(Allocation {
            base,
            size,
            data,
            layout,
            written,
            races,
        })
    }

    /// Whether the whole range was written.
    #[inline]
    pub fn is_written(&self, at: usize, bytes: usize) -> bool {
        words(at, bytes).all(|(word, mask)| self.written[word].load(Relaxed) & mask == mask)
    }

    #[inline]
    pub fn mark_written(&self, at: usize, bytes: usize) {
        for (word, mask) in words(at, bytes) {
            let word = &self.written[word];
            if mask == u64::MAX {
                word.store(mask, Relaxed);
            } else if word.load(Relaxed) & mask != mask {
                word.fetch_or(mask, Relaxed);
            }
        }
    }

    fn mark_unwritten(&self, at: usize) {
        self.written[at / 64].fetch_and(!(1 << (at % 64)), Relaxed);
    }

    /// The marks of the page that holds byte `at`. Marks of an earlier launch are cleared.
    #[inline]
    pub fn races(&self, at: usize, launch: u32) -> &RacePage {
        let page = self.races[at / PAGE].get_or_init(RacePage::new);
        if page.launch.load(std::sync::atomic::Ordering::Acquire) != launch {
            page.clear(launch);
        }
        page
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.data, self.layout) };
    }
}

impl RacePage {
    fn new() -> Box<RacePage> {
        let marks = || std::array::from_fn(|_| AtomicU64::new(0));
        let (launch, reset) = (AtomicU32::new(0), Mutex::new(()));
        Box::new(RacePage {
            launch,
            reset,
            writers: marks(),
            readers: marks(),
        })
    }

    #[cold]
    fn clear(&self, launch: u32) {
        use std::sync::atomic::Ordering::{Acquire, Release};
        let _alone = self
            .reset
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.launch.load(Acquire) != launch {
            for mark in self.writers.iter().chain(&self.readers) {
                mark.store(0, Relaxed);
            }
            self.launch.store(launch, Release);
        }
    }
}

/// The 64-bit words, and the bits in each, that a range of bytes covers.
#[inline]
fn words(at: usize, bytes: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = at + bytes;
    (at / 64..end.div_ceil(64)).map(move |word| {
        let low = at.saturating_sub(word * 64);
        let high = (end - word * 64).min(64);
        (word, u64::MAX << low & u64::MAX >> (64 - high))
    })
}

/// A table of zeros. The system provides its memory only where it is accessed.
pub(super) fn zeroed(words: usize) -> Box<[AtomicU64]> {
    let plain = vec![0u64; words].into_boxed_slice();
    let length = plain.len();
    // SAFETY: `AtomicU64` has the size, alignment and bit validity of `u64` on this target, and
    // the box is taken apart and put together with the same length.
    unsafe {
        let start = Box::into_raw(plain).cast::<AtomicU64>();
        Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, length))
    }
}
