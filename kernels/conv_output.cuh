// What the kernels of convolution have in common: sizes, and what becomes of a sum.
#pragma once
#include "epilogue.cuh"

// x (n, h, w, c) with pixels ldx apart, f (k, r·s·c) with rows ldf apart, y (n, p, q, k) with pixels ldy apart.
struct ConvShape {
    int n, h, w, c, ldx;
    int p, q, k, ldy;
    int r, s, stride, padding;
    int ldf;
};

// y = act(sum + b + z); b and z may be null.
template <class T>
struct Output {
    tile::Target<T> y;
    tile::Target<const T> z;
    const float* bias;
    bool relu;

    template <class Chunk>
    __device__ __forceinline__ bool in_chunks(int first_col, int count) const {
        return y.template in_chunks<Chunk::WIDTH>(first_col, count) &&
               (z.to == nullptr || z.template in_chunks<Chunk::WIDTH>(first_col, count));
    }

    // As max(x, 0) of PyTorch, which keeps a NaN.
    __device__ __forceinline__ float act(float sum) const { return relu && sum < 0.0f ? 0.0f : sum; }

    __device__ __forceinline__ void put(int row, int col, float sum) const {
        if (row >= y.rows || col >= y.cols) return;
        if (bias != nullptr) sum += __ldg(bias + col);
        if (z.to != nullptr) sum += widen(*z.at(row, col));
        narrow(act(sum), *y.at(row, col));
    }

    // The chunk of z, if there is one and it is `there`.
    template <class Chunk>
    __device__ __forceinline__ typename Chunk::Words before(int row, int col, bool there) const {
        return there && z.to != nullptr ? Chunk::load(z.at(row, col)) : typename Chunk::Words{};
    }

    // A chunk, if it is `there`; `added` is b and `before` is z.
    template <class Chunk>
    __device__ __forceinline__ void put(
        int row, int col, Chunk sums, const Chunk& added, const typename Chunk::Words& before, bool there) const {
        sums.add(added);
        if (z.to != nullptr) sums.add(Chunk::of(before));
#pragma unroll
        for (int i = 0; i < Chunk::WIDTH; ++i) sums.values[i] = act(sums.values[i]);
        if (there) sums.store(y.at(row, col));
    }
};
