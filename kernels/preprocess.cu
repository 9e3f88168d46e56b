// y = (v / 255 - mean) / std for pixels v of u8, three channels: every step rounded to f32 as torchvision does.
//
// Grid: a thread for as many elements as 16 bytes of y hold, pixels running on, where neither tensor is padded; else
// a thread for each element. 5 bytes per element in f32, 3 in bf16: bound by memory, two divisions per element fit
// beside that.
#include "vector.cuh"

// Of red, green and blue.
struct PreprocessNormalisation {
    float mean[3];
    float std[3];
};

__device__ __forceinline__ float normalised(u8 v, int c, const PreprocessNormalisation& by) {
    const float mean = c == 0 ? by.mean[0] : c == 1 ? by.mean[1] : by.mean[2];
    const float std = c == 0 ? by.std[0] : c == 1 ? by.std[1] : by.std[2];
    return (v / 255.0f - mean) / std;
}

template <class V, class T = typename V::Element>
__device__ __forceinline__ void normalise(
    const u8* images, T* y, long long pixels, int ldi, int ldy, const PreprocessNormalisation& by) {
    const long long first = (long long)thread_number() * V::WIDTH, count = 3 * pixels;
    if (first >= count) return;
    if constexpr (V::WIDTH == 1) {
        const long long pixel = first / 3;
        const int c = (int)(first - 3 * pixel);
        narrow(normalised(images[pixel * ldi + c], c, by), y[pixel * ldy + c]);
    } else if (first + V::WIDTH <= count) {
        const int channel = (int)(first % 3);
        const auto from = load<Vector<u8, V::WIDTH>>(images + first);
        Wide<V> values;
#pragma unroll
        for (int i = 0; i < V::WIDTH; ++i) values[i] = normalised(from[i], (channel + i) % 3, by);
        store_wide<V>(y + first, values);
    } else {
        for (long long i = first; i < count; ++i) narrow(normalised(images[i], (int)(i % 3), by), y[i]);
    }
}

#define PREPROCESS_FORWARD(V)                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) preprocess_forward_##V(                          \
        const u8* images, V::Element* y, long long pixels, int ldi, int ldy, PreprocessNormalisation by) { \
        normalise<V>(images, y, pixels, ldi, ldy, by);                                                     \
    }
PREPROCESS_FORWARD(f32x1)
PREPROCESS_FORWARD(f32x4)
PREPROCESS_FORWARD(bf16x1)
PREPROCESS_FORWARD(bf16x8)
