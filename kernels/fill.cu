// One value in every element; padding between rows stays as it is. Integers take the value without its fraction.
//
// Grid: a thread for every vector of a row. Each element is written once, nothing is read: bound by memory.
#include "elementwise.cuh"

template <class V, class T = typename V::Element>
__device__ __forceinline__ void fill(f32 value, T* y, int rows, int cols, int ld) {
    const T element = (T)value;
    V values;
#pragma unroll
    for (int i = 0; i < V::WIDTH; ++i) values[i] = element;
    each_group<V::WIDTH>(rows, cols, [=](int row, int first, int count) {
        T* to = y + (size_t)row * ld + first;
        if (count == V::WIDTH) {
            store<V>(to, values);
        } else {
            for (int i = 0; i < count; ++i) to[i] = element;
        }
    });
}

#define FILL(V)                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                \
        fill_##V(f32 value, V::Element* y, int rows, int cols, int ld) { \
        fill<V>(value, y, rows, cols, ld);                               \
    }
FILL(f32x1)
FILL(f32x4)
FILL(bf16x1)
FILL(bf16x8)
FILL(u32x1)
FILL(u32x4)
FILL(u8x1)
FILL(u8x16)
