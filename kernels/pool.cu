// Pooling of images (N, H, W, C), a row for every pixel: the largest or the mean of the pixels under a window,
// channel by channel; see ops/pool for the equations.
//
// Grid: a thread for every pixel that is written and every group of WIDTH channels, groups fastest, so that a warp
// reads and writes runs of 16 bytes times neighbouring groups. All is bound by memory: each input comes from DRAM
// once, what windows share comes from the caches.
//
// Backward gathers: a pixel looks through the windows that it is in, in order, finds each one's largest again and
// takes dy where it is that itself. No atomics, nothing saved, and sums in the CPU's order. With 3x3 windows 2 apart a
// pixel is in 2.25 windows on average: 20 reads from L1 for one of x and dy from DRAM.
//
// A mean over many pixels (the global average) is split over `parts` threads, whose sums are added in order.
#include "channels.cuh"

constexpr int THREADS = 256;

/// Sizes of images and of what is made of them, and the window.
struct PoolShape {
    int h, w;
    int p, q;
    int r, s;
    int stride;
    int padding;
    /// Groups of channels, of 16 bytes if `wide` and of one channel if not.
    int groups;
    int wide;
    /// Pixels that are written times groups.
    int count;
    /// Threads for each of those.
    int parts;
};

/// The number of an item: a pixel of an image of `height` x `width`, and its channels.
struct Item {
    int image, row, col, first;
    /// Of all pixels.
    int pixel;
};

template <int WIDTH>
__device__ inline Item item(int number, int height, int width, int groups) {
    Item it;
    it.pixel = number / groups;
    it.first = (number - it.pixel * groups) * WIDTH;
    it.col = it.pixel % width;
    it.row = it.pixel / width % height;
    it.image = it.pixel / width / height;
    return it;
}

/// Whether `x` takes the place of the largest so far: of equals the first stays, a NaN wins.
__device__ inline bool exceeds(float x, float largest) { return x > largest || isnan(x); }

template <typename T, int WIDTH>
__device__ void max_forward(const T* x, T* y, int ldx, int ldy, const PoolShape& shape) {
    const int number = blockIdx.x * THREADS + threadIdx.x;
    if (number >= shape.count) return;
    const Item it = item<WIDTH>(number, shape.p, shape.q, shape.groups);
    const int top = it.row * shape.stride - shape.padding, left = it.col * shape.stride - shape.padding;
    float largest[WIDTH];
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) largest[i] = -INFINITY;
    for (int h = max(top, 0); h < min(top + shape.r, shape.h); ++h) {
        for (int w = max(left, 0); w < min(left + shape.s, shape.w); ++w) {
            const size_t pixel = ((size_t)it.image * shape.h + h) * shape.w + w;
            float value[WIDTH];
            load_channels(x + pixel * ldx + it.first, value);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) largest[i] = exceeds(value[i], largest[i]) ? value[i] : largest[i];
        }
    }
    store_channels(y + (size_t)it.pixel * ldy + it.first, largest);
}

extern "C" __global__ void __launch_bounds__(256) pool_max_forward_f32(const float* x, float* y, int ldx, int ldy, PoolShape shape) {
    if (shape.wide) max_forward<float, WIDE<float>>(x, y, ldx, ldy, shape);
    else max_forward<float, 1>(x, y, ldx, ldy, shape);
}

extern "C" __global__ void __launch_bounds__(256) pool_max_forward_bf16(const __nv_bfloat16* x, __nv_bfloat16* y, int ldx, int ldy, PoolShape shape) {
    if (shape.wide) max_forward<__nv_bfloat16, WIDE<__nv_bfloat16>>(x, y, ldx, ldy, shape);
    else max_forward<__nv_bfloat16, 1>(x, y, ldx, ldy, shape);
}

/// Where in the image, as h * W + w, the largest of each channel under output pixel (p, q) is. `image` points at
/// the image's first pixel.
template <typename T, int WIDTH>
__device__ inline void find_largest(const T* image, int ldx, int p, int q, const PoolShape& shape, int (&from)[WIDTH]) {
    const int top = p * shape.stride - shape.padding, left = q * shape.stride - shape.padding;
    float largest[WIDTH];
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) {
        largest[i] = -INFINITY;
        // A window of nothing but -inf has its first element as the largest.
        from[i] = max(top, 0) * shape.w + max(left, 0);
    }
    for (int h = max(top, 0); h < min(top + shape.r, shape.h); ++h) {
#pragma unroll 1
        for (int w = max(left, 0); w < min(left + shape.s, shape.w); ++w) {
            const int pixel = h * shape.w + w;
            float value[WIDTH];
            load_channels(image + (size_t)pixel * ldx, value);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) {
                const bool wins = exceeds(value[i], largest[i]);
                largest[i] = wins ? value[i] : largest[i];
                from[i] = wins ? pixel : from[i];
            }
        }
    }
}

/// The first and last window position that sees `at`.
__device__ inline int first_window(int at, int kernel, int stride, int padding) {
    const int reach = at + padding - kernel + 1;
    return reach <= 0 ? 0 : (reach + stride - 1) / stride;
}

__device__ inline int last_window(int at, int stride, int padding, int positions) {
    return min((at + padding) / stride, positions - 1);
}

template <typename T, int WIDTH>
__device__ void max_backward(const T* x, const T* dy, T* dx, int ldx, int ldy, int ldd, const PoolShape& shape) {
    const int number = blockIdx.x * THREADS + threadIdx.x;
    if (number >= shape.count) return;
    const Item it = item<WIDTH>(number, shape.h, shape.w, shape.groups);
    const T* image = x + (size_t)it.image * shape.h * shape.w * ldx + it.first;
    const int self = it.row * shape.w + it.col;
    float sum[WIDTH] = {};
    const int q_first = first_window(it.col, shape.s, shape.stride, shape.padding);
    const int q_last = last_window(it.col, shape.stride, shape.padding, shape.q);
    const int p_last = last_window(it.row, shape.stride, shape.padding, shape.p);
    for (int p = first_window(it.row, shape.r, shape.stride, shape.padding); p <= p_last; ++p) {
        for (int q = q_first; q <= q_last; ++q) {
            int from[WIDTH];
            find_largest(image, ldx, p, q, shape, from);
            const size_t output = ((size_t)it.image * shape.p + p) * shape.q + q;
            float gradient[WIDTH];
            load_channels(dy + output * ldy + it.first, gradient);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) sum[i] += from[i] == self ? gradient[i] : 0.0f;
        }
    }
    store_channels(dx + (size_t)it.pixel * ldd + it.first, sum);
}

extern "C" __global__ void __launch_bounds__(256) pool_max_backward_f32(const float* x, const float* dy, float* dx, int ldx, int ldy, int ldd, PoolShape shape) {
    if (shape.wide) max_backward<float, WIDE<float>>(x, dy, dx, ldx, ldy, ldd, shape);
    else max_backward<float, 1>(x, dy, dx, ldx, ldy, ldd, shape);
}

extern "C" __global__ void __launch_bounds__(256) pool_max_backward_bf16(const __nv_bfloat16* x, const __nv_bfloat16* dy, __nv_bfloat16* dx, int ldx, int ldy, int ldd, PoolShape shape) {
    if (shape.wide) max_backward<__nv_bfloat16, WIDE<__nv_bfloat16>>(x, dy, dx, ldx, ldy, ldd, shape);
    else max_backward<__nv_bfloat16, 1>(x, dy, dx, ldx, ldy, ldd, shape);
}

/// The inputs [begin, end) that output `i` of `outputs` averages, of `inputs`. The host sees to it that
/// (outputs + 1) * inputs stays below 2^31.
__device__ inline int begin(int i, int inputs, int outputs) { return (unsigned)(i * inputs) / outputs; }

__device__ inline int end(int i, int inputs, int outputs) { return (unsigned)((i + 1) * inputs + outputs - 1) / outputs; }

/// Of x in f32 or bf16, y being f32.
template <typename T, int WIDTH>
__device__ void adaptive_forward(const T* x, float* y, int ldx, int ldy, const PoolShape& shape) {
    __shared__ float sums[WIDTH][THREADS];
    const int items = THREADS / shape.parts;
    const int number = blockIdx.x * items + threadIdx.x % items;
    const int part = threadIdx.x / items;
    const Item it = item<WIDTH>(number, shape.p, shape.q, shape.groups);
    const int top = begin(it.row, shape.h, shape.p), left = begin(it.col, shape.w, shape.q);
    const int width = end(it.col, shape.w, shape.q) - left;
    const int cells = (end(it.row, shape.h, shape.p) - top) * width;
    float sum[WIDTH] = {};
    if (number < shape.count) {
#pragma unroll 4
        for (int cell = part; cell < cells; cell += shape.parts) {
            const int h = top + cell / width, w = left + cell % width;
            const size_t pixel = ((size_t)it.image * shape.h + h) * shape.w + w;
            float value[WIDTH];
            load_channels(x + pixel * ldx + it.first, value);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) sum[i] += value[i];
        }
    }
    if (part > 0) {
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) sums[i][threadIdx.x] = sum[i];
    }
    __syncthreads();
    if (part > 0 || number >= shape.count) return;
    for (int other = threadIdx.x + items; other < shape.parts * items; other += items) {
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) sum[i] += sums[i][other];
    }
    const float weight = 1.0f / cells;
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) sum[i] *= weight;
    store_channels(y + (size_t)it.pixel * ldy + it.first, sum);
}

extern "C" __global__ void __launch_bounds__(256) pool_adaptive_forward_f32(const float* x, float* y, int ldx, int ldy, PoolShape shape) {
    if (shape.wide) adaptive_forward<float, WIDE<float>>(x, y, ldx, ldy, shape);
    else adaptive_forward<float, 1>(x, y, ldx, ldy, shape);
}

extern "C" __global__ void __launch_bounds__(256) pool_adaptive_forward_bf16(const __nv_bfloat16* x, float* y, int ldx, int ldy, PoolShape shape) {
    if (shape.wide) adaptive_forward<__nv_bfloat16, WIDE<float>>(x, y, ldx, ldy, shape);
    else adaptive_forward<__nv_bfloat16, 1>(x, y, ldx, ldy, shape);
}

template <typename T, int WIDTH>
__device__ void adaptive_backward(const float* dy, T* dx, int ldy, int ldd, const PoolShape& shape) {
    const int number = blockIdx.x * THREADS + threadIdx.x;
    if (number >= shape.count) return;
    const Item it = item<WIDTH>(number, shape.h, shape.w, shape.groups);
    float sum[WIDTH] = {};
    // Output p averages input h where it is in the span of input h among the outputs: the relation is symmetric.
    for (int p = begin(it.row, shape.p, shape.h); p < end(it.row, shape.p, shape.h); ++p) {
        const int height = end(p, shape.h, shape.p) - begin(p, shape.h, shape.p);
        for (int q = begin(it.col, shape.q, shape.w); q < end(it.col, shape.q, shape.w); ++q) {
            const int width = end(q, shape.w, shape.q) - begin(q, shape.w, shape.q);
            // The exact division's slow path would cost registers.
            const float weight = __fdividef(1.0f, height * width);
            const size_t output = ((size_t)it.image * shape.p + p) * shape.q + q;
            float gradient[WIDTH];
            load_channels(dy + output * ldy + it.first, gradient);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) sum[i] += gradient[i] * weight;
        }
    }
    store_channels(dx + (size_t)it.pixel * ldd + it.first, sum);
}

extern "C" __global__ void __launch_bounds__(256) pool_adaptive_backward_f32(const float* dy, float* dx, int ldy, int ldd, PoolShape shape) {
    if (shape.wide) adaptive_backward<float, WIDE<float>>(dy, dx, ldy, ldd, shape);
    else adaptive_backward<float, 1>(dy, dx, ldy, ldd, shape);
}

extern "C" __global__ void __launch_bounds__(256) pool_adaptive_backward_bf16(const float* dy, __nv_bfloat16* dx, int ldy, int ldd, PoolShape shape) {
    if (shape.wide) adaptive_backward<__nv_bfloat16, WIDE<float>>(dy, dx, ldy, ldd, shape);
    else adaptive_backward<__nv_bfloat16, 1>(dy, dx, ldy, ldd, shape);
}
