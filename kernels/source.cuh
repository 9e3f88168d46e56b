// Where tiles come from (loaders: global memory to a step of an operand in shared memory) and where they go.
//
// A loader gives each thread one chunk of 16 bytes in every STEP-th line. What is fixed for the whole tile is computed
// once; a step costs an address, a size and a copy for each chunk. Where base and ld are no multiples of 16 bytes
// (`chunks` false, the same for a whole launch) elements are copied one by one.
//
// Rows beyond an operand's end are read as its last row: they make sums that no epilogue stores. Columns and k beyond the
// end are zeros, in both operands, so that no NaN comes from memory outside the operands.
#pragma once
#include "tile.cuh"

namespace tile {

template <class E>
__host__ __device__ __forceinline__ bool in_chunks(const E* base, int ld) {
    return (reinterpret_cast<unsigned long long>(base) | (unsigned long long)ld * sizeof(E)) % 16 == 0;
}

// Copies the first `count` elements of a chunk, and zeros for the rest. `count` may be negative or more than a chunk has.
template <class E>
__device__ __forceinline__ void copy_chunk(unsigned to, const E* from, int count, bool chunks) {
    constexpr int VECTOR = 16 / sizeof(E);
    const int left = max(0, min(count, VECTOR));
    if (chunks) {
        copy_16(to, from, left * (int)sizeof(E));
        return;
    }
#pragma unroll 1
    for (int i = 0; i < VECTOR; ++i) {
        if constexpr (sizeof(E) == 4) {
            copy_4(to + 4 * i, left > i ? from + i : from, left > i ? 4 : 0);
        } else {
            shared_store(to + 2 * i, left > i ? from[i] : __float2bfloat16(0.0f));
        }
    }
}

// The lines and the chunk that a thread copies.
template <class Side_, int THREADS>
struct Lines {
    using Side = Side_;
    static constexpr int STEP = THREADS / Side::CHUNKS, COUNT = Side::LINES / STEP;
    static_assert(THREADS % Side::CHUNKS == 0 && Side::LINES % STEP == 0, "threads and lines");

    static __device__ __forceinline__ int line(int i) { return threadIdx.x / Side::CHUNKS + i * STEP; }
    // First element of the chunk within its line.
    static __device__ __forceinline__ int first() { return threadIdx.x % Side::CHUNKS * Side::VECTOR; }
    static __device__ __forceinline__ int place(int i) { return Side::place(line(i), threadIdx.x % Side::CHUNKS); }
};

// Rows of a matrix along which k runs (Order::K).
template <class Side, int THREADS>
struct RowLoader {
    using Element = typename Side::Element;
    using Lines = tile::Lines<Side, THREADS>;
    const Element* from[Lines::COUNT];
    bool chunks;

    // Row i of the tile is row `index(i)` of the matrix; `index` is called only for i below `rows`.
    template <class Index>
    __device__ __forceinline__ RowLoader(const Element* base, int ld, int rows, bool chunks, Index index)
        : chunks(chunks) {
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            const int row = index(min(Lines::line(i), rows - 1));
            from[i] = base + (size_t)row * ld + Lines::first();
        }
    }

    // Copies k from `k` on, of which `left` are there.
    __device__ __forceinline__ void copy(unsigned to, int k, int left) const {
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            copy_chunk(to + Lines::place(i), from[i] + k, left - Lines::first(), chunks);
        }
    }
};

// Rows of a matrix each of which is one k, columns being m or n (Order::MN).
template <class Side, int THREADS>
struct ColumnLoader {
    using Element = typename Side::Element;
    using Lines = tile::Lines<Side, THREADS>;
    const Element* from;  // this thread's chunk in its first line
    unsigned ld;
    int count;  // elements of the chunk that are there
    bool chunks;

    // `base` is at the tile's first column, of which `cols` are there.
    __device__ __forceinline__ ColumnLoader(const Element* base, int ld, int cols, bool chunks)
        : from(base + (size_t)Lines::line(0) * ld + (Lines::first() < cols ? Lines::first() : 0)),
          ld(ld),
          count(cols - Lines::first()),
          chunks(chunks) {}

    // Copies k from `k` on, of which `left` are there; `offset` elements are added to every address.
    __device__ __forceinline__ void copy(unsigned to, int k, int left, int offset = 0) const {
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            const Element* at = from + (size_t)(unsigned)(k + i * Lines::STEP) * ld + offset;
            copy_chunk(to + Lines::place(i), at, Lines::line(i) < left ? count : 0, chunks);
        }
    }
};

// Writes sums to a matrix, in pairs where they are aligned.
template <class T>
struct Target {
    T* to;
    int ld, rows, cols;
    bool pairs;

    __device__ __forceinline__ Target(T* to, int ld, int rows, int cols)
        : to(to),
          ld(ld),
          rows(rows),
          cols(cols),
          pairs(
              (reinterpret_cast<unsigned long long>(to) | (unsigned long long)ld * sizeof(T)) % (2 * sizeof(T)) == 0) {}

    __device__ __forceinline__ T* at(int row, int col) const { return to + (size_t)row * ld + col; }
};

}  // namespace tile
