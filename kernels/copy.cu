// y = x between paddings, and between f32 and bf16: rounded to nearest even.
//
// Grid: a thread for every four columns of a row (eight where both are bf16), fewer at the end of a row. Dense
// matrices come as one row. 8 bytes an element in f32, 6 in a conversion, 4 in bf16: bound by memory.
#include "elementwise.cuh"

template <int WIDTH, typename X, typename Y, typename Convert>
__device__ void copy(const X* x, Y* y, int rows, int cols, int ldx, int ldy, Convert convert) {
    if (in_groups<WIDTH>(x, ldx) && in_groups<WIDTH>(y, ldy)) {
        each_group<WIDTH>(rows, cols, [=](int row, int first, int count) {
            const X* from = x + (size_t)row * ldx + first;
            Y* to = y + (size_t)row * ldy + first;
            if (count == WIDTH) {
                const Group<X, WIDTH> values = load_group<WIDTH>(from);
                Group<Y, WIDTH> converted;
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) converted.at[i] = convert(values.at[i]);
                store_group(to, converted);
            } else {
                for (int i = 0; i < count; ++i) to[i] = convert(from[i]);
            }
        });
    } else {
        each_group<1>(rows, cols, [=](int row, int col, int) {
            y[(size_t)row * ldy + col] = convert(x[(size_t)row * ldx + col]);
        });
    }
}

template <typename T>
__device__ T same(T value) { return value; }

extern "C" __global__ void __launch_bounds__(256) copy_f32(const float* x, float* y, int rows, int cols, int ldx, int ldy) {
    copy<4>(x, y, rows, cols, ldx, ldy, same<float>);
}

extern "C" __global__ void __launch_bounds__(256) copy_u32(const unsigned* x, unsigned* y, int rows, int cols, int ldx, int ldy) {
    copy<4>(x, y, rows, cols, ldx, ldy, same<unsigned>);
}

extern "C" __global__ void __launch_bounds__(256) copy_bf16(const __nv_bfloat16* x, __nv_bfloat16* y, int rows, int cols, int ldx, int ldy) {
    copy<8>(x, y, rows, cols, ldx, ldy, same<__nv_bfloat16>);
}

extern "C" __global__ void __launch_bounds__(256) copy_f32_to_bf16(const float* x, __nv_bfloat16* y, int rows, int cols, int ldx, int ldy) {
    copy<4>(x, y, rows, cols, ldx, ldy, [](float value) { return __float2bfloat16_rn(value); });
}

extern "C" __global__ void __launch_bounds__(256) copy_bf16_to_f32(const __nv_bfloat16* x, float* y, int rows, int cols, int ldx, int ldy) {
    copy<4>(x, y, rows, cols, ldx, ldy, [](__nv_bfloat16 value) { return __bfloat162float(value); });
}
