// WIDTH neighbouring floats as one access: 4 of them are 16 bytes, the widest load there is.
//
// Kernels are written once over WIDTH and instantiated for 4, for rows that start at multiples of 16 bytes and
// are a multiple of 4 long, and for 1, for all others. The host decides once per launch (`Launch::width`).
#pragma once
#include "elementwise.cuh"

template <int WIDTH>
using Pack = Group<float, WIDTH>;

template <int WIDTH>
__device__ __forceinline__ Pack<WIDTH> load(const float* from) {
    return load_group<WIDTH>(from);
}

template <int WIDTH>
__device__ __forceinline__ void store(float* to, const Pack<WIDTH>& values) {
    store_group<WIDTH>(to, values);
}

// The number of the thread in the grid.
__device__ __forceinline__ unsigned long long thread_number() {
    return (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
}
