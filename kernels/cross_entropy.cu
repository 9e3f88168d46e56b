// Softmax cross-entropy of rows of logits (R, V), its mean over the rows that count, and its gradient in place:
// loss_r = ln sum_v e^(x_rv) - x_r,target; dx_rv = (e^(x_rv) / sum - [v = target]) / n; both 0 in ignored rows.
//
// Grid: a block of 256 threads a row. A thread takes every 256th group of four logits (every 256th logit where
// the rows are not aligned), and meets the others only in the reductions.
// - `cross_entropy_gradient_f32`: the row waits in shared memory (4 V bytes, 35 KB at V = 8,915: four blocks a
//   multiprocessor on an A100) for its maximum and its sum. Every logit is read once and written once: 8 bytes,
//   about 13 instructions, bound by memory.
// - `cross_entropy_gradient_twice_f32`: for rows that do not fit there. Maximum and sum in one pass, in which the
//   sum is scaled whenever the maximum grows (Milakov and Gimelshein 2018), then the row is read again.
// - `cross_entropy_loss_f32`: that one pass alone.
// `cross_entropy_count_f32` and `cross_entropy_mean_f32` are one block each over R targets and losses. n is counted
// from the targets on the device, so that a captured step serves every batch.
//
// A target that is no word makes its row's loss NaN.
#include "elementwise.cuh"
#include "reduce.cuh"

constexpr int THREADS = 256;

/// body(first column, columns) for the groups of the row that are this thread's.
template <typename Body>
__device__ inline void my_groups(const float* row, int cols, int ld, Body body) {
    if (in_groups<4>(row, ld)) {
        for (int first = 4 * threadIdx.x; first < cols; first += 4 * THREADS) body(first, min(4, cols - first));
    } else {
        for (int col = threadIdx.x; col < cols; col += THREADS) body(col, 1);
    }
}

/// Up to four values from global or shared memory; those missing are -infinity.
__device__ inline Group<float, 4> load_some(const float* from, int count) {
    if (count == 4) return load_group<4>(from);
    Group<float, 4> values;
#pragma unroll
    for (int i = 0; i < 4; ++i) values.at[i] = i < count ? from[i] : -INFINITY;
    return values;
}

__device__ inline void store_some(float* to, Group<float, 4> values, int count) {
    if (count == 4) {
        store_group(to, values);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
        if (i < count) to[i] = values.at[i];
}

__device__ inline void clear_row(float* row, int cols, int ld) {
    my_groups(row, cols, ld, [=](int first, int count) { store_some(row + first, Group<float, 4>{}, count); });
}

/// The gradient of a group, of which e^(x - max) is given.
__device__ inline Group<float, 4> gradient_of(Group<float, 4> exps, float scale, float share, int first, unsigned target) {
#pragma unroll
    for (int i = 0; i < 4; ++i) exps.at[i] = exps.at[i] * scale - (first + i == target ? share : 0.0f);
    return exps;
}

/// The largest of some logits and the sum of e^(x - max) over them.
struct MaxSum {
    float max = -INFINITY;
    float sum = 0.0f;

    /// What is subtracted from logits: any number will do while all of them are -infinity.
    __device__ static float base(float max) { return max == -INFINITY ? 0.0f : max; }

    __device__ void add(Group<float, 4> x) {
        const float larger = fmaxf(max, fmaxf(fmaxf(x.at[0], x.at[1]), fmaxf(x.at[2], x.at[3])));
        if (larger > max) {
            sum *= expf(max - larger);
            max = larger;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) sum += expf(x.at[i] - base(max));
    }

    /// Over the whole row, the same in all threads.
    __device__ static MaxSum of_row(const float* row, int cols, int ld) {
        MaxSum mine;
        my_groups(row, cols, ld, [&](int first, int count) { mine.add(load_some(row + first, count)); });
        MaxSum all;
        all.max = reduce_block<THREADS>(mine.max, Max());
        all.sum = reduce_block<THREADS>(mine.sum * expf(mine.max - base(all.max)), Sum());
        return all;
    }
};

/// A NaN among the logits reaches the sum, and so the loss, although the maximum passes it over.
__device__ inline float loss_of(float max, float sum, float at_target) { return logf(sum) + (max - at_target); }

extern "C" __global__ void __launch_bounds__(256) cross_entropy_gradient_f32(float* logits, const unsigned* targets, const float* counted, float* losses, int cols, int ld, unsigned ignore) {
    extern __shared__ __align__(16) float kept[];
    float* row = logits + (size_t)blockIdx.x * ld;
    const unsigned target = targets[blockIdx.x];
    if (target == ignore) {
        clear_row(row, cols, ld);
        if (threadIdx.x == 0) losses[blockIdx.x] = 0.0f;
        return;
    }
    const float share = 1.0f / *counted;
    float max = -INFINITY;
    // The thread that meets the target writes the loss; where it is no word, the first thread does.
    float at_target = NAN;
    bool writes_loss = target >= cols && threadIdx.x == 0;
    my_groups(row, cols, ld, [&](int first, int count) {
        const Group<float, 4> x = load_some(row + first, count);
        store_some(kept + first, x, count);
        max = fmaxf(max, fmaxf(fmaxf(x.at[0], x.at[1]), fmaxf(x.at[2], x.at[3])));
        if (target - first < count) {
            at_target = kept[target];
            writes_loss = true;
        }
    });
    max = reduce_block<THREADS>(max, Max());
    float sum = 0.0f;
    my_groups(row, cols, ld, [&](int first, int count) {
        Group<float, 4> x = load_some(kept + first, count);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x.at[i] = i < count ? expf(x.at[i] - max) : 0.0f;
            sum += x.at[i];
        }
        store_some(kept + first, x, count);
    });
    sum = reduce_block<THREADS>(sum, Sum());
    const float scale = share / sum;
    my_groups(row, cols, ld, [=](int first, int count) {
        const Group<float, 4> exps = load_some(kept + first, count);
        store_some(row + first, gradient_of(exps, scale, share, first, target), count);
    });
    if (writes_loss) losses[blockIdx.x] = loss_of(max, sum, at_target);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_gradient_twice_f32(float* logits, const unsigned* targets, const float* counted, float* losses, int cols, int ld, unsigned ignore) {
    float* row = logits + (size_t)blockIdx.x * ld;
    const unsigned target = targets[blockIdx.x];
    if (target == ignore) {
        clear_row(row, cols, ld);
        if (threadIdx.x == 0) losses[blockIdx.x] = 0.0f;
        return;
    }
    const float share = 1.0f / *counted;
    const MaxSum all = MaxSum::of_row(row, cols, ld);
    if (threadIdx.x == 0) losses[blockIdx.x] = loss_of(all.max, all.sum, target < cols ? row[target] : NAN);
    // The loss is taken before the logit turns into its gradient.
    __syncthreads();
    const float scale = share / all.sum;
    my_groups(row, cols, ld, [=](int first, int count) {
        Group<float, 4> x = load_some(row + first, count);
#pragma unroll
        for (int i = 0; i < 4; ++i) x.at[i] = expf(x.at[i] - all.max);
        store_some(row + first, gradient_of(x, scale, share, first, target), count);
    });
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_loss_f32(const float* logits, const unsigned* targets, float* losses, int cols, int ld, unsigned ignore) {
    const float* row = logits + (size_t)blockIdx.x * ld;
    const unsigned target = targets[blockIdx.x];
    if (target == ignore) {
        if (threadIdx.x == 0) losses[blockIdx.x] = 0.0f;
        return;
    }
    const MaxSum all = MaxSum::of_row(row, cols, ld);
    if (threadIdx.x == 0) losses[blockIdx.x] = loss_of(all.max, all.sum, target < cols ? row[target] : NAN);
}

/// How many rows count, by one block.
__device__ inline float count_rows(const unsigned* targets, int rows, unsigned ignore) {
    float count = 0.0f;
    for (int row = threadIdx.x; row < rows; row += THREADS) count += targets[row] != ignore;
    return reduce_block<THREADS>(count, Sum());
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_count_f32(const unsigned* targets, float* counted, int rows, unsigned ignore) {
    const float count = count_rows(targets, rows, ignore);
    if (threadIdx.x == 0) *counted = count;
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_mean_f32(const float* losses, const unsigned* targets, float* loss, int rows, unsigned ignore) {
    const float count = count_rows(targets, rows, ignore);
    float sum = 0.0f;
    for (int row = threadIdx.x; row < rows; row += THREADS) sum += losses[row];
    sum = reduce_block<THREADS>(sum, Sum());
    if (threadIdx.x == 0) *loss = sum / count;
}
