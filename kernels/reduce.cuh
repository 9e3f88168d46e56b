// Reductions over a warp and over a block, in a fixed order: the same bits every run.
#pragma once
#include "vector.cuh"

// An upper bound on the shared memory of the reductions in one kernel, which its dynamic shared memory does not include.
constexpr int REDUCTION_BYTES = 128;

// The dynamic shared memory of a kernel that keeps a row of f32 there.
__host__ __device__ constexpr int row_shared_bytes(int cols) { return cols * sizeof(float); }

struct Sum {
    __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};

// Ignores NaN.
struct Max {
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Over each group of LANES neighbouring lanes; each lane gets the result of its group.
template <int LANES, class Combine>
__device__ __forceinline__ float reduce_lanes(float value, Combine combine) {
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// Over a warp; each lane gets the result.
template <class Combine>
__device__ __forceinline__ float reduce_warp(float value, Combine combine) {
    return reduce_lanes<WARP>(value, combine);
}

// Over a block of THREADS threads; each thread gets the result. All threads must arrive.
template <class Combine>
__device__ __forceinline__ float reduce_block(float value, Combine combine) {
    __shared__ float of_warp[WARPS];
    value = reduce_warp(value, combine);
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = value;
    __syncthreads();
    value = reduce_lanes<WARPS>(of_warp[threadIdx.x % WARPS], combine);
    // The next reduction may write over what another warp still reads.
    __syncthreads();
    return value;
}
