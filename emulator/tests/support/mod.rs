//! Runs snippets of PTX for tables of values, and whole kernels.

#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::Arc;

use cuda_emulator::machine::{Fault, Heap, Launch, Module, Options, Report, run};

/// Edge values of 32 bits: small values, shifts by the width and more, signs.
pub const WORDS: [u64; 20] = [
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    31,
    32,
    33,
    64,
    255,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xffff_ffff,
    0xdead_beef,
];

/// Edge values of 64 bits.
pub const LONGS: [u64; 14] = [
    0,
    1,
    2,
    31,
    32,
    63,
    64,
    65,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
    0x0123_4567_89ab_cdef,
];

/// Edge values of f32: zeros, subnormals, ties, infinities, NaN.
pub const FLOATS: [f32; 26] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.0,
    1e-45,
    -1e-45,
    1.1754942e-38,
    1.1754944e-38,
    65504.0,
    65520.0,
    1e10,
    -1e10,
    2147483648.0,
    4294967296.0,
    3.4028235e38,
    -3.4028235e38,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    0.1,
];

/// Every combination of two lists, with a third value from a third list.
pub fn pairs(a: &[u64], b: &[u64], c: &[u64]) -> Vec<[u64; 3]> {
    let mut out = Vec::new();
    for (i, &x) in a.iter().enumerate() {
        for (j, &y) in b.iter().enumerate() {
            out.push([x, y, c[(i * 7 + j * 3) % c.len()]]);
        }
    }
    out
}

pub fn words() -> Vec<[u64; 3]> {
    pairs(&WORDS, &WORDS, &WORDS)
}

pub fn longs() -> Vec<[u64; 3]> {
    pairs(&LONGS, &LONGS, &LONGS)
}

pub fn floats() -> Vec<[u64; 3]> {
    let bits = FLOATS.map(|x| u64::from(x.to_bits()));
    pairs(&bits, &bits, &bits)
}

/// Runs a snippet with one thread per row of `inputs`. `kinds` gives the kinds of the registers `{d}`, `{a}`, `{b}` and
/// `{c}`: `r` has 32 bits, `d` 64 bits, `h` 16 bits, and `p` is a predicate (0 or 1).
pub fn compute(snippet: &str, kinds: &str, inputs: &[[u64; 3]]) -> Vec<u64> {
    let kinds: Vec<char> = kinds.chars().collect();
    let name = |kind: char, at: usize| match kind {
        'r' => format!("%r{at}"),
        'd' => format!("%rd{at}"),
        'h' => format!("%h{at}"),
        _ => format!("%p{at}"),
    };
    let mut body = snippet.to_string();
    for (token, at, kind) in [
        ("{d}", 19, kinds[0]),
        ("{a}", 11, kinds[1]),
        ("{b}", 12, kinds[2]),
        ("{c}", 13, kinds[3]),
    ] {
        body = body.replace(token, &name(kind, at));
    }
    let result = match kinds[0] {
        'r' => "cvt.u64.u32 %rd19, %r19;",
        'h' => "cvt.u64.u16 %rd19, %h19;",
        'p' => "selp.u64 %rd19, 1, 0, %p19;",
        _ => "",
    };
    let inputs_of = |at: usize| {
        format!(
            "ld.global.u64 %rd{r}, [%rd3+{o}]; cvt.u32.u64 %r{r}, %rd{r}; cvt.u16.u32 %h{r}, %r{r}; \
             setp.ne.u64 %p{r}, %rd{r}, 0;\n",
            r = 11 + at,
            o = 8 * at
        )
    };
    let loads: String = (0..3).map(inputs_of).collect();
    let text = module(&format!(
        ".visible .entry k(.param .u64 in, .param .u64 out, .param .u32 n) {{
            .reg .b64 %rd<30>; .reg .b32 %r<30>; .reg .b16 %h<30>; .reg .pred %p<30>;
            mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mad.lo.s32 %r3, %r2, 64, %r1;
            ld.param.u32 %r4, [n]; setp.ge.u32 %p1, %r3, %r4; @%p1 exit;
            ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out];
            mul.wide.u32 %rd4, %r3, 24; add.s64 %rd3, %rd1, %rd4;
            mul.wide.u32 %rd5, %r3, 8; add.s64 %rd6, %rd2, %rd5;
            {loads}
            {{ {body} }}
            {result}
            st.global.u64 [%rd6], %rd19;
            ret; }}"
    ));
    let device = Device::new(&text);
    let bytes: Vec<u8> = inputs
        .iter()
        .flatten()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let from = device.upload(&bytes);
    let to = device.room(8 * inputs.len() as u64);
    let n = inputs.len() as u32;
    let params = Params::new().pointer(from).pointer(to).int(n);
    device
        .launch("k", [n.div_ceil(64), 1, 1], [64, 1, 1], &params)
        .unwrap();
    device
        .download(to, 8 * inputs.len())
        .chunks(8)
        .map(|c| u64::from_le_bytes(c.try_into().unwrap()))
        .collect()
}

/// Compares a snippet with arithmetic of the host for each row.
pub fn check(
    snippet: &str,
    kinds: &str,
    inputs: &[[u64; 3]],
    expected: impl Fn(u64, u64, u64) -> u64,
) {
    let found = compute(snippet, kinds, inputs);
    for (&[a, b, c], found) in inputs.iter().zip(found) {
        let expected = expected(a, b, c);
        assert_eq!(
            found, expected,
            "{snippet}: a={a:#x} b={b:#x} c={c:#x}: found {found:#x}, expected {expected:#x}"
        );
    }
}

/// The same for f32. Every NaN equals every other.
pub fn check_f32(snippet: &str, inputs: &[[u64; 3]], expected: impl Fn(f32, f32, f32) -> f32) {
    let found = compute(snippet, "rrrr", inputs);
    for (row, found) in inputs.iter().zip(found) {
        let [a, b, c] = row.map(|bits| f32::from_bits(bits as u32));
        let (expected, found) = (expected(a, b, c), f32::from_bits(found as u32));
        let same = expected.to_bits() == found.to_bits() || (expected.is_nan() && found.is_nan());
        assert!(
            same,
            "{snippet}: a={a:e} b={b:e} c={c:e}: found {found:e}, expected {expected:e}"
        );
    }
}

/// The text of a module with these kernels.
pub fn module(kernels: &str) -> String {
    format!(".version 8.0\n.target sm_80\n.address_size 64\n{kernels}\n")
}

/// The parameter block of a kernel.
#[derive(Default)]
pub struct Params(Vec<u8>);

impl Params {
    pub fn new() -> Params {
        Params::default()
    }

    pub fn pointer(mut self, address: u64) -> Params {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(address.to_le_bytes());
        self
    }

    pub fn int(mut self, value: u32) -> Params {
        self.0.extend(value.to_le_bytes());
        self
    }
}

/// A module, device memory, and the options of launches.
pub struct Device {
    pub module: Arc<Module>,
    pub heap: Heap,
    pub options: Options,
    pub globals: Vec<u64>,
    pub shared: u32,
    pub cooperative: bool,
}

impl Device {
    pub fn new(text: &str) -> Device {
        let module = Module::load(text).unwrap_or_else(|error| panic!("{error}"));
        let heap = Heap::new(1 << 30);
        let globals = module.globals().iter().map(|global| {
            let address = heap.allocate(global.size).unwrap();
            heap.write(address, &global.init).unwrap();
            address
        });
        let globals = globals.collect();
        let options = Options {
            threads: 2,
            ..Options::default()
        };
        let module = Arc::new(module);
        Device {
            module,
            heap,
            options,
            globals,
            shared: 0,
            cooperative: false,
        }
    }

    pub fn room(&self, bytes: u64) -> u64 {
        self.heap.allocate(bytes).unwrap()
    }

    pub fn upload(&self, bytes: &[u8]) -> u64 {
        let address = self.room(bytes.len() as u64);
        self.heap.write(address, bytes).unwrap();
        address
    }

    pub fn upload_f32(&self, values: &[f32]) -> u64 {
        self.upload(
            &values
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    }

    pub fn upload_u32(&self, values: &[u32]) -> u64 {
        self.upload(
            &values
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    }

    pub fn download(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        self.heap.read(address, &mut out).unwrap();
        out
    }

    pub fn download_u32(&self, address: u64, count: usize) -> Vec<u32> {
        let bytes = self.download(address, 4 * count);
        bytes
            .chunks(4)
            .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
            .collect()
    }

    pub fn download_f32(&self, address: u64, count: usize) -> Vec<f32> {
        self.download_u32(address, count)
            .into_iter()
            .map(f32::from_bits)
            .collect()
    }

    pub fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        params: &Params,
    ) -> Result<Report, Fault> {
        let launch = Launch {
            module: &self.module,
            kernel,
            globals: &self.globals,
            grid,
            block,
            dynamic_shared: self.shared,
            cooperative: self.cooperative,
            params: &params.0,
        };
        run(&launch, &self.heap, &self.options)
    }
}

/// A kernel `k(out, n)` with declared registers and 1 KiB of shared memory. `%r1` is the thread in its CTA, `%r2` the CTA,
/// `%r3` the thread in the grid, `%rd1` is out, and `%rd2` the address of the thread's own word in it.
pub fn kernel(body: &str) -> String {
    module(&format!(
        ".visible .entry k(.param .u64 out, .param .u32 n) {{
            .reg .b64 %rd<30>; .reg .b32 %r<60>; .reg .f32 %f<30>; .reg .pred %p<20>;
            .shared .align 16 .b8 sh[1024];
            mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r4, %ntid.x;
            mad.lo.s32 %r3, %r2, %r4, %r1; ld.param.u64 %rd1, [out];
            mul.wide.u32 %rd3, %r3, 4; add.s64 %rd2, %rd1, %rd3; ld.param.u32 %r5, [n];
            {body}
            ret; }}"
    ))
}

/// Runs [`kernel`] and returns `out`, which is zero before.
pub fn run_kernel(body: &str, ctas: u32, threads: u32) -> Result<(Vec<u32>, Report), Fault> {
    let device = Device::new(&kernel(body));
    let count = (ctas * threads) as usize;
    let out = device.upload(&vec![0; 4 * count]);
    let params = Params::new().pointer(out).int(count as u32);
    let report = device.launch("k", [ctas, 1, 1], [threads, 1, 1], &params)?;
    Ok((device.download_u32(out, count), report))
}
