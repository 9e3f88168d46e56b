// Softmax cross-entropy of rows of logits (R, V), its mean over the rows that count, and its gradient in place:
// loss_r = ln sum_v e^(x_rv) - x_r,target; dx_rv = (e^(x_rv) / sum - [v = target]) / n; both 0 in ignored rows.
//
// Grid: a block of 256 threads per row. A thread takes every 256th vector of logits, and exchanges values with the others only
// in the reductions.
// - `cross_entropy_gradient`: the row is kept in shared memory (4 V bytes, 35 KB at V = 8,915: four blocks per
//   multiprocessor on an A100) in f32 for its maximum and its sum. Every logit is read once and written once: 8 bytes,
//   4 in bf16, about 13 instructions, bound by memory.
// - `cross_entropy_gradient_twice`: for rows that do not fit there. Maximum and sum in one pass, in which the
//   sum is scaled whenever the maximum grows (Milakov and Gimelshein 2018), then the row is read again.
// - `cross_entropy_loss`: only the first of these passes.
// `cross_entropy_count_f32` and `cross_entropy_mean_f32` are one block each over R targets and losses. n is counted
// from the targets on the device, so that a captured step serves every batch.
//
// Logits and gradients are f32 or bf16, all between them is f32. A target that is not the id of a word makes the loss of its row NaN.
#include "elementwise.cuh"
#include "reduce.cuh"

// body(first column, columns) for the vectors of a row that are this thread's.
template <class V, class Body>
__device__ __forceinline__ void my_vectors(int cols, Body body) {
    for (int first = V::WIDTH * threadIdx.x; first < cols; first += V::WIDTH * THREADS)
        body(first, min(V::WIDTH, cols - first));
}

// A vector from global or shared memory as f32, or its first `count` values; those missing are -infinity.
template <int N, class T>
__device__ __forceinline__ Vector<f32, N> load_some(const T* from, int count) {
    if (count == N) return load_f32<N>(from);
    Vector<f32, N> values;
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = i < count ? widen(from[i]) : -INFINITY;
    return values;
}

template <int N, class T>
__device__ __forceinline__ void store_some(T* to, const Vector<f32, N>& values, int count) {
    if (count == N) {
        store_as(to, values);
        return;
    }
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (i < count) narrow(values[i], to[i]);
}

template <class V>
__device__ __forceinline__ void clear_row(typename V::Element* row, int cols) {
    my_vectors<V>(cols, [=](int first, int count) { store_some(row + first, Wide<V>{}, count); });
}

template <class V>
__device__ __forceinline__ float largest_of(const V& x) {
    float largest = x[0];
#pragma unroll
    for (int i = 1; i < V::WIDTH; ++i) largest = fmaxf(largest, x[i]);
    return largest;
}

// The gradient of a vector, of which e^(x - max) is given.
template <int N>
__device__ __forceinline__ Vector<f32, N> gradient_of(
    Vector<f32, N> exps, float scale, float share, int first, unsigned target) {
#pragma unroll
    for (int i = 0; i < N; ++i) exps[i] = exps[i] * scale - (first + i == target ? share : 0.0f);
    return exps;
}

// The largest of some logits and the sum of e^(x - max) over them.
struct MaxSum {
    float max = -INFINITY;
    float sum = 0.0f;

    // What is subtracted from logits. While all of them are -infinity, it can be any number.
    __device__ __forceinline__ static float base(float max) { return max == -INFINITY ? 0.0f : max; }

    template <class V>
    __device__ __forceinline__ void add(const V& x) {
        const float larger = fmaxf(max, largest_of(x));
        if (larger > max) {
            sum *= expf(max - larger);
            max = larger;
        }
#pragma unroll
        for (int i = 0; i < V::WIDTH; ++i) sum += expf(x[i] - base(max));
    }

    // Over the whole row, the same in all threads.
    template <class V>
    __device__ __forceinline__ static MaxSum of_row(const typename V::Element* row, int cols) {
        MaxSum mine;
        my_vectors<V>(cols, [&](int first, int count) { mine.add(load_some<V::WIDTH>(row + first, count)); });
        MaxSum all;
        all.max = reduce_block(mine.max, Max());
        all.sum = reduce_block(mine.sum * expf(mine.max - base(all.max)), Sum());
        return all;
    }
};

// A NaN among the logits reaches the sum, and so the loss, although the maximum ignores it.
__device__ __forceinline__ float loss_of(float max, float sum, float at_target) {
    return logf(sum) + (max - at_target);
}

template <class V>
__device__ __forceinline__ void gradient_of_row(
    typename V::Element* logits, const unsigned* targets, const float* counted, float* losses, int cols, int ld,
    unsigned ignore) {
    extern __shared__ __align__(16) float kept[];
    auto* row = logits + (size_t)blockIdx.x * ld;
    const unsigned target = targets[blockIdx.x];
    if (target == ignore) {
        clear_row<V>(row, cols);
        if (threadIdx.x == 0) losses[blockIdx.x] = 0.0f;
        return;
    }
    const float share = 1.0f / *counted;
    float max = -INFINITY;
    // The thread that finds the target writes the loss; if no thread can find it, the first thread writes NaN.
    float at_target = NAN;
    bool writes_loss = target >= cols && threadIdx.x == 0;
    my_vectors<V>(cols, [&](int first, int count) {
        const Wide<V> x = load_some<V::WIDTH>(row + first, count);
        store_some(kept + first, x, count);
        max = fmaxf(max, largest_of(x));
        if (target - first < count) {
            at_target = kept[target];
            writes_loss = true;
        }
    });
    max = reduce_block(max, Max());
    float sum = 0.0f;
    my_vectors<V>(cols, [&](int first, int count) {
        Wide<V> x = load_some<V::WIDTH>(kept + first, count);
#pragma unroll
        for (int i = 0; i < V::WIDTH; ++i) {
            x[i] = i < count ? expf(x[i] - max) : 0.0f;
            sum += x[i];
        }
        store_some(kept + first, x, count);
    });
    sum = reduce_block(sum, Sum());
    const float scale = share / sum;
    my_vectors<V>(cols, [=](int first, int count) {
        const Wide<V> exps = load_some<V::WIDTH>(kept + first, count);
        store_some(row + first, gradient_of(exps, scale, share, first, target), count);
    });
    if (writes_loss) losses[blockIdx.x] = loss_of(max, sum, at_target);
}

#define CROSS_ENTROPY_GRADIENT(V)                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy_gradient_##V(                       \
        V::Element* logits, const unsigned* targets, const float* counted, float* losses, int cols, int ld, \
        unsigned ignore) {                                                                                  \
        gradient_of_row<V>(logits, targets, counted, losses, cols, ld, ignore);                             \
    }
CROSS_ENTROPY_GRADIENT(f32x1)
CROSS_ENTROPY_GRADIENT(f32x4)
CROSS_ENTROPY_GRADIENT(bf16x1)
CROSS_ENTROPY_GRADIENT(bf16x8)

template <class V>
__device__ __forceinline__ void gradient_twice_of_row(
    typename V::Element* logits, const unsigned* targets, const float* counted, float* losses, int cols, int ld,
    unsigned ignore) {
    auto* row = logits + (size_t)blockIdx.x * ld;
    const unsigned target = targets[blockIdx.x];
    if (target == ignore) {
        clear_row<V>(row, cols);
        if (threadIdx.x == 0) losses[blockIdx.x] = 0.0f;
        return;
    }
    const float share = 1.0f / *counted;
    const MaxSum all = MaxSum::of_row<V>(row, cols);
    if (threadIdx.x == 0) losses[blockIdx.x] = loss_of(all.max, all.sum, target < cols ? widen(row[target]) : NAN);
    // The loss is computed before the gradient replaces the logit.
    __syncthreads();
    const float scale = share / all.sum;
    my_vectors<V>(cols, [=](int first, int count) {
        Wide<V> x = load_some<V::WIDTH>(row + first, count);
#pragma unroll
        for (int i = 0; i < V::WIDTH; ++i) x[i] = expf(x[i] - all.max);
        store_some(row + first, gradient_of(x, scale, share, first, target), count);
    });
}

#define CROSS_ENTROPY_GRADIENT_TWICE(V)                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy_gradient_twice_##V(                 \
        V::Element* logits, const unsigned* targets, const float* counted, float* losses, int cols, int ld, \
        unsigned ignore) {                                                                                  \
        gradient_twice_of_row<V>(logits, targets, counted, losses, cols, ld, ignore);                       \
    }
CROSS_ENTROPY_GRADIENT_TWICE(f32x1)
CROSS_ENTROPY_GRADIENT_TWICE(f32x4)
CROSS_ENTROPY_GRADIENT_TWICE(bf16x1)
CROSS_ENTROPY_GRADIENT_TWICE(bf16x8)

template <class V>
__device__ __forceinline__ void loss_of_row(
    const typename V::Element* logits, const unsigned* targets, float* losses, int cols, int ld, unsigned ignore) {
    const auto* row = logits + (size_t)blockIdx.x * ld;
    const unsigned target = targets[blockIdx.x];
    if (target == ignore) {
        if (threadIdx.x == 0) losses[blockIdx.x] = 0.0f;
        return;
    }
    const MaxSum all = MaxSum::of_row<V>(row, cols);
    if (threadIdx.x == 0) losses[blockIdx.x] = loss_of(all.max, all.sum, target < cols ? widen(row[target]) : NAN);
}

#define CROSS_ENTROPY_LOSS(V)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy_loss_##V(                              \
        const V::Element* logits, const unsigned* targets, float* losses, int cols, int ld, unsigned ignore) { \
        loss_of_row<V>(logits, targets, losses, cols, ld, ignore);                                             \
    }
CROSS_ENTROPY_LOSS(f32x1)
CROSS_ENTROPY_LOSS(f32x4)
CROSS_ENTROPY_LOSS(bf16x1)
CROSS_ENTROPY_LOSS(bf16x8)

// How many rows count, by one block.
__device__ __forceinline__ float count_rows(const unsigned* targets, int rows, unsigned ignore) {
    float count = 0.0f;
    for (int row = threadIdx.x; row < rows; row += THREADS) count += targets[row] != ignore;
    return reduce_block(count, Sum());
}

extern "C" __global__ void __launch_bounds__(THREADS)
    cross_entropy_count_f32(const unsigned* targets, float* counted, int rows, unsigned ignore) {
    const float count = count_rows(targets, rows, ignore);
    if (threadIdx.x == 0) *counted = count;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    cross_entropy_mean_f32(const float* losses, const unsigned* targets, float* loss, int rows, unsigned ignore) {
    const float count = count_rows(targets, rows, ignore);
    float sum = 0.0f;
    for (int row = threadIdx.x; row < rows; row += THREADS) sum += losses[row];
    sum = reduce_block(sum, Sum());
    if (threadIdx.x == 0) *loss = sum / count;
}
