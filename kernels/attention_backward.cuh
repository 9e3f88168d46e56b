// The backward pass of attention: a step's two halves, then keys and values after the loop. attention.cu has the maths, the
// mapping and the bounds.
#pragma once
#include "attention_mix.cuh"

// Cells of a warp in cells_backward.
constexpr int CELLS_OF_WARP = 2;

__host__ __device__ constexpr int cells_shared_bytes(int d) { return d * sizeof(float); }

// d_beta (B, C), dense. Eight loads of a warp are in flight; d_context waits in shared memory.
template <class V>
__device__ __forceinline__ void cells_backward(
    const typename V::Element* values, const float* d_context, float* d_beta, int cells, int d, int values_ld,
    int d_context_ld) {
    constexpr int VECTORS = 4;
    extern __shared__ __align__(16) float shared[];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int first = (blockIdx.x * WARPS + warp) * CELLS_OF_WARP;
    size_t image = blockIdx.y;
    for (int col = threadIdx.x * V::WIDTH; col < d; col += THREADS * V::WIDTH) {
        store_as(shared + col, load_f32<V::WIDTH>(d_context + image * d_context_ld + col));
    }
    __syncthreads();
    if (first >= cells) return;
    values += (image * cells + first) * values_ld;
    float sums[CELLS_OF_WARP] = {};
    for (int start = lane * V::WIDTH; start < d; start += 32 * VECTORS * V::WIDTH) {
        V at[VECTORS][CELLS_OF_WARP] = {};
#pragma unroll
        for (int p = 0; p < VECTORS; ++p) {
            int col = start + 32 * p * V::WIDTH;
#pragma unroll
            for (int i = 0; i < CELLS_OF_WARP; ++i) {
                if (col < d && first + i < cells) at[p][i] = load<V>(values + (size_t)i * values_ld + col);
            }
        }
#pragma unroll
        for (int p = 0; p < VECTORS; ++p) {
            int col = start + 32 * p * V::WIDTH;
            if (col >= d) continue;
            const Wide<V> by = load_f32<V::WIDTH>(shared + col);
#pragma unroll
            for (int i = 0; i < CELLS_OF_WARP; ++i) {
#pragma unroll
                for (int k = 0; k < V::WIDTH; ++k) sums[i] += widen(at[p][i][k]) * by[k];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < CELLS_OF_WARP; ++i) {
        float sum = reduce_warp(sums[i], Sum());
        if (lane == i && first + i < cells) d_beta[image * cells + first + i] = sum;
    }
}

// The sizes and row distances of the second half of a step's backward.
struct AttentionScores {
    int a;
    int keys_ld;
    int query_ld;
    int alpha_ld;
    int d_alpha_ld;
    int d_query_ld;
    int d_scores_ld;
};

// Columns of A that a block of scores_backward takes.
constexpr int SCORES_COLUMNS = 64;

// d_beta (C), de (P), alpha (P), shares.
__host__ __device__ constexpr int scores_shared_bytes(int positions, int cells, int shares) {
    return (cells + 2 * positions + shares) * sizeof(float);
}

// A block takes SCORES_COLUMNS of one image: 8 vectors of 8, 16 of 4 or 64 of 1; the threads beside them share the positions.
// d_alpha may be null.
template <class V>
__device__ __forceinline__ void scores_backward(
    AttentionMix mix, AttentionScores at, const typename V::Element* keys, const float* weight, const float* query,
    const float* alpha, const float* d_beta, const float* d_alpha, typename V::Element* d_query, float* d_scores) {
    constexpr int VECTORS = SCORES_COLUMNS / V::WIDTH, GROUPS = THREADS / VECTORS;
    extern __shared__ __align__(16) float shared[];
    __shared__ Wide<V> partials[GROUPS][VECTORS];
    int positions = position_count(mix), cells = cell_count(mix);
    float *of_cells = shared, *de = of_cells + cells, *weights = de + positions, *shares = weights + positions;
    size_t image = blockIdx.y;
    keys += image * positions * at.keys_ld;
    for (int c = threadIdx.x; c < cells; c += THREADS) of_cells[c] = d_beta[image * cells + c];
    set_shares(mix, shares);
    __syncthreads();
    for (int p = threadIdx.x; p < positions; p += THREADS) {
        int i = p / mix.positions_w, j = p % mix.positions_w;
        int row_end = range_end(i, mix.cells_h, mix.positions_h), col_end = range_end(j, mix.cells_w, mix.positions_w);
        float sum = 0.0f;
        for (int r = range_start(i, mix.cells_h, mix.positions_h); r < row_end; ++r) {
            for (int c = range_start(j, mix.cells_w, mix.positions_w); c < col_end; ++c) {
                sum += of_cells[r * mix.cells_w + c];
            }
        }
        sum *= shares[i] * shares[mix.positions_h + j];
        de[p] = d_alpha == nullptr ? sum : sum + d_alpha[image * at.d_alpha_ld + p];
        weights[p] = alpha[image * at.alpha_ld + p];
    }
    __syncthreads();
    int lane = threadIdx.x % WARP;
    float mean = 0.0f;
    for (int p = lane; p < positions; p += 32) mean += weights[p] * de[p];
    mean = reduce_warp(mean, Sum());
    __syncthreads();
    for (int p = threadIdx.x; p < positions; p += THREADS) {
        float d = weights[p] * (de[p] - mean);
        de[p] = d;
        if (blockIdx.x == 0) d_scores[image * at.d_scores_ld + p] = d;
    }
    __syncthreads();

    int vector = threadIdx.x % VECTORS, group = threadIdx.x / VECTORS;
    int col = blockIdx.x * SCORES_COLUMNS + vector * V::WIDTH;
    bool inside = col < at.a;
    Wide<V> sum = {}, q = {};
    if (inside) {
        q = load_f32<V::WIDTH>(query + image * at.query_ld + col);
#pragma unroll 4
        for (int p = group; p < positions; p += GROUPS) {
            const Wide<V> key = load_wide<V>(keys + (size_t)p * at.keys_ld + col);
            float d = de[p];
#pragma unroll
            for (int k = 0; k < V::WIDTH; ++k) sum[k] += key[k] + q[k] > 0.0f ? d : 0.0f;
        }
    }
    partials[group][vector] = sum;
    __syncthreads();
    if (group != 0 || !inside) return;
    for (int g = 1; g < GROUPS; ++g) {
#pragma unroll
        for (int k = 0; k < V::WIDTH; ++k) sum[k] += partials[g][vector][k];
    }
    const Wide<V> w = load_f32<V::WIDTH>(weight + col);
#pragma unroll
    for (int k = 0; k < V::WIDTH; ++k) sum[k] *= w[k];
    store_as(d_query + image * at.d_query_ld + col, sum);
}

// The sizes and row distances of the keys' gradient. Queries and the scores' gradients are (T, B, .).
struct AttentionKeys {
    int steps;
    int batch;
    int positions;
    int a;
    int keys_ld;
    int queries_ld;
    int d_scores_ld;
    int d_keys_ld;
    int accumulate;
};

// Vectors of columns side by side in keys_backward, and the positions of a thread and of a block.
constexpr int KEYS_VECTORS = 64;
constexpr int POSITIONS_OF_THREAD = 4;
constexpr int POSITIONS_OF_BLOCK = POSITIONS_OF_THREAD * (THREADS / KEYS_VECTORS);

// partials: of each block a row of A + 1: its share of dw, then of db. A block takes POSITIONS_OF_BLOCK of an image, and goes
// through the columns KEYS_VECTORS at a time.
template <class V>
__device__ __forceinline__ void keys_backward(
    AttentionKeys at, const typename V::Element* keys, const float* weight, const float* queries, const float* d_scores,
    float* d_keys, float* partials) {
    constexpr int MINE = POSITIONS_OF_THREAD, VECTORS = KEYS_VECTORS, GROUPS = THREADS / VECTORS;
    static_assert(GROUPS == 4, "the biases of four groups are added up below");
    __shared__ Wide<V> sums[GROUPS][VECTORS];
    __shared__ float biases[GROUPS];
    int vector = threadIdx.x % VECTORS, group = threadIdx.x / VECTORS;
    int first = (blockIdx.x * GROUPS + group) * MINE;
    size_t image = blockIdx.y;
    size_t d_scores_step = (size_t)at.batch * at.d_scores_ld, queries_step = (size_t)at.batch * at.queries_ld;
    d_scores += image * at.d_scores_ld;
    queries += image * at.queries_ld;
    partials += (image * gridDim.x + blockIdx.x) * (at.a + 1);
    for (int start = 0; start < at.a; start += VECTORS * V::WIDTH) {
        int col = start + vector * V::WIDTH;
        bool inside = col < at.a;
        Wide<V> key[MINE], sum[MINE], d_weight = {};
        float bias = 0.0f;
#pragma unroll
        for (int i = 0; i < MINE; ++i) {
            key[i] = {}, sum[i] = {};
            if (inside && first + i < at.positions) {
                key[i] = load_wide<V>(keys + (image * at.positions + first + i) * at.keys_ld + col);
            }
        }
        for (int t = 0; t < at.steps; ++t) {
            Wide<V> q = {};
            if (inside) q = load_f32<V::WIDTH>(queries + t * queries_step + col);
#pragma unroll
            for (int i = 0; i < MINE; ++i) {
                float de = first + i < at.positions ? d_scores[t * d_scores_step + first + i] : 0.0f;
                bias += de;
#pragma unroll
                for (int k = 0; k < V::WIDTH; ++k) {
                    float x = key[i][k] + q[k];
                    sum[i][k] += x > 0.0f ? de : 0.0f;
                    d_weight[k] += de * relu(x);
                }
            }
        }
        if (inside) {
            const Wide<V> w = load_f32<V::WIDTH>(weight + col);
#pragma unroll
            for (int i = 0; i < MINE; ++i) {
                if (first + i >= at.positions) continue;
                float* to = d_keys + (image * at.positions + first + i) * at.d_keys_ld + col;
                Wide<V> before = {};
                if (at.accumulate) before = load_f32<V::WIDTH>(to);
#pragma unroll
                for (int k = 0; k < V::WIDTH; ++k) before[k] += w[k] * sum[i][k];
                store_as(to, before);
            }
        }
        __syncthreads();
        sums[group][vector] = d_weight;
        if (vector == 0) biases[group] = bias;
        __syncthreads();
        if (group != 0) continue;
#pragma unroll
        for (int k = 0; k < V::WIDTH; ++k) {
            float total = 0.0f;
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) total += sums[g][vector][k];
            if (inside) partials[col + k] = total;
        }
        if (start == 0 && vector == 0) partials[at.a] = (biases[0] + biases[1]) + (biases[2] + biases[3]);
    }
}

// The sizes and row distances of the values' gradient.
struct AttentionValues {
    int steps;
    int batch;
    int cells;
    int d;
    int beta_ld;
    int d_context_ld;
    int d_values_ld;
    int accumulate;
};

// Cells of a thread and of a block of values_backward.
constexpr int CELLS_OF_THREAD = 8;
constexpr int CELLS_OF_BLOCK = CELLS_OF_THREAD * (THREADS / SLAB_VECTORS);

// A block takes CELLS_OF_BLOCK and a slab of columns of an image.
template <class V>
__device__ __forceinline__ void values_backward(
    AttentionValues at, const float* beta, const float* d_context, float* d_values) {
    constexpr int MINE = CELLS_OF_THREAD;
    int col = (blockIdx.x * SLAB_VECTORS + threadIdx.x % SLAB_VECTORS) * V::WIDTH;
    int first = (blockIdx.y * (THREADS / SLAB_VECTORS) + threadIdx.x / SLAB_VECTORS) * MINE;
    size_t image = blockIdx.z;
    if (col >= at.d || first >= at.cells) return;
    beta += image * at.beta_ld;
    d_context += image * at.d_context_ld + col;
    V sums[MINE] = {};
#pragma unroll 2
    for (int t = 0; t < at.steps; ++t) {
        V d = load<V>(d_context + (size_t)t * at.batch * at.d_context_ld);
#pragma unroll
        for (int i = 0; i < MINE; ++i) {
            float share = beta[(size_t)t * at.batch * at.beta_ld + min(first + i, at.cells - 1)];
#pragma unroll
            for (int k = 0; k < V::WIDTH; ++k) sums[i][k] += share * d[k];
        }
    }
#pragma unroll
    for (int i = 0; i < MINE; ++i) {
        if (first + i >= at.cells) continue;
        float* to = d_values + (image * at.cells + first + i) * at.d_values_ld + col;
        if (at.accumulate) {
            V before = load<V>(to);
#pragma unroll
            for (int k = 0; k < V::WIDTH; ++k) sums[i][k] += before[k];
        }
        store<V>(to, sums[i]);
    }
}
