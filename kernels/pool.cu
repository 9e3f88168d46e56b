// Pooling of images (N, H, W, C), a row for every pixel: the largest or the mean of the pixels under a window,
// channel by channel; see ops/pool for the equations.
//
// Grid: a thread for every pixel that is written and every vector of channels, groups fastest, so that a warp
// reads and writes runs of 16 bytes times neighbouring vectors. All is bound by memory: each input comes from DRAM
// once, what windows share comes from the caches.
//
// Backward gathers: a thread has a square of 2x2 pixels, looks through the windows that they are in, in order, finds each one's largest
// again and gives dy to the pixel that it is, if that is here. No atomics, nothing saved, and sums in the CPU's order. With 3x3
// windows 2 apart a square is in four windows: 9 reads from L1 for one of x from DRAM, where a pixel by itself would take 20.
//
// A mean over many pixels (the global average) is split over `parts` threads, whose sums are added in order.
//
// Launch bounds ask for one block per multiprocessor only, so that ptxas does not spill registers to fit in eight.
#include "vector.cuh"

// Sizes of images and of what is made of them, and the window.
struct PoolShape {
    int h, w;
    int p, q;
    int r, s;
    int stride;
    int padding;
    // Vectors of channels of a pixel.
    int groups;
    // Pixels that are written times groups.
    int count;
    // Threads for each of those.
    int parts;
};

// The number of an item: a pixel of an image of `height` x `width`, and its channels.
struct Item {
    int image, row, col, first;
    // Of all pixels.
    int pixel;
};

template <class V>
__device__ __forceinline__ Item item(int number, int height, int width, int groups) {
    Item it;
    it.pixel = number / groups;
    it.first = (number - it.pixel * groups) * V::WIDTH;
    it.col = it.pixel % width;
    it.row = it.pixel / width % height;
    it.image = it.pixel / width / height;
    return it;
}

// Whether `x` replaces the largest so far: among equal values the first one stays; a NaN always replaces it.
__device__ __forceinline__ bool exceeds(float x, float largest) { return x > largest || isnan(x); }

template <class V, class T = typename V::Element>
__device__ __forceinline__ void max_forward(const T* x, T* y, int ldx, int ldy, const PoolShape& shape) {
    const int number = blockIdx.x * THREADS + threadIdx.x;
    if (number >= shape.count) return;
    const Item it = item<V>(number, shape.p, shape.q, shape.groups);
    const int top = it.row * shape.stride - shape.padding, left = it.col * shape.stride - shape.padding;
    Wide<V> largest;
#pragma unroll
    for (int i = 0; i < V::WIDTH; ++i) largest[i] = -INFINITY;
    for (int h = max(top, 0); h < min(top + shape.r, shape.h); ++h) {
        for (int w = max(left, 0); w < min(left + shape.s, shape.w); ++w) {
            const size_t pixel = ((size_t)it.image * shape.h + h) * shape.w + w;
            Wide<V> value = load_wide<V>(x + pixel * ldx + it.first);
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) largest[i] = exceeds(value[i], largest[i]) ? value[i] : largest[i];
        }
    }
    store_wide<V>(y + (size_t)it.pixel * ldy + it.first, largest);
}

#define POOL_MAX_FORWARD(V)                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                          \
        pool_max_forward_##V(const V::Element* x, V::Element* y, int ldx, int ldy, PoolShape shape) { \
        max_forward<V>(x, y, ldx, ldy, shape);                                                        \
    }
POOL_MAX_FORWARD(f32x1)
POOL_MAX_FORWARD(f32x4)
POOL_MAX_FORWARD(bf16x1)
POOL_MAX_FORWARD(bf16x8)

// Where in the image, as h * W + w, the largest of each channel under output pixel (p, q) is. `image` points at
// the image's first pixel.
template <class V, class T = typename V::Element>
__device__ __forceinline__ void find_largest(
    const T* image, int ldx, int p, int q, const PoolShape& shape, int (&from)[V::WIDTH]) {
    const int top = p * shape.stride - shape.padding, left = q * shape.stride - shape.padding;
    Wide<V> largest;
#pragma unroll
    for (int i = 0; i < V::WIDTH; ++i) {
        largest[i] = -INFINITY;
        // A window of nothing but -inf has its first element as the largest.
        from[i] = max(top, 0) * shape.w + max(left, 0);
    }
    for (int h = max(top, 0); h < min(top + shape.r, shape.h); ++h) {
#pragma unroll 1
        for (int w = max(left, 0); w < min(left + shape.s, shape.w); ++w) {
            const int pixel = h * shape.w + w;
            Wide<V> value = load_wide<V>(image + (size_t)pixel * ldx);
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) {
                const bool wins = exceeds(value[i], largest[i]);
                largest[i] = wins ? value[i] : largest[i];
                from[i] = wins ? pixel : from[i];
            }
        }
    }
}

// The first and last window position that sees `at`.
__device__ __forceinline__ int first_window(int at, int kernel, int stride, int padding) {
    const int reach = at + padding - kernel + 1;
    return reach <= 0 ? 0 : (reach + stride - 1) / stride;
}

__device__ __forceinline__ int last_window(int at, int stride, int padding, int positions) {
    return min((at + padding) / stride, positions - 1);
}

// The side of the square of pixels of a thread.
constexpr int SQUARE = 2;

template <class V, class T = typename V::Element>
__device__ __forceinline__ void max_backward(
    const T* x, const T* dy, T* dx, int ldx, int ldy, int ldd, const PoolShape& shape) {
    const int number = blockIdx.x * THREADS + threadIdx.x;
    if (number >= shape.count) return;
    const Item it = item<V>(number, (shape.h + SQUARE - 1) / SQUARE, (shape.w + SQUARE - 1) / SQUARE, shape.groups);
    const T* image = x + (size_t)it.image * shape.h * shape.w * ldx + it.first;
    const int row = SQUARE * it.row, col = SQUARE * it.col, self = row * shape.w + col;
    Wide<V> sums[SQUARE][SQUARE] = {};
    const int q_first = first_window(col, shape.s, shape.stride, shape.padding);
    const int q_last = last_window(col + SQUARE - 1, shape.stride, shape.padding, shape.q);
    const int p_last = last_window(row + SQUARE - 1, shape.stride, shape.padding, shape.p);
    for (int p = first_window(row, shape.r, shape.stride, shape.padding); p <= p_last; ++p) {
#pragma unroll 1
        for (int q = q_first; q <= q_last; ++q) {
            int from[V::WIDTH];
            find_largest<V>(image, ldx, p, q, shape, from);
            const size_t output = ((size_t)it.image * shape.p + p) * shape.q + q;
            Wide<V> gradient = load_wide<V>(dy + output * ldy + it.first);
#pragma unroll
            for (int down = 0; down < SQUARE; ++down) {
#pragma unroll
                for (int right = 0; right < SQUARE; ++right) {
                    const int pixel = self + down * shape.w + right;
#pragma unroll
                    for (int i = 0; i < V::WIDTH; ++i) {
                        sums[down][right][i] += from[i] == pixel ? gradient[i] : 0.0f;
                    }
                }
            }
        }
    }
#pragma unroll
    for (int down = 0; down < SQUARE; ++down) {
#pragma unroll
        for (int right = 0; right < SQUARE; ++right) {
            if (row + down >= shape.h || col + right >= shape.w) continue;
            const size_t pixel = ((size_t)it.image * shape.h + row + down) * shape.w + col + right;
            store_wide<V>(dx + pixel * ldd + it.first, sums[down][right]);
        }
    }
}

#define POOL_MAX_BACKWARD(V)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) pool_max_backward_##V(                              \
        const V::Element* x, const V::Element* dy, V::Element* dx, int ldx, int ldy, int ldd, PoolShape shape) { \
        max_backward<V>(x, dy, dx, ldx, ldy, ldd, shape);                                                        \
    }
POOL_MAX_BACKWARD(f32x1)
POOL_MAX_BACKWARD(f32x4)
POOL_MAX_BACKWARD(bf16x1)
POOL_MAX_BACKWARD(bf16x8)

// The inputs [begin, end) that output `i` of `outputs` averages, of `inputs`. The host sees to it that
// (outputs + 1) * inputs stays below 2^31.
__device__ __forceinline__ int begin(int i, int inputs, int outputs) { return (unsigned)(i * inputs) / outputs; }

__device__ __forceinline__ int end(int i, int inputs, int outputs) {
    return (unsigned)((i + 1) * inputs + outputs - 1) / outputs;
}

// Sums are f32, whatever x and y are.
template <class V, class T = typename V::Element>
__device__ __forceinline__ void adaptive_forward(const T* x, T* y, int ldx, int ldy, const PoolShape& shape) {
    __shared__ float sums[V::WIDTH][THREADS];
    const int items = THREADS / shape.parts;
    const int number = blockIdx.x * items + threadIdx.x % items;
    const int part = threadIdx.x / items;
    const Item it = item<V>(number, shape.p, shape.q, shape.groups);
    const int top = begin(it.row, shape.h, shape.p), left = begin(it.col, shape.w, shape.q);
    const int width = end(it.col, shape.w, shape.q) - left;
    const int cells = (end(it.row, shape.h, shape.p) - top) * width;
    Wide<V> sum = {};
    if (number < shape.count) {
#pragma unroll 4
        for (int cell = part; cell < cells; cell += shape.parts) {
            const int h = top + cell / width, w = left + cell % width;
            const size_t pixel = ((size_t)it.image * shape.h + h) * shape.w + w;
            Wide<V> value = load_wide<V>(x + pixel * ldx + it.first);
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) sum[i] += value[i];
        }
    }
    if (part > 0) {
#pragma unroll
        for (int i = 0; i < V::WIDTH; ++i) sums[i][threadIdx.x] = sum[i];
    }
    __syncthreads();
    if (part > 0 || number >= shape.count) return;
    for (int other = threadIdx.x + items; other < shape.parts * items; other += items) {
#pragma unroll
        for (int i = 0; i < V::WIDTH; ++i) sum[i] += sums[i][other];
    }
    const float weight = 1.0f / cells;
#pragma unroll
    for (int i = 0; i < V::WIDTH; ++i) sum[i] *= weight;
    store_wide<V>(y + (size_t)it.pixel * ldy + it.first, sum);
}

#define POOL_ADAPTIVE_FORWARD(V)                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                               \
        pool_adaptive_forward_##V(const V::Element* x, V::Element* y, int ldx, int ldy, PoolShape shape) { \
        adaptive_forward<V>(x, y, ldx, ldy, shape);                                                        \
    }
POOL_ADAPTIVE_FORWARD(f32x1)
POOL_ADAPTIVE_FORWARD(f32x4)
POOL_ADAPTIVE_FORWARD(bf16x1)
POOL_ADAPTIVE_FORWARD(bf16x8)

template <class V, class T = typename V::Element>
__device__ __forceinline__ void adaptive_backward(const float* dy, T* dx, int ldy, int ldd, const PoolShape& shape) {
    const int number = blockIdx.x * THREADS + threadIdx.x;
    if (number >= shape.count) return;
    const Item it = item<V>(number, shape.h, shape.w, shape.groups);
    Wide<V> sum = {};
    // Output p averages input h where it is in the span of input h among the outputs: the relation is symmetric.
    for (int p = begin(it.row, shape.p, shape.h); p < end(it.row, shape.p, shape.h); ++p) {
        const int height = end(p, shape.h, shape.p) - begin(p, shape.h, shape.p);
        for (int q = begin(it.col, shape.q, shape.w); q < end(it.col, shape.q, shape.w); ++q) {
            const int width = end(q, shape.w, shape.q) - begin(q, shape.w, shape.q);
            // The exact division's slow path would cost registers.
            const float weight = __fdividef(1.0f, height * width);
            const size_t output = ((size_t)it.image * shape.p + p) * shape.q + q;
            Wide<V> gradient = load<Wide<V>>(dy + output * ldy + it.first);
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) sum[i] += gradient[i] * weight;
        }
    }
    store_wide<V>(dx + (size_t)it.pixel * ldd + it.first, sum);
}

#define POOL_ADAPTIVE_BACKWARD(V)                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                             \
        pool_adaptive_backward_##V(const float* dy, V::Element* dx, int ldy, int ldd, PoolShape shape) { \
        adaptive_backward<V>(dy, dx, ldy, ldd, shape);                                                   \
    }
POOL_ADAPTIVE_BACKWARD(f32x1)
POOL_ADAPTIVE_BACKWARD(f32x4)
POOL_ADAPTIVE_BACKWARD(bf16x1)
POOL_ADAPTIVE_BACKWARD(bf16x4)
