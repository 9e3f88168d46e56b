// y = x m / (1 - p), m = 0 where the 32 random bits are below the threshold p 2^32, else 1; also in place.
//
// Mapping: a thread takes four neighbouring columns, which are the four words of one Philox block; the grid is
// one-dimensional over rows x blocks. Row r of x is step first_t + r / batch of sequence r % batch, and the
// counter's row word is sequence << 12 | step: the mask depends on nothing else, so it equals the CPU's bit by bit.
// The step's number is read from device memory: recorded launches draw new masks when it changes.
// Bytes: 8 per element, 4 in bf16, each once. Flops: ten rounds are about 70 integer instructions for four elements; at 32 bytes per
// thread an A100 moves 5e10 threads per second and could draw 1.4e11. Bound: memory.
// With V of one element a thread reads its four columns one by one.

#include "vector.cuh"
#include "philox.cuh"

// Where a mask is drawn, and what it does.
struct DropoutMask {
    unsigned long long seed;
    unsigned site;
    unsigned threshold;
    float scale;
    int first_t;
    int batch;
};

// Words of a Philox block: columns of a thread.
constexpr int WORDS = 4;

template <class V>
__device__ __forceinline__ void dropout(
    const DropoutMask& mask, unsigned step, const typename V::Element* x, typename V::Element* y, int rows, int cols,
    int x_ld, int y_ld) {
    unsigned blocks = (cols + WORDS - 1) / WORDS;
    unsigned long long i = thread_number();
    if (i >= (unsigned long long)rows * blocks) return;
    unsigned row = i / blocks, block = i % blocks;
    unsigned sequence = row % mask.batch, t = mask.first_t + row / mask.batch;
    uint4 bits = philox(mask.seed, make_uint4(block, sequence << 12 | t, step, mask.site));
    float factor[WORDS] = {
        bits.x >= mask.threshold ? mask.scale : 0.0f,
        bits.y >= mask.threshold ? mask.scale : 0.0f,
        bits.z >= mask.threshold ? mask.scale : 0.0f,
        bits.w >= mask.threshold ? mask.scale : 0.0f,
    };
    int col = WORDS * block;
    const auto* from = x + (size_t)row * x_ld + col;
    auto* to = y + (size_t)row * y_ld + col;
    // A dropped element is 0 whatever it was, an infinity or NaN too.
    if constexpr (V::WIDTH == WORDS) {
        Wide<V> values = load_wide<V>(from);
#pragma unroll
        for (int k = 0; k < WORDS; ++k) values[k] = factor[k] == 0.0f ? 0.0f : values[k] * factor[k];
        store_as(to, values);
    } else {
#pragma unroll
        for (int k = 0; k < WORDS; ++k) {
            if (col + k < cols) narrow(factor[k] == 0.0f ? 0.0f : widen(from[k]) * factor[k], to[k]);
        }
    }
}

#define DROPOUT_FORWARD(V)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) dropout_forward_##V(                                    \
        DropoutMask mask, const unsigned* step, const V::Element* x, V::Element* y, int rows, int cols, int x_ld, \
        int y_ld) {                                                                                               \
        dropout<V>(mask, *step, x, y, rows, cols, x_ld, y_ld);                                                    \
    }
DROPOUT_FORWARD(f32x1)
DROPOUT_FORWARD(f32x4)
DROPOUT_FORWARD(bf16x1)
DROPOUT_FORWARD(bf16x4)

#define DROPOUT_IN_PLACE(V)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                         \
        dropout_in_place_##V(DropoutMask mask, const unsigned* step, V::Element* x, int rows, int cols, int ld) { \
        dropout<V>(mask, *step, x, x, rows, cols, ld, ld);                                                        \
    }
DROPOUT_IN_PLACE(f32x1)
DROPOUT_IN_PLACE(f32x4)
DROPOUT_IN_PLACE(bf16x1)
DROPOUT_IN_PLACE(bf16x4)
