// One tile of a product, by one block: C (M x N) += A (M x K) B (N x K)ᵀ, the main loop that matrix products,
// convolutions and the recurrent step share.
//
// K is walked in steps of KBYTES bytes. A ring of STAGES steps in shared memory is filled with asynchronous copies of
// 16 bytes by a `Source` (source.cuh has the usual ones), STAGES - 1 steps ahead; one barrier per step. Warps own
// parts of WARP_M x WARP_N, from shared memory to registers and into multiply-adds:
//
//   f32   exact products: each lane has (WARP_M / 8) x (WARP_N / 4) sums
//   tf32  f32 rounded to tf32 on its way to the tensor cores (m16n8k8)
//   bf16  bf16, ldmatrix, m16n8k16
//
// All sum in f32, and all have the sums where an mma's accumulator has them: rows T/4 + 8i, columns 8j + 2·(T%4) and the
// next, so that four lanes write 32 bytes in a row and an epilogue needs to know one layout only. (f32 with A in order MN:
// rows 4·(T/4) + i%4 + 32·(i/4), for a lane's four to be one load; tf32: rows 2·(T/4) + i%2 + 16·(i/2).)
//
// operand.cuh says how an operand lies in shared memory and how lanes take it from there.
//
// The loop is written twice. The first copies whole steps only: all chunks in full or not at all, nothing to decide, nothing to
// compute but addresses. The second takes the rest: the last steps, for which nothing or a part is left to copy, and all of a
// tile that does not lie in whole chunks. scripts/sass counts what a step of the first costs.
//
// Tried: copying the first STAGES - 1 steps as whole ones, too (ptxas then moves every address in every step). Estimated: a
// second barrier per step instead of the extra stage is slower, as the copies start later; one order only
// for f32, transposed on the way in, needs copies of 4 bytes and so four times the instructions.
#pragma once
#include "operand.cuh"

namespace tile {

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

// How a block is cut, independent of what it multiplies. BLOCKS: how many fit on a multiprocessor of an A100.
template <int M_, int N_, int KBYTES_, int WARPS_M_, int WARPS_N_, int STAGES_, int BLOCKS_>
struct Cut {
    static constexpr int M = M_, N = N_, KBYTES = KBYTES_, STAGES = STAGES_, BLOCKS = BLOCKS_;
    static constexpr int WARPS_N = WARPS_N_, THREADS = 32 * WARPS_M_ * WARPS_N_;
    static constexpr int WARP_M = M_ / WARPS_M_, WARP_N = N_ / WARPS_N_;
    static constexpr int STAGE_BYTES = (M + N) * KBYTES, SHARED_BYTES = STAGES * STAGE_BYTES;
};

// The usual cuts. Shared memory: 64, 48, 48, 48 KiB.
using large = Cut<128, 128, 64, 2, 2, 4, 2>;  // 4 warps of 64x64, for tensor cores
using tall = Cut<128, 64, 64, 2, 2, 4, 3>;    // 4 warps of 64x32, for f32: 8x8 sums per lane
using small = Cut<64, 64, 128, 2, 2, 3, 3>;   // 4 warps of 32x32
using thin = Cut<32, 64, 128, 2, 2, 4, 3>;    // 4 warps of 16x32, for the few rows of a recurrent step

// The sums of a block's tile, and how to get them.
template <class Math_, class Cut_, Order A_ORDER, Order B_ORDER>
struct Product {
    using Math = Math_;
    using Cut = Cut_;
    using Element = typename Math::Element;
    using A = Operand<Element, Cut::M, Cut::KBYTES, A_ORDER, 0>;
    using B = Operand<Element, Cut::N, Cut::KBYTES, B_ORDER, A::BYTES>;
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

    // Row, within the tile, of this lane's sums[i]: the first, and how far the others are from it.
    __device__ __forceinline__ int row(int i) const {
        const int group = threadIdx.x % 32 / 4;
        if constexpr (A_ORDER == Order::MN && same<Math, math::f32>) return first_row + 4 * group + rows_to(i);
        if constexpr (A_ORDER == Order::MN && same<Math, math::tf32>) return first_row + 2 * group + rows_to(i);
        return first_row + group + rows_to(i);
    }

    static __device__ __forceinline__ constexpr int rows_to(int i) {
        if (A_ORDER == Order::MN && same<Math, math::f32>) return i % 4 + i / 4 * 32;
        if (A_ORDER == Order::MN && same<Math, math::tf32>) return i % 2 + i / 2 * 16;
        return 8 * i;
    }

    // Column, within the tile, of this lane's sums[..][j].x; .y is the next.
    __device__ __forceinline__ int col(int j) const { return first_col + 8 * j + threadIdx.x % 4 * 2; }

    // Adds up the steps of `source`. `source.copy(to)` starts the copies of the next step to the stage at the shared address `to`;
    // `source.copy_whole(to)` does the same for one of the first `whole_steps()`, which have all their k.
    // `memory` has Cut::SHARED_BYTES, aligned to 128; it is free again when this returns.
    template <class Source>
    __device__ __forceinline__ void run(Source& source, void* memory) {
        const int whole = source.whole_steps(), steps = source.steps();
        Ring ring(shared_address(memory));
        const int at_a = kept(start_a()), at_b = kept(start_b());
#pragma unroll 1
        for (int stage = 0; stage < AHEAD; ++stage) {
            if (stage < steps) source.copy(ring.to);
            copy_commit();
            ring.advance_to();
        }
        int step = 0;
#pragma unroll 1
        for (; step < whole - AHEAD; ++step) {
            copy_wait<AHEAD - 1>();
            __syncthreads();
            source.copy_whole(ring.to);
            copy_commit();
            add_step(ring.from + at_a, ring.from + at_b);
            ring.advance();
        }
#pragma unroll 1
        for (; step < steps; ++step) {
            copy_wait<AHEAD - 1>();
            __syncthreads();
            if (step + AHEAD < steps) source.copy(ring.to);
            copy_commit();
            add_step(ring.from + at_a, ring.from + at_b);
            ring.advance();
        }
        copy_wait<0>();
        __syncthreads();
    }

 private:
    static constexpr int AHEAD = Cut::STAGES - 1;

    // The stages of shared memory, from which a step is read and to which a later one is copied.
    struct Ring {
        unsigned from, to, end;

        __device__ __forceinline__ explicit Ring(unsigned start)
            : from(start), to(start), end(start + Cut::SHARED_BYTES) {}

        __device__ __forceinline__ unsigned next(unsigned stage) const {
            stage += Cut::STAGE_BYTES;
            return stage == end ? stage - Cut::SHARED_BYTES : stage;
        }

        __device__ __forceinline__ void advance_to() { to = next(to); }

        // A step is copied to where the step before was read from.
        __device__ __forceinline__ void advance() {
            to = from;
            from = next(from);
        }
    };

    // Where this lane begins in a step of A and of B.
    __device__ __forceinline__ int start_a() const {
        if constexpr (!same<Math, math::f32>) return lane_start<Math, A, Role::A>(first_row);
        const int group = threadIdx.x % 32 / 4;
        if constexpr (A_ORDER == Order::K) return A::place(first_row + group, 0);
        return A::place(0, first_row / 4 + group);
    }

    __device__ __forceinline__ int start_b() const {
        if constexpr (!same<Math, math::f32>) return lane_start<Math, B, Role::B>(first_col);
        const int pair = threadIdx.x % 4;
        if constexpr (B_ORDER == Order::K) return B::place(first_col + 2 * pair, 0);
        return B::place(0, first_col / 4 + pair / 2) + pair % 2 * 8;
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
        FragmentB cols[PAIRS / 2][2][Math::PARTS];
#pragma unroll
        for (int j = 0; j < PAIRS; j += 2) load_b<Math, B>(cols[j / 2], b, j, slice);
#pragma unroll
        for (int i = 0; i < ROWS; i += 2) {
            FragmentA rows[Math::PARTS];
            load_a<Math, A>(rows, a, i, slice);
#pragma unroll
            for (int j = 0; j < PAIRS; ++j) multiply<Math>(sums[i][j], sums[i + 1][j], rows, cols[j / 2][j % 2]);
        }
    }

    // Four k: this lane's elements of A, then pair after pair of columns of B.
    __device__ __forceinline__ void add_ffma(unsigned a, unsigned b, int slice) {
        const unsigned to_a = A_ORDER == Order::K ? A::moved(a, 0, slice) : A::moved(a, 4 * slice, 0);
        const unsigned to_b = B_ORDER == Order::K ? B::moved(b, 0, slice) : B::moved(b, 4 * slice, 0);
        float4 rows[ROWS];  // by k in order K; rows[4i + k] is four rows at one k in order MN
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            if constexpr (A_ORDER == Order::K) {
                rows[i] = shared_float4(A::address(to_a, 8 * i, 0));
            } else {
                rows[i] = shared_float4(A::address(to_a, i % 4, i / 4 * 8));
            }
        }
#pragma unroll
        for (int j = 0; j < PAIRS; ++j) {
            float2 cols[4];
            if constexpr (B_ORDER == Order::K) {
                const float4 x = shared_float4(B::address(to_b, 8 * j, 0));
                const float4 y = shared_float4(B::address(to_b, 8 * j + 1, 0));
                cols[0] = {x.x, y.x};
                cols[1] = {x.y, y.y};
                cols[2] = {x.z, y.z};
                cols[3] = {x.w, y.w};
            } else {
#pragma unroll
                for (int k = 0; k < 4; ++k) cols[k] = shared_float2(B::address(to_b, k, 2 * j));
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
