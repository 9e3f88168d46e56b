//! How products of matrices and convolutions are cut among blocks: the host's side of `kernels/tile.cuh` and `kernels/parts.cuh`.
//!
//! There are a wide cut and a small one, and a sum over k may be made in parts by several blocks. [`Cutting::new`] takes what an
//! estimate says is the fastest: how many blocks share a multiprocessor, how long a step of k then takes, and how many rounds there are.

use super::kernels::parts::MOST_SHARED_TILES;
use super::kernels::tile::{Cut, LARGE, SMALL, TALL};
use super::launch::{Blocks, Launch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};
use half::bf16;

/// A part of a sum is a multiple of this, the deepest step of a kernel, and at least `SHORTEST`.
const STEP: usize = SMALL.kbytes / size_of::<bf16>();
const SHORTEST: usize = 128;
/// More parts than this are never faster: the last block would spend its time adding them up.
const MOST_PARTS: usize = 32;

/// The most bytes of all parts of all tiles, so that they stay in level 2 of an A100 (40 MB) or an H100 (50 MB).
const WORKSPACE: usize = 16 * 1024 * 1024;

/// Bytes that a multiprocessor reads in a clock from shared memory, and from level 2.
const SHARED_RATE: f64 = 128.0;
const LEVEL2_RATE: f64 = 64.0;
/// Clocks that a step takes at least: a barrier, loads from shared memory, and a chain of multiplications (estimated).
const STEP_LATENCY: f64 = 600.0;
/// Clocks of a tile beside its steps: the first copies, and the epilogue (estimated).
const TILE: f64 = 2_500.0;
/// Clocks until a block knows that it is the last one of a tile (estimated).
const MEETING: f64 = 1_500.0;

/// The tiles of a matrix, and the parts in which each is summed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cutting {
    /// The cut, as kernels have it in their names.
    pub key: &'static str,
    pub tiles: usize,
    /// Tiles in a row of tiles.
    tiles_n: usize,
    pub parts: Parts,
    shared: usize,
    /// Elements of a tile.
    tile: usize,
}

/// A sum over terms in parts, to be added up in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    pub count: usize,
    /// Terms of a part; the last may have fewer.
    pub terms: usize,
}

impl Parts {
    /// All terms at once.
    fn one(terms: usize) -> Self {
        let terms = terms.max(1).next_multiple_of(STEP);
        Parts { count: 1, terms }
    }

    /// At most `wanted` parts.
    fn new(wanted: usize, terms: usize) -> Self {
        let part = terms.div_ceil(wanted).max(SHORTEST).next_multiple_of(STEP);
        Parts {
            count: terms.div_ceil(part).max(1),
            terms: part,
        }
    }
}

impl Cutting {
    /// Of a matrix that is a sum over `terms` for each element, which kernels make in parts.
    pub fn new(launch: &Launch, arithmetic: &str, size: [usize; 2], terms: usize) -> Self {
        fastest(
            launch.multiprocessors(),
            arithmetic,
            size,
            terms,
            MOST_PARTS,
        )
    }

    /// Of one that they make in one part.
    pub fn whole(launch: &Launch, arithmetic: &str, size: [usize; 2], terms: usize) -> Self {
        fastest(launch.multiprocessors(), arithmetic, size, terms, 1)
    }

    /// Small tiles in one part.
    pub fn small(size: [usize; 2], terms: usize) -> Self {
        Cutting::of(SMALL, size, Parts::one(terms))
    }

    fn of(cut: Cut, [rows, cols]: [usize; 2], parts: Parts) -> Self {
        let tiles_n = cols.div_ceil(cut.n);
        Cutting {
            key: cut.key,
            tiles: rows.div_ceil(cut.m) * tiles_n,
            tiles_n,
            parts,
            shared: cut.shared_bytes,
            tile: cut.m * cut.n,
        }
    }

    /// A block for every part of every tile: columns and rows of tiles, and parts.
    pub fn grid(&self) -> Blocks {
        let rows = self.tiles.checked_div(self.tiles_n).unwrap_or(0);
        Blocks::new([self.tiles_n, rows, self.parts.count]).shared(self.shared)
    }

    /// The same as tiles and parts, so many times over.
    pub fn blocks(&self, times: usize) -> Blocks {
        Blocks::new([self.tiles, self.parts.count, times]).shared(self.shared)
    }

    /// Bytes of the workspace in which parts meet.
    fn workspace(&self) -> usize {
        self.tiles * self.parts.count * self.tile * DType::F32.bytes()
    }

    /// Calls `body` with the workspace in which parts meet, if there are several.
    pub fn with_workspace(
        &self,
        ctx: &Context,
        body: impl FnOnce(Option<&mut Tensor>) -> Result<()>,
    ) -> Result<()> {
        if self.parts.count == 1 {
            return body(None);
        }
        ctx.scope(|| {
            let rows = self.tiles * self.parts.count;
            let mut workspace = ctx.empty([rows, self.tile], DType::F32)?;
            body(Some(&mut workspace))
        })
    }
}

/// Of the wide and the small cut, and of up to `most_parts` parts, those that are estimated to take the least time.
fn fastest(
    multiprocessors: usize,
    arithmetic: &str,
    size: [usize; 2],
    terms: usize,
    most_parts: usize,
) -> Cutting {
    let wide = if arithmetic == "f32" { TALL } else { LARGE };
    let mut best: Option<(f64, Cutting)> = None;
    for cut in [wide, SMALL] {
        for wanted in 1..=most_parts {
            let parts = Parts::new(wanted, terms);
            let cutting = Cutting::of(cut, size, parts);
            let too_many = cutting.tiles > MOST_SHARED_TILES || cutting.workspace() > WORKSPACE;
            if parts.count < wanted || parts.count > 1 && too_many {
                continue;
            }
            let clocks = clocks(cut, arithmetic, &cutting, multiprocessors);
            if best.is_none_or(|(least, _)| clocks < least) {
                best = Some((clocks, cutting));
            }
        }
    }
    best.map_or_else(|| Cutting::small(size, terms), |(_, cutting)| cutting)
}

/// An estimate of how long a multiprocessor that has the most to do is busy.
fn clocks(cut: Cut, arithmetic: &str, cutting: &Cutting, multiprocessors: usize) -> f64 {
    let parts = cutting.parts;
    let steps = parts.terms.div_ceil(depth(cut, arithmetic)) as f64;
    let blocks = (cutting.tiles * parts.count).div_ceil(multiprocessors);
    // Blocks that share a multiprocessor hide each other's latency, up to what it can do.
    let round = |sharing: usize| {
        let step = STEP_LATENCY.max(sharing as f64 * step_clocks(cut, arithmetic));
        if sharing == 0 {
            0.0
        } else {
            TILE + steps * step
        }
    };
    let rounds = (blocks / cut.blocks) as f64;
    // A multiprocessor lays down the parts of its blocks, takes its share of all parts back, and one block has to take all of a tile.
    let tile_clocks = (cutting.tile * DType::F32.bytes()) as f64 / LEVEL2_RATE;
    let meeting = match parts.count {
        1 => 0.0,
        count => MEETING + (2 * blocks + count) as f64 * tile_clocks,
    };
    rounds * round(cut.blocks) + round(blocks % cut.blocks) + meeting
}

/// Terms of one step.
fn depth(cut: Cut, arithmetic: &str) -> usize {
    let element = if arithmetic == "bf16" { 2 } else { 4 };
    cut.kbytes / element
}

/// Clocks of a step where nothing is waited for: multiplications at the rate of an A100 (multiply-adds of a multiprocessor in
/// a clock, NVIDIA A100 Tensor Core GPU Architecture), and reading the operands, each warp its own, from shared memory.
fn step_clocks(cut: Cut, arithmetic: &str) -> f64 {
    let rate = match arithmetic {
        "f32" => 64.0,
        "tf32" => 512.0,
        _ => 1_024.0,
    };
    let multiplications = (cut.m * cut.n * depth(cut, arithmetic)) as f64 / rate;
    let warps = [cut.m / cut.warp_m, cut.n / cut.warp_n];
    let operands = (warps[1] * cut.m + warps[0] * cut.n) * cut.kbytes;
    multiplications + operands as f64 / SHARED_RATE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The products of both recipes' training steps, m, n, k: those of all steps at once, and those of one recurrent step.
    const PRODUCTS: [[usize; 3]; 17] = [
        // attend: B = 32, T = 24, V = 8,915, E = H = A = 512, D = 2,048, 64 cells
        [768, 8_915, 512],
        [768, 512, 8_915],
        [8_915, 512, 768],
        [2_048, 512, 2_048],
        [512, 2_048, 2_048],
        [768, 2_048, 512],
        [2_048, 2_560, 768],
        [32, 512, 512],
        [32, 2_048, 512],
        [32, 512, 2_048],
        [32, 2_560, 2_048],
        // show-tell: B = 128, T = 24, V = 7,702, E = H = 256, D = 2,048
        [3_072, 7_702, 256],
        [3_072, 256, 7_702],
        [7_702, 256, 3_072],
        [1_024, 256, 3_072],
        [128, 256, 1_024],
        [128, 256, 2_048],
    ];

    /// How products were cut before: large tiles where they fill the multiprocessors, and k in as many parts as there are
    /// multiprocessors for each tile.
    fn by_counting_tiles(
        multiprocessors: usize,
        arithmetic: &str,
        [m, n, k]: [usize; 3],
    ) -> (Cut, Cutting) {
        let wide = if arithmetic == "f32" { TALL } else { LARGE };
        let tiles = |cut: Cut| Cutting::of(cut, [m, n], Parts::one(k)).tiles;
        let cut = if tiles(wide) >= multiprocessors {
            wide
        } else {
            SMALL
        };
        let wanted = (multiprocessors / tiles(cut)).clamp(1, k.div_ceil(256));
        (cut, Cutting::of(cut, [m, n], Parts::new(wanted, k)))
    }

    #[test]
    fn products_of_the_recipes_keep_the_multiprocessors_busy() {
        let mut worst: f64 = 1.0;
        for arithmetic in ["f32", "tf32", "bf16", "bf16_of_f32"] {
            for [m, n, k] in PRODUCTS {
                for multiprocessors in 72..=170 {
                    let cutting = fastest(multiprocessors, arithmetic, [m, n], k, MOST_PARTS);
                    let Parts { count, terms } = cutting.parts;
                    assert!(count * terms >= k && (count - 1) * terms < k, "{cutting:?}");
                    let cut = [LARGE, TALL, SMALL]
                        .into_iter()
                        .find(|cut| cut.key == cutting.key);
                    let (cut, time) = (cut.unwrap(), |cut, cutting: &Cutting| {
                        clocks(cut, arithmetic, cutting, multiprocessors)
                    });
                    let now = time(cut, &cutting);
                    let (before_cut, before) =
                        by_counting_tiles(multiprocessors, arithmetic, [m, n, k]);
                    let shape = format!("{m} x {n} x {k} in {arithmetic} on {multiprocessors}");
                    assert!(
                        now <= time(before_cut, &before),
                        "{shape}: {cutting:?}, before {before:?}"
                    );
                    if (arithmetic, multiprocessors) == ("tf32", 132) {
                        let told = |cut: Cut,
                                    Cutting {
                                        key, tiles, parts, ..
                                    }: &Cutting| {
                            let steps = parts.terms.div_ceil(depth(cut, arithmetic));
                            format!(
                                "{tiles} {key} tiles in {} parts of {steps} steps",
                                parts.count
                            )
                        };
                        println!(
                            "{m} x {n} x {k}: {}, before {}",
                            told(cut, &cutting),
                            told(before_cut, &before)
                        );
                    }
                    // As if all steps of all tiles could be dealt out evenly.
                    let steps =
                        m.div_ceil(cut.m) * n.div_ceil(cut.n) * k.div_ceil(depth(cut, arithmetic));
                    let even = steps as f64 * step_clocks(cut, arithmetic) / multiprocessors as f64;
                    worst = worst.max(now / (even + TILE + 3.0 * STEP_LATENCY));
                }
            }
        }
        println!("at worst {worst:.2} times the time of an even division");
        assert!(worst < 2.5, "{worst}");
    }

    /// A gradient of attend has 96 small tiles and a sum over 8,915 words, which used to be 279 steps in a row.
    #[test]
    fn a_long_sum_is_shared() {
        for multiprocessors in 72..=170 {
            let cutting = fastest(multiprocessors, "tf32", [768, 512], 8_915, MOST_PARTS);
            assert!(cutting.parts.count >= 3, "{multiprocessors}: {cutting:?}");
        }
    }
}
