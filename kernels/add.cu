// y <- y + x, element by element; bf16 is added in f32 and rounded to nearest even.
//
// Grid: a thread for every four columns of a row, fewer at the end of a row. Dense matrices come as one row.
// 12 bytes and 1 flop an element (6 bytes in bf16): bound by memory.
#include "elementwise.cuh"

template <typename T>
__device__ void add(const T* x, T* y, int rows, int cols, int ldx, int ldy) {
    if (in_groups<4>(x, ldx) && in_groups<4>(y, ldy)) {
        each_group<4>(rows, cols, [=](int row, int first, int count) {
            const T* from = x + (size_t)row * ldx + first;
            T* to = y + (size_t)row * ldy + first;
            if (count == 4) {
                const Group<T, 4> addend = load_group<4>(from);
                Group<T, 4> sum = load_group<4>(to);
#pragma unroll
                for (int i = 0; i < 4; ++i) narrow(widen(sum.at[i]) + widen(addend.at[i]), sum.at[i]);
                store_group(to, sum);
            } else {
                for (int i = 0; i < count; ++i) narrow(widen(to[i]) + widen(from[i]), to[i]);
            }
        });
    } else {
        each_group<1>(rows, cols, [=](int row, int col, int) {
            T* to = y + (size_t)row * ldy + col;
            narrow(widen(*to) + widen(x[(size_t)row * ldx + col]), *to);
        });
    }
}

extern "C" __global__ void __launch_bounds__(256) add_f32(const float* x, float* y, int rows, int cols, int ldx, int ldy) {
    add(x, y, rows, cols, ldx, ldy);
}

extern "C" __global__ void __launch_bounds__(256) add_bf16(const __nv_bfloat16* x, __nv_bfloat16* y, int rows, int cols, int ldx, int ldy) {
    add(x, y, rows, cols, ldx, ldy);
}
