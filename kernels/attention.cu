// Additive attention over P positions that are fixed means of C cells (src/ops/attention/mod.rs has the equations).
//
// Sizes of the model: B = 32 images, P = 196, C = 64, A = 256, D = 2048, T = 24 steps. Keys and values are what is read in every
// step, and the only tensors that may be bf16, with what is made of them for a product (the mean, d q, the cells' gradient); all
// sums, and what they are made of beside those two, are f32. The figures below are of f32; bf16 has half of the bytes.
//
// attention_forward: scores, softmax, weights of the cells and context in one launch.
//   Mapping: S blocks of 256 threads for each image; a block takes every S-th slab of 128 vectors of columns of the
//   values. A warp takes the keys of four positions at a time, lanes along A, eight 16-byte loads in flight per
//   lane; the query and the weight are in shared memory. Every warp reduces the P scores of shared memory by itself, so
//   that the softmax costs two barriers. A thread per cell gathers its positions: M is separable, and the positions of
//   a cell are a rectangle. Then each half of the block sums half of the cells for its columns, eight loads in
//   flight, and the halves meet in shared memory.
//   Bytes: keys B P A 4 = 6.4 MB and values B C D 4 = 16.8 MB, each element read once with S = 1. With S blocks per image
//   keys are read S times, all but once from L2: the price of having the scores in each block without a
//   second launch. Flops: 1.6 M multiply-adds per step and image. Bound: with one block per image, 725 KB at the 64 bytes
//   per cycle that an SM takes from L2 are 11,300 cycles; S = 2 (64 blocks) 7,100; S = 4 (128 blocks, H100) 5,100. The
//   host takes the largest S that leaves one block per SM; from B = 67 on (A100), S = 1 and every byte is read once.
//   Measured on an H100, S = 4: 19.1 µs, 25 MB of memory and 37 MB through L2. Tried: asking L2 for keys and values at the start
//   (prefetch.global.L2): 19.5 µs and 60 MB.
//
// attention_cells_backward, then attention_scores_backward: the backward of a step in two launches, as the softmax needs
//   all of d beta, and reading 16.8 MB needs the whole chip and not one block per image.
//   The first: d beta_c = d context . f_c, a warp for every two cells of an image (128 blocks), d context in shared memory.
//   Values are read once: 16.8 MB, one FFMA for 4 bytes. Bound: L2 bandwidth.
//   The second: a block for each (image, 64 columns of A): d alpha = M d beta + d alpha', the softmax's backward (each block
//   its own, P numbers), then d q over all positions. Keys once: 6.4 MB. Writes d q and the scores' gradients.
//
// attention_keys_backward, once after the loop: dk_pa = w_a sum_t de_tp [k_pa + q_ta > 0], and of each block the sums
//   of dw_a and db. A thread holds 4 positions x WIDTH columns and walks over the steps; keys are read
//   once and dk written once (12.8 MB), where adding up in the loop would move 12.8 MB per step.
//   attention_partials_sum adds the blocks' sums up, in order.
//
// attention_values_backward, once after the loop: df_c = sum_t beta_tc d context_t; a thread holds 8 cells x WIDTH
//   columns. d context is read C / 8 times (from L2), d values written once.
//
// The mix, its transpose and the mean are memory-bound: a warp for each row written; for the mean a block for each slab.
//
// Sums have a fixed order: no atomics, the same bits every run. All kernels are instantiated for vectors of columns, 16 bytes where
// they only stream, and for one.
#include "attention_backward.cuh"

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

// scores_p = w . relu(k_p + q), to shared memory; `query` and `weight` are there too. Eight vectors of keys per lane are loaded
// before any is used: of eight positions where a warp's lanes take 256 columns at once, else two of each of four.
template <class V>
__device__ __forceinline__ void score_positions(
    const typename V::Element* keys, int positions, const AttentionStep& at, const float* query, const float* weight,
    float bias, float* scores) {
    constexpr int PARTS = V::WIDTH == 8 ? 1 : 2, AT_ONCE = 8 / PARTS;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int first = warp; first < positions; first += AT_ONCE * WARPS) {
        float sums[AT_ONCE] = {};
        for (int start = lane * V::WIDTH; start < at.a; start += 32 * PARTS * V::WIDTH) {
            V keys_at[PARTS][AT_ONCE] = {};
#pragma unroll
            for (int part = 0; part < PARTS; ++part) {
                int col = start + part * 32 * V::WIDTH;
#pragma unroll
                for (int i = 0; i < AT_ONCE; ++i) {
                    int position = first + i * WARPS;
                    const auto* from = keys + (size_t)position * at.keys_ld + col;
                    if (position < positions && col < at.a) keys_at[part][i] = load<V>(from);
                }
            }
#pragma unroll
            for (int part = 0; part < PARTS; ++part) {
                int col = start + part * 32 * V::WIDTH;
                if (col >= at.a) continue;
                const Wide<V> q = load_f32<V::WIDTH>(query + col), w = load_f32<V::WIDTH>(weight + col);
#pragma unroll
                for (int i = 0; i < AT_ONCE; ++i) {
#pragma unroll
                    for (int k = 0; k < V::WIDTH; ++k) sums[i] += w[k] * relu(widen(keys_at[part][i][k]) + q[k]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            float score = reduce_warp(sums[i], Sum());
            int position = first + i * WARPS;
            if (lane == i && position < positions) scores[position] = score + bias;
        }
    }
}

// Room for a query: whole vectors.
__host__ __device__ constexpr int query_room(int a) { return (a + 3) / 4 * 4; }

// Query and weight, scores (P), beta (C), shares.
__host__ __device__ constexpr int forward_shared_bytes(int a, int positions, int cells, int shares) {
    return (2 * query_room(a) + positions + cells + shares) * sizeof(float);
}

template <class V>
__device__ __forceinline__ void attention_forward(
    AttentionMix mix, AttentionStep at, const typename V::Element* keys, const typename V::Element* values,
    const float* weight, const float* bias, const float* query, float* alpha, float* beta, float* context) {
    extern __shared__ __align__(16) float shared[];
    int room = query_room(at.a), positions = position_count(mix), cells = cell_count(mix);
    float *q = shared, *w = q + room, *scores = w + room, *weights = scores + positions, *shares = weights + cells;
    size_t image = blockIdx.y;
    bool writes = blockIdx.x == 0;
    for (int i = threadIdx.x; i < at.a; i += THREADS) {
        q[i] = query[image * at.query_ld + i];
        w[i] = weight[i];
    }
    set_shares(mix, shares);
    __syncthreads();
    score_positions<V>(keys + image * positions * at.keys_ld, positions, at, q, w, bias[0], scores);
    __syncthreads();

    int lane = threadIdx.x % WARP;
    // It ignores a NaN, which the sum does not.
    float largest = -INFINITY;
    for (int p = lane; p < positions; p += 32) largest = Max()(largest, scores[p]);
    largest = reduce_warp(largest, Max());
    float total = 0.0f;
    for (int p = lane; p < positions; p += 32) total += expf(scores[p] - largest);
    float scale = 1.0f / reduce_warp(total, Sum());
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
    weighted_rows<V>(
        weights, values + image * cells * at.values_ld, cells, at.d, at.values_ld, context + image * at.context_ld);
}

#define ATTENTION_FORWARD(V)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_forward_##V(                                   \
        AttentionMix mix, AttentionStep at, const V::Element* keys, const V::Element* values, const float* weight, \
        const float* bias, const float* query, float* alpha, float* beta, float* context) {                        \
        attention_forward<V>(mix, at, keys, values, weight, bias, query, alpha, beta, context);                    \
    }
ATTENTION_FORWARD(f32x1)
ATTENTION_FORWARD(f32x4)
ATTENTION_FORWARD(bf16x1)
ATTENTION_FORWARD(bf16x8)

#define ATTENTION_CELLS_BACKWARD(V)                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_cells_backward_##V(                   \
        const V::Element* values, const float* d_context, float* d_beta, int cells, int d, int values_ld, \
        int d_context_ld) {                                                                               \
        cells_backward<V>(values, d_context, d_beta, cells, d, values_ld, d_context_ld);                  \
    }
ATTENTION_CELLS_BACKWARD(f32x1)
ATTENTION_CELLS_BACKWARD(f32x4)
ATTENTION_CELLS_BACKWARD(bf16x1)
ATTENTION_CELLS_BACKWARD(bf16x8)

#define ATTENTION_SCORES_BACKWARD(V)                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) attention_scores_backward_##V(                    \
        AttentionMix mix, AttentionScores at, const V::Element* keys, const float* weight, const float* query, \
        const float* alpha, const float* d_beta, const float* d_alpha, V::Element* d_query, float* d_scores) { \
        scores_backward<V>(mix, at, keys, weight, query, alpha, d_beta, d_alpha, d_query, d_scores);           \
    }
ATTENTION_SCORES_BACKWARD(f32x1)
ATTENTION_SCORES_BACKWARD(f32x4)
ATTENTION_SCORES_BACKWARD(bf16x1)
ATTENTION_SCORES_BACKWARD(bf16x8)

#define ATTENTION_KEYS_BACKWARD(V)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_keys_backward_##V(                              \
        AttentionKeys at, const V::Element* keys, const float* weight, const float* queries, const float* d_scores, \
        float* d_keys, float* partials) {                                                                           \
        keys_backward<V>(at, keys, weight, queries, d_scores, d_keys, partials);                                    \
    }
ATTENTION_KEYS_BACKWARD(f32x1)
ATTENTION_KEYS_BACKWARD(f32x4)
ATTENTION_KEYS_BACKWARD(bf16x1)
ATTENTION_KEYS_BACKWARD(bf16x4)

// d_weight (A) and d_bias (1) from the partial sums (rows, A + 1). A block takes PARTIAL_COLUMNS columns; each warp takes every
// 8th row, and the sums of the warps are added up in order.
constexpr int PARTIAL_COLUMNS = WARP;

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_partials_sum_f32(const float* partials, float* d_weight, float* d_bias, int rows, int a, int accumulate) {
    __shared__ float sums[WARPS][PARTIAL_COLUMNS];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int col = blockIdx.x * PARTIAL_COLUMNS + lane;
    float sum = 0.0f;
    if (col <= a) {
#pragma unroll 4
        for (int row = warp; row < rows; row += WARPS) sum += partials[(size_t)row * (a + 1) + col];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || col > a) return;
    for (int other = 1; other < WARPS; ++other) sum += sums[other][lane];
    float* to = col < a ? d_weight + col : d_bias;
    *to = accumulate ? *to + sum : sum;
}

#define ATTENTION_VALUES_BACKWARD(V)                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_values_backward_##V(  \
        AttentionValues at, const float* beta, const float* d_context, float* d_values) { \
        values_backward<V>(at, beta, d_context, d_values);                                \
    }
ATTENTION_VALUES_BACKWARD(f32x1)
ATTENTION_VALUES_BACKWARD(f32x4)

// y_p = sum_c M_pc x_c: a warp for each row of y, of which V is.
template <class V>
__device__ __forceinline__ void mix_forward(
    AttentionMix mix, const float* x, typename V::Element* y, int batch, int cols, int x_ld, int y_ld) {
    int positions = position_count(mix), lane = threadIdx.x % WARP;
    long long row = (long long)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (row >= (long long)batch * positions) return;
    size_t image = row / positions;
    int position = row % positions, i = position / mix.positions_w, j = position % mix.positions_w;
    int row_start = range_start(i, mix.cells_h, mix.positions_h), row_end = range_end(i, mix.cells_h, mix.positions_h);
    int col_start = range_start(j, mix.cells_w, mix.positions_w), col_end = range_end(j, mix.cells_w, mix.positions_w);
    float weight = 1.0f / (float)((row_end - row_start) * (col_end - col_start));
    x += image * cell_count(mix) * x_ld;
    y += row * y_ld;
    for (int col = lane * V::WIDTH; col < cols; col += 32 * V::WIDTH) {
        Wide<V> sum = {};
        for (int r = row_start; r < row_end; ++r) {
            for (int c = col_start; c < col_end; ++c) {
                const Wide<V> at = load<Wide<V>>(x + (size_t)(r * mix.cells_w + c) * x_ld + col);
#pragma unroll
                for (int k = 0; k < V::WIDTH; ++k) sum[k] += weight * at[k];
            }
        }
        store_as(y + col, sum);
    }
}

#define ATTENTION_MIX_FORWARD(V)                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_mix_forward_##V(                \
        AttentionMix mix, const float* x, V::Element* y, int batch, int cols, int x_ld, int y_ld) { \
        mix_forward<V>(mix, x, y, batch, cols, x_ld, y_ld);                                         \
    }
ATTENTION_MIX_FORWARD(f32x1)
ATTENTION_MIX_FORWARD(f32x4)
ATTENTION_MIX_FORWARD(bf16x1)
ATTENTION_MIX_FORWARD(bf16x4)

// dx_c = sum_p M_pc dy_p: a warp for each row of dx, of which V is.
template <class V>
__device__ __forceinline__ void mix_backward(
    AttentionMix mix, const float* dy, typename V::Element* dx, int batch, int cols, int dy_ld, int dx_ld,
    int accumulate) {
    int cells = cell_count(mix), lane = threadIdx.x % WARP;
    long long row = (long long)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (row >= (long long)batch * cells) return;
    size_t image = row / cells;
    int cell = row % cells, r = cell / mix.cells_w, c = cell % mix.cells_w;
    int row_start = range_start(r, mix.positions_h, mix.cells_h), row_end = range_end(r, mix.positions_h, mix.cells_h);
    int col_start = range_start(c, mix.positions_w, mix.cells_w), col_end = range_end(c, mix.positions_w, mix.cells_w);
    dy += image * position_count(mix) * dy_ld;
    dx += row * dx_ld;
    for (int col = lane * V::WIDTH; col < cols; col += 32 * V::WIDTH) {
        Wide<V> sum = {};
        if (accumulate) sum = load_wide<V>(dx + col);
        for (int i = row_start; i < row_end; ++i) {
            float row_share = range_share(i, mix.cells_h, mix.positions_h);
#pragma unroll 1
            for (int j = col_start; j < col_end; ++j) {
                float weight = row_share * range_share(j, mix.cells_w, mix.positions_w);
                const Wide<V> at = load<Wide<V>>(dy + (size_t)(i * mix.positions_w + j) * dy_ld + col);
#pragma unroll
                for (int k = 0; k < V::WIDTH; ++k) sum[k] += weight * at[k];
            }
        }
        store_as(dx + col, sum);
    }
}

#define ATTENTION_MIX_BACKWARD(V)                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_mix_backward_##V(                 \
        AttentionMix mix, const float* dy, V::Element* dx, int batch, int cols, int dy_ld, int dx_ld, \
        int accumulate) {                                                                             \
        mix_backward<V>(mix, dy, dx, batch, cols, dy_ld, dx_ld, accumulate);                          \
    }
ATTENTION_MIX_BACKWARD(f32x1)
ATTENTION_MIX_BACKWARD(f32x4)
ATTENTION_MIX_BACKWARD(bf16x1)
ATTENTION_MIX_BACKWARD(bf16x4)

__host__ __device__ constexpr int mean_shared_bytes(int cells, int shares) { return (cells + shares) * sizeof(float); }

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
template <class V>
__device__ __forceinline__ void mean_forward(
    AttentionMix mix, const typename V::Element* values, typename V::Element* mean, int d, int values_ld, int mean_ld) {
    extern __shared__ __align__(16) float shared[];
    const float* weights = mean_weights(mix, shared);
    size_t image = blockIdx.y;
    int cells = cell_count(mix);
    weighted_rows<V>(weights, values + image * cells * values_ld, cells, d, values_ld, mean + image * mean_ld);
}

#define ATTENTION_MEAN_FORWARD(V)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_mean_forward_##V(                      \
        AttentionMix mix, const V::Element* values, V::Element* mean, int d, int values_ld, int mean_ld) { \
        mean_forward<V>(mix, values, mean, d, values_ld, mean_ld);                                         \
    }
ATTENTION_MEAN_FORWARD(f32x1)
ATTENTION_MEAN_FORWARD(f32x4)
ATTENTION_MEAN_FORWARD(bf16x1)
ATTENTION_MEAN_FORWARD(bf16x8)

// d_values from d_mean: a block for each slab of 128 vectors of columns of an image; its halves take the even and odd cells.
template <class V>
__device__ __forceinline__ void mean_backward(
    AttentionMix mix, const float* d_mean, float* d_values, int d, int d_mean_ld, int d_values_ld, int accumulate) {
    extern __shared__ __align__(16) float shared[];
    const float* weights = mean_weights(mix, shared);
    size_t image = blockIdx.y;
    int cells = cell_count(mix), col = (blockIdx.x * SLAB_VECTORS + threadIdx.x % SLAB_VECTORS) * V::WIDTH;
    if (col >= d) return;
    V mean = load<V>(d_mean + image * d_mean_ld + col);
#pragma unroll 4
    for (int c = threadIdx.x / SLAB_VECTORS; c < cells; c += 2) {
        float* to = d_values + (image * cells + c) * d_values_ld + col;
        V sum = {};
        if (accumulate) sum = load<V>(to);
#pragma unroll
        for (int k = 0; k < V::WIDTH; ++k) sum[k] += weights[c] * mean[k];
        store<V>(to, sum);
    }
}

#define ATTENTION_MEAN_BACKWARD(V)                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_mean_backward_##V(                 \
        AttentionMix mix, const float* d_mean, float* d_values, int d, int d_mean_ld, int d_values_ld, \
        int accumulate) {                                                                              \
        mean_backward<V>(mix, d_mean, d_values, d, d_mean_ld, d_values_ld, accumulate);                \
    }
ATTENTION_MEAN_BACKWARD(f32x1)
ATTENTION_MEAN_BACKWARD(f32x4)
