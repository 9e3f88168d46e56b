// Element-wise kernels over a matrix of rows x cols whose rows start ld elements apart.
//
// A thread takes a vector of neighbouring columns, which a warp reads and writes as one run of whole sectors; at the end of a
// row there may be fewer. The host sees to it that every row starts at a multiple of the vector (`Matrix::vector`), that
// dense matrices come as one row, and that rows * cols stays below 2^31.
#pragma once
#include "vector.cuh"

// body(row, first column, columns) for every group of up to WIDTH columns, a grid stride apart.
template <int WIDTH, class Body>
__device__ __forceinline__ void each_group(int rows, int cols, Body body) {
    const unsigned groups = (cols + WIDTH - 1) / WIDTH;
    const unsigned total = rows * groups;
    const unsigned stride = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += stride) {
        const int row = i / groups;
        const int first = (i - row * groups) * WIDTH;
        body(row, first, min(WIDTH, cols - first));
    }
}
