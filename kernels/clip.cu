// The Euclidean norm of all gradients, and the factor that brings it down to a bound:
// norm = sqrt(sum g^2), factor = min(1, bound / (norm + 1e-6)), NaN where the norm is.
//
// Two launches. `clip_squares_f32`: a block of 256 threads for every 16,384 elements, which it reads as 16-byte
// vectors; each thread adds up 64 squares, the block its threads in a tree, into one partial sum.
// `clip_norm_f32`: one block adds the partial sums up the same way. The order of additions depends on the
// number of elements alone. 4 bytes and 2 flops an element: bound by memory.
#include "elementwise.cuh"
#include "reduce.cuh"

constexpr int THREADS = 256;
/// Elements whose squares make one partial sum; the host counts them too.
constexpr int CHUNK = 16384;

extern "C" __global__ void __launch_bounds__(256) clip_squares_f32(const float* gradients, float* squares, int n) {
    const int start = blockIdx.x * CHUNK;
    const int count = min(CHUNK, n - start);
    const float* g = gradients + start;
    float sum = 0.0f;
    if (count == CHUNK && in_groups<4>(g, 4)) {
#pragma unroll 4
        for (int i = 4 * threadIdx.x; i < CHUNK; i += 4 * THREADS) {
            const Group<float, 4> value = load_group<4>(g + i);
#pragma unroll
            for (int k = 0; k < 4; ++k) sum += value.at[k] * value.at[k];
        }
    } else {
        // The same elements to the same threads in the same order, whatever the alignment.
        for (int i = 4 * threadIdx.x; i < count; i += 4 * THREADS)
            for (int k = 0; k < min(4, count - i); ++k) sum += g[i + k] * g[i + k];
    }
    sum = reduce_block<THREADS>(sum, Sum());
    if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(256) clip_norm_f32(const float* squares, float* norm, float* factor, int count, float bound) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += squares[i];
    sum = reduce_block<THREADS>(sum, Sum());
    if (threadIdx.x == 0) {
        const float total = sqrtf(sum);
        const float scale = bound / (total + 1e-6f);
        *norm = total;
        // Written so that NaN stays NaN.
        *factor = scale > 1.0f ? 1.0f : scale;
    }
}
