//! The register file of a warp, and loops over its lanes.
//!
//! A register is an array over the 32 lanes. Every operation computes all lanes, in loops that the compiler vectorises,
//! and stores those of its mask.

pub const LANES: usize = 32;
pub const FULL: u32 = u32::MAX;

/// One 32-bit register of a warp.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Unit([u32; LANES]);

/// The types that a register can be read as.
///
/// # Safety
/// Every bit pattern must be a value, and the size must be 4 or 8 bytes.
pub unsafe trait Lane: Copy + Default {}
// SAFETY: 4 bytes, every pattern a value.
unsafe impl Lane for u32 {}
// SAFETY: 4 bytes, every pattern a value.
unsafe impl Lane for i32 {}
// SAFETY: 4 bytes, every pattern a value.
unsafe impl Lane for f32 {}
// SAFETY: 8 bytes, every pattern a value.
unsafe impl Lane for u64 {}
// SAFETY: 8 bytes, every pattern a value.
unsafe impl Lane for i64 {}
// SAFETY: 8 bytes, every pattern a value.
unsafe impl Lane for f64 {}

/// A warp's registers and predicates.
pub struct File {
    units: Vec<Unit>,
    /// A predicate is a mask of lanes.
    pub predicates: Vec<u32>,
}

impl File {
    pub fn new(units: u32, predicates: u32) -> File {
        File {
            units: vec![Unit([0; LANES]); units as usize],
            predicates: vec![0; predicates as usize],
        }
    }

    pub fn clear(&mut self) {
        self.units.fill(Unit([0; LANES]));
        self.predicates.fill(0);
    }

    #[inline(always)]
    pub fn get<T: Lane>(&self, slot: u32) -> &[T; LANES] {
        debug_assert!(slot as usize + size_of::<T>() / 4 <= self.units.len());
        // SAFETY: the allocator of slots keeps `slot` and the next unit inside the file, units are contiguous, and any
        // bits are a value of a `Lane`.
        unsafe { &*self.units.as_ptr().add(slot as usize).cast::<[T; LANES]>() }
    }

    #[inline(always)]
    pub fn get_mut<T: Lane>(&mut self, slot: u32) -> &mut [T; LANES] {
        debug_assert!(slot as usize + size_of::<T>() / 4 <= self.units.len());
        // SAFETY: as in `get`.
        unsafe {
            &mut *self
                .units
                .as_mut_ptr()
                .add(slot as usize)
                .cast::<[T; LANES]>()
        }
    }

    /// Stores the lanes of `mask`.
    #[inline(always)]
    pub fn put<T: Lane>(&mut self, slot: u32, mask: u32, values: &[T; LANES]) {
        let to = self.get_mut::<T>(slot);
        if mask == FULL {
            *to = *values;
        } else {
            for lane in 0..LANES {
                if mask >> lane & 1 == 1 {
                    to[lane] = values[lane];
                }
            }
        }
    }

    #[inline(always)]
    pub fn map1<A: Lane, R: Lane>(&mut self, mask: u32, d: u32, a: u32, f: impl Fn(A) -> R) {
        let mut out = [R::default(); LANES];
        let a = self.get::<A>(a);
        for lane in 0..LANES {
            out[lane] = f(a[lane]);
        }
        self.put(d, mask, &out);
    }

    #[inline(always)]
    pub fn map2<A: Lane, B: Lane, R: Lane>(
        &mut self,
        mask: u32,
        [d, a, b]: [u32; 3],
        f: impl Fn(A, B) -> R,
    ) {
        let mut out = [R::default(); LANES];
        let (a, b) = (self.get::<A>(a), self.get::<B>(b));
        for lane in 0..LANES {
            out[lane] = f(a[lane], b[lane]);
        }
        self.put(d, mask, &out);
    }

    #[inline(always)]
    pub fn map3<A: Lane, B: Lane, C: Lane, R: Lane>(
        &mut self,
        mask: u32,
        [d, a, b, c]: [u32; 4],
        f: impl Fn(A, B, C) -> R,
    ) {
        let mut out = [R::default(); LANES];
        let (a, b, c) = (self.get::<A>(a), self.get::<B>(b), self.get::<C>(c));
        for lane in 0..LANES {
            out[lane] = f(a[lane], b[lane], c[lane]);
        }
        self.put(d, mask, &out);
    }

    /// The lanes for which `f` holds, as a mask.
    #[inline(always)]
    pub fn test2<A: Lane>(&self, a: u32, b: u32, f: impl Fn(A, A) -> bool) -> u32 {
        let (a, b) = (self.get::<A>(a), self.get::<A>(b));
        let mut bytes = [0u8; LANES];
        for lane in 0..LANES {
            bytes[lane] = u8::from(f(a[lane], b[lane]));
        }
        gather_bits(&bytes)
    }

    #[inline(always)]
    pub fn put_predicate(&mut self, slot: u32, mask: u32, value: u32) {
        let to = &mut self.predicates[slot as usize];
        *to = *to & !mask | value & mask;
    }
}

/// The mask of the bytes that are 1; the others are 0.
#[inline(always)]
fn gather_bits(bytes: &[u8; LANES]) -> u32 {
    let mut mask = 0;
    for (at, chunk) in bytes.as_chunks::<8>().0.iter().enumerate() {
        // Eight bytes to eight bits by one product.
        let packed = u64::from_le_bytes(*chunk).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= (packed as u32) << (8 * at);
    }
    mask
}

/// The lanes of a mask, lowest first.
#[inline(always)]
pub fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros();
        mask &= mask - 1;
        Some(lane as usize)
    })
}
