// y <- y + x, element by element; bf16 is added in f32 and rounded to nearest even.
//
// Grid: a thread for every vector of a row. 12 bytes and 1 flop per element (6 bytes in bf16): bound by memory.
#include "elementwise.cuh"

template <class V, class T = typename V::Element>
__device__ __forceinline__ void add(const T* x, T* y, int rows, int cols, int ldx, int ldy) {
    each_group<V::WIDTH>(rows, cols, [=](int row, int first, int count) {
        const T* from = x + (size_t)row * ldx + first;
        T* to = y + (size_t)row * ldy + first;
        if (count == V::WIDTH) {
            const Wide<V> addend = load_wide<V>(from);
            Wide<V> sum = load_wide<V>(to);
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) sum[i] += addend[i];
            store_wide<V>(to, sum);
        } else {
            for (int i = 0; i < count; ++i) narrow(widen(to[i]) + widen(from[i]), to[i]);
        }
    });
}

#define ADD(V)                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS)                                   \
        add_##V(const V::Element* x, V::Element* y, int rows, int cols, int ldx, int ldy) { \
        add<V>(x, y, rows, cols, ldx, ldy);                                                 \
    }
ADD(f32x1)
ADD(f32x4)
ADD(bf16x1)
ADD(bf16x8)
