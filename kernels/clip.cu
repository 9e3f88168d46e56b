// The Euclidean norm of all gradients, and the factor that brings it down to a bound:
// norm = sqrt(sum g^2), factor = min(1, bound / (norm + 1e-6)), NaN where the norm is.
//
// Two launches. `clip_squares`: a block for every 16,384 elements, of which a thread takes four neighbours at a time and 64 in
// all; the block adds up the sums of its threads in a tree, to one partial sum. `clip_norm_f32`: one block adds up the partial
// sums in the same way. The order of additions depends on the number of elements alone. 4 bytes and 2 flops per element:
// bound by memory.
#include "reduce.cuh"

// Elements whose squares make one partial sum.
constexpr int CHUNK = 16384;

// Added to the norm, as PyTorch's clip_grad_norm_ does.
constexpr float EPSILON = 1e-6f;

// V is f32x4 where the gradients start at a multiple of 16 bytes, and f32x1 elsewhere. Threads take the same elements in the same
// order in both cases.
template <class V>
__device__ __forceinline__ void squares_of_chunk(const float* gradients, float* squares, int n) {
    const int start = blockIdx.x * CHUNK;
    const int count = min(CHUNK, n - start);
    const float* g = gradients + start;
    float sum = 0.0f;
    if (V::WIDTH == 4 && count == CHUNK) {
#pragma unroll 4
        for (int i = 4 * threadIdx.x; i < CHUNK; i += 4 * THREADS) {
            const V value = load<V>(g + i);
#pragma unroll
            for (int k = 0; k < V::WIDTH; ++k) sum += value[k] * value[k];
        }
    } else {
        for (int i = 4 * threadIdx.x; i < count; i += 4 * THREADS)
            for (int k = 0; k < min(4, count - i); ++k) sum += g[i + k] * g[i + k];
    }
    sum = reduce_block(sum, Sum());
    if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

#define CLIP_SQUARES(V)                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS)                 \
        clip_squares_##V(const float* gradients, float* squares, int n) { \
        squares_of_chunk<V>(gradients, squares, n);                       \
    }
CLIP_SQUARES(f32x1)
CLIP_SQUARES(f32x4)

extern "C" __global__ void __launch_bounds__(THREADS)
    clip_norm_f32(const float* squares, float* norm, float* factor, int count, float bound) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += squares[i];
    sum = reduce_block(sum, Sum());
    if (threadIdx.x == 0) {
        const float total = sqrtf(sum);
        const float scale = bound / (total + EPSILON);
        *norm = total;
        // Written so that NaN stays NaN.
        *factor = scale > 1.0f ? 1.0f : scale;
    }
}
