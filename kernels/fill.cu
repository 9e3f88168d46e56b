// One value in every element; padding between rows stays as it is.
//
// Grid: a thread for every 16 bytes of a row, fewer at the end of a row. Dense matrices come as one row. Each
// element is written once, nothing is read: bound by memory.
#include "elementwise.cuh"

template <typename T>
__device__ void fill(T value, T* y, int rows, int cols, int ld) {
    constexpr int WIDTH = 16 / sizeof(T);
    if (in_groups<WIDTH>(y, ld)) {
        Group<T, WIDTH> values;
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) values.at[i] = value;
        each_group<WIDTH>(rows, cols, [=](int row, int first, int count) {
            T* to = y + (size_t)row * ld + first;
            if (count == WIDTH) {
                store_group(to, values);
            } else {
                for (int i = 0; i < count; ++i) to[i] = value;
            }
        });
    } else {
        each_group<1>(rows, cols, [=](int row, int col, int) { y[(size_t)row * ld + col] = value; });
    }
}

extern "C" __global__ void __launch_bounds__(256) fill_f32(float value, float* y, int rows, int cols, int ld) {
    fill(value, y, rows, cols, ld);
}

extern "C" __global__ void __launch_bounds__(256) fill_bf16(float value, __nv_bfloat16* y, int rows, int cols, int ld) {
    fill(__float2bfloat16_rn(value), y, rows, cols, ld);
}

extern "C" __global__ void __launch_bounds__(256) fill_u32(unsigned value, unsigned* y, int rows, int cols, int ld) {
    fill(value, y, rows, cols, ld);
}

extern "C" __global__ void __launch_bounds__(256) fill_u8(unsigned value, unsigned char* y, int rows, int cols, int ld) {
    fill((unsigned char)value, y, rows, cols, ld);
}
