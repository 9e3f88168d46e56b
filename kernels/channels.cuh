// Images seen as a matrix: a row for every pixel, a column for every channel.
//
// A thread takes WIDTH neighbouring channels, 16 bytes where rows start at multiples of 16 bytes and have whole
// groups of channels, else one. The host decides once per launch. All arithmetic is in f32.
#pragma once
#include "elementwise.cuh"

/// Channels of 16 bytes.
template <typename T>
constexpr int WIDE = 16 / sizeof(T);

template <int WIDTH, typename T>
__device__ inline void load_channels(const T* from, float (&to)[WIDTH]) {
    const Group<T, WIDTH> values = load_group<WIDTH>(from);
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) to[i] = widen(values.at[i]);
}

template <int WIDTH, typename T>
__device__ inline void store_channels(T* to, const float (&from)[WIDTH]) {
    Group<T, WIDTH> values;
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) narrow(from[i], values.at[i]);
    store_group(to, values);
}
