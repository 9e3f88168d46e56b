// What the kernels of attention have in common: the fixed mix of cells to positions, and sums of weighted rows. The maths is in
// attention.cu.
#pragma once
#include "vector.cuh"
#include "reduce.cuh"

// The grids of cells and positions: CellMix. Position i of p averages, along an axis, the cells
// i n / p .. ceil((i + 1) n / p) of n; so the positions that cell r is part of are r p / n .. ceil((r + 1) p / n).
struct AttentionMix {
    int cells_h;
    int cells_w;
    int positions_h;
    int positions_w;
};

__device__ __forceinline__ int range_start(int i, int n, int p) { return (unsigned)(i * n) / (unsigned)p; }

__device__ __forceinline__ int range_end(int i, int n, int p) {
    return ((unsigned)((i + 1) * n) + (unsigned)p - 1) / (unsigned)p;
}

__device__ __forceinline__ float range_share(int i, int n, int p) {
    return 1.0f / (float)(range_end(i, n, p) - range_start(i, n, p));
}

__device__ __forceinline__ int cell_count(const AttentionMix& mix) { return mix.cells_h * mix.cells_w; }

__device__ __forceinline__ int position_count(const AttentionMix& mix) { return mix.positions_h * mix.positions_w; }

// NaN stays NaN; one instruction.
__device__ __forceinline__ float relu(float x) {
    float y;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));
    return y;
}

// sum over the positions p of a cell of M_pc y_p; `shares` are 1 / length of the ranges, first of the rows of
// positions, then of their columns.
__device__ __forceinline__ float cell_sum(const AttentionMix& mix, const float* shares, const float* y, int cell) {
    int r = cell / mix.cells_w, c = cell % mix.cells_w;
    int row_end = range_end(r, mix.positions_h, mix.cells_h);
    int col_start = range_start(c, mix.positions_w, mix.cells_w), col_end = range_end(c, mix.positions_w, mix.cells_w);
    float sum = 0.0f;
    for (int i = range_start(r, mix.positions_h, mix.cells_h); i < row_end; ++i) {
        float row = 0.0f;
        for (int j = col_start; j < col_end; ++j) {
            float value = y == nullptr ? 1.0f : y[i * mix.positions_w + j];
            row += shares[mix.positions_h + j] * value;
        }
        sum += shares[i] * row;
    }
    return sum;
}

// Room for the shares: positions_h + positions_w floats. A barrier must follow.
__device__ __forceinline__ void set_shares(const AttentionMix& mix, float* shares) {
    for (int i = threadIdx.x; i < mix.positions_h + mix.positions_w; i += blockDim.x) {
        shares[i] = i < mix.positions_h ? range_share(i, mix.cells_h, mix.positions_h)
                                        : range_share(i - mix.positions_h, mix.cells_w, mix.positions_w);
    }
}

// Vectors of columns that half a block takes: a slab.
constexpr int SLAB_VECTORS = THREADS / 2;
constexpr int ROWS_IN_FLIGHT = 8;

// y[cols] = sum over the rows of x of weights_c x_c, for the slabs of columns blockIdx.x, blockIdx.x + gridDim.x, ...
// Half of the block takes the even rows and half the odd ones.
template <class V, class Y>
__device__ __forceinline__ void weighted_rows(
    const float* weights, const typename V::Element* x, int rows, int cols, int ld, Y* y) {
    __shared__ Wide<V> of_other_half[2][SLAB_VECTORS];
    int half = threadIdx.x / SLAB_VECTORS, vector = threadIdx.x % SLAB_VECTORS;
    int slabs = (cols + SLAB_VECTORS * V::WIDTH - 1) / (SLAB_VECTORS * V::WIDTH);
    int parity = 0;
    for (int slab = blockIdx.x; slab < slabs; slab += gridDim.x, parity ^= 1) {
        int col = (slab * SLAB_VECTORS + vector) * V::WIDTH;
        Wide<V> sum = {};
        if (col < cols) {
            const auto* from = x + col;
            int row = half;
            for (; row + 2 * (ROWS_IN_FLIGHT - 1) < rows; row += 2 * ROWS_IN_FLIGHT) {
                V values[ROWS_IN_FLIGHT];
#pragma unroll
                for (int i = 0; i < ROWS_IN_FLIGHT; ++i) values[i] = load<V>(from + (size_t)(row + 2 * i) * ld);
#pragma unroll
                for (int i = 0; i < ROWS_IN_FLIGHT; ++i) {
                    float weight = weights[row + 2 * i];
#pragma unroll
                    for (int k = 0; k < V::WIDTH; ++k) sum[k] += weight * widen(values[i][k]);
                }
            }
            for (; row < rows; row += 2) {
                const Wide<V> values = load_wide<V>(from + (size_t)row * ld);
#pragma unroll
                for (int k = 0; k < V::WIDTH; ++k) sum[k] += weights[row] * values[k];
            }
        }
        if (half == 1) of_other_half[parity][vector] = sum;
        // One barrier per slab: the other buffer is written before the next.
        __syncthreads();
        if (half == 0 && col < cols) {
            const Wide<V> other = of_other_half[parity][vector];
#pragma unroll
            for (int k = 0; k < V::WIDTH; ++k) sum[k] += other[k];
            store_as(y + col, sum);
        }
    }
}
