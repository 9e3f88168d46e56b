// Additive attention over P positions that are fixed means of C cells (src/ops/attention/mod.rs has the equations).
//
// Sizes of the model: B = 32 images, P = 196, C = 64, A = 256, D = 2048, T = 24 steps; f32.
//
// attention_forward: scores, softmax, weights of the cells and context in one launch.
//   Mapping: S blocks of 256 threads for each image; a block takes every S-th slab of 128 packs of columns of the
//   values. A warp takes the keys of four positions at a time, lanes along A, eight 16-byte loads in flight a
//   lane; the query and the weight are in shared memory. Every warp reduces the P scores of shared memory by itself, so
//   that the softmax costs two barriers. A thread per cell gathers its positions: M is separable, and the positions of
//   a cell are a rectangle. Then each half of the block sums half of the cells for its columns, eight loads in
//   flight, and the halves meet in shared memory.
//   Bytes: keys B P A 4 = 6.4 MB and values B C D 4 = 16.8 MB, each element read once with S = 1. With S blocks an image
//   keys are read S times, all but once from L2: the price of having the scores in each block without a
//   second launch. Flops: 1.6 M multiply-adds a step and image. Bound: with one block an image, 725 KB at the 64 bytes
//   a cycle that an SM takes from L2 are 11,300 cycles; S = 2 (64 blocks) 7,100; S = 4 (128 blocks, H100) 5,100. The
//   host takes the largest S that leaves one block an SM; from B = 67 on (A100), S = 1 and every byte is read once.
//
// attention_cells_backward, then attention_scores_backward: the backward of a step in two launches, as the softmax needs
//   all of d beta, and reading 16.8 MB needs the whole chip and not a block an image.
//   The first: d beta_c = d context . f_c, a warp for each of 4 cells of an image; d context in registers. Values are
//   read once: 16.8 MB, 64 FFMA for each 16-byte load. Bound: L2 bandwidth.
//   The second: a block for each (image, 64 columns of A): d alpha = M d beta + d alpha', the softmax's backward (each block
//   its own, P numbers), then d q over all positions. Keys once: 6.4 MB. Writes d q and the scores' gradients.
//
// attention_keys_backward, once after the loop: dk_pa = w_a sum_t de_tp [k_pa + q_ta > 0], and of each block the sums
//   of dw_a and db. A thread holds 4 positions x WIDTH columns and walks over the steps; keys are read
//   once and dk written once (12.8 MB), where adding up in the loop would move 12.8 MB a step.
//   attention_partials_sum adds the blocks' sums up, in order.
//
// attention_values_backward, once after the loop: df_c = sum_t beta_tc d context_t; a thread holds 8 cells x WIDTH
//   columns. d context is read C / 8 times (from L2), d values written once.
//
// The mix, its transpose and the mean are memory-bound: a warp for each row written; for the mean a block for each slab.
//
// Sums have a fixed order: no atomics, the same bits every run. All kernels are instantiated for packs of 4 columns and of 1.

#include "pack.cuh"

constexpr unsigned ALL = 0xFFFFFFFFu;
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

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

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(ALL, x, step);
    return x;
}

// NaN stays NaN, as in a softmax on the host.
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        float other = __shfl_xor_sync(ALL, x, step);
        x = other > x || other != other ? other : x;
    }
    return x;
}

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
    for (int i = range_start(r, mix.positions_h, mix.cells_h); i < row_end; i++) {
        float row = 0.0f;
        for (int j = col_start; j < col_end; j++) {
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

// y[cols] = sum over the rows of x of weights_c x_c, for the slabs of columns blockIdx.x, blockIdx.x + gridDim.x, ...
// Half of the block takes the even rows and half the odd ones.
constexpr int SLAB_PACKS = 128;
constexpr int ROWS_IN_FLIGHT = 8;

template <int WIDTH>
__device__ __forceinline__ void weighted_rows(const float* weights, const float* x, int rows, int cols, int ld, float* y) {
    __shared__ Pack<WIDTH> of_other_half[2][SLAB_PACKS];
    int half = threadIdx.x / SLAB_PACKS, pack = threadIdx.x % SLAB_PACKS;
    int slabs = (cols + SLAB_PACKS * WIDTH - 1) / (SLAB_PACKS * WIDTH);
    int parity = 0;
    for (int slab = blockIdx.x; slab < slabs; slab += gridDim.x, parity ^= 1) {
        int col = (slab * SLAB_PACKS + pack) * WIDTH;
        Pack<WIDTH> sum = {};
        if (col < cols) {
            const float* from = x + col;
            int row = half;
            for (; row + 2 * (ROWS_IN_FLIGHT - 1) < rows; row += 2 * ROWS_IN_FLIGHT) {
                Pack<WIDTH> values[ROWS_IN_FLIGHT];
#pragma unroll
                for (int i = 0; i < ROWS_IN_FLIGHT; i++) values[i] = load<WIDTH>(from + (size_t)(row + 2 * i) * ld);
#pragma unroll
                for (int i = 0; i < ROWS_IN_FLIGHT; i++) {
                    float weight = weights[row + 2 * i];
#pragma unroll
                    for (int k = 0; k < WIDTH; k++) sum.at[k] += weight * values[i].at[k];
                }
            }
            for (; row < rows; row += 2) {
                Pack<WIDTH> values = load<WIDTH>(from + (size_t)row * ld);
#pragma unroll
                for (int k = 0; k < WIDTH; k++) sum.at[k] += weights[row] * values.at[k];
            }
        }
        if (half == 1) of_other_half[parity][pack] = sum;
        // One barrier a slab: the other buffer is written before the next.
        __syncthreads();
        if (half == 0 && col < cols) {
            Pack<WIDTH> other = of_other_half[parity][pack];
#pragma unroll
            for (int k = 0; k < WIDTH; k++) sum.at[k] += other.at[k];
            store<WIDTH>(y + col, sum);
        }
    }
}

// The sizes and row distances of a step.
struct AttentionStep {
    int a;
    int d;
    int keys_ld;
    int values_ld;
    int query_ld;
    int alpha_ld;
    int beta_ld;
    int context_ld;
};

// scores_p = w . relu(k_p + q), to shared memory; `query` and `weight` are there too.
template <int WIDTH>
__device__ __forceinline__ void score_positions(const float* keys, int positions, const AttentionStep& at,
                                                const float* query, const float* weight, float bias, float* scores) {
    constexpr int AT_ONCE = 4;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int first = warp; first < positions; first += AT_ONCE * WARPS) {
        float sums[AT_ONCE] = {};
#pragma unroll 2
        for (int col = lane * WIDTH; col < at.a; col += 32 * WIDTH) {
            Pack<WIDTH> keys_at[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                // A position beyond the last reads the last again: the loads stay without a branch.
                int position = min(first + i * WARPS, positions - 1);
                keys_at[i] = load<WIDTH>(keys + (size_t)position * at.keys_ld + col);
            }
            Pack<WIDTH> q = load<WIDTH>(query + col), w = load<WIDTH>(weight + col);
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
#pragma unroll
                for (int k = 0; k < WIDTH; k++) sums[i] += w.at[k] * relu(keys_at[i].at[k] + q.at[k]);
            }
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            float score = warp_sum(sums[i]);
            int position = first + i * WARPS;
            if (lane == i && position < positions) scores[position] = score + bias;
        }
    }
}

// Dynamic shared memory: query and weight (A each, rounded up to 4), scores (P), beta (C), shares.
template <int WIDTH>
__device__ __forceinline__ void attention_forward(AttentionMix mix, AttentionStep at, const float* keys,
                                                  const float* values, const float* weight, const float* bias,
                                                  const float* query, float* alpha, float* beta, float* context) {
    extern __shared__ __align__(16) float shared[];
    int room = (at.a + 3) / 4 * 4, positions = position_count(mix), cells = cell_count(mix);
    float *q = shared, *w = q + room, *scores = w + room, *weights = scores + positions, *shares = weights + cells;
    size_t image = blockIdx.y;
    bool writes = blockIdx.x == 0;
    for (int i = threadIdx.x; i < at.a; i += THREADS) {
        q[i] = query[image * at.query_ld + i];
        w[i] = weight[i];
    }
    set_shares(mix, shares);
    __syncthreads();
    score_positions<WIDTH>(keys + image * positions * at.keys_ld, positions, at, q, w, bias[0], scores);
    __syncthreads();

    int lane = threadIdx.x % 32;
    float largest = -INFINITY;
    for (int p = lane; p < positions; p += 32) {
        float score = scores[p];
        largest = score > largest || score != score ? score : largest;
    }
    largest = warp_max(largest);
    float total = 0.0f;
    for (int p = lane; p < positions; p += 32) total += expf(scores[p] - largest);
    float scale = 1.0f / warp_sum(total);
    __syncthreads();
    for (int p = threadIdx.x; p < positions; p += THREADS) {
        float share = expf(scores[p] - largest) * scale;
        scores[p] = share;
        if (writes) alpha[image * at.alpha_ld + p] = share;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < cells; c += THREADS) {
        float sum = cell_sum(mix, shares, scores, c);
        weights[c] = sum;
        if (writes) beta[image * at.beta_ld + c] = sum;
    }
    __syncthreads();
    weighted_rows<WIDTH>(weights, values + image * cells * at.values_ld, cells, at.d, at.values_ld,
                         context + image * at.context_ld);
}

extern "C" __global__ void __launch_bounds__(256)
attention_forward_f32(AttentionMix mix, AttentionStep at, const float* keys, const float* values, const float* weight,
                      const float* bias, const float* query, float* alpha, float* beta, float* context) {
    attention_forward<1>(mix, at, keys, values, weight, bias, query, alpha, beta, context);
}

extern "C" __global__ void __launch_bounds__(256)
attention_forward_f32x4(AttentionMix mix, AttentionStep at, const float* keys, const float* values, const float* weight,
                        const float* bias, const float* query, float* alpha, float* beta, float* context) {
    attention_forward<4>(mix, at, keys, values, weight, bias, query, alpha, beta, context);
}

// d_beta (B, C), dense. A warp takes 4 cells.
template <int WIDTH>
__device__ __forceinline__ void cells_backward(const float* values, const float* d_context, float* d_beta, int cells,
                                               int d, int values_ld, int d_context_ld) {
    constexpr int AT_ONCE = 4;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int first = (blockIdx.x * WARPS + warp) * AT_ONCE;
    size_t image = blockIdx.y;
    if (first >= cells) return;
    values += image * cells * values_ld;
    d_context += image * d_context_ld;
    float sums[AT_ONCE] = {};
#pragma unroll 2
    for (int col = lane * WIDTH; col < d; col += 32 * WIDTH) {
        Pack<WIDTH> by = load<WIDTH>(d_context + col), at[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            at[i] = load<WIDTH>(values + (size_t)min(first + i, cells - 1) * values_ld + col);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
#pragma unroll
            for (int k = 0; k < WIDTH; k++) sums[i] += at[i].at[k] * by.at[k];
        }
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
        float sum = warp_sum(sums[i]);
        if (lane == i && first + i < cells) d_beta[image * cells + first + i] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(256)
attention_cells_backward_f32(const float* values, const float* d_context, float* d_beta, int cells, int d,
                             int values_ld, int d_context_ld) {
    cells_backward<1>(values, d_context, d_beta, cells, d, values_ld, d_context_ld);
}

extern "C" __global__ void __launch_bounds__(256)
attention_cells_backward_f32x4(const float* values, const float* d_context, float* d_beta, int cells, int d,
                               int values_ld, int d_context_ld) {
    cells_backward<4>(values, d_context, d_beta, cells, d, values_ld, d_context_ld);
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

// Dynamic shared memory: d_beta (C), de (P), shares. d_alpha may be null.
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
    float *of_cells = shared, *de = of_cells + cells, *shares = de + positions;
    size_t image = blockIdx.y;
    keys += image * positions * at.keys_ld;
    alpha += image * at.alpha_ld;
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
    }
    __syncthreads();
    int lane = threadIdx.x % 32;
    float mean = 0.0f;
    for (int p = lane; p < positions; p += 32) mean += alpha[p] * de[p];
    mean = warp_sum(mean);
    __syncthreads();
    for (int p = threadIdx.x; p < positions; p += THREADS) {
        float d = alpha[p] * (de[p] - mean);
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

extern "C" __global__ void __launch_bounds__(256)
attention_scores_backward_f32(AttentionMix mix, AttentionScores at, const float* keys, const float* weight,
                              const float* query, const float* alpha, const float* d_beta, const float* d_alpha,
                              float* d_query, float* d_scores) {
    scores_backward<1>(mix, at, keys, weight, query, alpha, d_beta, d_alpha, d_query, d_scores);
}

extern "C" __global__ void __launch_bounds__(256)
attention_scores_backward_f32x4(AttentionMix mix, AttentionScores at, const float* keys, const float* weight,
                                const float* query, const float* alpha, const float* d_beta, const float* d_alpha,
                                float* d_query, float* d_scores) {
    scores_backward<4>(mix, at, keys, weight, query, alpha, d_beta, d_alpha, d_query, d_scores);
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

extern "C" __global__ void __launch_bounds__(256)
attention_keys_backward_f32(AttentionKeys at, const float* keys, const float* weight, const float* queries,
                            const float* d_scores, float* d_keys, float* partials) {
    keys_backward<1>(at, keys, weight, queries, d_scores, d_keys, partials);
}

extern "C" __global__ void __launch_bounds__(256)
attention_keys_backward_f32x4(AttentionKeys at, const float* keys, const float* weight, const float* queries,
                              const float* d_scores, float* d_keys, float* partials) {
    keys_backward<4>(at, keys, weight, queries, d_scores, d_keys, partials);
}

// d_weight (A) and d_bias (1) from the partial sums (rows, A + 1). A block takes 32 columns; its warps take every 8th row,
// and their sums are added up in order.
extern "C" __global__ void __launch_bounds__(256)
attention_partials_sum_f32(const float* partials, float* d_weight, float* d_bias, int rows, int a, int accumulate) {
    __shared__ float sums[WARPS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int col = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (col <= a) {
#pragma unroll 4
        for (int row = warp; row < rows; row += WARPS) sum += partials[(size_t)row * (a + 1) + col];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || col > a) return;
    for (int other = 1; other < WARPS; other++) sum += sums[other][lane];
    float* to = col < a ? d_weight + col : d_bias;
    *to = accumulate ? *to + sum : sum;
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

extern "C" __global__ void __launch_bounds__(256)
attention_values_backward_f32(AttentionValues at, const float* beta, const float* d_context, float* d_values) {
    values_backward<1>(at, beta, d_context, d_values);
}

extern "C" __global__ void __launch_bounds__(256)
attention_values_backward_f32x4(AttentionValues at, const float* beta, const float* d_context, float* d_values) {
    values_backward<4>(at, beta, d_context, d_values);
}

// y_p = sum_c M_pc x_c: a warp for each row of y.
template <int WIDTH>
__device__ __forceinline__ void mix_forward(AttentionMix mix, const float* x, float* y, int batch, int cols, int x_ld,
                                            int y_ld) {
    int positions = position_count(mix), lane = threadIdx.x % 32;
    long long row = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= (long long)batch * positions) return;
    size_t image = row / positions;
    int position = row % positions, i = position / mix.positions_w, j = position % mix.positions_w;
    int row_start = range_start(i, mix.cells_h, mix.positions_h), row_end = range_end(i, mix.cells_h, mix.positions_h);
    int col_start = range_start(j, mix.cells_w, mix.positions_w), col_end = range_end(j, mix.cells_w, mix.positions_w);
    float weight = 1.0f / (float)((row_end - row_start) * (col_end - col_start));
    x += image * cell_count(mix) * x_ld;
    y += row * y_ld;
    for (int col = lane * WIDTH; col < cols; col += 32 * WIDTH) {
        Pack<WIDTH> sum = {};
        for (int r = row_start; r < row_end; r++) {
            for (int c = col_start; c < col_end; c++) {
                Pack<WIDTH> at = load<WIDTH>(x + (size_t)(r * mix.cells_w + c) * x_ld + col);
#pragma unroll
                for (int k = 0; k < WIDTH; k++) sum.at[k] += weight * at.at[k];
            }
        }
        store<WIDTH>(y + col, sum);
    }
}

extern "C" __global__ void __launch_bounds__(256)
attention_mix_forward_f32(AttentionMix mix, const float* x, float* y, int batch, int cols, int x_ld, int y_ld) {
    mix_forward<1>(mix, x, y, batch, cols, x_ld, y_ld);
}

extern "C" __global__ void __launch_bounds__(256)
attention_mix_forward_f32x4(AttentionMix mix, const float* x, float* y, int batch, int cols, int x_ld, int y_ld) {
    mix_forward<4>(mix, x, y, batch, cols, x_ld, y_ld);
}

// dx_c = sum_p M_pc dy_p: a warp for each row of dx.
template <int WIDTH>
__device__ __forceinline__ void mix_backward(AttentionMix mix, const float* dy, float* dx, int batch, int cols,
                                             int dy_ld, int dx_ld, int accumulate) {
    int cells = cell_count(mix), lane = threadIdx.x % 32;
    long long row = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= (long long)batch * cells) return;
    size_t image = row / cells;
    int cell = row % cells, r = cell / mix.cells_w, c = cell % mix.cells_w;
    int row_start = range_start(r, mix.positions_h, mix.cells_h), row_end = range_end(r, mix.positions_h, mix.cells_h);
    int col_start = range_start(c, mix.positions_w, mix.cells_w), col_end = range_end(c, mix.positions_w, mix.cells_w);
    dy += image * position_count(mix) * dy_ld;
    dx += row * dx_ld;
    for (int col = lane * WIDTH; col < cols; col += 32 * WIDTH) {
        Pack<WIDTH> sum = {};
        if (accumulate) sum = load<WIDTH>(dx + col);
        for (int i = row_start; i < row_end; i++) {
            float row_share = range_share(i, mix.cells_h, mix.positions_h);
#pragma unroll 1
            for (int j = col_start; j < col_end; j++) {
                float weight = row_share * range_share(j, mix.cells_w, mix.positions_w);
                Pack<WIDTH> at = load<WIDTH>(dy + (size_t)(i * mix.positions_w + j) * dy_ld + col);
#pragma unroll
                for (int k = 0; k < WIDTH; k++) sum.at[k] += weight * at.at[k];
            }
        }
        store<WIDTH>(dx + col, sum);
    }
}

extern "C" __global__ void __launch_bounds__(256)
attention_mix_backward_f32(AttentionMix mix, const float* dy, float* dx, int batch, int cols, int dy_ld, int dx_ld,
                           int accumulate) {
    mix_backward<1>(mix, dy, dx, batch, cols, dy_ld, dx_ld, accumulate);
}

extern "C" __global__ void __launch_bounds__(256)
attention_mix_backward_f32x4(AttentionMix mix, const float* dy, float* dx, int batch, int cols, int dy_ld, int dx_ld,
                             int accumulate) {
    mix_backward<4>(mix, dy, dx, batch, cols, dy_ld, dx_ld, accumulate);
}

// The weights of the cells in the mean over the positions, sum_p M_pc / P, to shared memory, which also holds the shares.
__device__ __forceinline__ float* mean_weights(const AttentionMix& mix, float* shared) {
    int cells = cell_count(mix);
    float *weights = shared, *shares = shared + cells;
    set_shares(mix, shares);
    __syncthreads();
    for (int c = threadIdx.x; c < cells; c += blockDim.x) {
        weights[c] = cell_sum(mix, shares, nullptr, c) / (float)position_count(mix);
    }
    __syncthreads();
    return weights;
}

// mean (B, D) of values (B, C, D): a block for each slab of columns of an image.
template <int WIDTH>
__device__ __forceinline__ void mean_forward(AttentionMix mix, const float* values, float* mean, int d, int values_ld,
                                             int mean_ld) {
    extern __shared__ __align__(16) float shared[];
    const float* weights = mean_weights(mix, shared);
    size_t image = blockIdx.y;
    int cells = cell_count(mix);
    weighted_rows<WIDTH>(weights, values + image * cells * values_ld, cells, d, values_ld, mean + image * mean_ld);
}

extern "C" __global__ void __launch_bounds__(256)
attention_mean_forward_f32(AttentionMix mix, const float* values, float* mean, int d, int values_ld, int mean_ld) {
    mean_forward<1>(mix, values, mean, d, values_ld, mean_ld);
}

extern "C" __global__ void __launch_bounds__(256)
attention_mean_forward_f32x4(AttentionMix mix, const float* values, float* mean, int d, int values_ld, int mean_ld) {
    mean_forward<4>(mix, values, mean, d, values_ld, mean_ld);
}

// d_values from d_mean: a block for each slab of 128 packs of columns of an image; its halves take the even and odd cells.
template <int WIDTH>
__device__ __forceinline__ void mean_backward(AttentionMix mix, const float* d_mean, float* d_values, int d,
                                              int d_mean_ld, int d_values_ld, int accumulate) {
    extern __shared__ __align__(16) float shared[];
    const float* weights = mean_weights(mix, shared);
    size_t image = blockIdx.y;
    int cells = cell_count(mix), col = (blockIdx.x * 128 + threadIdx.x % 128) * WIDTH;
    if (col >= d) return;
    Pack<WIDTH> mean = load<WIDTH>(d_mean + image * d_mean_ld + col);
#pragma unroll 4
    for (int c = threadIdx.x / 128; c < cells; c += 2) {
        float* to = d_values + (image * cells + c) * d_values_ld + col;
        Pack<WIDTH> sum = {};
        if (accumulate) sum = load<WIDTH>(to);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) sum.at[k] += weights[c] * mean.at[k];
        store<WIDTH>(to, sum);
    }
}

extern "C" __global__ void __launch_bounds__(256)
attention_mean_backward_f32(AttentionMix mix, const float* d_mean, float* d_values, int d, int d_mean_ld,
                            int d_values_ld, int accumulate) {
    mean_backward<1>(mix, d_mean, d_values, d, d_mean_ld, d_values_ld, accumulate);
}

extern "C" __global__ void __launch_bounds__(256)
attention_mean_backward_f32x4(AttentionMix mix, const float* d_mean, float* d_values, int d, int d_mean_ld,
                              int d_values_ld, int accumulate) {
    mean_backward<4>(mix, d_mean, d_values, d, d_mean_ld, d_values_ld, accumulate);
}
