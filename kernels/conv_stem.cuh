// The stem, and every layer of few channels: a pixel is less than a chunk of 16 bytes, so the loaders of window.cuh cannot be used.
// A block makes 32 windows x 64 filters in each of STEM_LINES lines of y, one line after the other, from the part of the image under
// a line.
//
// On tensor cores (tf32, bf16). Channels are padded with zeros to 4 or 8 in shared memory, so that the (s,c) of a window are whole
// units of 16 bytes, and units of neighbouring windows are neighbours: windows are `step` units apart, and where that is 2, even and
// odd units lie apart from each other (planes). Eight rows of a matrix are then 128 bytes in a row, and ldmatrix takes the windows
// from where they overlap: nothing is copied twice, and nothing is in bank conflict.
//
//   patch    [r][plane][unit], the rows of the image under a line in a ring of R: the next line copies only `stride` new ones
//   weights  [filter][r][unit], R units + 1 apart, which is odd
//   staged   [window][filter], f32: the sums, from which threads take four filters of a window each
//
// A warp has all 32 windows and 16 filters: for two units of k, 3 loads of matrices and 4 mma. Where a window's last units hold
// more taps than it has, its k there is set to zero, since the pixel is a neighbour's: not a zero, and it may be a NaN. Shared memory
// for 7x7, stride 2, 3 channels: 42 KiB in bf16, 74 KiB in tf32. Bytes: x 1.4 times (blocks overlap by 6 columns of 70 and 5 rows of 21), all but
// once from level 2; y once; weights for every block, from level 2.
//
// In f32 a block keeps the filters in shared memory, a line for each tap, and the rows of the image as they are, ((32 - 1)·stride +
// S)·C numbers, where the (s,c) of a window are neighbours. A thread has 4 pixels x 4 filters: 16 multiply-adds for 5 loads. 44 KiB
// for the 7x7 stem. Bytes: x about 7/4 times (lines overlap), y once.
#pragma once
#include "conv_output.cuh"

constexpr int STEM_PIXELS = 32, STEM_FILTERS = 64, STEM_PITCH = STEM_FILTERS + 4, STEM_LINES = 8, STEM_THREADS = 128;
// Floats between the rows of `staged`.
constexpr int STAGED_PITCH = STEM_FILTERS + 8;

// How windows lie in units of 16 bytes: channels of a pixel there (a power of 2), pixels of a unit, units from a window to the next,
// units of a row of a window (even), and of a plane.
struct StemUnits {
    int channels, pixels, step, of_window, of_plane;
};

__host__ __device__ constexpr int stem_units_bytes(int r, int of_window, int step, int of_plane) {
    return (STEM_FILTERS * (r * of_window + 1) + r * step * of_plane) * 16 + STEM_PIXELS * STAGED_PITCH * sizeof(float);
}

// Numbers of one row of the patch in f32: what STEM_PIXELS windows of width s see of c channels.
__host__ __device__ constexpr int stem_run(int s, int c, int stride) { return ((STEM_PIXELS - 1) * stride + s) * c; }

__host__ __device__ constexpr int stem_shared_bytes(int r, int s, int c, int stride) {
    return (r * s * c * STEM_PITCH + r * stem_run(s, c, stride)) * sizeof(float);
}

// The block's place among tiles.
struct StemTile {
    int first_q, first_line, end_line, first_k;

    __device__ __forceinline__ explicit StemTile(const ConvShape& shape) {
        const int parts = (shape.q + STEM_PIXELS - 1) / STEM_PIXELS, lines = shape.n * shape.p;
        first_q = (int)blockIdx.x % parts * STEM_PIXELS;
        first_line = (int)blockIdx.x / parts * STEM_LINES;
        end_line = min(first_line + STEM_LINES, lines);
        first_k = blockIdx.y * STEM_FILTERS;
    }
};

// Four filters of four windows of a line, of which thread t has windows t / 16 * 4 + i and filters from t % 16 * 4 on: `sums(i)`.
template <class T, class Sums>
__device__ __forceinline__ void put_stem(
    const Output<T>& output, const ConvShape& shape, const StemTile& tile, int line, Sums sums) {
    using Chunk = tile::Chunk<T, 4>;
    const int mine_k = threadIdx.x % 16 * 4, mine_q = threadIdx.x / 16 * 4, col = tile.first_k + mine_k;
    const bool chunks = output.template in_chunks<Chunk>(tile.first_k, STEM_FILTERS);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int q = tile.first_q + mine_q + i, row = line * shape.q + q;
        if (q >= shape.q || col >= shape.k) continue;
        const float4 of = sums(i);
        if (chunks) {
            const auto before = output.template before<Chunk>(row, col, true);
            output.put(row, col, Chunk{of.x, of.y, of.z, of.w}, Chunk::bias(output.bias, col), before, true);
        } else {
            output.put(row, col, of.x);
            output.put(row, col + 1, of.y);
            output.put(row, col + 2, of.z);
            output.put(row, col + 3, of.w);
        }
    }
}

// Elements as they lie in shared memory for tensor cores.
__device__ __forceinline__ unsigned short stem_element(bf16 value) { return __bfloat16_as_ushort(value); }
__device__ __forceinline__ unsigned stem_element(float value) { return to_tf32(value, value).x; }

template <class Math>
struct TensorStem {
    using T = typename Math::Element;
    using Stored = decltype(stem_element(T()));
    static constexpr int UNIT = 16 / sizeof(T);
    const ConvShape& shape;
    const StemUnits& units;
    StemTile tile;
    Stored *weights, *patch;
    float* staged;

    __device__ __forceinline__ TensorStem(const ConvShape& shape, const StemUnits& units, unsigned char* shared)
        : shape(shape), units(units), tile(shape) {
        const int of_filter = shape.r * units.of_window + 1;
        weights = reinterpret_cast<Stored*>(shared);
        patch = weights + STEM_FILTERS * of_filter * UNIT;
        staged = reinterpret_cast<float*>(patch + shape.r * units.step * units.of_plane * UNIT);
    }

    // Weights and patch. What is behind a pixel's channels and a window's taps stays zero.
    __device__ __forceinline__ void clear() const {
        const int count = (reinterpret_cast<unsigned char*>(staged) - reinterpret_cast<unsigned char*>(weights)) / 16;
        for (int i = threadIdx.x; i < count; i += STEM_THREADS) reinterpret_cast<uint4*>(weights)[i] = uint4{};
    }

    // A warp takes every fourth filter, a lane the same taps of all of them.
    __device__ __forceinline__ void load_weights(const T* filter) const {
        const int taps = shape.r * shape.s * shape.c, of_filter = (shape.r * units.of_window + 1) * UNIT;
        const int filters = min(STEM_FILTERS, shape.k - tile.first_k);
        filter += (size_t)tile.first_k * shape.ldf;
        for (int e = threadIdx.x % WARP; e < taps; e += WARP) {
            const int tap = e / shape.c, r = tap / shape.s;
            Stored* to =
                weights + r * units.of_window * UNIT + (tap - r * shape.s) * units.channels + e - tap * shape.c;
#pragma unroll 4
            for (int k = threadIdx.x / WARP; k < filters; k += STEM_THREADS / WARP) {
                to[k * of_filter] = stem_element(filter[(size_t)k * shape.ldf + e]);
            }
        }
    }

    // Rows `from` to R - 1 of the windows of a line, of which row r lies at (base + r) % R. A thread takes one channel of every so
    // many pixels.
    __device__ __forceinline__ void load_rows(const T* x, int image, int p, int base, int from) const {
        const int apart = STEM_THREADS / shape.c, of_row = units.step * units.of_plane * units.pixels;
        const int channel = threadIdx.x % shape.c;
        const int top = p * shape.stride - shape.padding, left = tile.first_q * shape.stride - shape.padding;
        if (threadIdx.x >= apart * shape.c) return;
        int r = from, pixel = threadIdx.x / shape.c;
        while (true) {
            for (; pixel >= of_row; pixel -= of_row) ++r;
            if (r >= shape.r) return;
            // All of these are 1 or 2.
            const int unit = pixel >> (units.pixels - 1), plane = unit & (units.step - 1);
            const int slot = base + r < shape.r ? base + r : base + r - shape.r, h = top + r, w = left + pixel;
            const int place = (slot * units.step + plane) * units.of_plane + (unit >> (units.step - 1));
            const bool inside = (unsigned)h < (unsigned)shape.h && (unsigned)w < (unsigned)shape.w;
            const T* at = x + (size_t)((image * shape.h + h) * shape.w + w) * shape.ldx + channel;
            patch[place * UNIT + (pixel & (units.pixels - 1)) * units.channels + channel] =
                stem_element(inside ? *at : T(0.0f));
            pixel += apart;
        }
    }

    // The sums of a line to `staged`. Row 0 of its windows lies at `base`.
    __device__ __forceinline__ void multiply_line(int base) const {
        const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, next = lane >> 4;
        const int of_row = units.step * units.of_plane * 16, further = units.step == 1 ? 32 : 16;
        // Rows of matrices: of A windows lane % 8 (+ 8), the next unit for the upper half; of B filters, the next unit for every
        // second eight.
        const unsigned a =
            shared_address(patch) + (lane % 16) * 16 + next * (units.step == 1 ? 16 : units.of_plane * 16);
        unsigned b = shared_address(weights) +
                     ((warp * 16 + lane / 16 * 8 + lane % 8) * (shape.r * units.of_window + 1) + (lane >> 3 & 1)) * 16;
        const int there = shape.s * units.channels;
        float2 sums[2][2][2] = {};
        for (int r = 0; r < shape.r; ++r) {
            const int slot = base + r < shape.r ? base + r : base + r - shape.r;
            unsigned at = a + slot * of_row;
            for (int unit = 0; unit < units.of_window; unit += 2, at += further, b += 32) {
                const uint4 v = load_matrices<false>(b);
                const FragmentB cols[2] = {{v.x, v.y}, {v.z, v.w}};
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    const uint4 u = load_matrices<false>(at + m * 16 * 16);
                    FragmentA rows{u.x, u.y, u.z, u.w};
                    if ((unit + 2) * UNIT > there) clear_beyond(rows, unit, there);
#pragma unroll
                    for (int n = 0; n < 2; ++n) {
                        if constexpr (sizeof(T) == 4) {
                            multiply_tf32(sums[m][n][0], sums[m][n][1], rows, cols[n]);
                        } else {
                            multiply_bf16(sums[m][n][0], sums[m][n][1], rows, cols[n]);
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                float* to = staged + (16 * m + lane / 4) * STAGED_PITCH + warp * 16 + 8 * n + lane % 4 * 2;
                *reinterpret_cast<float2*>(to) = sums[m][n][0];
                *reinterpret_cast<float2*>(to + 8 * STAGED_PITCH) = sums[m][n][1];
            }
        }
    }

    // Clears what lies behind the window's last tap: a row of a window has `there` elements.
    static __device__ __forceinline__ void clear_beyond(FragmentA& rows, int unit, int there) {
        const int first = unit * UNIT + threadIdx.x % 4 * (4 / (int)sizeof(T));
        if (first >= there) rows.top_low = rows.bottom_low = 0;
        if (first + UNIT >= there) rows.top_high = rows.bottom_high = 0;
    }
};

template <class Math, class T = typename Math::Element>
__device__ __forceinline__ void tensor_stem(
    const T* x, const T* filter, const float* bias, const T* z, T* y, const ConvShape& shape, const StemUnits& units,
    int ldz, bool relu) {
    extern __shared__ __align__(128) unsigned char memory[];
    const TensorStem<Math> stem(shape, units, memory);
    const StemTile& tile = stem.tile;
    const int rows = shape.n * shape.p * shape.q;
    const Output<T> output{{y, shape.ldy, rows, shape.k}, {z, ldz, rows, shape.k}, bias, relu};
    stem.clear();
    __syncthreads();
    stem.load_weights(filter);
    for (int line = tile.first_line; line < tile.end_line; ++line) {
        const int image = line / shape.p, p = line - image * shape.p, base = p * shape.stride % shape.r;
        // The line before has all but `stride` of the rows, if it is of the same image.
        const bool goes_on = line > tile.first_line && p > 0;
        stem.load_rows(x, image, p, base, goes_on ? max(0, shape.r - shape.stride) : 0);
        __syncthreads();
        stem.multiply_line(base);
        __syncthreads();
        const float* staged = stem.staged + threadIdx.x / 16 * 4 * STAGED_PITCH + threadIdx.x % 16 * 4;
        put_stem(output, shape, tile, line, [=](int i) {
            return *reinterpret_cast<const float4*>(staged + i * STAGED_PITCH);
        });
    }
}

// In f32.
__device__ __forceinline__ void load_filters(
    const float* filter, float* weights, int first_k, int taps, const ConvShape& shape) {
    for (int i = threadIdx.x; i < taps * STEM_FILTERS; i += STEM_THREADS) {
        const int k = i / taps, tap = i - k * taps;
        weights[tap * STEM_PITCH + k] = first_k + k < shape.k ? filter[(size_t)(first_k + k) * shape.ldf + tap] : 0.0f;
    }
}

__device__ __forceinline__ void load_patch(
    const float* x, float* patch, int image, int top, int left, int run, const ConvShape& shape) {
    for (int i = threadIdx.x; i < shape.r * run; i += STEM_THREADS) {
        const int r = i / run, at = i - r * run, pixel = at / shape.c, h = top + r, w = left + pixel;
        const bool inside = (unsigned)h < (unsigned)shape.h && (unsigned)w < (unsigned)shape.w;
        const float* row = x + (size_t)((image * shape.h + h) * shape.w + w) * shape.ldx;
        patch[i] = inside ? row[at - pixel * shape.c] : 0.0f;
    }
}

__device__ __forceinline__ void stem(
    const float* x, const float* filter, const float* bias, const float* z, float* y, const ConvShape& shape, int ldz,
    bool relu) {
    extern __shared__ __align__(16) float shared[];
    const int window = shape.s * shape.c, taps = shape.r * window, step = shape.stride * shape.c;
    const int run = stem_run(shape.s, shape.c, shape.stride);
    float *weights = shared, *patch = shared + taps * STEM_PITCH;
    const StemTile tile(shape);
    const int mine_q = threadIdx.x / 16 * 4, mine_k = threadIdx.x % 16 * 4, rows = shape.n * shape.p * shape.q;
    const Output<float> output{{y, shape.ldy, rows, shape.k}, {z, ldz, rows, shape.k}, bias, relu};
    load_filters(filter, weights, tile.first_k, taps, shape);
    for (int line = tile.first_line; line < tile.end_line; ++line) {
        const int image = line / shape.p, p = line - image * shape.p;
        __syncthreads();
        load_patch(
            x, patch, image, p * shape.stride - shape.padding, tile.first_q * shape.stride - shape.padding, run, shape);
        __syncthreads();
        float sums[4][4] = {};
        for (int r = 0; r < shape.r; ++r) {
            const float* pixels = patch + r * run + mine_q * step;
            const float* of_row = weights + r * window * STEM_PITCH + mine_k;
#pragma unroll 3
            for (int e = 0; e < window; ++e) {
                const float4 w = *reinterpret_cast<const float4*>(of_row + e * STEM_PITCH);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float v = pixels[i * step + e];
                    sums[i][0] = fmaf(v, w.x, sums[i][0]);
                    sums[i][1] = fmaf(v, w.y, sums[i][1]);
                    sums[i][2] = fmaf(v, w.z, sums[i][2]);
                    sums[i][3] = fmaf(v, w.w, sums[i][3]);
                }
            }
        }
        put_stem(output, shape, tile, line, [&](int i) {
            return make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
        });
    }
}
