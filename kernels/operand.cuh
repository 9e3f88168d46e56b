// A step of an operand in shared memory, and what a lane takes of it for one mma: layouts, swizzles, fragments.
//
// Shared memory holds an operand in the order it has in memory, K (k runs through memory: a line is a row) or MN (a line
// is one k). A lane takes:
//
//   bf16  ldmatrix, with .trans in order MN
//   tf32  order K: ldmatrix, which moves 4 bytes as well as twice 2 (but cannot transpose them);
//         order MN: A's rows two by two, 2·(T/4) and the next, which then are the two rows of an mma; B one by one
//
// All of these fill the registers of an mma in their order: A's are (rows, rows + 8) at k, then at k + 8 (tf32: + 4), B's k and
// k + 8. In another order each mma costs four moves, and so does a row of four k for tf32, which is rounded where it is.
//
// Chunks of 16 bytes are swizzled, chunk ^ key(line), so that neither copies nor loads meet in a bank:
//
//   K, lines of 64 bytes   key = line/2 % 4: eight lines at one chunk (ldmatrix), or two lines in full
//   K, lines of 128 bytes  key = 4·(line%2) + line/2 % 4: the same
//   MN, bf16               key = line % 8: eight lines at one chunk (ldmatrix.trans)
//   MN, f32                key = 2·((line ^ line/4) % 4): lines t (+ 4), or 4t + e, t = 0..3, at two chunks each
//
// A key is made of bits of the line by exclusive or, so that a thread computes one place for the whole tile and reaches the
// others with constants (`moved`): an exclusive or within 128 bytes, and an offset that is part of the load.
#pragma once
#include "ptx.cuh"
#include "vector.cuh"

namespace tile {

enum class Order { K, MN };

template <class A, class B>
constexpr bool same = false;
template <class A>
constexpr bool same<A, A> = true;

// The value, of which the compiler does not know how it was computed: it would keep parts of it instead, and compute the rest anew in
// every step.
template <class T>
__device__ __forceinline__ T kept(T value) {
    if constexpr (sizeof(T) == 8) {
        asm("" : "+l"(value));
    } else {
        asm("" : "+r"(value));
    }
    return value;
}

// PARTS: the mma that 16 k take.
namespace math {
struct f32 {
    using Element = float;
};
struct tf32 {
    using Element = float;
    static constexpr int PARTS = 2;
};
struct bf16 {
    using Element = __nv_bfloat16;
    static constexpr int PARTS = 1;
};
}  // namespace math

// A step of an operand in shared memory: ROWS rows (m or n) of KBYTES bytes of k, which begin BEGIN bytes after the stage.
template <class E, int ROWS_, int KBYTES, Order ORDER_, int BEGIN_>
struct Operand {
    using Element = E;
    static constexpr Order ORDER = ORDER_;
    static constexpr int ROWS = ROWS_, BEGIN = BEGIN_, BYTES = ROWS * KBYTES;
    static constexpr int VECTOR = 16 / sizeof(E);
    static constexpr int DEPTH = KBYTES / sizeof(E);
    static constexpr int LINES = ORDER == Order::K ? ROWS : DEPTH;
    static constexpr int LINE_BYTES = ORDER == Order::K ? KBYTES : ROWS * (int)sizeof(E);
    static constexpr int CHUNKS = LINE_BYTES / 16;
    static_assert(ORDER == Order::MN ? CHUNKS >= 8 : CHUNKS == 4 || CHUNKS == 8, "no swizzle for such lines");

    static __device__ __forceinline__ constexpr int key(int line) {
        if (ORDER == Order::MN) return sizeof(E) == 4 ? ((line ^ line >> 2) & 3) << 1 : line & 7;
        return CHUNKS == 4 ? line >> 1 & 3 : (line & 1) << 2 | (line >> 1 & 3);
    }

    // Byte offset of chunk `chunk` of line `line` from the operand's begin.
    static __device__ __forceinline__ int place(int line, int chunk) {
        return line * LINE_BYTES + ((chunk ^ key(line)) << 4);
    }

    // `at` is a place in a stage that begins at a multiple of 128, as if the operand began with the stage. So many lines and chunks
    // further: right where adding them carries no bit of line or chunk.
    static __device__ __forceinline__ unsigned moved(unsigned at, int lines, int chunks) {
        return (at ^ ((chunks ^ key(lines)) & 7) << 4) + (chunks >> 3 << 7) + lines * LINE_BYTES;
    }

    // Where that is.
    static __device__ __forceinline__ unsigned address(unsigned at, int lines, int chunks) {
        return moved(at, lines, chunks) + BEGIN;
    }
};

enum class Role { A, B };

// Whether ldmatrix loads the operand.
template <class Math, class Side>
constexpr bool by_matrices = same<Math, math::bf16> || same<Math, math::tf32> && Side::ORDER == Order::K;

// Where lane T begins in a step: its first row (of rows from `first`, a multiple of 16, on) and k.
template <class Math, class Side, Role ROLE>
__device__ __forceinline__ int lane_start(int first) {
    const int lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
    if constexpr (by_matrices<Math, Side>) {
        const int next_k = ROLE == Role::A ? lane >> 4 : lane >> 3 & 1,
                  next_row = ROLE == Role::A ? lane >> 3 & 1 : lane >> 4;
        if constexpr (Side::ORDER == Order::K) return Side::place(first + 8 * next_row + lane % 8, next_k);
        return Side::place(8 * next_k + lane % 8, first / 8 + next_row);
    } else {
        if constexpr (ROLE == Role::A) return Side::place(t, first / 4 + group / 2) + group % 2 * 8;
        return Side::place(t, first / 4 + group / 4) + group % 4 * 4;
    }
}

// 16 rows from row 8g on, 16 (f32: 8) k from 16 (8) times `part` on.
template <class Side>
__device__ __forceinline__ uint4 load_rows(unsigned at, int g, int part) {
    if constexpr (Side::ORDER == Order::K) return load_matrices<false>(Side::address(at, 8 * g, 2 * part));
    return load_matrices<true>(Side::address(at, 16 * part, g));
}

// Rows 8g and 8 further of A (in tf32's order MN: twice as many neighbours), for one mma after the other of 16 k.
template <class Math, class Side>
__device__ __forceinline__ void load_a(FragmentA (&to)[Math::PARTS], unsigned at, int g, int slice) {
    if constexpr (same<Math, math::bf16>) {
        const uint4 v = load_rows<Side>(at, g, slice);
        to[0] = {v.x, v.y, v.z, v.w};
    } else {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            if constexpr (Side::ORDER == Order::K) {
                const uint4 v = load_rows<Side>(at, g, 2 * slice + part);
                const uint2 low = to_tf32(v.x, v.y), high = to_tf32(v.z, v.w);
                to[part] = {low.x, low.y, high.x, high.y};
            } else {
                const float2 low = shared_float2(Side::address(at, 16 * slice + 8 * part, 2 * g));
                const float2 high = shared_float2(Side::address(at, 16 * slice + 8 * part + 4, 2 * g));
                const uint2 low_k = to_tf32(low.x, low.y), high_k = to_tf32(high.x, high.y);
                to[part] = {low_k.x, low_k.y, high_k.x, high_k.y};
            }
        }
    }
}

// Columns 8g, and 8 further, of B.
template <class Math, class Side>
__device__ __forceinline__ void load_b(FragmentB (&to)[2][Math::PARTS], unsigned at, int g, int slice) {
    if constexpr (same<Math, math::bf16>) {
        const uint4 v = load_rows<Side>(at, g, slice);
        to[0][0] = {v.x, v.y};
        to[1][0] = {v.z, v.w};
    } else {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            uint2 cols[2];
            if constexpr (Side::ORDER == Order::K) {
                const uint4 v = load_rows<Side>(at, g, 2 * slice + part);
                cols[0] = to_tf32(v.x, v.y), cols[1] = to_tf32(v.z, v.w);
            } else {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int k = 16 * slice + 8 * part, column = 2 * (g + i);
                    const float low = shared_float(Side::address(at, k, column));
                    cols[i] = to_tf32(low, shared_float(Side::address(at, k + 4, column)));
                }
            }
            to[0][part] = {cols[0].x, cols[0].y};
            to[1][part] = {cols[1].x, cols[1].y};
        }
    }
}

// Sums of two rows of 8, 8 apart, += A B over 16 k.
template <class Math>
__device__ __forceinline__ void multiply(
    float2& top, float2& bottom, const FragmentA (&a)[Math::PARTS], const FragmentB (&b)[Math::PARTS]) {
#pragma unroll
    for (int part = 0; part < Math::PARTS; ++part) {
        if constexpr (same<Math, math::tf32>) {
            multiply_tf32(top, bottom, a[part], b[part]);
        } else {
            multiply_bf16(top, bottom, a[part], b[part]);
        }
    }
}

}  // namespace tile
