// y = (v / 255 - mean) / std for pixels v of u8, three channels: every step rounded to f32 as torchvision does.
//
// Grid: where neither tensor is padded, a thread for as many elements as 16 bytes of y hold, without regard to pixels; else,
// or where such vectors would leave a rest, a thread for each element. 5 bytes per element in f32, 3 in bf16: bound by memory, which leaves time for two divisions per
// element.
#include "vector.cuh"

// Of red, green and blue.
struct PreprocessNormalisation {
    float mean[3];
    float std[3];
};

// The normalisation of three channels in a row, from channel `first` on.
__device__ __forceinline__ PreprocessNormalisation from_channel(const PreprocessNormalisation& by, int first) {
    PreprocessNormalisation turned;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        turned.mean[i] = first == 0 ? by.mean[i] : first == 1 ? by.mean[(i + 1) % 3] : by.mean[(i + 2) % 3];
        turned.std[i] = first == 0 ? by.std[i] : first == 1 ? by.std[(i + 1) % 3] : by.std[(i + 2) % 3];
    }
    return turned;
}

__device__ __forceinline__ float normalised(u8 v, int c, const PreprocessNormalisation& by) {
    return (v / 255.0f - by.mean[c]) / by.std[c];
}

template <class V, class T = typename V::Element>
__device__ __forceinline__ void normalise(
    const u8* images, T* y, long long pixels, int ldi, int ldy, const PreprocessNormalisation& by) {
    const long long first = (long long)thread_number() * V::WIDTH, count = 3 * pixels;
    if (first >= count) return;
    const auto turned = from_channel(by, (int)(first % 3));
    if constexpr (V::WIDTH == 1) {
        const long long pixel = first / 3, channel = first - 3 * pixel;
        narrow(normalised(images[pixel * ldi + channel], 0, turned), y[pixel * ldy + channel]);
    } else {
        const auto from = load<Vector<u8, V::WIDTH>>(images + first);
        Wide<V> values;
#pragma unroll
        for (int i = 0; i < V::WIDTH; ++i) values[i] = normalised(from[i], i % 3, turned);
        store_wide<V>(y + first, values);
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
