// Sums over k that several blocks share: each makes a part, and the block that comes last adds up all parts of the tile and goes
// on with it.
//
// A part is laid down in a workspace, [tile][part][16 bytes][thread], as threads have it in registers: every access of a warp is
// 512 bytes in a row. Parts are added up in order, whoever does it, so that results repeat bit for bit. No block waits
// for another. A counter for each tile says how many parts have come; the last block sets it back to zero, so that the next launch, or the
// next replay of a graph, finds it so. Two launches that share counters must not run at once: a device has one
// stream for all of them, and counters of its own.
//
// Bytes: a part once to level 2 and once from there, 64 KiB for the large cut and 16 KiB for the small one.
//
// Tried: a second launch that adds up the parts (2.5 µs each on an H200, a quarter of all launches of a step).
#pragma once
#include "tile.cuh"

namespace tile {

constexpr int MOST_SHARED_TILES = 4096;
__device__ unsigned arrived[MOST_SHARED_TILES];

// Calls `use` with every four sums of this thread, as an mma has them in neighbouring registers, and their place in a part.
template <class Product, class Use>
__device__ __forceinline__ void each_sum(Product& product, Use use) {
#pragma unroll
    for (int i = 0; i < Product::ROWS; i += 2) {
#pragma unroll
        for (int j = 0; j < Product::PAIRS; ++j) {
            const int number = i / 2 * Product::PAIRS + j;
            use(number * Product::Cut::THREADS, product.sums[i][j], product.sums[i + 1][j]);
        }
    }
}

// Adds up the parts of a tile, of which this block has made number `own`. True for the block that then has them all; the others are done.
template <class Product>
__device__ __forceinline__ bool add_parts(Product& product, float* workspace, unsigned tile, int own, int parts) {
    constexpr int PART = Product::Cut::M * Product::Cut::N / 4;
    float4* const first = reinterpret_cast<float4*>(workspace) + (size_t)tile * parts * PART + threadIdx.x;
    float4* const mine = first + (size_t)own * PART;
    each_sum(product, [=](int at, float2 upper, float2 lower) { mine[at] = {upper.x, upper.y, lower.x, lower.y}; });
    // Everybody's part is there before the block is counted.
    __threadfence();
    __syncthreads();
    const bool last = threadIdx.x == 0 && atomicAdd(&arrived[tile], 1) == parts - 1;
    if (!__syncthreads_or(last)) return false;
    __threadfence();
    if (last) arrived[tile] = 0;
    each_sum(product, [=](int at, float2& upper, float2& lower) {
        const float4 sums = __ldcg(first + at);
        upper = {sums.x, sums.y}, lower = {sums.z, sums.w};
    });
    const float4* part = first;
#pragma unroll 1
    for (int i = 1; i < parts; ++i) {
        part += PART;
        each_sum(product, [=](int at, float2& upper, float2& lower) {
            const float4 sums = __ldcg(part + at);
            upper.x += sums.x, upper.y += sums.y, lower.x += sums.z, lower.y += sums.w;
        });
    }
    return true;
}

}  // namespace tile
