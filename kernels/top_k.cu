// The k largest logits of every row (R, V), best first, the lower id winning a tie, with their log-probabilities
// x - ln sum e^x. NaN and -infinity are never chosen: what is missing has id 0.
//
// Grid: a block of 256 threads per row. The row is read once into shared memory (4 V bytes; rows that do not fit are
// read again instead, mostly from L2). Each of k rounds finds the best entry behind the last one chosen: a pass of
// V / 256 comparisons per thread and a reduction. Bound by latency at a batch of rows and k up to a dozen; no
// list of k in registers, so any k will do.
#include "reduce.cuh"

struct Entry {
    float value;
    unsigned id;

    __device__ __forceinline__ bool is_before(Entry other) const {
        return value > other.value || (value == other.value && id < other.id);
    }
};

// The first in order of all threads' entries, in all threads.
__device__ __forceinline__ Entry first_of_block(Entry mine) {
    __shared__ Entry of_warp[WARPS];
    const auto first_of = [](Entry entry, int lanes) {
        for (int distance = lanes / 2; distance > 0; distance /= 2) {
            const Entry other = {
                __shfl_xor_sync(0xffffffffu, entry.value, distance),
                __shfl_xor_sync(0xffffffffu, entry.id, distance),
            };
            if (other.is_before(entry)) entry = other;
        }
        return entry;
    };
    mine = first_of(mine, 32);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = first_of(of_warp[threadIdx.x % (WARPS)], WARPS);
    __syncthreads();
    return mine;
}

extern "C" __global__ void __launch_bounds__(THREADS) top_k_f32(
    const float* logits, unsigned* ids, float* log_probabilities, int cols, int k, int ld, int ld_ids,
    int ld_log_probabilities, int in_shared) {
    extern __shared__ float kept[];
    const float* row = logits + (size_t)blockIdx.x * ld;
    unsigned* chosen = ids + (size_t)blockIdx.x * ld_ids;
    float* log_p = log_probabilities + (size_t)blockIdx.x * ld_log_probabilities;
    // A thread takes its entries in the order of their ids, so only a larger value replaces the best one.
    Entry best = {-INFINITY, 0};
    for (int i = threadIdx.x; i < cols; i += THREADS) {
        const float value = row[i];
        if (in_shared) kept[i] = value;
        if (value > best.value) best = {value, (unsigned)i};
    }
    best = first_of_block(best);
    // Every thread reads only the entries that it has written itself.
    const float* values = in_shared ? kept : row;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < cols; i += THREADS) sum += expf(values[i] - best.value);
    const float highest = best.value, log_total = logf(reduce_block(sum, Sum()));
    for (int place = 0; place < k; ++place) {
        if (place > 0) {
            const Entry last = best;
            best = {-INFINITY, 0};
            for (int i = threadIdx.x; i < cols; i += THREADS) {
                const Entry entry = {values[i], (unsigned)i};
                if (last.is_before(entry) && entry.value > best.value) best = entry;
            }
            best = first_of_block(best);
        }
        if (threadIdx.x == 0) {
            chosen[place] = best.id;
            // In this order, large logits cost no digits.
            log_p[place] = (best.value - highest) - log_total;
        }
    }
}
