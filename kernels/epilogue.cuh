// Where a tile's sums go: through shared memory, so that a lane has 16 bytes of a row of the result instead of two columns.
//
// Each warp lays its part down by itself, a row of WARP_N numbers after the other, and reads it back a few rows at a time. A lane
// keeps its columns, so that a bias is loaded once. Chunks of four are swizzled, as operands are (operand.cuh):
//
//   chunk ^ key(row) ^ chunk/8 % 2,   key = 2·((row ^ row/4) % 4) + row % 2
//
// Lanes write 8 bytes each, 16 at a time: four rows (of neighbours, or 2 or 4 apart, as Product::row has them) and two chunks
// each. They read 16 bytes each, 8 at a time: chunks in a row, or for bf16 every other chunk of a row or of two.
//
// Where 16 bytes are no unit of the result (rows not aligned, or a last chunk that is cut), lanes take neighbouring elements.
#pragma once
#include "source.cuh"

namespace tile {

// Neighbours in a row of T that are moved at once: 16 bytes, or 8.
template <class T, int WIDTH_ = 16 / sizeof(T)>
struct Chunk {
    static constexpr int WIDTH = WIDTH_, WORDS = WIDTH_ * (int)sizeof(T) / 4;
    static_assert(WORDS == 4 || WORDS == 2, "one load or store");
    // As one instruction, which a struct would not be.
    using Words = std::conditional_t<WORDS == 4, uint4, uint2>;
    float values[WIDTH];

    static __device__ __forceinline__ Words load(const T* from) { return *reinterpret_cast<const Words*>(from); }

    // What was loaded.
    static __device__ __forceinline__ Chunk of(const Words& loaded) {
        unsigned words[4] = {loaded.x, loaded.y};
        if constexpr (WORDS == 4) words[2] = loaded.z, words[3] = loaded.w;
        Chunk chunk;
#pragma unroll
        for (int i = 0; i < WORDS; ++i) {
            if constexpr (sizeof(T) == 4) {
                chunk.values[i] = __uint_as_float(words[i]);
            } else {
                chunk.values[2 * i] = __uint_as_float(words[i] << 16);
                chunk.values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
            }
        }
        return chunk;
    }

    __device__ __forceinline__ void store(T* to) const {
        unsigned words[4] = {};
#pragma unroll
        for (int i = 0; i < WORDS; ++i) {
            if constexpr (sizeof(T) == 4) {
                words[i] = __float_as_uint(values[i]);
            } else {
                words[i] = to_bf16_pair(values[2 * i], values[2 * i + 1]);
            }
        }
        if constexpr (WORDS == 4) {
            *reinterpret_cast<uint4*>(to) = {words[0], words[1], words[2], words[3]};
        } else {
            *reinterpret_cast<uint2*>(to) = {words[0], words[1]};
        }
    }

    // Columns of a bias that may be null, from `col` on.
    static __device__ __forceinline__ Chunk bias(const float* bias, int col) {
        Chunk chunk{};
        if (bias == nullptr) return chunk;
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) chunk.values[i] = __ldg(bias + col + i);
        return chunk;
    }

    __device__ __forceinline__ void add(const Chunk& other) {
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) values[i] += other.values[i];
    }
};

// Sums of a block's tile in shared memory, each warp's by itself.
template <class Product>
struct Staged {
    using Cut = typename Product::Cut;
    static constexpr int ROWS = Cut::WARP_M, COLS = Cut::WARP_N, CHUNKS = COLS / 4;
    static_assert(ROWS * COLS * 4 * (Cut::THREADS / 32) <= Cut::SHARED_BYTES && CHUNKS >= 8, "room, and a swizzle");
    unsigned of_warp;
    int first_row, first_col;

    // `memory` is that of Product::run, aligned to 128.
    __device__ __forceinline__ Staged(const Product& product, void* memory)
        : of_warp(shared_address(memory) + threadIdx.x / 32 * (ROWS * COLS * 4)),
          first_row(product.first_row),
          first_col(product.first_col) {
        const int row = product.row(0) - first_row, col = product.col(0) - first_col;
        const unsigned at = kept(of_warp + place(row, col / 4) + col % 4 * 4);
#pragma unroll
        for (int j = 0; j < Product::PAIRS; ++j) {
#pragma unroll
            for (int i = 0; i < Product::ROWS; ++i) {
                shared_store(moved(at, Product::rows_to(i), 2 * j), product.sums[i][j]);
            }
        }
        __syncwarp();
    }

    // `put(row, chunk, before(row))` for all rows of this lane's chunk of T, whose first column is `col<T>()`. What is `before`, a
    // Chunk<T>::Words to be added, is loaded for AT_ONCE rows: a load behind the store of the row above would wait for it, since
    // the compiler cannot know that they are apart.
    template <class T, class Before, class Put>
    __device__ __forceinline__ void each_chunk(Before before, Put put) const {
        constexpr int WIDTH = Chunk<T>::WIDTH, STEP = 32 * WIDTH / COLS, AT_ONCE = 4;
        static_assert(ROWS % (STEP * AT_ONCE) == 0, "whole turns");
        const int lane = threadIdx.x % 32, first = lane * WIDTH / COLS;
        const unsigned start = of_warp + place(first, lane * WIDTH % COLS / 4);
#pragma unroll 1
        for (int rows = 0; rows < ROWS; rows += AT_ONCE * STEP) {
            const unsigned at = moved(start, rows, 0);
            typename Chunk<T>::Words there[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i) there[i] = before(rows + i * STEP + first);
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i) {
                Chunk<T> sums;
#pragma unroll
                for (int c = 0; c < WIDTH; c += 4) {
                    const float4 v = shared_float4(moved(at, i * STEP, c / 4));
                    sums.values[c] = v.x, sums.values[c + 1] = v.y, sums.values[c + 2] = v.z, sums.values[c + 3] = v.w;
                }
                put(rows + i * STEP + first, sums, there[i]);
            }
        }
    }

    template <class T>
    __device__ __forceinline__ int col() const {
        return first_col + threadIdx.x % 32 * Chunk<T>::WIDTH % COLS;
    }

    // `put(row, column, sum)` for all elements, neighbours to neighbours.
    template <class Put>
    __device__ __forceinline__ void each(Put put) const {
#pragma unroll 1
        for (int i = threadIdx.x % 32; i < ROWS * COLS; i += 32) {
            const int row = i / COLS, col = i % COLS;
            put(row, first_col + col, shared_float(of_warp + place(row, col / 4) + col % 4 * 4));
        }
    }

 private:
    static __device__ __forceinline__ constexpr int key(int row) { return ((row ^ row >> 2) & 3) << 1 | (row & 1); }

    // Byte offset of a chunk.
    static __device__ __forceinline__ int place(int row, int chunk) {
        return row * (COLS * 4) + ((chunk ^ key(row) ^ (chunk >> 3 & 1)) << 4);
    }

    // The address so many rows and chunks further than `at`: as Operand::moved.
    static __device__ __forceinline__ unsigned moved(unsigned at, int rows, int chunks) {
        return (at ^ ((chunks ^ (chunks >> 3 & 1) ^ key(rows)) & 7) << 4) + (chunks >> 3 << 7) + rows * (COLS * 4);
    }
};

// A matrix of results.
template <class T>
struct Target {
    T* to;
    int ld, rows, cols;

    // Whether `count` columns from `first_col` on are in chunks of WIDTH that are wholly there or not at all.
    template <int WIDTH = 16 / (int)sizeof(T)>
    __device__ __forceinline__ bool in_chunks(int first_col, int count) const {
        return tile::in_chunks(to, ld) && (first_col + count <= cols || cols % WIDTH == 0);
    }

    __device__ __forceinline__ T* at(int row, int col) const { return advanced(to + col, row, ld); }
};

// Which row of C a warp's row goes to, if any.
struct To {
    int row;
    bool there;
};

// The next one.
struct NextRows {
    int first_row, rows;

    __device__ __forceinline__ To operator[](int row) const { return {first_row + row, first_row + row < rows}; }
};

// Any, worked out by one lane for each row.
template <int ROWS>
struct PlacedRows {
    int of_lane[ROWS / 32];  // -1 where there is none

    // Row i of all of C's is at `place(i)`.
    template <class Place>
    __device__ __forceinline__ PlacedRows(const NextRows& next, Place place) {
#pragma unroll
        for (int i = 0; i < ROWS / 32; ++i) {
            const To to = next[32 * i + threadIdx.x % 32];
            of_lane[i] = to.there ? place(to.row) : -1;
        }
    }

    // For all lanes at once, which ask for rows of the same 32.
    __device__ __forceinline__ To operator[](int row) const {
        const int mine = ROWS > 32 && row >= 32 ? of_lane[ROWS / 32 - 1] : of_lane[0];
        const int place = __shfl_sync(0xffffffffu, mine, row % 32);
        return {place, place >= 0};
    }
};

// C = sums + bias, or C += that; `bias` may be null. The tile begins at column first_col; its rows go to `rows[row]`.
template <class T, class Product, class Rows>
__device__ __forceinline__ void put_sums(
    const Staged<Product>& staged, const Target<T>& c, const float* bias, bool accumulate, int first_col,
    const Rows& rows) {
    if (!c.in_chunks(first_col, Product::Cut::N)) {
        staged.each([&](int row, int col, float sum) {
            const To to_row = rows[row];
            col += first_col;
            if (!to_row.there || col >= c.cols) return;
            T* to = c.at(to_row.row, col);
            if (bias != nullptr) sum += __ldg(bias + col);
            narrow(accumulate ? sum + widen(*to) : sum, *to);
        });
        return;
    }
    using Chunk = tile::Chunk<T>;
    const int col = first_col + staged.template col<T>();
    const bool inside = col < c.cols;
    const Chunk added = Chunk::bias(inside ? bias : nullptr, col);
    using Words = typename Chunk::Words;
    const auto before = [&](int row) {
        const To to_row = rows[row];
        return accumulate && inside && to_row.there ? Chunk::load(c.at(to_row.row, col)) : Words{};
    };
    staged.template each_chunk<T>(before, [&](int row, Chunk& sums, const Words& before) {
        const To to_row = rows[row];
        sums.add(added);
        if (accumulate) sums.add(Chunk::of(before));
        if (inside && to_row.there) sums.store(c.at(to_row.row, col));
    });
}

}  // namespace tile
