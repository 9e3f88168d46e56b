// C = op(A) op(B) + bias, or C += that: op(A) (m, k), op(B) (k, n), C (m, n), bias (n) added to every row.
//
// A block makes a tile of C with the main loop of tile.cuh: blocks of a row of tiles are neighbours, so that they share A in
// level 2. Names: the arithmetic, n or t for A and for B (as it is, or transposed), and the cut. tt has only the small cut,
// because nothing here needs it to be fast.
//
// Flops 2 m n k; bytes, if level 2 keeps what neighbours share: operands and C once. A tile of 128x128 does 32 (f32) or 64
// (bf16) flops per byte that it loads, of 64x64 half of it: on an A100, f32 is bound by its 19.5 TFLOP/s of FFMA, tf32
// and bf16 by the tensor cores from about 512 in every dimension, and below that by latency. Where the tiles would not
// fill the multiprocessors, k is split among gridDim.y blocks (`k_split` each) that write partial sums to a
// workspace [split][m][n]; gemm_sum_parts adds them up in order, so that results repeat bit for bit.
//
// Tried: atomics instead of the workspace (results change from run to run); three stages of 128 bytes for the
// large cut (96 KiB, one block per multiprocessor on A100).
#include "source.cuh"

struct GemmShape {
    int m, n, k;
    int lda, ldb, ldc;
    int k_split;
    int accumulate;
};

template <class Loader, class Product>
struct MatrixSource {
    typename Loader::A a;
    typename Loader::B b;
    int k, end;

    __device__ __forceinline__ void copy(unsigned to_a, unsigned to_b) {
        a.copy(to_a, k, end - k);
        b.copy(to_b, k, end - k);
        k += Product::DEPTH;
    }
};

// The loader of a plain matrix in either order: `base` is at k = 0, `first` is the tile's first row (m or n) of `rows`.
template <class Side, int THREADS>
__device__ __forceinline__ auto matrix_loader(const typename Side::Element* base, int ld, int first, int rows) {
    const bool chunks = tile::in_chunks(base, ld);
    if constexpr (Side::ORDER == tile::Order::K) {
        return tile::RowLoader<Side, THREADS>(base, ld, rows - first, chunks, [=](int row) { return first + row; });
    } else {
        return tile::ColumnLoader<Side, THREADS>(base + first, ld, rows - first, chunks);
    }
}

// Writes to f32 or, where that is null, to bf16.
struct GemmEpilogue {
    tile::Target<float> c32;
    tile::Target<bf16> c16;
    const float* bias;
    bool accumulate;

    template <class T>
    __device__ __forceinline__ void put(const tile::Target<T>& c, int row, int col, float x, float y) const {
        if (row >= c.rows || col >= c.cols) return;
        const bool both = col + 1 < c.cols;
        if (bias != nullptr) {
            x += __ldg(bias + col);
            if (both) y += __ldg(bias + col + 1);
        }
        T* to = c.at(row, col);
        if (both && c.pairs) {
            using Pair = Vector<T, 2>;
            const Wide<Pair> before = accumulate ? load_wide<Pair>(to) : Wide<Pair>{};
            store_wide<Pair>(to, {x + before[0], y + before[1]});
            return;
        }
        narrow(accumulate ? x + widen(*to) : x, *to);
        if (both) narrow(accumulate ? y + widen(to[1]) : y, to[1]);
    }
};

template <class Math, class Layout, class Cut>
__device__ __forceinline__ void gemm(
    const typename Math::Element* a, const typename Math::Element* b, const float* bias, float* c32, bf16* c16,
    const GemmShape& s) {
    using Product = tile::Product<Math, Cut, Layout::A, Layout::B>;
    extern __shared__ __align__(128) unsigned char memory[];
    const int tiles_n = (s.n + Cut::N - 1) / Cut::N;
    const int first_row = (int)blockIdx.x / tiles_n * Cut::M, first_col = (int)blockIdx.x % tiles_n * Cut::N;
    const int start = blockIdx.y * s.k_split, end = min(s.k, start + s.k_split);
    auto a_loader = matrix_loader<typename Product::A, Cut::THREADS>(a, s.lda, first_row, s.m);
    auto b_loader = matrix_loader<typename Product::B, Cut::THREADS>(b, s.ldb, first_col, s.n);
    struct Loaders {
        using A = decltype(a_loader);
        using B = decltype(b_loader);
    };
    MatrixSource<Loaders, Product> source{a_loader, b_loader, start, end};
    Product product;
    product.run(source, (end - start + Product::DEPTH - 1) / Product::DEPTH, memory);
    const size_t part = (size_t)blockIdx.y * s.m * s.ldc;
    const GemmEpilogue epilogue{{c32 + part, s.ldc, s.m, s.n}, {c16, s.ldc, s.m, s.n}, bias, s.accumulate != 0};
    product.each_pair([&](int row, int col, float x, float y) {
        if (!tile::same<Math, tile::math::bf16> || c32 != nullptr) {
            epilogue.put(epilogue.c32, first_row + row, first_col + col, x, y);
        } else {
            epilogue.put(epilogue.c16, first_row + row, first_col + col, x, y);
        }
    });
}

// c is null where C is bf16, and c16 where it is f32, as it is for all but math::bf16.
#define GEMM(MATH, LAYOUT, CUT)                                                                                  \
    extern "C" __global__ void __launch_bounds__(tile::CUT::THREADS, tile::CUT::BLOCKS)                          \
        gemm_##MATH##_##LAYOUT##_##CUT(                                                                          \
            const tile::math::MATH::Element* a, const tile::math::MATH::Element* b, const float* bias, float* c, \
            bf16* c16, GemmShape shape) {                                                                        \
        gemm<tile::math::MATH, tile::layout::LAYOUT, tile::CUT>(a, b, bias, c, c16, shape);                      \
    }
GEMM(f32, nn, tall)
GEMM(f32, nt, tall)
GEMM(f32, tn, tall)
GEMM(f32, nn, small)
GEMM(f32, nt, small)
GEMM(f32, tn, small)
GEMM(f32, tt, small)
GEMM(tf32, nn, large)
GEMM(tf32, nt, large)
GEMM(tf32, tn, large)
GEMM(tf32, nn, small)
GEMM(tf32, nt, small)
GEMM(tf32, tn, small)
GEMM(tf32, tt, small)
GEMM(bf16_of_f32, nn, large)
GEMM(bf16_of_f32, nt, large)
GEMM(bf16_of_f32, tn, large)
GEMM(bf16_of_f32, nn, small)
GEMM(bf16_of_f32, nt, small)
GEMM(bf16_of_f32, tn, small)
GEMM(bf16_of_f32, tt, small)
GEMM(bf16, nn, large)
GEMM(bf16, nt, large)
GEMM(bf16, tn, large)
GEMM(bf16, nn, small)
GEMM(bf16, nt, small)
GEMM(bf16, tn, small)
GEMM(bf16, tt, small)

// C = Σ over parts of partial[part] + bias, or C += that: the second pass, a thread for each element. c and c16 as for GEMM.
// Bytes: partial sums once.
extern "C" __global__ void __launch_bounds__(THREADS) gemm_sum_parts_f32(
    const float* partial, const float* bias, float* c, bf16* c16, int parts, int rows, int cols, int ldc,
    int accumulate) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, count = (size_t)rows * cols;
    if (i >= count) return;
    const int row = (int)(i / cols), col = (int)(i % cols);
    float sum = 0.0f;
#pragma unroll 4
    for (int part = 0; part < parts; ++part) sum += partial[part * count + i];
    if (bias != nullptr) sum += bias[col];
    const size_t to = (size_t)row * ldc + col;
    if (c != nullptr) {
        c[to] = accumulate ? c[to] + sum : sum;
    } else {
        narrow(accumulate ? widen(c16[to]) + sum : sum, c16[to]);
    }
}
