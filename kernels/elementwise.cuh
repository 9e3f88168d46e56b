// Element-wise kernels over a matrix of rows x cols whose rows start ld elements apart.
//
// A thread takes groups of WIDTH neighbouring columns, which a warp reads and writes as one run of whole
// sectors. Where a base or a stride does not allow that, the same grid walks the matrix element by element.
#pragma once
#include <cuda_bf16.h>
#include <cstdint>

/// WIDTH values at once: one load or store of at most 16 bytes.
template <typename T, int WIDTH>
struct alignas(sizeof(T) * WIDTH) Group {
    T at[WIDTH];
};

/// Whether every row of the matrix starts at a multiple of the group.
template <int WIDTH, typename T>
__device__ inline bool in_groups(const T* base, int ld) {
    return reinterpret_cast<uintptr_t>(base) % sizeof(Group<T, WIDTH>) == 0 && ld % WIDTH == 0;
}

template <int WIDTH, typename T>
__device__ inline Group<T, WIDTH> load_group(const T* from) {
    return *reinterpret_cast<const Group<T, WIDTH>*>(from);
}

template <int WIDTH, typename T>
__device__ inline void store_group(T* to, Group<T, WIDTH> values) {
    *reinterpret_cast<Group<T, WIDTH>*>(to) = values;
}

__device__ inline float widen(float value) { return value; }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

/// To the type of `to`, to the nearest, ties to even.
__device__ inline void narrow(float value, float& to) { to = value; }
__device__ inline void narrow(float value, __nv_bfloat16& to) { to = __float2bfloat16_rn(value); }

/// body(row, first column, columns) for every group of up to WIDTH columns, a grid stride apart. The host
/// sees to it that rows * cols stays below 2^31.
template <int WIDTH, typename Body>
__device__ inline void each_group(int rows, int cols, Body body) {
    const unsigned groups = (cols + WIDTH - 1) / WIDTH;
    const unsigned total = rows * groups;
    const unsigned stride = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += stride) {
        const int row = i / groups;
        const int first = (i - row * groups) * WIDTH;
        body(row, first, min(WIDTH, cols - first));
    }
}
