// Convolution as a product of matrices that are never formed (implicit GEMM), on the main loop of tile.cuh.
//
//   forward   y[(n,p,q), k] = act(Σ_(r,s,c) x[n, p·stride + r - padding, q·stride + s - padding, c] f[k, (r,s,c)] + b[k] + z)
//             rows are windows (WindowRows), columns are filters, both with k = (r,s,c) running through memory
//   data      dx[(n,h,w), c] = Σ_(r,s,k) dy[n, (h + padding - r)/stride, …, k] f[k, (r,s,c)]
//             only where stride divides: pixels fall into stride² classes (blockIdx.z) that see every stride-th tap, so
//             that nothing is multiplied by the zeros between. Taps count upwards, dy's pixels downwards (SIGN -1)
//   filter    df[k, (r,s,c)] = Σ_(n,p,q) dy[(n,p,q), k] x[…]: lines are windows on both sides (Order::MN); windows are cut
//             in parts (blockIdx.y) that are added up in order (parts.cuh), so that results repeat bit for bit
//
//   stem      forward for few channels: conv_stem.cuh
//
// A block makes a tile; tiles of one row of windows are neighbours, so that they share the pixels in level 2. Names: the
// arithmetic and the cut.
//
// Flops 2·N·P·Q·K·R·S·C each. Bytes, if level 2 keeps what neighbours share: x, f, z and y once. As for products, f32 is
// bound by FFMA; tf32 and bf16 by the tensor cores in 3x3 layers, by memory in the 1x1 layers of the first stages (about
// C/2 flops per byte).
//
// Tried: div and mod in every step (a third of the instructions; left for channels that are no multiple of a step's k); columns in memory (im2col: r·s times the bytes).
#include "elementwise.cuh"
#include "conv_stem.cuh"
#include "parts.cuh"
#include "window.cuh"

// Sums over k from `start` on, as they lie in shared memory then.
template <class Product, class A, class B>
__device__ __forceinline__ tile::Staged<Product> sums_of(const A& a, const B& b, int start, int end) {
    extern __shared__ __align__(128) unsigned char memory[];
    tile::Source<A, B, Product::DEPTH> source{a, b, start, end};
    Product product;
    product.run(source, memory);
    return tile::Staged<Product>(product, memory);
}

template <class T, class Product>
__device__ __forceinline__ void put_tile(
    const Output<T>& output, const tile::Staged<Product>& staged, int first_row, int first_col) {
    using Chunk = tile::Chunk<T>;
    first_row += staged.first_row;
    if (!output.template in_chunks<Chunk>(first_col, Product::Cut::N)) {
        staged.each([&](int row, int col, float sum) { output.put(first_row + row, first_col + col, sum); });
        return;
    }
    const int col = first_col + staged.template col<T>();
    const bool inside = col < output.y.cols;
    const Chunk added = Chunk::bias(inside ? output.bias : nullptr, col);
    const auto there = [&](int row) { return inside && first_row + row < output.y.rows; };
    const auto before = [&](int row) { return output.template before<Chunk>(first_row + row, col, there(row)); };
    staged.template each_chunk<T>(before, [&](int row, const Chunk& sums, const typename Chunk::Words& before) {
        output.put(first_row + row, col, sums, added, before, there(row));
    });
}

using tile::Order;

template <class Math, class Cut, class T = class Math::Element>
__device__ __forceinline__ void forward(
    const T* x, const T* filter, const float* bias, const T* z, T* y, const ConvShape& shape, int ldz, bool relu) {
    using Product = tile::Product<Math, Cut, Order::K, Order::K>;
    const int rows = shape.n * shape.p * shape.q, depth = shape.r * shape.s * shape.c;
    const int tiles_n = (shape.k + Cut::N - 1) / Cut::N;
    const int first_row = (int)blockIdx.x / tiles_n * Cut::M, first_col = (int)blockIdx.x % tiles_n * Cut::N;
    const tile::Images of{shape.h, shape.w, shape.c, shape.ldx, shape.r, shape.s};
    const bool chunks = tile::in_chunks(x, shape.ldx) && shape.c % Product::A::VECTOR == 0;
    const tile::WindowRows<typename Product::A, Cut::THREADS, 1> windows(x, of, rows - first_row, chunks, [&](int row) {
        const int line = (first_row + row) / shape.q, q = first_row + row - line * shape.q;
        const int image = line / shape.p, p = line - image * shape.p;
        return tile::Place{image * shape.h, p * shape.stride - shape.padding, q * shape.stride - shape.padding};
    });
    const tile::RowLoader<typename Product::B, Cut::THREADS> filters(
        filter, shape.ldf, shape.k - first_col, tile::in_chunks(filter, shape.ldf),
        [=](int row) { return first_col + row; });
    const auto staged = sums_of<Product>(windows, filters, 0, depth);
    put_tile(
        Output<T>{{y, shape.ldy, rows, shape.k}, {z, ldz, rows, shape.k}, bias, relu}, staged, first_row, first_col);
}

// Lines are k = (tap, filter), columns the channels of that tap (Order::MN): the filter as the data's gradient reads it. Where the
// filters are a multiple of a step's k, all lines of a step are at the same tap.
template <class Side, int THREADS>
struct FilterColumns {
    using Element = typename Side::Element;
    using Lines = tile::Lines<Side, THREADS>;
    const Element* from;  // this thread's first column of tap (0, 0) of the class
    int filters, ld, taps_j, step_i, step_j, cols;
    // Of the next step, where whole(): its first filter, its tap, and how far it is from filter 0 at tap (0, 0).
    int filter = 0, j = 0, distance = 0;
    unsigned start;
    bool chunks;

    __device__ __forceinline__
    FilterColumns(const Element* base, int filters, int ld, int taps_j, int step_i, int step_j, int cols, bool chunks)
        : from(base + (Lines::first() < cols ? Lines::first() : 0)),
          filters(filters),
          ld(ld),
          taps_j(taps_j),
          step_i(step_i),
          step_j(step_j),
          cols(cols),
          start(Lines::start()),
          chunks(chunks) {}

    __device__ __forceinline__ bool whole() const {
        const bool near = (long long)filters * ld < 1 << 30;
        return chunks && near && filters % Side::DEPTH == 0 && (cols >= Side::ROWS || cols % Side::VECTOR == 0);
    }

    __device__ __forceinline__ void copy_whole(unsigned to, int) {
        to += start;
        const Element* line = tile::advanced(from + distance, Lines::line(0), ld);
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            copy_16_if(Lines::place(to, i), tile::advanced(line, i * Lines::STEP, ld), Lines::first() < cols);
        }
        go_on();
    }

    __device__ __forceinline__ void copy(unsigned to, int k, int left) {
        to += start;
#pragma unroll
        for (int i = 0; i < Lines::COUNT; ++i) {
            const int at = k + Lines::line(i), tap = at / filters, filter = at - tap * filters, r = tap / taps_j;
            const bool more = Lines::line(i) < left;
            const Element* line = from + (size_t)filter * ld + r * step_i + (tap - r * taps_j) * step_j;
            tile::copy_chunk(Lines::place(to, i), more ? line : from, more ? cols - Lines::first() : 0, chunks);
        }
        go_on();
    }

 private:
    __device__ __forceinline__ void go_on() {
        filter += Side::DEPTH;
        distance += Side::DEPTH * ld;
        if (filter < filters) return;
        filter = 0;
        distance += step_j - filters * ld;
        if (++j < taps_j) return;
        j = 0;
        distance += step_i - taps_j * step_j;
    }
};

template <class Math, class Cut, class T = class Math::Element>
__device__ __forceinline__ void data(const T* dy, const T* filter, T* dx, const ConvShape& shape, bool accumulate) {
    using Product = tile::Product<Math, Cut, Order::K, Order::MN>;
    const int stride = shape.stride;
    const int class_h = (int)blockIdx.z / stride, class_w = (int)blockIdx.z % stride;
    // This class's pixels, and its first tap and number of taps, in each direction.
    const int rows_h = (shape.h - class_h + stride - 1) / stride, rows_w = (shape.w - class_w + stride - 1) / stride;
    const int r0 = (class_h + shape.padding) % stride, s0 = (class_w + shape.padding) % stride;
    const int taps_r = max(0, (shape.r - r0 + stride - 1) / stride),
              taps_s = max(0, (shape.s - s0 + stride - 1) / stride);
    const int rows = shape.n * rows_h * rows_w, depth = taps_r * taps_s * shape.k;
    const int tiles_n = (shape.c + Cut::N - 1) / Cut::N;
    const int first_row = (int)blockIdx.x / tiles_n * Cut::M, first_col = (int)blockIdx.x % tiles_n * Cut::N;
    if (first_row >= rows) return;
    const tile::Images of{shape.p, shape.q, shape.k, shape.ldy, taps_r, taps_s};
    const bool chunks_y = tile::in_chunks(dy, shape.ldy) && shape.k % Product::A::VECTOR == 0;
    const tile::WindowRows<typename Product::A, Cut::THREADS, -1> windows(
        dy, of, rows - first_row, chunks_y, [&](int row) {
            const int line = (first_row + row) / rows_w, w = first_row + row - line * rows_w;
            const int image = line / rows_h, h = line - image * rows_h;
            return tile::Place{
                image * shape.p, h + (class_h + shape.padding - r0) / stride,
                w + (class_w + shape.padding - s0) / stride};
        });
    const bool chunks_f = tile::in_chunks(filter, shape.ldf) && shape.c % Product::B::VECTOR == 0;
    const T* base = filter + (r0 * shape.s + s0) * shape.c + first_col;
    const FilterColumns<typename Product::B, Cut::THREADS> filters(
        base, shape.k, shape.ldf, taps_s, stride * shape.s * shape.c, stride * shape.c, shape.c - first_col, chunks_f);
    const auto staged = sums_of<Product>(windows, filters, 0, depth);
    const auto pixel = [&](int row) {
        if (stride == 1) return row;
        const int line = row / rows_w, w = row - line * rows_w, image = line / rows_h, h = line - image * rows_h;
        return (image * shape.h + h * stride + class_h) * shape.w + w * stride + class_w;
    };
    const tile::Target<T> to{dx, shape.ldx, rows, shape.c};
    const tile::PlacedRows<Product::Cut::WARP_M> pixels({first_row + staged.first_row, rows}, pixel);
    tile::put_sums(staged, to, nullptr, accumulate, first_col, pixels);
}

template <class Math, class Cut, class T = class Math::Element>
__device__ __forceinline__ void filter_gradient(
    const T* x, const T* dy, float* df, float* workspace, unsigned* arrived, const ConvShape& shape, int part_windows,
    bool accumulate) {
    extern __shared__ __align__(128) unsigned char memory[];
    using Product = tile::Product<Math, Cut, Order::MN, Order::MN>;
    const int windows = shape.n * shape.p * shape.q, cols = shape.r * shape.s * shape.c;
    const int tiles_n = (cols + Cut::N - 1) / Cut::N;
    const int first_row = (int)blockIdx.x / tiles_n * Cut::M, first_col = (int)blockIdx.x % tiles_n * Cut::N;
    const int start = blockIdx.y * part_windows, end = min(windows, start + part_windows);
    tile::ColumnLoader<typename Product::A, Cut::THREADS> gradients(
        dy + (size_t)start * shape.ldy + first_row, shape.ldy, shape.k - first_row, tile::in_chunks(dy, shape.ldy));
    const tile::Images of{shape.h, shape.w, shape.c, shape.ldx, shape.r, shape.s};
    const bool chunks = tile::in_chunks(x, shape.ldx) && shape.c % Product::B::VECTOR == 0;
    tile::WindowColumns<typename Product::B, Cut::THREADS> pixels(
        x, of, shape.p, shape.q, shape.stride, shape.padding, start, first_col, cols, chunks);
    tile::Source<decltype(gradients), decltype(pixels), Product::DEPTH> source{gradients, pixels, start, end};
    Product product;
    product.run(source, memory);
    if (gridDim.y > 1 && !tile::add_parts(product, workspace, arrived, blockIdx.x, blockIdx.y, gridDim.y)) return;
    const tile::Staged<Product> staged(product, memory);
    const tile::Target<float> to{df, shape.ldf, shape.k, cols};
    const tile::NextRows rows{first_row + staged.first_row, shape.k};
    tile::put_sums(staged, to, nullptr, accumulate, first_col, rows);
}

#define CONV_FORWARD(MATH, CUT)                                                                                      \
    extern "C" __global__ void __launch_bounds__(tile::CUT::THREADS, tile::CUT::BLOCKS) conv_forward_##MATH##_##CUT( \
        const tile::math::MATH::Element* x, const tile::math::MATH::Element* filter, const float* bias,              \
        const tile::math::MATH::Element* z, tile::math::MATH::Element* y, ConvShape shape, int ldz, int relu) {      \
        forward<tile::math::MATH, tile::CUT>(x, filter, bias, z, y, shape, ldz, relu != 0);                          \
    }
CONV_FORWARD(f32, tall)
CONV_FORWARD(f32, small)
CONV_FORWARD(tf32, large)
CONV_FORWARD(tf32, small)
CONV_FORWARD(bf16, large)
CONV_FORWARD(bf16, small)

#define CONV_DATA(MATH, CUT)                                                                                         \
    extern "C" __global__ void __launch_bounds__(tile::CUT::THREADS, tile::CUT::BLOCKS) conv_data_##MATH##_##CUT(    \
        const tile::math::MATH::Element* dy, const tile::math::MATH::Element* filter, tile::math::MATH::Element* dx, \
        ConvShape shape, int accumulate) {                                                                           \
        data<tile::math::MATH, tile::CUT>(dy, filter, dx, shape, accumulate != 0);                                   \
    }
CONV_DATA(f32, tall)
CONV_DATA(f32, small)
CONV_DATA(tf32, large)
CONV_DATA(tf32, small)
CONV_DATA(bf16, large)
CONV_DATA(bf16, small)

#define CONV_FILTER(MATH, CUT)                                                                                      \
    extern "C" __global__ void __launch_bounds__(tile::CUT::THREADS, tile::CUT::BLOCKS) conv_filter_##MATH##_##CUT( \
        const tile::math::MATH::Element* x, const tile::math::MATH::Element* dy, float* df, float* workspace,       \
        unsigned* arrived, ConvShape shape, int part_windows, int accumulate) {                                     \
        filter_gradient<tile::math::MATH, tile::CUT>(                                                               \
            x, dy, df, workspace, arrived, shape, part_windows, accumulate != 0);                                   \
    }
CONV_FILTER(f32, tall)
CONV_FILTER(f32, small)
CONV_FILTER(tf32, large)
CONV_FILTER(tf32, small)
CONV_FILTER(bf16, large)
CONV_FILTER(bf16, small)

#define CONV_TENSOR_STEM(MATH)                                                                                       \
    extern "C" __global__ void __launch_bounds__(STEM_THREADS, 1) conv_tensor_stem_##MATH(                           \
        const tile::math::MATH::Element* x, const tile::math::MATH::Element* filter, const float* bias,              \
        const tile::math::MATH::Element* z, tile::math::MATH::Element* y, ConvShape shape, StemUnits units, int ldz, \
        int relu) {                                                                                                  \
        tensor_stem<tile::math::MATH>(x, filter, bias, z, y, shape, units, ldz, relu != 0);                          \
    }
CONV_TENSOR_STEM(tf32)
CONV_TENSOR_STEM(bf16)

extern "C" __global__ void __launch_bounds__(STEM_THREADS) conv_stem_f32(
    const float* x, const float* filter, const float* bias, const float* z, float* y, ConvShape shape, int ldz,
    int relu) {
    stem(x, filter, bias, z, y, shape, ldz, relu != 0);
}

// dy <- dy where y > 0, else 0: the gradient through the ReLU. The grid is that of add.cu.
template <class V, class T = typename V::Element>
__device__ __forceinline__ void relu_backward(const T* y, T* dy, int rows, int cols, int ldy, int lddy) {
    each_group<V::WIDTH>(rows, cols, [=](int row, int first, int count) {
        const T* from = y + (size_t)row * ldy + first;
        T* to = dy + (size_t)row * lddy + first;
        if (count == V::WIDTH) {
            const Wide<V> output = load_wide<V>(from);
            V gradient = load<V>(to);
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) {
                if (!(output[i] > 0.0f)) narrow(0.0f, gradient[i]);
            }
            store<V>(to, gradient);
        } else {
            for (int i = 0; i < count; ++i) {
                if (!(widen(from[i]) > 0.0f)) narrow(0.0f, to[i]);
            }
        }
    });
}

#define CONV_RELU_BACKWARD(V)                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                    \
        conv_relu_backward_##V(const V::Element* y, V::Element* dy, int rows, int cols, int ldy, int lddy) { \
        relu_backward<V>(y, dy, rows, cols, ldy, lddy);                                                      \
    }
CONV_RELU_BACKWARD(f32x1)
CONV_RELU_BACKWARD(f32x4)
CONV_RELU_BACKWARD(bf16x1)
CONV_RELU_BACKWARD(bf16x8)
