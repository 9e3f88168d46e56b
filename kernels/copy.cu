// y = x between paddings, and between f32 and bf16: rounded to nearest even.
//
// Grid: a thread for every vector of a row; of both sides as many elements as the wider type has in 16 bytes. 8 bytes per
// element in f32, 6 in a conversion, 4 in bf16: bound by memory.
#include "elementwise.cuh"

template <class T>
__device__ __forceinline__ void convert(T x, T& y) {
    y = x;
}
__device__ __forceinline__ void convert(f32 x, bf16& y) { narrow(x, y); }
__device__ __forceinline__ void convert(bf16 x, f32& y) { y = widen(x); }

template <class From, class To, int WIDTH>
__device__ __forceinline__ void copy(const From* x, To* y, int rows, int cols, int ldx, int ldy) {
    each_group<WIDTH>(rows, cols, [=](int row, int first, int count) {
        const From* from = x + (size_t)row * ldx + first;
        To* to = y + (size_t)row * ldy + first;
        if (count == WIDTH) {
            const auto values = load<Vector<From, WIDTH>>(from);
            Vector<To, WIDTH> converted;
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) convert(values[i], converted[i]);
            store<Vector<To, WIDTH>>(to, converted);
        } else {
            for (int i = 0; i < count; ++i) convert(from[i], to[i]);
        }
    });
}

#define COPY(FROM, TO, WIDTH)                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS)                                             \
        copy_##FROM##_to_##TO##x##WIDTH(const FROM* x, TO* y, int rows, int cols, int ldx, int ldy) { \
        copy<FROM, TO, WIDTH>(x, y, rows, cols, ldx, ldy);                                            \
    }
COPY(f32, f32, 1)
COPY(f32, f32, 4)
COPY(u32, u32, 1)
COPY(u32, u32, 4)
COPY(bf16, bf16, 1)
COPY(bf16, bf16, 8)
COPY(f32, bf16, 1)
COPY(f32, bf16, 4)
COPY(bf16, f32, 1)
COPY(bf16, f32, 4)
