// The instructions of tensor cores and asynchronous copies, by name.
//
// Fragment layouts, T = lane (PTX ISA 9.7.14): every accumulator of m16n8 holds row T/4 (`top`) and row T/4 + 8 (`bottom`),
// columns 2·(T%4) and the next; operands hold rows T/4 (and T/4 + 8), k as each product says below.
#pragma once
#include <cuda_bf16.h>

__device__ __forceinline__ unsigned shared_address(const void* shared) {
    return (unsigned)__cvta_generic_to_shared(shared);
}

// Copies the first `bytes` (0 to 16) of 16 bytes to shared memory, past level 1, and zeros for the rest.
__device__ __forceinline__ void copy_16(unsigned to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                 "r"(bytes)
                 : "memory");
}

// Copies 16 bytes to shared memory, past level 1.
__device__ __forceinline__ void copy_16(unsigned to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(__cvta_generic_to_global(from)) : "memory");
}

// The same, or 16 bytes of zeros. ptxas makes of a size that is 16 or 0 a predicate: one instruction, where any other size takes a
// dozen. (PTX has a predicate of its own for that, but only since 7.5.)
__device__ __forceinline__ void copy_16_if(unsigned to, const void* from, bool there) {
    copy_16(to, from, there ? 16 : 0);
}

// Copies 0 or 4 of 4 bytes, through level 1, for what is aligned to 4 only, and zeros for the rest.
__device__ __forceinline__ void copy_4(unsigned to, const void* from, int bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                 "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of the committed groups are on their way.
template <int PENDING>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

__device__ __forceinline__ void shared_store(unsigned to, __nv_bfloat16 value) {
    asm volatile("st.shared.b16 [%0], %1;" ::"r"(to), "h"(__bfloat16_as_ushort(value)) : "memory");
}

__device__ __forceinline__ void shared_store(unsigned to, float2 v) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(v.x), "f"(v.y) : "memory");
}

__device__ __forceinline__ float shared_float(unsigned from) {
    float value;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(from));
    return value;
}

__device__ __forceinline__ float2 shared_float2(unsigned from) {
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(from));
    return v;
}

__device__ __forceinline__ float4 shared_float4(unsigned from) {
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(from));
    return v;
}

// Four 8x8 matrices of 16-bit elements; lane 8j + r says where row r of matrix j is. Register j holds row T/4,
// columns 2·(T%4) and the next, of matrix j, or with `transposed` of its transpose.
template <bool TRANSPOSED>
__device__ __forceinline__ uint4 load_matrices(unsigned from) {
    uint4 v;
    if constexpr (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "r"(from));
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "r"(from));
    }
    return v;
}

// The operands of an mma in the order of its registers. Each register is one step of k: `low` comes before `high`.
struct FragmentA {
    unsigned top_low, bottom_low, top_high, bottom_high;
};
struct FragmentB {
    unsigned low, high;
};

// Sums += a b of m16n8k16 in bf16: `low` holds k = 2·(T%4) and the next, `high` the same + 8.
__device__ __forceinline__ void multiply_bf16(float2& top, float2& bottom, FragmentA a, FragmentB b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(top.x), "+f"(top.y), "+f"(bottom.x), "+f"(bottom.y)
        : "r"(a.top_low), "r"(a.bottom_low), "r"(a.top_high), "r"(a.bottom_high), "r"(b.low), "r"(b.high));
}

// Sums += a b of m16n8k8 in tf32: `low` holds k = T%4, `high` the same + 4.
__device__ __forceinline__ void multiply_tf32(float2& top, float2& bottom, FragmentA a, FragmentB b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(top.x), "+f"(top.y), "+f"(bottom.x), "+f"(bottom.y)
        : "r"(a.top_low), "r"(a.bottom_low), "r"(a.top_high), "r"(a.bottom_high), "r"(b.low), "r"(b.high));
}

// Rounds the bits of two numbers to the nearest tf32, ties away from zero, as cvt.rna does: half of the last of the upper 19 bits,
// which are all that the tensor cores read. A NaN stays, as a carry could turn it into zero, and its neighbour is cut off instead
// of rounded. Three instructions, where cvt takes two for each number, and infinity needs no exception.
__device__ __forceinline__ uint2 to_tf32(unsigned x, unsigned y) {
    asm("{\n\t.reg .pred numbers;\n\tsetp.num.f32 numbers, %2, %3;\n\t"
        "@numbers add.u32 %0, %0, 4096;\n\t@numbers add.u32 %1, %1, 4096;\n\t}"
        : "+r"(x), "+r"(y)
        : "f"(__uint_as_float(x)), "f"(__uint_as_float(y)));
    return {x, y};
}

__device__ __forceinline__ uint2 to_tf32(float x, float y) { return to_tf32(__float_as_uint(x), __float_as_uint(y)); }

// Two numbers rounded to bf16, `low` in the lower half.
__device__ __forceinline__ unsigned to_bf16_pair(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
