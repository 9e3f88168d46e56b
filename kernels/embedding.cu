// Forward: y_r = W_id(r). Backward: dW_v += sum over r with id(r) = v of dy_r, in the order of r.
//
// ids lie in rows of ids_cols, ids_ld apart; number r is in row r / ids_cols.
//
// Forward, f32 or bf16: a thread takes WIDTH columns of a row of y; 1-D grid over rows x vectors. Bytes: y once, each row of W that
// has an id here once, the ids. Bound: memory. An id that is not below the number of rows gives NaN: it shows in the
// loss, and nothing outside the table is read.
//
// Backward: a block for each (place r in the list, 128 vectors of columns). Only the block at the first place
// where an id occurs does anything: it finds all places by comparing the list with its id, 4096 at a time, each
// warp's 32 comparisons by one ballot, makes a list of them in shared memory, and adds their rows of dy to dW, sixteen
// loads in flight, in order. So there is no sort and no atomic, and the sums are the same bits in every run.
// Bytes: dy once, the touched rows of dW read and written once, the list 4N for every distinct word and the part
// in front of it for every repeated one: N = 768 (24 steps of 32) is 3 KB, from L2. Zeroing all of dW beforehand, when
// it is overwritten, is a launch of its own and is most of the bytes: 18 MB at V = 8915, E = 512. Bound: that memory;
// for the most frequent word, the latency of a sixteenth of its places.

#include "vector.cuh"

__device__ __forceinline__ unsigned id_at(const unsigned* ids, unsigned r, int ids_cols, int ids_ld) {
    return ids[(size_t)(r / ids_cols) * ids_ld + r % ids_cols];
}

template <class V>
__device__ __forceinline__ void embedding_forward(
    const typename V::Element* weight, const unsigned* ids, typename V::Element* y, int words, int rows, int cols,
    int ids_cols, int ids_ld, int weight_ld, int y_ld) {
    const auto [row, col, inside] = vector_position<V>(rows, cols);
    if (!inside) return;
    unsigned id = id_at(ids, row, ids_cols, ids_ld);
    V values;
    if (id < (unsigned)words) {
        values = load<V>(weight + (size_t)id * weight_ld + col);
    } else {
#pragma unroll
        for (int k = 0; k < V::WIDTH; ++k) narrow(__int_as_float(0x7FC00000), values[k]);
    }
    store_global(y + (size_t)row * y_ld + col, values);
}

constexpr int SCATTER_THREADS = 128;
constexpr int IN_FLIGHT = 16;
// Places that are compared at a time: a word of 32 bits for each thread.
constexpr int COMPARED = 32 * SCATTER_THREADS;

// The places of a block that have its id, in order.
struct Places {
    unsigned map[SCATTER_THREADS];
    int before[SCATTER_THREADS / WARP];
    unsigned short list[COMPARED];

    // Puts the places whose bits are set in the first `used` words of `map` into `list`, and returns how many there are. Every
    // thread takes a word.
    __device__ __forceinline__ int gather(int used) {
        int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        unsigned bits = threadIdx.x < used ? map[threadIdx.x] : 0;
        int count = __popc(bits), end = count;
#pragma unroll
        for (int by = 1; by < WARP; by *= 2) {
            int other = __shfl_up_sync(0xFFFFFFFFu, end, by);
            if (lane >= by) end += other;
        }
        if (lane == WARP - 1) before[warp] = end;
        __syncthreads();
        int total = 0;
#pragma unroll
        for (int w = 0; w < SCATTER_THREADS / WARP; ++w) {
            if (w == warp) end += total;
            total += before[w];
        }
        for (int at = end - count; bits != 0; bits &= bits - 1) list[at++] = 32 * threadIdx.x + __ffs(bits) - 1;
        __syncthreads();
        return total;
    }
};

template <class V>
__device__ __forceinline__ void embedding_backward(
    const unsigned* ids, const float* dy, float* dw, int words, int rows, int cols, int ids_cols, int ids_ld, int dy_ld,
    int dw_ld, long long padding) {
    __shared__ Places places;
    int place = blockIdx.x, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    unsigned id = id_at(ids, place, ids_cols, ids_ld);
    if (id == padding || id >= (unsigned)words) return;
    bool repeated = false;
    for (int r = threadIdx.x; r < place; r += SCATTER_THREADS) repeated |= id_at(ids, r, ids_cols, ids_ld) == id;
    if (__syncthreads_or(repeated)) return;

    int col = (blockIdx.y * SCATTER_THREADS + threadIdx.x) * V::WIDTH;
    bool inside = col < cols;
    float* to = dw + (size_t)id * dw_ld + col;
    V sum = {};
    if (inside) sum = load<V>(to);
    // Nothing in front of `place`, and the words of the map begin at its own.
    for (int first = place; first < rows; first += COMPARED) {
        int used = min(SCATTER_THREADS, (rows - first + 31) / 32);
        for (int word = warp; word < used; word += SCATTER_THREADS / WARP) {
            int r = first + 32 * word + lane;
            bool same = r < rows && id_at(ids, r, ids_cols, ids_ld) == id;
            unsigned bits = __ballot_sync(0xFFFFFFFFu, same);
            if (lane == 0) places.map[word] = bits;
        }
        __syncthreads();
        int found = places.gather(used);
        for (int next = 0; next < found; next += IN_FLIGHT) {
            V values[IN_FLIGHT];
#pragma unroll
            for (int q = 0; q < IN_FLIGHT; ++q) {
                if (inside && next + q < found) {
                    values[q] = load<V>(dy + (size_t)(first + places.list[next + q]) * dy_ld + col);
                }
            }
#pragma unroll
            for (int q = 0; q < IN_FLIGHT; ++q) {
                if (inside && next + q < found) {
#pragma unroll
                    for (int k = 0; k < V::WIDTH; ++k) sum[k] += values[q][k];
                }
            }
        }
        // The next words overwrite the map and the list.
        __syncthreads();
    }
    if (inside) store_global(to, sum);
}

#define EMBEDDING_FORWARD(V)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) embedding_forward_##V(                                   \
        const V::Element* weight, const unsigned* ids, V::Element* y, int words, int rows, int cols, int ids_cols, \
        int ids_ld, int weight_ld, int y_ld) {                                                                     \
        embedding_forward<V>(weight, ids, y, words, rows, cols, ids_cols, ids_ld, weight_ld, y_ld);                \
    }
EMBEDDING_FORWARD(f32x1)
EMBEDDING_FORWARD(f32x4)
EMBEDDING_FORWARD(bf16x1)
EMBEDDING_FORWARD(bf16x8)

// padding: the id whose row gets nothing, or -1.
#define EMBEDDING_BACKWARD(V)                                                                                     \
    extern "C" __global__ void __launch_bounds__(SCATTER_THREADS) embedding_backward_##V(                         \
        const unsigned* ids, const float* dy, float* dw, int words, int rows, int cols, int ids_cols, int ids_ld, \
        int dy_ld, int dw_ld, long long padding) {                                                                \
        embedding_backward<V>(ids, dy, dw, words, rows, cols, ids_cols, ids_ld, dy_ld, dw_ld, padding);           \
    }
EMBEDDING_BACKWARD(f32x1)
EMBEDDING_BACKWARD(f32x4)
