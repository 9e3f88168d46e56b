// Neighbouring elements as one value: loaded and stored in one access, of 16 bytes at most.
//
// Kernels are written once over a vector type V and instantiated for 16 bytes, where rows allow it, and for one element. The
// host decides once per run (`Launch::vector`). The types have the names by which kernels are chosen: f32x4, bf16x8.
#pragma once
#include "ptx.cuh"

// Threads of a block, where a kernel does not say otherwise, and of a warp.
constexpr int THREADS = 256;
constexpr int WARP = 32;
constexpr int WARPS = THREADS / WARP;

using f32 = float;
using bf16 = __nv_bfloat16;
using u32 = unsigned;
using u8 = unsigned char;

template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
    using Element = T;
    static constexpr int WIDTH = N;
    T elements[N];

    __device__ __forceinline__ T& operator[](int i) { return elements[i]; }
    __device__ __forceinline__ const T& operator[](int i) const { return elements[i]; }
};

using f32x1 = Vector<f32, 1>;
using f32x4 = Vector<f32, 4>;
using bf16x1 = Vector<bf16, 1>;
using bf16x4 = Vector<bf16, 4>;
using bf16x8 = Vector<bf16, 8>;
using u32x1 = Vector<u32, 1>;
using u32x4 = Vector<u32, 4>;
using u8x1 = Vector<u8, 1>;
using u8x16 = Vector<u8, 16>;

// The same number of elements as V, in f32.
template <class V>
using Wide = Vector<f32, V::WIDTH>;

template <class V>
__device__ __forceinline__ V load(const typename V::Element* from) {
    return *reinterpret_cast<const V*>(from);
}

template <class V>
__device__ __forceinline__ void store(typename V::Element* to, const V& values) {
    *reinterpret_cast<V*>(to) = values;
}

// The same where the elements come out of branches, which makes the compiler split a store into four; in global memory only.
template <class V>
__device__ __forceinline__ void store_global(typename V::Element* to, const V& values) {
    store<V>(to, values);
}

__device__ __forceinline__ void store_global(f32* to, const f32x4& values) {
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "f"(values[0]),
                 "f"(values[1]), "f"(values[2]), "f"(values[3])
                 : "memory");
}

__device__ __forceinline__ void store_global(bf16* to, const bf16x8& values) {
    const uint4& words = reinterpret_cast<const uint4&>(values);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(words.x),
                 "r"(words.y), "r"(words.z), "r"(words.w)
                 : "memory");
}

__device__ __forceinline__ f32 widen(f32 value) { return value; }
__device__ __forceinline__ f32 widen(bf16 value) { return __bfloat162float(value); }

template <class T, int N>
__device__ __forceinline__ Vector<f32, N> widen(const Vector<T, N>& values) {
    Vector<f32, N> wide;
#pragma unroll
    for (int i = 0; i < N; ++i) wide[i] = widen(values[i]);
    return wide;
}

// To the type of `to`, to the nearest, ties to even.
__device__ __forceinline__ void narrow(f32 value, f32& to) { to = value; }
__device__ __forceinline__ void narrow(f32 value, bf16& to) { to = __float2bfloat16_rn(value); }

template <class T, int N>
__device__ __forceinline__ void narrow(const Vector<f32, N>& values, Vector<T, N>& to) {
#pragma unroll
    for (int i = 0; i < N; ++i) narrow(values[i], to[i]);
}

// Elements of any type as f32.
template <class V>
__device__ __forceinline__ Wide<V> load_wide(const typename V::Element* from) {
    return widen(load<V>(from));
}

template <class V>
__device__ __forceinline__ void store_wide(typename V::Element* to, const Wide<V>& values) {
    V narrowed;
    narrow(values, narrowed);
    store<V>(to, narrowed);
}

// N neighbours as f32; of f32 more than one access where N is 8.
template <int N>
__device__ __forceinline__ Vector<f32, N> load_f32(const bf16* from) {
    return load_wide<Vector<bf16, N>>(from);
}

template <int N>
__device__ __forceinline__ Vector<f32, N> load_f32(const f32* from) {
    static_assert(N == 1 || N == 4 || N == 8, "one access or two");
    if constexpr (N <= 4) {
        return load<Vector<f32, N>>(from);
    } else {
        const f32x4 first = load<f32x4>(from), second = load<f32x4>(from + 4);
        return {first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3]};
    }
}

// The same stored, as f32.
template <int N>
__device__ __forceinline__ void store_as(f32* to, const Vector<f32, N>& values) {
    static_assert(N == 1 || N == 4 || N == 8, "one access or two");
    if constexpr (N <= 4) {
        store<Vector<f32, N>>(to, values);
    } else {
        store<f32x4>(to, {values[0], values[1], values[2], values[3]});
        store<f32x4>(to + 4, {values[4], values[5], values[6], values[7]});
    }
}

// The same rounded, in global memory only.
template <int N>
__device__ __forceinline__ void store_as(bf16* to, const Vector<f32, N>& values) {
    static_assert(N == 1 || N == 4 || N == 8, "one access");
    const auto pair = [&](int i) { return to_bf16_pair(values[i], values[i + 1]); };
    if constexpr (N == 1) {
        narrow(values[0], *to);
    } else if constexpr (N == 4) {
        asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(pair(0)), "r"(pair(2))
                     : "memory");
    } else {
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(pair(0)),
                     "r"(pair(2)), "r"(pair(4)), "r"(pair(6))
                     : "memory");
    }
}

template <int N>
__device__ __forceinline__ void store_global(bf16* to, const Vector<f32, N>& values) {
    store_as(to, values);
}

// The number of the thread in the grid.
__device__ __forceinline__ unsigned long long thread_number() {
    return (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
}

// The first element of the thread's vector in a matrix of whole vectors, which threads take row by row.
struct Position {
    size_t row, col;
    bool inside;
};

template <class V>
__device__ __forceinline__ Position vector_position(int rows, int cols) {
    const unsigned vectors = cols / V::WIDTH;
    const unsigned long long i = thread_number();
    return {i / vectors, i % vectors * V::WIDTH, i < (unsigned long long)rows * vectors};
}

__device__ __forceinline__ f32 sigmoid(f32 x) { return 1.0f / (1.0f + expf(-x)); }
