// The backward pass of attention: a step's two halves, then keys and values after the loop. attention.cu has the maths, the
// mapping and the bounds.
#pragma once
#include "attention_mix.cuh"

// d_beta (B, C), dense. A warp takes 2 cells, eight loads in flight; d_context waits in dynamic shared memory (D).
template <int WIDTH>
__device__ __forceinline__ void cells_backward(const float* values, const float* d_context, float* d_beta, int cells,
                                               int d, int values_ld, int d_context_ld) {
    constexpr int AT_ONCE = 2, PACKS = 4;
    extern __shared__ __align__(16) float shared[];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int first = (blockIdx.x * WARPS + warp) * AT_ONCE;
    size_t image = blockIdx.y;
    for (int col = threadIdx.x * WIDTH; col < d; col += THREADS * WIDTH) {
        store<WIDTH>(shared + col, load<WIDTH>(d_context + image * d_context_ld + col));
    }
    __syncthreads();
    if (first >= cells) return;
    values += (image * cells + first) * values_ld;
    float sums[AT_ONCE] = {};
    for (int start = lane * WIDTH; start < d; start += 32 * PACKS * WIDTH) {
        Pack<WIDTH> at[PACKS][AT_ONCE] = {};
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            int col = start + 32 * p * WIDTH;
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                if (col < d && first + i < cells) at[p][i] = load<WIDTH>(values + (size_t)i * values_ld + col);
            }
        }
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            int col = start + 32 * p * WIDTH;
            if (col >= d) continue;
            Pack<WIDTH> by = load<WIDTH>(shared + col);
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
#pragma unroll
                for (int k = 0; k < WIDTH; k++) sums[i] += at[p][i].at[k] * by.at[k];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
        float sum = warp_sum(sums[i]);
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

// Dynamic shared memory: d_beta (C), de (P), alpha (P), shares. d_alpha may be null.
// A block takes 64 columns of one image: 16 packs of 4, or 64 of 1; the threads beside them share the positions.
template <int WIDTH>
__device__ __forceinline__ void scores_backward(AttentionMix mix, AttentionScores at, const float* keys,
                                                const float* weight, const float* query, const float* alpha,
                                                const float* d_beta, const float* d_alpha, float* d_query,
                                                float* d_scores) {
    constexpr int PACKS = 64 / WIDTH, GROUPS = THREADS / PACKS;
    extern __shared__ __align__(16) float shared[];
    __shared__ Pack<WIDTH> partials[GROUPS][PACKS];
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
        for (int r = range_start(i, mix.cells_h, mix.positions_h); r < row_end; r++) {
            for (int c = range_start(j, mix.cells_w, mix.positions_w); c < col_end; c++) {
                sum += of_cells[r * mix.cells_w + c];
            }
        }
        sum *= shares[i] * shares[mix.positions_h + j];
        de[p] = d_alpha == nullptr ? sum : sum + d_alpha[image * at.d_alpha_ld + p];
        weights[p] = alpha[image * at.alpha_ld + p];
    }
    __syncthreads();
    int lane = threadIdx.x % 32;
    float mean = 0.0f;
    for (int p = lane; p < positions; p += 32) mean += weights[p] * de[p];
    mean = warp_sum(mean);
    __syncthreads();
    for (int p = threadIdx.x; p < positions; p += THREADS) {
        float d = weights[p] * (de[p] - mean);
        de[p] = d;
        if (blockIdx.x == 0) d_scores[image * at.d_scores_ld + p] = d;
    }
    __syncthreads();

    int pack = threadIdx.x % PACKS, group = threadIdx.x / PACKS;
    int col = blockIdx.x * 64 + pack * WIDTH;
    bool inside = col < at.a;
    Pack<WIDTH> sum = {}, q = {};
    if (inside) {
        q = load<WIDTH>(query + image * at.query_ld + col);
#pragma unroll 4
        for (int p = group; p < positions; p += GROUPS) {
            Pack<WIDTH> key = load<WIDTH>(keys + (size_t)p * at.keys_ld + col);
            float d = de[p];
#pragma unroll
            for (int k = 0; k < WIDTH; k++) sum.at[k] += key.at[k] + q.at[k] > 0.0f ? d : 0.0f;
        }
    }
    partials[group][pack] = sum;
    __syncthreads();
    if (group != 0 || !inside) return;
    for (int g = 1; g < GROUPS; g++) {
#pragma unroll
        for (int k = 0; k < WIDTH; k++) sum.at[k] += partials[g][pack].at[k];
    }
    Pack<WIDTH> w = load<WIDTH>(weight + col);
#pragma unroll
    for (int k = 0; k < WIDTH; k++) sum.at[k] *= w.at[k];
    store<WIDTH>(d_query + image * at.d_query_ld + col, sum);
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

// partials: of each block a row of A + 1: its share of dw, then of db. A block takes 16 positions of an image, 4 rows of 64
// threads with 4 positions each; it goes through the columns 64 packs at a time.
template <int WIDTH>
__device__ __forceinline__ void keys_backward(AttentionKeys at, const float* keys, const float* weight,
                                              const float* queries, const float* d_scores, float* d_keys,
                                              float* partials) {
    constexpr int MINE = 4, PACKS = 64, GROUPS = THREADS / PACKS;
    __shared__ Pack<WIDTH> sums[GROUPS][PACKS];
    __shared__ float biases[GROUPS];
    int pack = threadIdx.x % PACKS, group = threadIdx.x / PACKS;
    int first = (blockIdx.x * GROUPS + group) * MINE;
    size_t image = blockIdx.y;
    size_t d_scores_step = (size_t)at.batch * at.d_scores_ld, queries_step = (size_t)at.batch * at.queries_ld;
    d_scores += image * at.d_scores_ld;
    queries += image * at.queries_ld;
    partials += (image * gridDim.x + blockIdx.x) * (at.a + 1);
    for (int start = 0; start < at.a; start += PACKS * WIDTH) {
        int col = start + pack * WIDTH;
        bool inside = col < at.a;
        Pack<WIDTH> key[MINE], sum[MINE], d_weight = {};
        float bias = 0.0f;
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            key[i] = {}, sum[i] = {};
            if (inside && first + i < at.positions) {
                key[i] = load<WIDTH>(keys + (image * at.positions + first + i) * at.keys_ld + col);
            }
        }
        for (int t = 0; t < at.steps; t++) {
            Pack<WIDTH> q = {};
            if (inside) q = load<WIDTH>(queries + t * queries_step + col);
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                float de = first + i < at.positions ? d_scores[t * d_scores_step + first + i] : 0.0f;
                bias += de;
#pragma unroll
                for (int k = 0; k < WIDTH; k++) {
                    float x = key[i].at[k] + q.at[k];
                    sum[i].at[k] += x > 0.0f ? de : 0.0f;
                    d_weight.at[k] += de * relu(x);
                }
            }
        }
        if (inside) {
            Pack<WIDTH> w = load<WIDTH>(weight + col);
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                if (first + i >= at.positions) continue;
                float* to = d_keys + (image * at.positions + first + i) * at.d_keys_ld + col;
                Pack<WIDTH> before = {};
                if (at.accumulate) before = load<WIDTH>(to);
#pragma unroll
                for (int k = 0; k < WIDTH; k++) before.at[k] += w.at[k] * sum[i].at[k];
                store<WIDTH>(to, before);
            }
        }
        __syncthreads();
        sums[group][pack] = d_weight;
        if (pack == 0) biases[group] = bias;
        __syncthreads();
        if (group != 0) continue;
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
            float total = 0.0f;
#pragma unroll
            for (int g = 0; g < GROUPS; g++) total += sums[g][pack].at[k];
            if (inside) partials[col + k] = total;
        }
        if (start == 0 && pack == 0) partials[at.a] = (biases[0] + biases[1]) + (biases[2] + biases[3]);
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

// A block takes 2 x 8 cells and 128 packs of columns of an image.
template <int WIDTH>
__device__ __forceinline__ void values_backward(AttentionValues at, const float* beta, const float* d_context,
                                                float* d_values) {
    constexpr int MINE = 8;
    int col = (blockIdx.x * 128 + threadIdx.x % 128) * WIDTH;
    int first = (blockIdx.y * 2 + threadIdx.x / 128) * MINE;
    size_t image = blockIdx.z;
    if (col >= at.d || first >= at.cells) return;
    beta += image * at.beta_ld;
    d_context += image * at.d_context_ld + col;
    Pack<WIDTH> sums[MINE] = {};
#pragma unroll 2
    for (int t = 0; t < at.steps; t++) {
        Pack<WIDTH> d = load<WIDTH>(d_context + (size_t)t * at.batch * at.d_context_ld);
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            float share = beta[(size_t)t * at.batch * at.beta_ld + min(first + i, at.cells - 1)];
#pragma unroll
            for (int k = 0; k < WIDTH; k++) sums[i].at[k] += share * d.at[k];
        }
    }
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        if (first + i >= at.cells) continue;
        float* to = d_values + (image * at.cells + first + i) * at.d_values_ld + col;
        if (at.accumulate) {
            Pack<WIDTH> before = load<WIDTH>(to);
#pragma unroll
            for (int k = 0; k < WIDTH; k++) sums[i].at[k] += before.at[k];
        }
        store<WIDTH>(to, sums[i]);
    }
}
