// C = op(A) op(B) + bias, or C += that: op(A) (m, k), op(B) (k, n), C (m, n), bias (n) added to every row.
//
// A block makes a tile of C, column blockIdx.x and row blockIdx.y of tiles, with the main loop of tile.cuh: blocks of a row of tiles
// are neighbours, so that they share A in level 2. Names: the arithmetic, n or t for A and for B (as it is, or transposed), the cut, and C's type, which is f32 but for bf16.
// tt has only the small cut, because nothing here needs it to be fast; the thin one is for products of a recurrent step, which
// are never tn and whose C is f32.
//
// Flops 2 m n k; bytes, if level 2 keeps what neighbours share: operands and C once. A tile of 128x128 does 32 (f32) or 64
// (bf16) flops per byte that it loads, of 64x64 half of it: on an A100, f32 is bound by its 19.5 TFLOP/s of FFMA, tf32
// and bf16 by the tensor cores from about 512 in every dimension, and below that by latency. Where the tiles would not
// fill the multiprocessors, k is split among gridDim.z blocks, `k_split` each (parts.cuh; src/ops/tile.rs says into how many parts).
//
// Tried: atomics on C instead of a workspace (results change from run to run); three stages of 128 bytes for the
// large cut (96 KiB, one block per multiprocessor on A100).
#include "epilogue.cuh"
#include "parts.cuh"

struct GemmShape {
    int m, n, k;
    int lda, ldb, ldc;
    int k_split;
    int accumulate;
};

// The loader of a plain matrix in either order, from k = `start` on; `first` is the tile's first row (m or n) of `rows`.
template <class Side, int THREADS>
__device__ __forceinline__ auto matrix_loader(
    const typename Side::Element* matrix, int ld, int start, int first, int rows) {
    const bool chunks = tile::in_chunks(matrix, ld);
    if constexpr (Side::ORDER == tile::Order::K) {
        return tile::RowLoader<Side, THREADS>(matrix, ld, rows - first, chunks, [=](int row) { return first + row; });
    } else {
        return tile::ColumnLoader<Side, THREADS>(matrix + (size_t)start * ld + first, ld, rows - first, chunks);
    }
}

template <class Math, class Layout, class Cut, class T>
__device__ __forceinline__ void gemm(
    const typename Math::Element* a, const typename Math::Element* b, const float* bias, T* c, float* workspace,
    unsigned* arrived, const GemmShape& s) {
    using Product = tile::Product<Math, Cut, Layout::A, Layout::B>;
    extern __shared__ __align__(128) unsigned char memory[];
    const int first_row = blockIdx.y * Cut::M, first_col = blockIdx.x * Cut::N;
    const int start = blockIdx.z * s.k_split, end = min(s.k, start + s.k_split);
    auto a_loader = matrix_loader<typename Product::A, Cut::THREADS>(a, s.lda, start, first_row, s.m);
    auto b_loader = matrix_loader<typename Product::B, Cut::THREADS>(b, s.ldb, start, first_col, s.n);
    tile::Source<decltype(a_loader), decltype(b_loader), Product::DEPTH> source{a_loader, b_loader, start, end};
    Product product;
    product.run(source, memory);
    if (gridDim.z > 1) {
        const unsigned tile = blockIdx.y * gridDim.x + blockIdx.x;
        if (!tile::add_parts(product, workspace, arrived, tile, blockIdx.z, gridDim.z)) return;
    }
    // Worked out again: there are no registers to keep it in.
    const int row = tile::kept((int)blockIdx.y) * Cut::M, col = tile::kept((int)blockIdx.x) * Cut::N;
    const tile::Staged<Product> staged(product, memory);
    tile::Target<T> to{c, s.ldc, s.m, s.n};
    const tile::NextRows rows{row + staged.first_row, s.m};
    tile::put_sums(staged, to, bias, s.accumulate != 0, col, rows);
}

#define GEMM(MATH, LAYOUT, CUT, T)                                                                           \
    extern "C" __global__ void __launch_bounds__(tile::CUT::THREADS, tile::CUT::BLOCKS)                      \
        gemm_##MATH##_##LAYOUT##_##CUT##_##T(                                                                \
            const tile::math::MATH::Element* a, const tile::math::MATH::Element* b, const float* bias, T* c, \
            float* workspace, unsigned* arrived, GemmShape shape) {                                          \
        gemm<tile::math::MATH, tile::layout::LAYOUT, tile::CUT>(a, b, bias, c, workspace, arrived, shape);   \
    }
GEMM(f32, nn, tall, f32)
GEMM(f32, nt, tall, f32)
GEMM(f32, tn, tall, f32)
GEMM(f32, nn, small, f32)
GEMM(f32, nt, small, f32)
GEMM(f32, tn, small, f32)
GEMM(f32, tt, small, f32)
GEMM(f32, nn, thin, f32)
GEMM(f32, nt, thin, f32)
GEMM(tf32, nn, large, f32)
GEMM(tf32, nt, large, f32)
GEMM(tf32, tn, large, f32)
GEMM(tf32, nn, small, f32)
GEMM(tf32, nt, small, f32)
GEMM(tf32, tn, small, f32)
GEMM(tf32, tt, small, f32)
GEMM(tf32, nn, thin, f32)
GEMM(tf32, nt, thin, f32)
GEMM(bf16, nn, large, f32)
GEMM(bf16, nt, large, f32)
GEMM(bf16, tn, large, f32)
GEMM(bf16, nn, small, f32)
GEMM(bf16, nt, small, f32)
GEMM(bf16, tn, small, f32)
GEMM(bf16, tt, small, f32)
GEMM(bf16, nn, thin, f32)
GEMM(bf16, nt, thin, f32)
GEMM(bf16, nn, large, bf16)
GEMM(bf16, nt, large, bf16)
GEMM(bf16, tn, large, bf16)
GEMM(bf16, nn, small, bf16)
GEMM(bf16, nt, small, bf16)
GEMM(bf16, tn, small, bf16)
GEMM(bf16, tt, small, bf16)
