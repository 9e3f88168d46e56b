// The doubly stochastic regulariser over attention alphas (T, B, P), rows (T B) of P elements, ld apart:
// missing_bp = 1 - sum_t alpha_tbp; loss = lambda / (B P) sum missing^2; d_alpha_bp = -2 lambda / (B P) missing_bp.
//
// Grid: a thread for every (b, p), a warp reading 32 neighbouring positions of a step; the sum over t runs in
// order. `regulariser_squares_f32` leaves a partial sum for each block, which one block of `regulariser_loss_f32` adds up.
// Each alpha is read once, 4 bytes and 1 flop: bound by memory, or by latency at the recipe's 0.6 MB.
#include "reduce.cuh"

// Of image b at position p.
__device__ __forceinline__ float missing_at(const float* alphas, int steps, int batch, int ld, int b, int p) {
    float missing = 1.0f;
#pragma unroll 8
    for (int t = 0; t < steps; ++t) missing -= alphas[((size_t)t * batch + b) * ld + p];
    return missing;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    regulariser_squares_f32(const float* alphas, float* squares, int steps, int batch, int positions, int ld) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    float square = 0.0f;
    if (i < batch * positions) {
        const float missing = missing_at(alphas, steps, batch, ld, i / positions, i % positions);
        square = missing * missing;
    }
    square = reduce_block(square, Sum());
    if (threadIdx.x == 0) squares[blockIdx.x] = square;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    regulariser_loss_f32(const float* squares, float* loss, int count, float scale) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += squares[i];
    sum = reduce_block(sum, Sum());
    if (threadIdx.x == 0) *loss = scale * sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) regulariser_backward_f32(
    const float* alphas, float* d_alpha, int steps, int batch, int positions, int ld, int ld_d_alpha, float scale) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= batch * positions) return;
    const int b = i / positions;
    const int p = i % positions;
    d_alpha[(size_t)b * ld_d_alpha + p] = scale * missing_at(alphas, steps, batch, ld, b, p);
}
