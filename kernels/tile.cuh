// One tile of a product, by one block: C (M x N) += A (M x K) B (N x K)ᵀ, the main loop that matrix products,
// convolutions and the recurrent step share.
//
// K is walked in steps of KBYTES bytes. A ring of STAGES steps in shared memory is filled with asynchronous copies of
// 16 bytes by a `Source` (source.cuh has the usual ones), STAGES - 1 steps ahead; one barrier per step. Warps own
// parts of WARP_M x WARP_N, from shared memory to registers and into multiply-adds:
//
//   f32          exact products: each lane has (WARP_M / 8) x (WARP_N / 4) sums
//   tf32         f32 rounded to tf32 on its way to the tensor cores (m16n8k8)
//   bf16_of_f32  f32 rounded to bf16 on its way to the tensor cores (m16n8k16)
//   bf16         bf16, ldmatrix, m16n8k16
//
// All sum in f32, and all have the sums where an mma's accumulator has them: rows T/4 + 8i, columns 8j + 2·(T%4) and the
// next, so that four lanes write 32 bytes in a row and an epilogue needs to know one layout only. (f32 with A in order MN:
// rows 4·(T/4) + i%4 + 32·(i/4), for a lane's four to be one load.)
//
// Shared memory holds an operand in the order it has in memory, K (k runs through memory: a line is a row) or MN (a line
// is one k). Which k of a step goes to which k of an mma is free as long as A and B agree. f32 makes use
// of it: lane T takes k = 4·(T%4) .. + 3 of 16, one load of 16 bytes in order K, which moves as much as an ldmatrix.x4. In
// order MN it takes the same k, one load for each. The k of an mma that each of them is:
//
//   k of the slice    0  1  2  3    4  5  6  7    8  9 10 11   12 13 14 15
//   lane T%4          0  0  0  0    1  1  1  1    2  2  2  2    3  3  3  3
//   tf32, first mma   0  4  .  .    1  5  .  .    2  6  .  .    3  7  .  .
//   tf32, second mma  .  .  0  4    .  .  1  5    .  .  2  6    .  .  3  7
//   bf16              0  1  8  9    2  3 10 11    4  5 12 13    6  7 14 15
//
// Chunks of 16 bytes are swizzled, chunk ^ key(line), so that neither copies nor loads meet in a bank:
//
//   K, lines of 64 bytes   key = line/2 % 4: eight lines at one chunk (ldmatrix), or two lines in full
//   K, lines of 128 bytes  key = 4·(line%2) + line/2 % 4: the same
//   MN, bf16               key = line % 8: eight lines at one chunk (ldmatrix.trans)
//   MN, f32                key = 2·(line/4 % 4): lines 4t + e, t = 0..3, at two chunks each
//
// Estimated: a second barrier per step instead of the extra stage is slower, as the copies start later; one order only
// for f32, transposed on the way in, needs copies of 4 bytes and so four times the instructions.
#pragma once
#include "ptx.cuh"
#include "vector.cuh"

namespace tile {

enum class Order { K, MN };

// Orders of A and B by whether each is as it is (n) or transposed (t).
namespace layout {
struct nn {
    static constexpr Order A = Order::K, B = Order::MN;
};
struct nt {
    static constexpr Order A = Order::K, B = Order::K;
};
struct tn {
    static constexpr Order A = Order::MN, B = Order::MN;
};
struct tt {
    static constexpr Order A = Order::MN, B = Order::K;
};
}  // namespace layout

// Row: what a lane holds of one row of an operand for 16 k, for tensor cores.
namespace math {
struct f32 {
    using Element = float;
};
struct tf32 {
    using Element = float;
    using Row = uint4;
};
struct bf16_of_f32 {
    using Element = float;
    using Row = uint2;
};
struct bf16 {
    using Element = __nv_bfloat16;
    using Row = uint2;
};
}  // namespace math

template <class A, class B>
constexpr bool same = false;
template <class A>
constexpr bool same<A, A> = true;

// How a block is cut, independent of what it multiplies. BLOCKS: how many fit on a multiprocessor of an A100.
template <int M_, int N_, int KBYTES_, int WARPS_M_, int WARPS_N_, int STAGES_, int BLOCKS_>
struct Cut {
    static constexpr int M = M_, N = N_, KBYTES = KBYTES_, STAGES = STAGES_, BLOCKS = BLOCKS_;
    static constexpr int WARPS_N = WARPS_N_, THREADS = 32 * WARPS_M_ * WARPS_N_;
    static constexpr int WARP_M = M_ / WARPS_M_, WARP_N = N_ / WARPS_N_;
    static constexpr int STAGE_BYTES = (M + N) * KBYTES, SHARED_BYTES = STAGES * STAGE_BYTES;
};

// The usual cuts. Shared memory: 64, 48, 48 KiB.
using large = Cut<128, 128, 64, 2, 2, 4, 2>;  // 4 warps of 64x64, for tensor cores
using tall = Cut<128, 64, 64, 2, 2, 4, 3>;    // 4 warps of 64x32, for f32: 8x8 sums per lane
using small = Cut<64, 64, 128, 2, 2, 3, 3>;   // 4 warps of 32x32

// A step of an operand in shared memory: ROWS rows (m or n) of KBYTES bytes of k.
template <class E, int ROWS_, int KBYTES, Order ORDER_>
struct Operand {
    using Element = E;
    static constexpr Order ORDER = ORDER_;
    static constexpr int ROWS = ROWS_;
    static constexpr int VECTOR = 16 / sizeof(E);
    static constexpr int DEPTH = KBYTES / sizeof(E);
    static constexpr int LINES = ORDER == Order::K ? ROWS : DEPTH;
    static constexpr int LINE_BYTES = ORDER == Order::K ? KBYTES : ROWS * (int)sizeof(E);
    static constexpr int CHUNKS = LINE_BYTES / 16;
    static_assert(ORDER == Order::MN ? CHUNKS >= 8 : CHUNKS == 4 || CHUNKS == 8, "no swizzle for such lines");

    // Byte offset of chunk `chunk` of line `line`.
    static __device__ __forceinline__ int place(int line, int chunk) {
        int key;
        if constexpr (ORDER == Order::MN) {
            key = sizeof(E) == 4 ? (line >> 2 & 3) << 1 : line & 7;
        } else {
            key = CHUNKS == 4 ? line >> 1 & 3 : (line & 1) << 2 | (line >> 1 & 3);
        }
        return line * LINE_BYTES + ((chunk ^ key) << 4);
    }
};

// Rows `first` + T/4 + 8g of COUNT groups g, 16 k of slice `slice`, ready for an mma: by ldmatrix where elements are bf16.
template <class Math, class Side, int COUNT>
__device__ __forceinline__ void load_rows(typename Math::Row (&rows)[COUNT], unsigned from, int first, int slice) {
    const int lane = threadIdx.x % 32;
    if constexpr (same<Math, math::bf16>) {
#pragma unroll
        for (int g = 0; g < COUNT; g += 2) {
            const int half = lane >> 3 & 1, group = lane >> 4, row = lane & 7;
            uint4 v;
            if constexpr (Side::ORDER == Order::K) {
                v = load_matrices<false>(from + Side::place(first + 8 * (g + group) + row, 2 * slice + half));
            } else {
                v = load_matrices<true>(from + Side::place(16 * slice + 8 * half + row, first / 8 + g + group));
            }
            rows[g] = {v.x, v.y};
            rows[g + 1] = {v.z, v.w};
        }
    } else {
#pragma unroll
        for (int g = 0; g < COUNT; ++g) {
            const int row = first + 8 * g + lane / 4;
            float4 v;
            if constexpr (Side::ORDER == Order::K) {
                v = shared_float4(from + Side::place(row, 4 * slice + lane % 4));
            } else {
                const int at = Side::place(16 * slice + 4 * (lane % 4), row / 4) + 4 * (row % 4);
                v.x = shared_float(from + at);
                v.y = shared_float(from + at + Side::LINE_BYTES);
                v.z = shared_float(from + at + 2 * Side::LINE_BYTES);
                v.w = shared_float(from + at + 3 * Side::LINE_BYTES);
            }
            if constexpr (same<Math, math::tf32>) {
                rows[g] = {to_tf32(v.x), to_tf32(v.y), to_tf32(v.z), to_tf32(v.w)};
            } else {
                rows[g] = {to_bf16_pair(v.x, v.y), to_bf16_pair(v.z, v.w)};
            }
        }
    }
}

// Of two rows of A, 8 apart, and one of B.
__device__ __forceinline__ void multiply_rows(float2& top, float2& bottom, uint2 a0, uint2 a1, uint2 b) {
    multiply_bf16(top, bottom, FragmentA{a0.x, a1.x, a0.y, a1.y}, FragmentB{b.x, b.y});
}

__device__ __forceinline__ void multiply_rows(float2& top, float2& bottom, uint4 a0, uint4 a1, uint4 b) {
    multiply_tf32(top, bottom, FragmentA{a0.x, a1.x, a0.y, a1.y}, FragmentB{b.x, b.y});
    multiply_tf32(top, bottom, FragmentA{a0.z, a1.z, a0.w, a1.w}, FragmentB{b.z, b.w});
}

// The sums of a block's tile, and how to get them.
template <class Math_, class Cut_, Order A_ORDER, Order B_ORDER>
struct Product {
    using Math = Math_;
    using Cut = Cut_;
    using Element = typename Math::Element;
    using A = Operand<Element, Cut::M, Cut::KBYTES, A_ORDER>;
    using B = Operand<Element, Cut::N, Cut::KBYTES, B_ORDER>;
    static constexpr int DEPTH = A::DEPTH;
    static constexpr int ROWS = Cut::WARP_M / 8, PAIRS = Cut::WARP_N / 8;

    float2 sums[ROWS][PAIRS];
    int first_row, first_col;  // of this warp, within the tile

    __device__ __forceinline__ Product() {
        const int warp = threadIdx.x / 32;
        first_row = warp / Cut::WARPS_N * Cut::WARP_M;
        first_col = warp % Cut::WARPS_N * Cut::WARP_N;
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
#pragma unroll
            for (int j = 0; j < PAIRS; ++j) sums[i][j] = {0.0f, 0.0f};
        }
    }

    // Row, within the tile, of this lane's sums[i].
    __device__ __forceinline__ int row(int i) const {
        const int group = threadIdx.x % 32 / 4;
        if constexpr (same<Math, math::f32> && A_ORDER == Order::MN) return first_row + 4 * group + i % 4 + i / 4 * 32;
        return first_row + group + 8 * i;
    }

    // Column, within the tile, of this lane's sums[..][j].x; .y is the next.
    __device__ __forceinline__ int col(int j) const { return first_col + 8 * j + threadIdx.x % 4 * 2; }

    // `epilogue(row, column, sum, sum of the next column)` for all of this lane's sums, column by column.
    template <class Epilogue>
    __device__ __forceinline__ void each_pair(Epilogue epilogue) const {
#pragma unroll
        for (int j = 0; j < PAIRS; ++j) {
#pragma unroll
            for (int i = 0; i < ROWS; ++i) epilogue(row(i), col(j), sums[i][j].x, sums[i][j].y);
        }
    }

    // Adds up `steps` steps of k. `source.copy(a, b)` starts the copies of the next step to the shared addresses a and b.
    // `memory` has Cut::SHARED_BYTES, aligned to 128; it is free again when this returns.
    template <class Source>
    __device__ __forceinline__ void run(Source& source, int steps, void* memory) {
        const unsigned start = shared_address(memory), end = start + Cut::SHARED_BYTES;
#pragma unroll
        for (int stage = 0; stage < Cut::STAGES - 1; ++stage) {
            const unsigned to = start + stage * Cut::STAGE_BYTES;
            if (stage < steps) source.copy(to, to + A::ROWS * Cut::KBYTES);
            copy_commit();
        }
        unsigned from = start, to = start + (Cut::STAGES - 1) * Cut::STAGE_BYTES;
        for (int step = 0; step < steps; ++step) {
            copy_wait<Cut::STAGES - 2>();
            __syncthreads();
            if (step + Cut::STAGES - 1 < steps) source.copy(to, to + A::ROWS * Cut::KBYTES);
            copy_commit();
            add_step(from, from + A::ROWS * Cut::KBYTES);
            from = next(from, start, end);
            to = next(to, start, end);
        }
        copy_wait<0>();
        __syncthreads();
    }

 private:
    static __device__ __forceinline__ unsigned next(unsigned stage, unsigned start, unsigned end) {
        return stage + Cut::STAGE_BYTES == end ? start : stage + Cut::STAGE_BYTES;
    }

    __device__ __forceinline__ void add_step(unsigned a, unsigned b) {
        if constexpr (same<Math, math::f32>) {
#pragma unroll 1  // 8x8 sums: 256 multiply-adds; further loads ahead would not fit in the registers
            for (int slice = 0; slice < DEPTH / 4; ++slice) add_ffma(a, b, slice);
        } else {
#pragma unroll
            for (int slice = 0; slice < DEPTH / 16; ++slice) add_mma(a, b, slice);
        }
    }

    __device__ __forceinline__ void add_mma(unsigned a, unsigned b, int slice) {
        typename Math::Row rows[ROWS];
        load_rows<Math, A>(rows, a, first_row, slice);
#pragma unroll
        for (int j = 0; j < PAIRS; j += 2) {
            typename Math::Row cols[2];
            load_rows<Math, B>(cols, b, first_col + 8 * j, slice);
#pragma unroll
            for (int i = 0; i < ROWS; i += 2) {
                multiply_rows(sums[i][j], sums[i + 1][j], rows[i], rows[i + 1], cols[0]);
                multiply_rows(sums[i][j + 1], sums[i + 1][j + 1], rows[i], rows[i + 1], cols[1]);
            }
        }
    }

    // Four k: this lane's elements of A, then pair after pair of columns of B.
    __device__ __forceinline__ void add_ffma(unsigned a, unsigned b, int slice) {
        float4 rows[ROWS];  // by k in order K; rows[4i + k] is four rows at one k in order MN
        const int group = threadIdx.x % 32 / 4, pair = threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            if constexpr (A_ORDER == Order::K) {
                rows[i] = shared_float4(a + A::place(first_row + group + 8 * i, slice));
            } else {
                rows[i] = shared_float4(a + A::place(4 * slice + i % 4, first_row / 4 + group + i / 4 * 8));
            }
        }
#pragma unroll
        for (int j = 0; j < PAIRS; ++j) {
            float2 cols[4];
            if constexpr (B_ORDER == Order::K) {
                const float4 x = shared_float4(b + B::place(first_col + 8 * j + 2 * pair, slice));
                const float4 y = shared_float4(b + B::place(first_col + 8 * j + 2 * pair + 1, slice));
                cols[0] = {x.x, y.x};
                cols[1] = {x.y, y.y};
                cols[2] = {x.z, y.z};
                cols[3] = {x.w, y.w};
            } else {
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    const int at = B::place(4 * slice + k, first_col / 4 + 2 * j + pair / 2);
                    cols[k] = shared_float2(b + at + pair % 2 * 8);
                }
            }
#pragma unroll
            for (int k = 0; k < 4; ++k) {
#pragma unroll
                for (int i = 0; i < ROWS; ++i) {
                    float row;
                    if constexpr (A_ORDER == Order::K) {
                        row = element(rows[i], k);
                    } else {
                        row = element(rows[i / 4 * 4 + k], i % 4);
                    }
                    sums[i][j].x = fmaf(row, cols[k].x, sums[i][j].x);
                    sums[i][j].y = fmaf(row, cols[k].y, sums[i][j].y);
                }
            }
        }
    }

    static __device__ __forceinline__ float element(const float4& v, int i) {
        return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
    }
};

}  // namespace tile
