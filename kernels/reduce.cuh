// Reductions over a warp and over a block, in a fixed order: the same bits every run.
#pragma once

struct Sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};

/// NaN is passed over.
struct Max {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// Over the first LANES lanes of every LANES; each lane gets the result.
template <int LANES, typename Combine>
__device__ inline float reduce_lanes(float value, Combine combine) {
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

/// Over a block of THREADS threads; each thread gets the result. All threads must arrive.
template <int THREADS, typename Combine>
__device__ inline float reduce_block(float value, Combine combine) {
    constexpr int WARPS = THREADS / 32;
    __shared__ float of_warp[WARPS];
    value = reduce_lanes<32>(value, combine);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = reduce_lanes<WARPS>(of_warp[threadIdx.x % WARPS], combine);
    // The next reduction may write over what another warp still reads.
    __syncthreads();
    return value;
}
