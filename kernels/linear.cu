// Column sums, the gradient of a bias: db_o = Σ_r dy_ro, or db_o += that.
//
// A block takes 64 columns and a part of the rows: 4 warps, each lane two columns 32 apart, a warp every fourth row,
// so that a warp reads 128 (f32) or 64 (bf16) bytes in a row, twice. The warps' sums meet in shared memory in the order of the
// warps. Where the columns alone do not make enough blocks, the rows are cut into parts whose sums go to a workspace
// [part][cols], added up in order by the same kernel: the same bits every time.
//
// Bytes: dy once. One addition for each element of 4 (2) bytes: memory bounds it.
//
// Tried: one thread per column over all rows (one block per 128 columns: a bias of 512 keeps four multiprocessors busy).
#include "vector.cuh"

// Columns and threads of a block.
constexpr int COLUMNS = 64;
constexpr int SUM_THREADS = 128;
constexpr int SUM_WARPS = SUM_THREADS / WARP;

// `y` holds the sums of part blockIdx.y from column 0 on, `cols` apart; dy's rows are ld apart.
template <class T>
__device__ __forceinline__ void sum_rows(
    const T* dy, float* y, int rows, int cols, int ld, int part_rows, int accumulate) {
    __shared__ float sums[SUM_WARPS][COLUMNS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int col = blockIdx.x * COLUMNS + lane;
    const int start = blockIdx.y * part_rows, end = min(rows, start + part_rows);
    float first = 0.0f, second = 0.0f;
#pragma unroll 4
    for (int row = start + warp; row < end; row += SUM_WARPS) {
        const T* at = dy + (size_t)row * ld + col;
        if (col < cols) first += widen(at[0]);
        if (col + WARP < cols) second += widen(at[WARP]);
    }
    sums[warp][lane] = first;
    sums[warp][lane + WARP] = second;
    __syncthreads();
    const int mine = blockIdx.x * COLUMNS + threadIdx.x;
    if (threadIdx.x >= COLUMNS || mine >= cols) return;
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < SUM_WARPS; ++w) sum += sums[w][threadIdx.x];
    float* to = y + (size_t)blockIdx.y * cols + mine;
    *to = accumulate ? *to + sum : sum;
}

#define LINEAR_SUM_ROWS(T)                                                                                      \
    extern "C" __global__ void __launch_bounds__(SUM_THREADS)                                                   \
        linear_sum_rows_##T(const T* dy, float* y, int rows, int cols, int ld, int part_rows, int accumulate) { \
        sum_rows(dy, y, rows, cols, ld, part_rows, accumulate);                                                 \
    }
LINEAR_SUM_ROWS(f32)
LINEAR_SUM_ROWS(bf16)
