// y = x m / (1 - p), m = 0 where the 32 random bits are below the threshold p 2^32, else 1; also in place.
//
// Mapping: a thread takes four neighbouring columns, which are the four words of one Philox block; the grid is
// one-dimensional over rows x blocks. Row r of x is step first_t + r / batch of sequence r % batch, and the
// counter's row word is sequence << 12 | step: the mask depends on nothing else, so it equals the CPU's bit by bit.
// The step's number is read from device memory: recorded launches draw new masks when it changes.
// Bytes: 8 an element, each once. Flops: ten rounds are about 70 integer instructions for four elements; at 32 bytes a
// thread an A100 moves 5e10 threads a second and could draw 1.4e11. Bound: memory.
// Rows that do not start at multiples of 16 bytes (`aligned` is 0) are read a float at a time.

#include "pack.cuh"
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

__device__ __forceinline__ void dropout(const DropoutMask& mask, unsigned step, const float* x, float* y, int rows, int cols, int x_ld,
                                        int y_ld, int aligned) {
    unsigned blocks = (cols + 3) / 4;
    unsigned long long i = thread_number();
    if (i >= (unsigned long long)rows * blocks) return;
    unsigned row = i / blocks, block = i % blocks;
    unsigned sequence = row % mask.batch, t = mask.first_t + row / mask.batch;
    uint4 bits = philox(mask.seed, make_uint4(block, sequence << 12 | t, step, mask.site));
    float factor[4] = {
        bits.x >= mask.threshold ? mask.scale : 0.0f,
        bits.y >= mask.threshold ? mask.scale : 0.0f,
        bits.z >= mask.threshold ? mask.scale : 0.0f,
        bits.w >= mask.threshold ? mask.scale : 0.0f,
    };
    int col = 4 * block;
    const float* from = x + (size_t)row * x_ld + col;
    float* to = y + (size_t)row * y_ld + col;
    // A dropped element is 0 whatever it was, an infinity or NaN too.
    if (aligned && col + 4 <= cols) {
        Pack<4> values = load<4>(from);
#pragma unroll
        for (int k = 0; k < 4; k++) values.at[k] = factor[k] == 0.0f ? 0.0f : values.at[k] * factor[k];
        store<4>(to, values);
    } else {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (col + k < cols) to[k] = factor[k] == 0.0f ? 0.0f : from[k] * factor[k];
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
dropout_forward_f32(DropoutMask mask, const unsigned* step, const float* x, float* y, int rows, int cols, int x_ld,
                    int y_ld, int aligned) {
    dropout(mask, *step, x, y, rows, cols, x_ld, y_ld, aligned);
}

extern "C" __global__ void __launch_bounds__(256)
dropout_in_place_f32(DropoutMask mask, const unsigned* step, float* x, int rows, int cols, int ld, int aligned) {
    dropout(mask, *step, x, x, rows, cols, ld, ld, aligned);
}
