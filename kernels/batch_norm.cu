// Batch normalisation over the rows of x (rows x cols, a column for each channel): mean, variance and gradients are
// sums down the columns, all else is elementwise.
//
//     forward   mean = sum x / M, squares = sum (x - mean)^2, invstd = 1 / sqrt(squares / M + eps)
//               y = act((x - mean) * invstd * gamma + beta + residual)
//     backward  dbeta = sum dy, dgamma = sum dy * (x - mean) * invstd
//               dx = gamma * invstd * (dy - dbeta / M - (x - mean) * invstd * dgamma / M)
//
// Grid of all but the merges and the fold: a block takes `step` rows (blockIdx.x) of up to 32 groups of channels
// (blockIdx.y), one group of WIDTH channels for each of its first 2^lanes threads, the next row for the next threads
// and so on: a warp reads runs of at least 128 bytes where there are so many channels.
//
// Column sums are on two levels, both in a fixed order: a thread's rows and then a tree over the block's threads in
// f32, then the blocks' results in f64. Variance is Welford's in a thread and Chan's between threads; the blocks'
// results have exact counts, so two sums over them give mean and squares without any cancellation.
//
// All is bound by memory. Batch mode: moments 1 read of x, merge, normalise 1 read and 1 write (and the residual's
// read); backward 2 reads, merge, 2 reads and 1 write. Running mode: one launch forward; backward has no sums in dx,
// so one pass over x and dy makes dx and the sums. 16 bytes a load, four rows in flight for each thread.
#include "channels.cuh"

constexpr int THREADS = 256;
constexpr float EPSILON = 1e-5f;

/// How a launch walks the matrix.
struct BatchNormTask {
    int rows;
    int cols;
    /// Whether threads take 16 bytes of a row, or one channel.
    int wide;
    /// 2^lanes threads side by side along a row.
    int lanes;
    /// Rows of a block.
    int step;
};

/// What a thread takes: channels from `first`, rows `row`, `row + parts`, ... below `end`.
struct Place {
    bool inside;
    int first;
    int part;
    int parts;
    int row;
    int end;
};

template <int WIDTH>
__device__ inline Place place(const BatchNormTask& task) {
    const int lane = threadIdx.x & ((1 << task.lanes) - 1);
    Place at;
    at.first = ((blockIdx.y << task.lanes) + lane) * WIDTH;
    at.inside = at.first < task.cols;
    at.part = threadIdx.x >> task.lanes;
    at.parts = THREADS >> task.lanes;
    const int start = blockIdx.x * task.step;
    at.row = start + at.part;
    at.end = min(start + task.step, task.rows);
    return at;
}

template <typename T, int WIDTH>
__device__ void moments(const T* x, float* partial, int ldx, const BatchNormTask& task) {
    __shared__ float means[WIDTH][THREADS], squares[WIDTH][THREADS], counts[THREADS];
    const Place at = place<WIDTH>(task);
    float mean[WIDTH] = {}, square[WIDTH] = {}, count = 0.0f;
    if (at.inside) {
#pragma unroll 4
        for (int row = at.row; row < at.end; row += at.parts) {
            float value[WIDTH];
            load_channels(x + (size_t)row * ldx + at.first, value);
            count += 1.0f;
            const float weight = 1.0f / count;
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) {
                const float difference = value[i] - mean[i];
                mean[i] += difference * weight;
                square[i] += difference * (value[i] - mean[i]);
            }
        }
    }
    const int self = threadIdx.x;
    for (int half = at.parts / 2; half > 0; half /= 2) {
        // Those that are merged into others at this level tell what they have.
        if (at.part >= half && at.part < 2 * half) {
            counts[self] = count;
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) {
                means[i][self] = mean[i];
                squares[i][self] = square[i];
            }
        }
        __syncthreads();
        if (at.part < half) {
            const int other = self + (half << task.lanes);
            const float total = count + counts[other];
            // Without rows on either side there is nothing to merge.
            const float weight = total > 0.0f ? counts[other] / total : 0.0f;
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) {
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
    for (int i = 0; i < WIDTH; ++i) {
        of_block[i] = mean[i];
        of_block[task.cols + i] = square[i];
    }
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_moments_f32(const float* x, float* partial, int ldx, BatchNormTask task) {
    if (task.wide) moments<float, WIDE<float>>(x, partial, ldx, task);
    else moments<float, 1>(x, partial, ldx, task);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_moments_bf16(const __nv_bfloat16* x, float* partial, int ldx, BatchNormTask task) {
    if (task.wide) moments<__nv_bfloat16, WIDE<__nv_bfloat16>>(x, partial, ldx, task);
    else moments<__nv_bfloat16, 1>(x, partial, ldx, task);
}

/// Merges take 8 channels a block, a sector of f32, and 32 threads for each.
constexpr int MERGED = 8;

/// The sum over the threads of a channel, given to each of them. All threads of the block must arrive.
__device__ inline double sum_of_channel(double value) {
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

/// The blocks' moments to mean and invstd; running statistics, if there are any, follow. `per_row` is 1 / M,
/// `per_other_row` 1 / (M - 1).
extern "C" __global__ void __launch_bounds__(256) batch_norm_merge_moments_f32(const float* partial, float* mean, float* invstd, float* running_mean, float* running_var, double momentum, double per_row, double per_other_row, int rows, int cols, int step) {
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

/// y from x and statistics: `spread` is invstd, or the running variance where `mean_to` and `invstd_to` take
/// what normalised.
template <typename T, int WIDTH>
__device__ void normalise(const T* x, const T* residual, const float* gamma, const float* beta, const float* mean, const float* spread, float* mean_to, float* invstd_to, T* y, int ldx, int ldr, int ldy, int relu, const BatchNormTask& task) {
    const Place at = place<WIDTH>(task);
    if (!at.inside) return;
    float centre[WIDTH], scale[WIDTH], offset[WIDTH];
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) {
        const int channel = at.first + i;
        centre[i] = mean[channel];
        float inverse = spread[channel];
        if (invstd_to != nullptr) {
            inverse = rsqrtf(inverse + EPSILON);
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
        float value[WIDTH];
        load_channels(x + (size_t)row * ldx + at.first, value);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) value[i] = (value[i] - centre[i]) * scale[i] + offset[i];
        if (residual != nullptr) {
            float added[WIDTH];
            load_channels(residual + (size_t)row * ldr + at.first, added);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) value[i] += added[i];
        }
        if (relu) {
            // A NaN stays.
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) value[i] = value[i] < 0.0f ? 0.0f : value[i];
        }
        store_channels(y + (size_t)row * ldy + at.first, value);
    }
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_normalise_f32(const float* x, const float* residual, const float* gamma, const float* beta, const float* mean, const float* spread, float* mean_to, float* invstd_to, float* y, int ldx, int ldr, int ldy, int relu, BatchNormTask task) {
    if (task.wide) normalise<float, WIDE<float>>(x, residual, gamma, beta, mean, spread, mean_to, invstd_to, y, ldx, ldr, ldy, relu, task);
    else normalise<float, 1>(x, residual, gamma, beta, mean, spread, mean_to, invstd_to, y, ldx, ldr, ldy, relu, task);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_normalise_bf16(const __nv_bfloat16* x, const __nv_bfloat16* residual, const float* gamma, const float* beta, const float* mean, const float* spread, float* mean_to, float* invstd_to, __nv_bfloat16* y, int ldx, int ldr, int ldy, int relu, BatchNormTask task) {
    if (task.wide) normalise<__nv_bfloat16, WIDE<__nv_bfloat16>>(x, residual, gamma, beta, mean, spread, mean_to, invstd_to, y, ldx, ldr, ldy, relu, task);
    else normalise<__nv_bfloat16, 1>(x, residual, gamma, beta, mean, spread, mean_to, invstd_to, y, ldx, ldr, ldy, relu, task);
}

/// The sum over the threads that have the same channels, for those of the first row.
template <int WIDTH>
__device__ inline void sum_parts(float (&value)[WIDTH], const Place& at, int lanes) {
    __shared__ float values[WIDTH][THREADS];
    for (int half = at.parts / 2; half > 0; half /= 2) {
        if (at.part >= half && at.part < 2 * half) {
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) values[i][threadIdx.x] = value[i];
        }
        __syncthreads();
        if (at.part < half) {
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) value[i] += values[i][threadIdx.x + (half << lanes)];
        }
    }
    // The next sum may write over what another thread still reads.
    __syncthreads();
}

/// The blocks' sums of dy * (x - mean) * invstd and of dy. With dx also gamma * invstd * dy, which is dx where
/// the statistics are constants.
template <typename T, int WIDTH>
__device__ void sums(const T* x, const T* dy, const float* gamma, const float* mean, const float* invstd, T* dx, float* partial, int ldx, int ldy, int ldd, const BatchNormTask& task) {
    const Place at = place<WIDTH>(task);
    float d_gamma[WIDTH] = {}, d_beta[WIDTH] = {};
    float centre[WIDTH], inverse[WIDTH];
    if (at.inside) {
        float scale[WIDTH];
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) {
            centre[i] = mean[at.first + i];
            inverse[i] = invstd[at.first + i];
            scale[i] = gamma[at.first + i] * inverse[i];
        }
#pragma unroll 4
        for (int row = at.row; row < at.end; row += at.parts) {
            float value[WIDTH], gradient[WIDTH];
            load_channels(x + (size_t)row * ldx + at.first, value);
            load_channels(dy + (size_t)row * ldy + at.first, gradient);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) {
                d_beta[i] += gradient[i];
                d_gamma[i] += gradient[i] * ((value[i] - centre[i]) * inverse[i]);
                gradient[i] *= scale[i];
            }
            if (dx != nullptr) store_channels(dx + (size_t)row * ldd + at.first, gradient);
        }
    }
    sum_parts(d_gamma, at, task.lanes);
    sum_parts(d_beta, at, task.lanes);
    if (!at.inside || at.part > 0) return;
    float* of_block = partial + (size_t)blockIdx.x * 2 * task.cols + at.first;
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) {
        of_block[i] = d_gamma[i];
        of_block[task.cols + i] = d_beta[i];
    }
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums_f32(const float* x, const float* dy, const float* gamma, const float* mean, const float* invstd, float* dx, float* partial, int ldx, int ldy, int ldd, BatchNormTask task) {
    if (task.wide) sums<float, WIDE<float>>(x, dy, gamma, mean, invstd, dx, partial, ldx, ldy, ldd, task);
    else sums<float, 1>(x, dy, gamma, mean, invstd, dx, partial, ldx, ldy, ldd, task);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums_bf16(const __nv_bfloat16* x, const __nv_bfloat16* dy, const float* gamma, const float* mean, const float* invstd, __nv_bfloat16* dx, float* partial, int ldx, int ldy, int ldd, BatchNormTask task) {
    if (task.wide) sums<__nv_bfloat16, WIDE<__nv_bfloat16>>(x, dy, gamma, mean, invstd, dx, partial, ldx, ldy, ldd, task);
    else sums<__nv_bfloat16, 1>(x, dy, gamma, mean, invstd, dx, partial, ldx, ldy, ldd, task);
}

/// The blocks' sums to the gradients of gamma and beta, and to what dx takes from them:
/// dx = gamma * invstd * (dy - shift - (x - mean) * slope). What is null is not written.
extern "C" __global__ void __launch_bounds__(256) batch_norm_merge_sums_f32(const float* partial, const float* invstd, float* d_gamma, float* d_beta, float* shift, float* slope, int accumulate, double per_row, int rows, int cols, int step) {
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

/// dx of batch mode.
template <typename T, int WIDTH>
__device__ void gradient(const T* x, const T* dy, const float* gamma, const float* mean, const float* invstd, const float* shift, const float* slope, T* dx, int ldx, int ldy, int ldd, const BatchNormTask& task) {
    const Place at = place<WIDTH>(task);
    if (!at.inside) return;
    float centre[WIDTH], scale[WIDTH], constant[WIDTH], factor[WIDTH];
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) {
        const int channel = at.first + i;
        centre[i] = mean[channel];
        scale[i] = gamma[channel] * invstd[channel];
        constant[i] = shift[channel];
        factor[i] = slope[channel];
    }
#pragma unroll 4
    for (int row = at.row; row < at.end; row += at.parts) {
        float value[WIDTH], from[WIDTH];
        load_channels(x + (size_t)row * ldx + at.first, value);
        load_channels(dy + (size_t)row * ldy + at.first, from);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) from[i] = scale[i] * (from[i] - constant[i] - (value[i] - centre[i]) * factor[i]);
        store_channels(dx + (size_t)row * ldd + at.first, from);
    }
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_gradient_f32(const float* x, const float* dy, const float* gamma, const float* mean, const float* invstd, const float* shift, const float* slope, float* dx, int ldx, int ldy, int ldd, BatchNormTask task) {
    if (task.wide) gradient<float, WIDE<float>>(x, dy, gamma, mean, invstd, shift, slope, dx, ldx, ldy, ldd, task);
    else gradient<float, 1>(x, dy, gamma, mean, invstd, shift, slope, dx, ldx, ldy, ldd, task);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_gradient_bf16(const __nv_bfloat16* x, const __nv_bfloat16* dy, const float* gamma, const float* mean, const float* invstd, const float* shift, const float* slope, __nv_bfloat16* dx, int ldx, int ldy, int ldd, BatchNormTask task) {
    if (task.wide) gradient<__nv_bfloat16, WIDE<__nv_bfloat16>>(x, dy, gamma, mean, invstd, shift, slope, dx, ldx, ldy, ldd, task);
    else gradient<__nv_bfloat16, 1>(x, dy, gamma, mean, invstd, shift, slope, dx, ldx, ldy, ldd, task);
}

/// Filter k times gamma_k * invstd_k, and the bias that is left of the normalisation. Grid: filters along x,
/// 1024 of their elements along y. Once per load: f64 costs nothing and gives the CPU's numbers.
template <typename T>
__device__ void fold(const float* filter, const float* gamma, const float* beta, const float* mean, const float* var, T* folded, float* bias, int ldf, int ldt, int cols) {
    const int k = blockIdx.x;
    const double scale = gamma[k] * (1.0 / sqrt(var[k] + (double)EPSILON));
    if (blockIdx.y == 0 && threadIdx.x == 0) bias[k] = (float)(beta[k] - mean[k] * scale);
    const int end = min(cols, (int)(blockIdx.y + 1) * 1024);
    for (int col = blockIdx.y * 1024 + threadIdx.x; col < end; col += THREADS)
        narrow(filter[(size_t)k * ldf + col] * (float)scale, folded[(size_t)k * ldt + col]);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_fold_f32(const float* filter, const float* gamma, const float* beta, const float* mean, const float* var, float* folded, float* bias, int ldf, int ldt, int cols) {
    fold(filter, gamma, beta, mean, var, folded, bias, ldf, ldt, cols);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_fold_bf16(const float* filter, const float* gamma, const float* beta, const float* mean, const float* var, __nv_bfloat16* folded, float* bias, int ldf, int ldt, int cols) {
    fold(filter, gamma, beta, mean, var, folded, bias, ldf, ldt, cols);
}
