// Where tiles come from: loaders, global memory to a step of an operand in shared memory.
//
// A loader gives each thread one chunk of 16 bytes in every STEP-th line. What is fixed for the whole tile is computed
// once. `copy_whole` copies a step that has all its k and no chunk that is cut: an address and a copy for each chunk, which a
// predicate turns into zeros where columns end. `copy` copies any step: it may cut chunks by a size, which costs a branch and
// several instructions each, and where base and ld are no multiples of 16 bytes (`chunks` false, the same for a whole launch)
// it copies elements one by one. A tile at the right border whose last chunk is cut uses `copy` only.
//
// Rows beyond an operand's end are read as its first ones: they make sums that no epilogue stores. One row for all of them would be the
// same few sectors of level 2 for every block. Columns and k beyond the
// end are zeros, in both operands, so that no NaN comes from memory outside the operands.
#pragma once
#include <type_traits>

#include "tile.cuh"

namespace tile {

template <class E>
__host__ __device__ __forceinline__ bool in_chunks(const E* base, int ld) {
    return (reinterpret_cast<unsigned long long>(base) | (unsigned long long)ld * sizeof(E)) % 16 == 0;
}

// `count` rows of `ld` elements further: one multiply-add.
template <class E>
__device__ __forceinline__ E* advanced(E* from, int count, int ld) {
    using Byte = std::conditional_t<std::is_const_v<E>, const char, char>;
    const int bytes = ld * (int)sizeof(E);
    return reinterpret_cast<E*>(reinterpret_cast<Byte*>(from) + (long long)count * bytes);
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
    static_assert((STEP & (STEP - 1)) == 0, "no bit is carried from a thread's first line to the others");

    static __device__ __forceinline__ int line(int i) { return threadIdx.x / Side::CHUNKS + i * STEP; }
    // First element of the chunk within its line.
    static __device__ __forceinline__ int first() { return threadIdx.x % Side::CHUNKS * Side::VECTOR; }
    // Where the chunk of line 0 goes in a stage, and from there that of line i.
    static __device__ __forceinline__ unsigned start() {
        return kept((unsigned)Side::place(line(0), threadIdx.x % Side::CHUNKS));
    }
    static __device__ __forceinline__ unsigned place(unsigned start, int i) {
        return Side::address(start, i * STEP, 0);
    }
};

// Rows of a matrix along which k runs (Order::K).
template <class Side, int THREADS>
struct RowLoader {
    using Element = typename Side::Element;
    using Lines = tile::Lines<Side, THREADS>;
    const Element* from[Lines::COUNT];
    unsigned start;
    bool chunks;

    // Row i of the tile is row `index(i)` of the matrix; `index` is called only for i below `rows`.
    template <class Index>
    __device__ __forceinline__ RowLoader(const Element* base, int ld, int rows, bool chunks, Index index)
        : start(Lines::start()), chunks(chunks) {
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            const int line = Lines::line(i), row = index(line < rows ? line : min(line - rows, rows - 1));
            from[i] = kept(base + (size_t)row * ld + Lines::first());
        }
    }

    // Whether copy_whole may be used.
    __device__ __forceinline__ bool whole() const { return chunks; }

    // Copies a step from k on, all of which is there.
    __device__ __forceinline__ void copy_whole(unsigned to, int k) const {
        to += start;
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) copy_16(Lines::place(to, i), from[i] + k);
    }

    // Copies a step from k on, of which `left` are there.
    __device__ __forceinline__ void copy(unsigned to, int k, int left) const {
        to += start;
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            copy_chunk(Lines::place(to, i), from[i] + k, left - Lines::first(), chunks);
        }
    }
};

// Rows of a matrix each of which is one k, columns being m or n (Order::MN).
template <class Side, int THREADS>
struct ColumnLoader {
    using Element = typename Side::Element;
    using Lines = tile::Lines<Side, THREADS>;
    const Element* from;  // this thread's chunk in its first line of the next step
    unsigned start;
    int ld, cols;
    bool chunks;

    // `base` is at the first k and the tile's first column, of which `cols` are there.
    __device__ __forceinline__ ColumnLoader(const Element* base, int ld, int cols, bool chunks)
        : from(base + (size_t)Lines::line(0) * ld + (Lines::first() < cols ? Lines::first() : 0)),
          start(Lines::start()),
          ld(ld),
          cols(cols),
          chunks(chunks) {}

    // Where the last chunk of the columns is cut, only `copy` copies what is there of it.
    __device__ __forceinline__ bool whole() const { return chunks && (cols >= Side::ROWS || cols % Side::VECTOR == 0); }

    // Copies the next step, which has all its k.
    __device__ __forceinline__ void copy_whole(unsigned to, int) {
        to += start;
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            copy_16_if(Lines::place(to, i), line(i), Lines::first() < cols);
        }
        from = line_at(Side::DEPTH);
    }

    // Copies the next step, of which `left` k are there.
    __device__ __forceinline__ void copy(unsigned to, int, int left) {
        to += start;
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            const int count = Lines::line(i) < left ? cols - Lines::first() : 0;
            copy_chunk(Lines::place(to, i), line(i), count, chunks);
        }
        from = line_at(Side::DEPTH);
    }

 private:
    __device__ __forceinline__ const Element* line_at(int lines) const { return from + (long long)lines * ld; }
    __device__ __forceinline__ const Element* line(int i) const { return line_at(i * Lines::STEP); }
};

// Both operands of a product, from k on.
template <class A, class B, int DEPTH>
struct Source {
    A a;
    B b;
    int k, end;

    // The steps that copy_whole may copy, and all of them.
    __device__ __forceinline__ int whole_steps() const { return a.whole() && b.whole() ? (end - k) / DEPTH : 0; }
    __device__ __forceinline__ int steps() const { return (max(end - k, 0) + DEPTH - 1) / DEPTH; }

    __device__ __forceinline__ void copy_whole(unsigned to) {
        a.copy_whole(to, k);
        b.copy_whole(to, k);
        k += DEPTH;
    }

    __device__ __forceinline__ void copy(unsigned to) {
        a.copy(to, k, end - k);
        b.copy(to, k, end - k);
        k += DEPTH;
    }
};

}  // namespace tile
