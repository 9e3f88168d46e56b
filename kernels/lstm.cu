// The LSTM (src/ops/lstm/mod.rs has the equations). Gates lie as i f g o, H columns each.
//
// lstm_step_forward: one step, the products with the state and the cell in one launch. Before it, gates (B, 4H) hold what does not
//   depend on the state (biases, the input's product); then gates += x1 W1ᵀ + x2 W2ᵀ, activations, c and h.
//   Mapping: a block makes a tile of 32 rows x 8 units with the main loop of tile.cuh, K running over
//   both inputs. The cell needs the four gates of a unit in one place: the tile's column n reads the row
//   gate H + unit of the weights, so that weights keep PyTorch's layout and a lane ends with the four sums of a unit:
//   a warp has 16 columns, column n of them is unit n % 8 / 2 and gate 2 (n / 8) + n % 2, and the main loop leaves a lane
//   columns 2q, 2q + 1, 8 + 2q and 9 + 2q. No exchange, no second pass over the gates.
//   The tile is small because a step is one of a chain: 64 tiles for H = 512 and 32 rows, each with 8 units of weights. The
//   sum over K is made in parts by several blocks, and the last of them has the whole sums for the cell (parts.cuh).
//   Bytes: weights 4 (K1 + K2) 4H, half of it in bf16, read from L2 (f32: show-tell 4 MB, attend 21 MB); x by every column of tiles; gates twice, c
//   twice, h. Flops 8 B H (K1 + K2). Measured on an H100, B = 32, H = 512, K = 2560 + 512 (attend has 2048 + 512): 23.9 µs in one part, 13.1
//   in six; a step of k takes 0.2 µs, and all else 4 µs, of which a launch in a graph has most.
//   Tried: tiles of 64 rows for larger batches (B = 128 of show-tell 10.9 µs instead of 7.3 on an H100).
//
// lstm_cell_backward: the cell's gradient; dh is the sum of up to two tensors. A thread takes WIDTH units of a row. Bytes: 12 or
//   13 floats per unit, each once. Bound: memory, and at 32 x 512 units (790 KB) the launch.
//
// lstm_set_biases: gates = b_ih + b_hh in every row. Bytes: gates once.

#include "vector.cuh"
#include "source.cuh"
#include "parts.cuh"

constexpr int GATES = 4;
// Columns of the tile that a warp has, and the units that they are.
constexpr int WARP_COLS = 16;
constexpr int WARP_UNITS = WARP_COLS / GATES;

// Sizes and row distances of a step. `depth` are the columns of x1 and x2; the second may be 0.
struct LstmStep {
    int rows;
    int hidden;
    int depth1;
    int depth2;
    int x1_ld;
    int x2_ld;
    int weight1_ld;
    int weight2_ld;
    int gates_ld;
    int c_prev_ld;
    int c_ld;
    int h_ld;
    int part_steps;
};

// An input and its weight (4H, depth).
template <class Element>
struct StepInput {
    const Element* x;
    const Element* weight;
    int depth;
    int x_ld;
    int weight_ld;
};

// Steps of k over one input after the other, from step `start` to before step `end`; a number that is too large ends with the last step.
template <class Product>
struct StepSource {
    using A = tile::RowLoader<typename Product::A, Product::Cut::THREADS>;
    using B = tile::RowLoader<typename Product::B, Product::Cut::THREADS>;
    using StepInput = ::StepInput<typename Product::Element>;
    StepInput next;
    int rows, hidden, first_row, first_unit;
    int of_first, start, end;
    int k, depth;
    A a;
    B b;

    // Rows of weights by tile column: see the head. Units beyond the last read it again.
    static __device__ __forceinline__ int weight_row(int col, int first_unit, int hidden) {
        const int unit = first_unit + col / WARP_COLS * WARP_UNITS + col % 8 / 2;
        const int gate = col % WARP_COLS / 8 * 2 + col % 2;
        return gate * hidden + min(unit, hidden - 1);
    }

    static __device__ __forceinline__ A a_of(const StepInput& in, int rows, int first_row) {
        return A(
            in.x, in.x_ld, rows - first_row, tile::in_chunks(in.x, in.x_ld), [=](int row) { return first_row + row; });
    }

    static __device__ __forceinline__ B b_of(const StepInput& in, int hidden, int first_unit) {
        return B(in.weight, in.weight_ld, Product::Cut::N, tile::in_chunks(in.weight, in.weight_ld), [=](int col) {
            return weight_row(col, first_unit, hidden);
        });
    }

    __device__ __forceinline__ StepSource(
        const StepInput& first, const StepInput& next, int rows, int hidden, int first_row, int first_unit, int start,
        int end)
        : next(next),
          rows(rows),
          hidden(hidden),
          first_row(first_row),
          first_unit(first_unit),
          of_first(steps_of(first.depth)),
          start(start),
          end(min(end, of_first + steps_of(next.depth))),
          k(start * Product::DEPTH),
          depth(first.depth),
          a(a_of(first, rows, first_row)),
          b(b_of(first, hidden, first_unit)) {
        if (start >= of_first) to_next((start - of_first) * Product::DEPTH);
    }

    __device__ __forceinline__ int steps() const { return max(0, end - start); }

    // All but a last step that ends within k, where the first input has none such or is not begun with.
    __device__ __forceinline__ int whole_steps() const {
        const bool chunks = a.whole() && b.whole() && tile::in_chunks(next.x, next.x_ld) &&
                            tile::in_chunks(next.weight, next.weight_ld);
        if (!chunks || (start < of_first && depth % Product::DEPTH != 0)) return 0;
        return min(end, of_first + next.depth / Product::DEPTH) - start;
    }

    __device__ __forceinline__ void copy_whole(unsigned to) {
        if (k >= depth) to_next(0);
        a.copy_whole(to, k);
        b.copy_whole(to, k);
        k += Product::DEPTH;
    }

    __device__ __forceinline__ void copy(unsigned to) {
        if (k >= depth) to_next(0);
        a.copy(to, k, depth - k);
        b.copy(to, k, depth - k);
        k += Product::DEPTH;
    }

 private:
    static __device__ __forceinline__ int steps_of(int depth) { return (depth + Product::DEPTH - 1) / Product::DEPTH; }

    // To this k of the next input.
    __device__ __forceinline__ void to_next(int at) {
        a = a_of(next, rows, first_row);
        b = b_of(next, hidden, first_unit);
        depth = next.depth;
        k = at;
    }
};

// Four warps of 16 x 16; shared memory 40 KiB.
using step = tile::Cut<32, 32, 128, 2, 2, 5, 4>;

// What a lane needs for the cell beside the sums: of two rows, one unit.
struct CellInputs {
    float gates[GATES];
    float c_prev;
};

template <class Math, class Element = typename Math::Element>
__device__ __forceinline__ void lstm_step(
    LstmStep at, const Element* x1, const Element* weight1, const Element* x2, const Element* weight2, float* gates,
    const float* c_prev, float* c, Element* h, float* workspace, unsigned* arrived) {
    using Product = tile::Product<Math, step, tile::Order::K, tile::Order::K>;
    using StepInput = ::StepInput<Element>;
    static_assert(Product::PAIRS == 2, "a lane has two pairs of columns: the four gates of a unit");
    extern __shared__ __align__(128) unsigned char memory[];
    const int first_row = blockIdx.y * step::M, first_unit = blockIdx.x * (step::N / GATES);
    const StepInput first{x1, weight1, at.depth1, at.x1_ld, at.weight1_ld};
    const StepInput second{x2, weight2, at.depth2, at.x2_ld, at.weight2_ld};
    const int start = blockIdx.z * at.part_steps;
    Product product;
    const int unit = first_unit + product.first_col / GATES + threadIdx.x % 4;
    const auto inside = [&](int r) { return unit < at.hidden && first_row + product.row(r) < at.rows; };
    // Loaded before the sums, so that nobody waits for it.
    CellInputs inputs[Product::ROWS] = {};
#pragma unroll
    for (int r = 0; r < Product::ROWS; ++r) {
        if (!inside(r)) continue;
        const size_t row = first_row + product.row(r);
#pragma unroll
        for (int g = 0; g < GATES; ++g) inputs[r].gates[g] = gates[row * at.gates_ld + (size_t)g * at.hidden + unit];
        inputs[r].c_prev = c_prev[row * at.c_prev_ld + unit];
    }
    StepSource<Product> source(first, second, at.rows, at.hidden, first_row, first_unit, start, start + at.part_steps);
    product.run(source, memory);
    if (gridDim.z > 1) {
        const unsigned tile = blockIdx.y * gridDim.x + blockIdx.x;
        if (!tile::add_parts(product, workspace, arrived, tile, blockIdx.z, gridDim.z)) return;
    }
#pragma unroll
    for (int r = 0; r < Product::ROWS; ++r) {
        if (!inside(r)) continue;
        const size_t row = first_row + product.row(r), hidden = at.hidden;
        const CellInputs& in = inputs[r];
        const float i = sigmoid(in.gates[0] + product.sums[r][0].x);
        const float f = sigmoid(in.gates[1] + product.sums[r][0].y);
        const float g = tanhf(in.gates[2] + product.sums[r][1].x);
        const float o = sigmoid(in.gates[3] + product.sums[r][1].y);
        const float state = f * in.c_prev + i * g;
        float* to = gates + row * at.gates_ld + unit;
        to[0] = i;
        to[hidden] = f;
        to[2 * hidden] = g;
        to[3 * hidden] = o;
        c[row * at.c_ld + unit] = state;
        narrow(o * tanhf(state), h[row * at.h_ld + unit]);
    }
}

#define LSTM_STEP_FORWARD(MATH)                                                                             \
    extern "C" __global__ void __launch_bounds__(step::THREADS, step::BLOCKS) lstm_step_forward_##MATH(     \
        LstmStep at, const tile::math::MATH::Element* x1, const tile::math::MATH::Element* weight1,         \
        const tile::math::MATH::Element* x2, const tile::math::MATH::Element* weight2, float* gates,        \
        const float* c_prev, float* c, tile::math::MATH::Element* h, float* workspace, unsigned* arrived) { \
        lstm_step<tile::math::MATH>(at, x1, weight1, x2, weight2, gates, c_prev, c, h, workspace, arrived); \
    }
LSTM_STEP_FORWARD(f32)
LSTM_STEP_FORWARD(tf32)
LSTM_STEP_FORWARD(bf16)

// Sizes and row distances of the cell's backward.
struct LstmCell {
    int rows;
    int hidden;
    int gates_ld;
    int c_prev_ld;
    int c_ld;
    int dh_ld;
    int later_ld;
    int dc_ld;
    int d_gates_ld;
};

// `later` may be null. V is of d_gates.
template <class V>
__device__ __forceinline__ void cell_backward(
    const LstmCell& at, const float* gates, const float* c_prev, const float* c, const float* dh, const float* later,
    float* dc, typename V::Element* d_gates) {
    using F = Wide<V>;
    const auto [row, unit, inside] = vector_position<V>(at.rows, at.hidden);
    if (!inside) return;
    const size_t hidden = at.hidden;
    gates += row * at.gates_ld + unit;
    d_gates += row * at.d_gates_ld + unit;
    dc += row * at.dc_ld + unit;
    F i = load<F>(gates), f = load<F>(gates + hidden);
    F g = load<F>(gates + 2 * hidden), o = load<F>(gates + 3 * hidden);
    F before = load<F>(c_prev + row * at.c_prev_ld + unit);
    F state = load<F>(c + row * at.c_ld + unit);
    F d = load<F>(dh + row * at.dh_ld + unit), d_state = load<F>(dc), more = {};
    if (later != nullptr) more = load<F>(later + row * at.later_ld + unit);
#pragma unroll
    for (int k = 0; k < V::WIDTH; ++k) {
        const float of_h = d[k] + more[k], tanh_c = tanhf(state[k]);
        const float delta = d_state[k] + of_h * o[k] * (1.0f - tanh_c * tanh_c);
        const float di = delta * g[k] * i[k] * (1.0f - i[k]);
        d_state[k] = delta * f[k];
        f[k] = delta * before[k] * f[k] * (1.0f - f[k]);
        g[k] = delta * i[k] * (1.0f - g[k] * g[k]);
        o[k] = of_h * tanh_c * o[k] * (1.0f - o[k]);
        i[k] = di;
    }
    store_global(d_gates, i);
    store_global(d_gates + hidden, f);
    store_global(d_gates + 2 * hidden, g);
    store_global(d_gates + 3 * hidden, o);
    store_global(dc, d_state);
}

#define LSTM_CELL_BACKWARD(V)                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS) lstm_cell_backward_##V(                                  \
        LstmCell at, const float* gates, const float* c_prev, const float* c, const float* dh, const float* later, \
        float* dc, V::Element* d_gates) {                                                                          \
        cell_backward<V>(at, gates, c_prev, c, dh, later, dc, d_gates);                                            \
    }
LSTM_CELL_BACKWARD(f32x1)
LSTM_CELL_BACKWARD(f32x4)
LSTM_CELL_BACKWARD(bf16x1)
LSTM_CELL_BACKWARD(bf16x4)

template <class V>
__device__ __forceinline__ void set_biases(
    const float* bias_ih, const float* bias_hh, float* gates, int rows, int cols, int ld) {
    const auto [row, col, inside] = vector_position<V>(rows, cols);
    if (!inside) return;
    V sum = load<V>(bias_ih + col), other = load<V>(bias_hh + col);
#pragma unroll
    for (int k = 0; k < V::WIDTH; ++k) sum[k] += other[k];
    store_global(gates + row * ld + col, sum);
}

#define LSTM_SET_BIASES(V)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                           \
        lstm_set_biases_##V(const float* bias_ih, const float* bias_hh, float* gates, int rows, int cols, int ld) { \
        set_biases<V>(bias_ih, bias_hh, gates, rows, cols, ld);                                                     \
    }
LSTM_SET_BIASES(f32x1)
LSTM_SET_BIASES(f32x4)
