// Batch normalisation over the rows of x (rows x cols, a column for each channel): mean, variance and gradients are
// sums down the columns, all else is elementwise.
//
//     forward   mean = sum x / M, squares = sum (x - mean)^2, invstd = 1 / sqrt(squares / M + eps)
//               y = act((x - mean) * invstd * gamma + beta + residual)
//     backward  dbeta = sum dy, dgamma = sum dy * (x - mean) * invstd
//               dx = gamma * invstd * (dy - dbeta / M - (x - mean) * invstd * dgamma / M)
//
// Grid of all but the merges and the fold: a block takes `step` rows (blockIdx.x) of up to 32 groups of channels
// (blockIdx.y), one vector of channels for each of its first 2^log2_lanes threads, the next row for the next threads
// and so on: a warp reads runs of at least 128 bytes where there are so many channels.
//
// Column sums are on two levels, both in a fixed order: a thread's rows and then a tree over the block's threads in
// f32, then the blocks' results in f64. Variance is Welford's in a thread and Chan's between threads; the blocks'
// results have exact counts, so two sums over them give mean and squares without any cancellation.
//
// All is bound by memory. Batch mode: moments 1 read of x, merge, normalise 1 read and 1 write (and the residual's
// read); backward 2 reads, merge, 2 reads and 1 write. Running mode: one launch forward; backward has no sums in dx,
// so one pass over x and dy makes dx and the sums. 16 bytes per load, four rows in flight for each thread.
#include "vector.cuh"

constexpr float EPSILON = 1e-5f;

// How a launch walks the matrix.
struct BatchNormTask {
    int rows;
    int cols;
    // 2^log2_lanes threads side by side along a row.
    int log2_lanes;
    // Rows of a block.
    int step;
};

// What a thread takes: channels from `first`, rows `row`, `row + parts`, ... below `end`.
struct Place {
    bool inside;
    int first;
    int part;
    int parts;
    int row;
    int end;
};

template <class V>
__device__ __forceinline__ Place place(const BatchNormTask& task) {
    const int lane = threadIdx.x & ((1 << task.log2_lanes) - 1);
    Place at;
    at.first = ((blockIdx.y << task.log2_lanes) + lane) * V::WIDTH;
    at.inside = at.first < task.cols;
    at.part = threadIdx.x >> task.log2_lanes;
    at.parts = THREADS >> task.log2_lanes;
    const int start = blockIdx.x * task.step;
    at.row = start + at.part;
    at.end = min(start + task.step, task.rows);
    return at;
}

template <class V, class T = typename V::Element>
__device__ __forceinline__ void moments(const T* x, float* partial, int ldx, const BatchNormTask& task) {
    __shared__ float means[V::WIDTH][THREADS], squares[V::WIDTH][THREADS], counts[THREADS];
    const Place at = place<V>(task);
    Wide<V> mean = {}, square = {};
    float count = 0.0f;
    if (at.inside) {
#pragma unroll 4
        for (int row = at.row; row < at.end; row += at.parts) {
            Wide<V> value = load_wide<V>(x + (size_t)row * ldx + at.first);
            count += 1.0f;
            const float weight = 1.0f / count;
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) {
                const float difference = value[i] - mean[i];
                mean[i] += difference * weight;
                square[i] += difference * (value[i] - mean[i]);
            }
        }
    }
    const int self = threadIdx.x;
    for (int half = at.parts / 2; half > 0; half /= 2) {
        // Threads whose sums are merged into others at this level write them to shared memory.
        if (at.part >= half && at.part < 2 * half) {
            counts[self] = count;
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) {
                means[i][self] = mean[i];
                squares[i][self] = square[i];
            }
        }
        __syncthreads();
        if (at.part < half) {
            const int other = self + (half << task.log2_lanes);
            const float total = count + counts[other];
            // Without rows on either side there is nothing to merge.
            const float weight = total > 0.0f ? counts[other] / total : 0.0f;
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) {
                const float difference = means[i][other] - mean[i];
                mean[i] += difference * weight;
                square[i] += squares[i][other] + difference * difference * (count * weight);
            }
            count = total;
        }
    }
    if (!at.inside || at.part > 0) return;
    float* of_block = partial + (size_t)blockIdx.x * 2 * task.cols + at.first;
#pragma unroll
    for (int i = 0; i < V::WIDTH; ++i) {
        of_block[i] = mean[i];
        of_block[task.cols + i] = square[i];
    }
}

#define BATCH_NORM_MOMENTS(V)                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS)                                          \
        batch_norm_moments_##V(const V::Element* x, float* partial, int ldx, BatchNormTask task) { \
        moments<V>(x, partial, ldx, task);                                                         \
    }
BATCH_NORM_MOMENTS(f32x1)
BATCH_NORM_MOMENTS(f32x4)
BATCH_NORM_MOMENTS(bf16x1)
BATCH_NORM_MOMENTS(bf16x8)

// Merges take 8 channels per block, a sector of f32, and 32 threads for each.
constexpr int MERGED = 8;

// The sum over the threads of a channel, given to each of them. All threads of the block must arrive.
__device__ __forceinline__ double sum_of_channel(double value) {
    __shared__ double sums[THREADS];
    const int self = threadIdx.x;
    sums[self] = value;
    for (int half = THREADS / 2; half >= MERGED; half /= 2) {
        __syncthreads();
        if (self < half) sums[self] += sums[self + half];
    }
    __syncthreads();
    const double sum = sums[self % MERGED];
    // The next sum may write over what another thread still reads.
    __syncthreads();
    return sum;
}

// Mean and invstd from the moments of the blocks, and the update of the running statistics, if there are any. `per_row` is
// 1 / M, `per_other_row` 1 / (M - 1).
extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_merge_moments_f32(
    const float* partial, float* mean, float* invstd, float* running_mean, float* running_var, double momentum,
    double per_row, double per_other_row, int rows, int cols, int step) {
    const int channel = blockIdx.x * MERGED + threadIdx.x % MERGED;
    const bool inside = channel < cols;
    const int slices = inside ? (rows + step - 1) / step : 0;
    double sum = 0.0, squares = 0.0;
    for (int slice = threadIdx.x / MERGED; slice < slices; slice += THREADS / MERGED) {
        const int count = min(step, rows - slice * step);
        sum += count * (double)partial[(size_t)slice * 2 * cols + channel];
    }
    const double centre = sum_of_channel(sum) * per_row;
    for (int slice = threadIdx.x / MERGED; slice < slices; slice += THREADS / MERGED) {
        const float* of_slice = partial + (size_t)slice * 2 * cols + channel;
        const int count = min(step, rows - slice * step);
        const double difference = of_slice[0] - centre;
        squares += of_slice[cols] + count * difference * difference;
    }
    squares = sum_of_channel(squares);
    if (!inside || threadIdx.x >= MERGED) return;
    mean[channel] = (float)centre;
    invstd[channel] = (float)rsqrt(squares * per_row + (double)EPSILON);
    if (running_mean == nullptr) return;
    running_mean[channel] = (float)((1.0 - momentum) * running_mean[channel] + momentum * centre);
    running_var[channel] = (float)((1.0 - momentum) * running_var[channel] + momentum * (squares * per_other_row));
}

// y from x, mean and invstd; or, where `var` is not null, from the running mean and variance. Then the mean and the invstd that
// were used are written to `mean_to` and `invstd_to`.
template <class V, class T = typename V::Element>
__device__ __forceinline__ void normalise(
    const T* x, const T* residual, const float* gamma, const float* beta, const float* mean, const float* invstd,
    const float* var, float* mean_to, float* invstd_to, T* y, int ldx, int ldr, int ldy, int relu,
    const BatchNormTask& task) {
    const Place at = place<V>(task);
    if (!at.inside) return;
    Wide<V> centre, scale, offset;
#pragma unroll
    for (int i = 0; i < V::WIDTH; ++i) {
        const int channel = at.first + i;
        centre[i] = mean[channel];
        float inverse;
        if (var == nullptr) {
            inverse = invstd[channel];
        } else {
            inverse = rsqrtf(var[channel] + EPSILON);
            if (blockIdx.x == 0 && at.part == 0) {
                mean_to[channel] = centre[i];
                invstd_to[channel] = inverse;
            }
        }
        scale[i] = inverse * gamma[channel];
        offset[i] = beta[channel];
    }
#pragma unroll 2
    for (int row = at.row; row < at.end; row += at.parts) {
        Wide<V> value = load_wide<V>(x + (size_t)row * ldx + at.first);
#pragma unroll
        for (int i = 0; i < V::WIDTH; ++i) value[i] = (value[i] - centre[i]) * scale[i] + offset[i];
        if (residual != nullptr) {
            Wide<V> added = load_wide<V>(residual + (size_t)row * ldr + at.first);
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) value[i] += added[i];
        }
        if (relu) {
            // A NaN stays.
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) value[i] = value[i] < 0.0f ? 0.0f : value[i];
        }
        store_wide<V>(y + (size_t)row * ldy + at.first, value);
    }
}

#define BATCH_NORM_NORMALISE(V)                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_normalise_##V(                                  \
        const V::Element* x, const V::Element* residual, const float* gamma, const float* beta, const float* mean,   \
        const float* invstd, const float* var, float* mean_to, float* invstd_to, V::Element* y, int ldx, int ldr,    \
        int ldy, int relu, BatchNormTask task) {                                                                     \
        normalise<V>(x, residual, gamma, beta, mean, invstd, var, mean_to, invstd_to, y, ldx, ldr, ldy, relu, task); \
    }
BATCH_NORM_NORMALISE(f32x1)
BATCH_NORM_NORMALISE(f32x4)
BATCH_NORM_NORMALISE(bf16x1)
BATCH_NORM_NORMALISE(bf16x8)

// The sum over the threads that have the same channels, for those of the first row.
template <int WIDTH>
__device__ __forceinline__ void sum_parts(Vector<f32, WIDTH>& value, const Place& at, int log2_lanes) {
    __shared__ float values[WIDTH][THREADS];
    for (int half = at.parts / 2; half > 0; half /= 2) {
        if (at.part >= half && at.part < 2 * half) {
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) values[i][threadIdx.x] = value[i];
        }
        __syncthreads();
        if (at.part < half) {
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) value[i] += values[i][threadIdx.x + (half << log2_lanes)];
        }
    }
    // The next sum may write over what another thread still reads.
    __syncthreads();
}

// dy where the normalised x is positive, else 0: the gradient before a ReLU that follows, from the one behind it. The same terms
// as in `normalise`, so that no sign differs.
template <int N>
__device__ __forceinline__ void through_relu(
    Vector<f32, N>& dy, const Vector<f32, N>& x, const Vector<f32, N>& centre, const Vector<f32, N>& scale,
    const Vector<f32, N>& offset) {
#pragma unroll
    for (int i = 0; i < N; ++i) dy[i] = (x[i] - centre[i]) * scale[i] + offset[i] > 0.0f ? dy[i] : 0.0f;
}

// The blocks' sums of dy * (x - mean) * invstd and of dy. With dx also gamma * invstd * dy, which is dx where
// the statistics are constants. `beta` is null where no ReLU follows.
template <class V, class T = typename V::Element>
__device__ __forceinline__ void sums(
    const T* x, const T* dy, const float* gamma, const float* beta, const float* mean, const float* invstd, T* dx,
    float* partial, int ldx, int ldy, int ldd, const BatchNormTask& task) {
    const Place at = place<V>(task);
    Wide<V> d_gamma = {}, d_beta = {};
    Wide<V> centre, inverse;
    if (at.inside) {
        Wide<V> scale, offset = {};
#pragma unroll
        for (int i = 0; i < V::WIDTH; ++i) {
            centre[i] = mean[at.first + i];
            inverse[i] = invstd[at.first + i];
            scale[i] = gamma[at.first + i] * inverse[i];
            if (beta != nullptr) offset[i] = beta[at.first + i];
        }
#pragma unroll 4
        for (int row = at.row; row < at.end; row += at.parts) {
            Wide<V> value = load_wide<V>(x + (size_t)row * ldx + at.first);
            Wide<V> gradient = load_wide<V>(dy + (size_t)row * ldy + at.first);
            if (beta != nullptr) through_relu(gradient, value, centre, scale, offset);
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) {
                d_beta[i] += gradient[i];
                d_gamma[i] += gradient[i] * ((value[i] - centre[i]) * inverse[i]);
                gradient[i] *= scale[i];
            }
            if (dx != nullptr) store_wide<V>(dx + (size_t)row * ldd + at.first, gradient);
        }
    }
    sum_parts(d_gamma, at, task.log2_lanes);
    sum_parts(d_beta, at, task.log2_lanes);
    if (!at.inside || at.part > 0) return;
    float* of_block = partial + (size_t)blockIdx.x * 2 * task.cols + at.first;
#pragma unroll
    for (int i = 0; i < V::WIDTH; ++i) {
        of_block[i] = d_gamma[i];
        of_block[task.cols + i] = d_beta[i];
    }
}

#define BATCH_NORM_SUMS(V)                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_sums_##V(                                \
        const V::Element* x, const V::Element* dy, const float* gamma, const float* beta, const float* mean,  \
        const float* invstd, V::Element* dx, float* partial, int ldx, int ldy, int ldd, BatchNormTask task) { \
        sums<V>(x, dy, gamma, beta, mean, invstd, dx, partial, ldx, ldy, ldd, task);                          \
    }
BATCH_NORM_SUMS(f32x1)
BATCH_NORM_SUMS(f32x4)
BATCH_NORM_SUMS(bf16x1)
BATCH_NORM_SUMS(bf16x8)

// The gradients of gamma and beta from the sums of the blocks, and the two numbers per channel that dx takes from them:
// dx = gamma * invstd * (dy - shift - (x - mean) * slope). What is null is not written.
extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_merge_sums_f32(
    const float* partial, const float* invstd, float* d_gamma, float* d_beta, float* shift, float* slope,
    int accumulate, double per_row, int rows, int cols, int step) {
    const int channel = blockIdx.x * MERGED + threadIdx.x % MERGED;
    const bool inside = channel < cols;
    const int slices = inside ? (rows + step - 1) / step : 0;
    double of_gamma = 0.0, of_beta = 0.0;
    for (int slice = threadIdx.x / MERGED; slice < slices; slice += THREADS / MERGED) {
        const float* of_slice = partial + (size_t)slice * 2 * cols + channel;
        of_gamma += of_slice[0];
        of_beta += of_slice[cols];
    }
    of_gamma = sum_of_channel(of_gamma);
    of_beta = sum_of_channel(of_beta);
    if (!inside || threadIdx.x >= MERGED) return;
    if (d_gamma != nullptr) d_gamma[channel] = (accumulate ? d_gamma[channel] : 0.0f) + (float)of_gamma;
    if (d_beta != nullptr) d_beta[channel] = (accumulate ? d_beta[channel] : 0.0f) + (float)of_beta;
    if (shift == nullptr) return;
    shift[channel] = (float)(of_beta * per_row);
    slope[channel] = (float)(of_gamma * per_row * invstd[channel]);
}

// dx of batch mode. `beta` is null where no ReLU follows.
template <class V, class T = typename V::Element>
__device__ __forceinline__ void gradient(
    const T* x, const T* dy, const float* gamma, const float* beta, const float* mean, const float* invstd,
    const float* shift, const float* slope, T* dx, int ldx, int ldy, int ldd, const BatchNormTask& task) {
    const Place at = place<V>(task);
    if (!at.inside) return;
    Wide<V> centre, scale, offset = {}, constant, factor;
#pragma unroll
    for (int i = 0; i < V::WIDTH; ++i) {
        const int channel = at.first + i;
        centre[i] = mean[channel];
        scale[i] = gamma[channel] * invstd[channel];
        if (beta != nullptr) offset[i] = beta[channel];
        constant[i] = shift[channel];
        factor[i] = slope[channel];
    }
#pragma unroll 4
    for (int row = at.row; row < at.end; row += at.parts) {
        Wide<V> value = load_wide<V>(x + (size_t)row * ldx + at.first);
        Wide<V> from = load_wide<V>(dy + (size_t)row * ldy + at.first);
        if (beta != nullptr) through_relu(from, value, centre, scale, offset);
#pragma unroll
        for (int i = 0; i < V::WIDTH; ++i)
            from[i] = scale[i] * (from[i] - constant[i] - (value[i] - centre[i]) * factor[i]);
        store_wide<V>(dx + (size_t)row * ldd + at.first, from);
    }
}

#define BATCH_NORM_GRADIENT(V)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_gradient_##V(                              \
        const V::Element* x, const V::Element* dy, const float* gamma, const float* beta, const float* mean,    \
        const float* invstd, const float* shift, const float* slope, V::Element* dx, int ldx, int ldy, int ldd, \
        BatchNormTask task) {                                                                                   \
        gradient<V>(x, dy, gamma, beta, mean, invstd, shift, slope, dx, ldx, ldy, ldd, task);                   \
    }
BATCH_NORM_GRADIENT(f32x1)
BATCH_NORM_GRADIENT(f32x4)
BATCH_NORM_GRADIENT(bf16x1)
BATCH_NORM_GRADIENT(bf16x8)

// Elements of a filter that a block folds.
constexpr int FOLDED = 1024;

// Filter k times gamma_k * invstd_k, and the bias that remains of the normalisation. Grid: filters along x,
// FOLDED of their elements along y. It runs once per load, so f64 costs nothing, and it gives the numbers of the CPU.
template <class T>
__device__ __forceinline__ void fold(
    const float* filter, const float* gamma, const float* beta, const float* mean, const float* var, T* folded,
    float* bias, int ldf, int ldt, int cols) {
    const int k = blockIdx.x;
    const double scale = gamma[k] * (1.0 / sqrt(var[k] + (double)EPSILON));
    if (blockIdx.y == 0 && threadIdx.x == 0) bias[k] = (float)(beta[k] - mean[k] * scale);
    const int end = min(cols, (int)(blockIdx.y + 1) * FOLDED);
    for (int col = blockIdx.y * FOLDED + threadIdx.x; col < end; col += THREADS)
        narrow(filter[(size_t)k * ldf + col] * (float)scale, folded[(size_t)k * ldt + col]);
}

#define BATCH_NORM_FOLD(T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_fold_##T(                                      \
        const float* filter, const float* gamma, const float* beta, const float* mean, const float* var, T* folded, \
        float* bias, int ldf, int ldt, int cols) {                                                                  \
        fold(filter, gamma, beta, mean, var, folded, bias, ldf, ldt, cols);                                         \
    }
BATCH_NORM_FOLD(f32)
BATCH_NORM_FOLD(bf16)
