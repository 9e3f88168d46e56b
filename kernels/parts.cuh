// Sums over k that several blocks share: each makes a part, and the block that comes last adds up all parts of the tile and goes
// on with it.
//
// A part is laid down in a workspace, [tile][part][16 bytes][thread], as threads have it in registers: every access of a warp is
// 512 bytes in a row. Parts are added up in order, whoever does it, so that results repeat bit for bit. No block waits
// for another. A counter for each tile says how many parts have come; the last block sets it back to zero, so that the next launch, or the
// next replay of a graph, finds it so. Two launches that share counters must not run at once. Counters therefore belong to a
// context, which has one stream, and are given to every launch. (A variable of the module is shared by all streams of a process.)
//
// Bytes: a part once to level 2 and once from there, 64 KiB for the large cut and 16 KiB for the small one.
//
// Tried: a second launch that adds up the parts (2.5 µs each on an H200, a quarter of all launches of a step).
#pragma once
#include "tile.cuh"

namespace tile {

constexpr int MOST_SHARED_TILES = 4096;

// Calls `use` with every four sums of this thread, as an mma has them in neighbouring registers, and their number.
template <class Product, class Use>
__device__ __forceinline__ void each_sum(Product& product, Use use) {
#pragma unroll
    for (int i = 0; i < Product::ROWS; i += 2) {
#pragma unroll
        for (int j = 0; j < Product::PAIRS; ++j) {
            use(i / 2 * Product::PAIRS + j, product.sums[i][j], product.sums[i + 1][j]);
        }
    }
}

__device__ __forceinline__ void add(float2& upper, float2& lower, const float4& more) {
    upper.x += more.x, upper.y += more.y, lower.x += more.z, lower.y += more.w;
}

// Adds up the parts of a tile, of which this block has made number `own`. `arrived` are the counters. True for the block that then
// has them all; the others are done.
template <class Product>
__device__ __forceinline__ bool add_parts(
    Product& product, float* workspace, unsigned* arrived, unsigned tile, int own, int parts) {
    constexpr int THREADS = Product::Cut::THREADS, PART = Product::Cut::M * Product::Cut::N / 4, COUNT = PART / THREADS;
    // Loads of several parts are in flight at once, up to 64 registers.
    constexpr int AT_ONCE = COUNT >= 16 ? 1 : 16 / COUNT;
    const float4* part = reinterpret_cast<float4*>(workspace) + (size_t)tile * parts * PART + threadIdx.x;
    float4* const mine = const_cast<float4*>(part) + (size_t)own * PART;
    each_sum(
        product, [=](int i, float2 upper, float2 lower) { mine[i * THREADS] = {upper.x, upper.y, lower.x, lower.y}; });
    // Everybody's part is there before the block is counted, and seen by a block that has counted all.
    __syncthreads();
    bool last = false;
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(&arrived[tile], 1) == parts - 1;
        if (last) arrived[tile] = 0;
        __threadfence();
    }
    if (!__syncthreads_or(last)) return false;
    each_sum(product, [=](int j, float2& upper, float2& lower) {
        const float4 sums = __ldcg(part + j * THREADS);
        upper = {sums.x, sums.y}, lower = {sums.z, sums.w};
    });
    part += PART;
#pragma unroll 1
    for (int i = 1; i < parts; i += AT_ONCE, part += AT_ONCE * PART) {
        if constexpr (AT_ONCE == 1) {
            each_sum(
                product, [=](int j, float2& upper, float2& lower) { add(upper, lower, __ldcg(part + j * THREADS)); });
        } else {
            float4 loaded[AT_ONCE][COUNT] = {};
#pragma unroll
            for (int p = 0; p < AT_ONCE; ++p) {
#pragma unroll
                for (int j = 0; j < COUNT; ++j) {
                    if (i + p < parts) loaded[p][j] = __ldcg(part + p * PART + j * THREADS);
                }
            }
#pragma unroll
            for (int p = 0; p < AT_ONCE; ++p) {
                each_sum(product, [&](int j, float2& upper, float2& lower) { add(upper, lower, loaded[p][j]); });
            }
        }
    }
    return true;
}

}  // namespace tile
