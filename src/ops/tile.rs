//! How products of matrices and convolutions are cut among blocks: the host's side of `kernels/tile.cuh` and `kernels/parts.cuh`.
//!
//! There are a wide cut, a small one, and for few rows a thin one, and a sum over k may be made in parts by several blocks. [`Cutting::new`] takes what an
//! estimate says is the fastest: how many blocks share a multiprocessor, how long a step of k then takes, and how many rounds there are.

use super::kernels::parts::MOST_SHARED_TILES;
use super::kernels::tile::{Cut, LARGE, SMALL, TALL, THIN};
use super::launch::{Blocks, Launch};
use crate::error::Result;
use crate::tensor::{Context, DType, Tensor};
use half::bf16;
use std::sync::LazyLock;

/// A part of a sum is a multiple of this, the deepest step of a kernel, and at least `SHORTEST`.
const STEP: usize = SMALL.kbytes / size_of::<bf16>();
const SHORTEST: usize = 128;
/// More parts than this are never faster: the last block would spend its time adding them up.
const MOST_PARTS: usize = 32;

/// The most bytes of all parts of all tiles, so that they stay in level 2 of an A100 (40 MB) or an H100 (50 MB).
const WORKSPACE: usize = 16 * 1024 * 1024;

/// A switch for the development of kernels: `large:4` takes the large cut in four parts wherever kernels have it.
const CUT: &str = "SHOWTELL_CUT";

// These were fitted to the times of the recipes' products in tf32 and bf16 in every cut on an H100: `tile_h100.txt`, which a test
// compares with the estimate.

/// Bytes that a multiprocessor reads in a clock from shared memory, and from level 2.
const SHARED_RATE: f64 = 128.0;
const LEVEL2_RATE: f64 = 28.0;
/// Clocks that a step of a block takes more when no other block shares the multiprocessor.
const STEP_LATENCY: f64 = 170.0;
/// Clocks of a tile beside its steps: the first copies, and the epilogue.
const TILE: f64 = 3_500.0;
/// Clocks until a block knows that it is the last one of a tile.
const MEETING: f64 = 1_300.0;

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
    /// Multiplications and additions.
    flops: f64,
}

/// A sum over terms in parts, to be added up in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    pub count: usize,
    /// Terms of a part; the last may have fewer.
    pub terms: usize,
}

impl Parts {
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
        Cutting::among(&usual(arithmetic), launch, arithmetic, size, terms)
    }

    /// The same, where kernels have the thin cut, too.
    pub fn with_thin(launch: &Launch, arithmetic: &str, size: [usize; 2], terms: usize) -> Self {
        let [wide, small] = usual(arithmetic);
        Cutting::among(&[wide, small, THIN], launch, arithmetic, size, terms)
    }

    /// The same, of these cuts.
    pub fn among(
        cuts: &[Cut],
        launch: &Launch,
        arithmetic: &str,
        size: [usize; 2],
        terms: usize,
    ) -> Self {
        let multiprocessors = launch.multiprocessors();
        fastest(cuts, multiprocessors, arithmetic, size, terms, MOST_PARTS)
    }

    /// Of one that they make in one part.
    pub fn whole(launch: &Launch, arithmetic: &str, size: [usize; 2], terms: usize) -> Self {
        let cuts = usual(arithmetic);
        fastest(&cuts, launch.multiprocessors(), arithmetic, size, terms, 1)
    }

    /// Small tiles in one part.
    pub fn small(size: [usize; 2], terms: usize) -> Self {
        Cutting::of(SMALL, size, terms, 1)
    }

    /// In at most `parts` parts.
    fn of(cut: Cut, [rows, cols]: [usize; 2], terms: usize, parts: usize) -> Self {
        let tiles_n = cols.div_ceil(cut.n);
        Cutting {
            key: cut.key,
            tiles: rows.div_ceil(cut.m) * tiles_n,
            tiles_n,
            parts: Parts::new(parts, terms),
            shared: cut.shared_bytes,
            tile: cut.m * cut.n,
            flops: 2.0 * (rows * cols) as f64 * terms as f64,
        }
    }

    /// A block for every part of every tile: columns and rows of tiles, and parts.
    pub fn grid(&self) -> Blocks {
        let rows = self.tiles.checked_div(self.tiles_n).unwrap_or(0);
        let blocks = Blocks::new([self.tiles_n, rows, self.parts.count]);
        blocks.shared(self.shared).flops(self.flops)
    }

    /// The same as tiles and parts, so many times over.
    pub fn blocks(&self, times: usize) -> Blocks {
        let blocks = Blocks::new([self.tiles, self.parts.count, times]);
        blocks.shared(self.shared).flops(self.flops * times as f64)
    }

    /// Bytes of the workspace in which parts meet.
    fn workspace(&self) -> usize {
        self.tiles * self.parts.count * self.tile * DType::F32.bytes()
    }

    /// Whether there are counters for all tiles and the workspace is not too large.
    fn may_have_parts(&self) -> bool {
        self.tiles <= MOST_SHARED_TILES && self.workspace() <= WORKSPACE
    }

    /// Calls `body` with the workspace in which parts meet, and the counters of those that have come, if there are several.
    pub fn with_workspace(
        &self,
        ctx: &Context,
        body: impl FnOnce(Option<&mut Tensor>, Option<&mut Tensor>) -> Result<()>,
    ) -> Result<()> {
        if self.parts.count == 1 {
            return body(None, None);
        }
        ctx.scope(|| {
            let rows = self.tiles * self.parts.count;
            let mut workspace = ctx.empty([rows, self.tile], DType::F32)?;
            let mut arrived = ctx.counters(MOST_SHARED_TILES)?;
            body(Some(&mut workspace), Some(&mut arrived))
        })
    }
}

/// The wide and the small cut of products and convolutions.
fn usual(arithmetic: &str) -> [Cut; 2] {
    [if arithmetic == "f32" { TALL } else { LARGE }, SMALL]
}

/// Of these cuts, and of up to `most_parts` parts, those that are estimated to take the least time.
fn fastest(
    cuts: &[Cut],
    multiprocessors: usize,
    arithmetic: &str,
    size: [usize; 2],
    terms: usize,
    most_parts: usize,
) -> Cutting {
    if let Some(cutting) = wanted(cuts, size, terms, most_parts) {
        return cutting;
    }
    // A tile of which half of the columns are empty is left to a narrower cut.
    let narrowest = cuts.iter().map(|cut| cut.n).min().unwrap_or(0);
    let useful = |cut: &&Cut| cut.n == narrowest || cut.n < 2 * size[1];
    let in_parts = |cut: Cut, wanted| {
        let cutting = Cutting::of(cut, size, terms, wanted);
        let count = cutting.parts.count;
        let possible = count == wanted && (count == 1 || cutting.may_have_parts());
        possible.then(|| (clocks(cut, arithmetic, &cutting, multiprocessors), cutting))
    };
    let (_, best) = cuts
        .iter()
        .filter(useful)
        .flat_map(|&cut| (1..=most_parts).filter_map(move |wanted| in_parts(cut, wanted)))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .expect("every matrix can be made in one part");
    best
}

/// What [`CUT`] asks for, if these cuts have it.
fn wanted(cuts: &[Cut], size: [usize; 2], terms: usize, most_parts: usize) -> Option<Cutting> {
    static WANTED: LazyLock<Option<(String, usize)>> = LazyLock::new(|| {
        let wanted = std::env::var(CUT).ok()?;
        let (key, parts) = wanted.split_once(':')?;
        Some((key.to_string(), parts.parse().ok()?))
    });
    let (key, parts) = WANTED.as_ref()?;
    let &cut = cuts.iter().find(|cut| cut.key == key)?;
    (1..=most_parts).contains(parts).then(|| {
        let cutting = Cutting::of(cut, size, terms, *parts);
        if cutting.may_have_parts() {
            return cutting;
        }
        Cutting::of(cut, size, terms, 1)
    })
}

/// An estimate of how long a multiprocessor that has the most to do is busy.
fn clocks(cut: Cut, arithmetic: &str, cutting: &Cutting, multiprocessors: usize) -> f64 {
    let parts = cutting.parts;
    let steps = parts.terms.div_ceil(depth(cut, arithmetic)) as f64;
    let blocks = (cutting.tiles * parts.count).div_ceil(multiprocessors);
    let step = step_clocks(cut, arithmetic);
    let round = |sharing: usize| match sharing {
        0 => 0.0,
        1 => TILE + steps * (STEP_LATENCY + step),
        _ => TILE + steps * sharing as f64 * step,
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
pub fn depth(cut: Cut, arithmetic: &str) -> usize {
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

/// What the estimate picks, against the times of all cuts that were measured on a GPU.
///
/// `tile_h100.txt` has the times of an NVIDIA H100 (132 multiprocessors), from `examples/cuts.rs`: the arithmetic, the layout,
/// m x n x k, and microseconds by cut and number of parts. Lines with the layout `conv` are layers of ResNet-50 without a residual, 8 and
/// 32 images, from `SHOWTELL_CUT=large:1 showtell profile encoder --trace FILE`.
#[cfg(test)]
mod tests {
    use super::*;

    const MULTIPROCESSORS: usize = 132;

    fn cut_of(key: &str) -> Cut {
        let mut cuts = [LARGE, TALL, SMALL, THIN].into_iter();
        cuts.find(|cut| cut.key == key).unwrap()
    }

    /// A product of the recipes, and how long it took.
    struct Product {
        arithmetic: &'static str,
        layout: &'static str,
        size: [usize; 2],
        terms: usize,
        times: Vec<(Cut, usize, f64)>,
    }

    impl Product {
        fn read(line: &'static str) -> Product {
            let mut words = line.split_whitespace();
            let mut word = || words.next().unwrap();
            let (arithmetic, layout, sizes) = (word(), word(), word());
            let sizes: Vec<usize> = sizes.split('x').map(|n| n.parse().unwrap()).collect();
            let times = words.map(|word| {
                let (cut, time) = word.split_once('=').unwrap();
                let (key, parts) = cut.split_once(':').unwrap();
                (cut_of(key), parts.parse().unwrap(), time.parse().unwrap())
            });
            Product {
                arithmetic,
                layout,
                size: [sizes[0], sizes[1]],
                terms: sizes[2],
                times: times.collect(),
            }
        }

        fn picked(&self, arithmetic: &str, multiprocessors: usize) -> Cutting {
            let [wide, small] = usual(arithmetic);
            let cuts = [wide, small, THIN];
            let (cuts, most_parts) = match self.layout {
                "conv" => (&cuts[..2], 1),
                "tn" => (&cuts[..2], MOST_PARTS),
                _ => (&cuts[..], MOST_PARTS),
            };
            fastest(
                cuts,
                multiprocessors,
                arithmetic,
                self.size,
                self.terms,
                most_parts,
            )
        }

        fn name(&self) -> String {
            let (arithmetic, [m, n], k) = (self.arithmetic, self.size, self.terms);
            format!("{m} x {n} x {k} in {arithmetic}")
        }
    }

    fn products() -> impl Iterator<Item = Product> {
        include_str!("tile_h100.txt").lines().map(Product::read)
    }

    /// Half of the distance in parts between two that were timed is passed over: the time is that of the nearest number.
    #[test]
    fn the_pick_is_nearly_as_fast_as_the_fastest() {
        let (mut sum, mut count) = (0.0, 0.0);
        for product in products() {
            let picked = product.picked(product.arithmetic, MULTIPROCESSORS);
            let timed = product
                .times
                .iter()
                .filter(|(cut, ..)| cut.key == picked.key);
            let nearest = timed.min_by_key(|(_, parts, _)| parts.abs_diff(picked.parts.count));
            let &(_, parts, time) = nearest.unwrap();
            let all = product.times.iter().map(|&(.., time)| time);
            let (key, fastest) = (picked.key, all.fold(f64::INFINITY, f64::min));
            let (name, lost) = (product.name(), time / fastest - 1.0);
            println!("{name}: {key} in {parts} parts, {time} us, the fastest {fastest}");
            assert!(lost < 0.2, "{name}: {lost}");
            (sum, count) = (sum + lost, count + 1.0);
        }
        let mean = sum / count;
        println!("{:.1} % longer on average", 100.0 * mean);
        assert!(count == 94.0 && mean < 0.02, "{mean}");
    }

    /// How products were cut before: large tiles where they fill the multiprocessors, and k in as many parts as there are
    /// multiprocessors for each tile.
    fn by_counting_tiles(product: &Product, arithmetic: &str, multiprocessors: usize) -> Cutting {
        let tiles = |cut| Cutting::of(cut, product.size, product.terms, 1).tiles;
        let [wide, small] = usual(arithmetic);
        let filled = tiles(wide) >= multiprocessors;
        let cut = if filled { wide } else { small };
        let wanted = (multiprocessors / tiles(cut)).clamp(1, product.terms.div_ceil(256));
        Cutting::of(cut, product.size, product.terms, wanted)
    }

    /// Every GPU that the kernels run on, 72 to 170 multiprocessors, in every arithmetic: never slower than by counting tiles, and no
    /// more than 2.5 times as long as if all steps of all tiles could be dealt out evenly and their parts met once.
    #[test]
    fn products_of_the_recipes_keep_the_multiprocessors_busy() {
        let mut worst: f64 = 1.0;
        let of_recipes = |p: &Product| p.arithmetic == "tf32" && p.layout != "conv";
        let shapes: Vec<Product> = products().filter(of_recipes).collect();
        for arithmetic in ["f32", "tf32", "bf16"] {
            for (product, multiprocessors) in shapes
                .iter()
                .flat_map(|shape| (72..=170).map(move |n| (shape, n)))
            {
                let time = |cutting: &Cutting| {
                    clocks(cut_of(cutting.key), arithmetic, cutting, multiprocessors)
                };
                let cutting = product.picked(arithmetic, multiprocessors);
                let Parts { count, terms } = cutting.parts;
                assert!(count * terms >= product.terms && (count - 1) * terms < product.terms);
                let before = by_counting_tiles(product, arithmetic, multiprocessors);
                assert!(
                    time(&cutting) <= time(&before),
                    "{cutting:?}, before {before:?}"
                );
                let cut = cut_of(cutting.key);
                let steps = cutting.tiles * product.terms.div_ceil(depth(cut, arithmetic));
                let even = steps as f64 * step_clocks(cut, arithmetic) / multiprocessors as f64;
                worst = worst.max(time(&cutting) / (even + TILE + MEETING));
            }
        }
        println!("at worst {worst:.2} times the time of an even division");
        assert!(worst < 2.5, "{worst}");
    }

    /// A gradient of attend has 96 small tiles and a sum over 8,915 words, which used to be 279 steps in a row.
    #[test]
    fn a_long_sum_is_shared() {
        for multiprocessors in 72..=170 {
            let cutting = fastest(
                &usual("tf32"),
                multiprocessors,
                "tf32",
                [768, 512],
                8_915,
                MOST_PARTS,
            );
            assert!(cutting.parts.count >= 3, "{multiprocessors}: {cutting:?}");
        }
    }
}
