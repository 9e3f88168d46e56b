// y = (v / 255 - mean) / std for pixels v of u8, three channels: every step rounded to f32 as torchvision does.
//
// Grid: a thread for as many elements as 16 bytes of y hold, pixels running on, where neither tensor is padded; else
// a thread for each element. 5 bytes an element in f32, 3 in bf16: bound by memory, two divisions an element fit
// beside that.
#include "channels.cuh"

/// Of red, green and blue.
struct PreprocessNormalisation {
    float mean[3];
    float std[3];
};

__device__ inline float normalised(unsigned char v, int c, const PreprocessNormalisation& by) {
    const float mean = c == 0 ? by.mean[0] : c == 1 ? by.mean[1] : by.mean[2];
    const float std = c == 0 ? by.std[0] : c == 1 ? by.std[1] : by.std[2];
    return (v / 255.0f - mean) / std;
}

template <typename T>
__device__ void forward(const unsigned char* images, T* y, long long pixels, int ldi, int ldy, int wide, const PreprocessNormalisation& by) {
    constexpr int WIDTH = WIDE<T>;
    const long long number = (long long)blockIdx.x * blockDim.x + threadIdx.x, count = 3 * pixels;
    if (!wide) {
        if (number >= count) return;
        const long long pixel = number / 3;
        const int c = (int)(number - 3 * pixel);
        narrow(normalised(images[pixel * ldi + c], c, by), y[pixel * ldy + c]);
        return;
    }
    const long long first = number * WIDTH;
    if (first >= count) return;
    const int channel = (int)(first % 3);
    if (first + WIDTH <= count) {
        const Group<unsigned char, WIDTH> from = load_group<WIDTH>(images + first);
        float values[WIDTH];
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) values[i] = normalised(from.at[i], (channel + i) % 3, by);
        store_channels(y + first, values);
    } else {
        for (long long i = first; i < count; ++i) narrow(normalised(images[i], (int)(i % 3), by), y[i]);
    }
}

extern "C" __global__ void __launch_bounds__(256) preprocess_forward_f32(const unsigned char* images, float* y, long long pixels, int ldi, int ldy, int wide, PreprocessNormalisation by) {
    forward(images, y, pixels, ldi, ldy, wide, by);
}

extern "C" __global__ void __launch_bounds__(256) preprocess_forward_bf16(const unsigned char* images, __nv_bfloat16* y, long long pixels, int ldi, int ldy, int wide, PreprocessNormalisation by) {
    forward(images, y, pixels, ldi, ldy, wide, by);
}
