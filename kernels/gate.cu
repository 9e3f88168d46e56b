// z = s x, s = sigmoid(g); backward from dz: dx = dz s, dg = dz x s (1 - s). z and dg, which are factors of products, may be bf16.
//
// Mapping: a thread takes a vector of a row; the grid is one-dimensional over rows x vectors, so
// that a narrow matrix fills blocks too.
// Bytes: forward reads g and x, writes s (over g) and z: 16 per element; backward reads three and writes two: 20.
// Each is touched once. Flops: one exponential and one division per element forward, which is far below what
// a memory access costs. Bound: memory; at attend's 32 x 2048 that is 1 MB, so the launch itself.

#include "vector.cuh"

template <class V>
__device__ __forceinline__ void gate_forward(
    float* g, const float* x, typename V::Element* z, int rows, int cols, int g_ld, int x_ld, int z_ld) {
    const auto [row, col, inside] = vector_position<V>(rows, cols);
    if (!inside) return;
    Wide<V> gate = load<Wide<V>>(g + row * g_ld + col);
    Wide<V> value = load<Wide<V>>(x + row * x_ld + col);
#pragma unroll
    for (int k = 0; k < V::WIDTH; ++k) {
        gate[k] = sigmoid(gate[k]);
        value[k] *= gate[k];
    }
    store_global(g + row * g_ld + col, gate);
    store_global(z + row * z_ld + col, value);
}

template <class V>
__device__ __forceinline__ void gate_backward(
    const float* s, const float* x, const float* dz, typename V::Element* dg, float* dx, int rows, int cols, int s_ld,
    int x_ld, int dz_ld, int dg_ld, int dx_ld) {
    const auto [row, col, inside] = vector_position<V>(rows, cols);
    if (!inside) return;
    Wide<V> gate = load<Wide<V>>(s + row * s_ld + col);
    Wide<V> value = load<Wide<V>>(x + row * x_ld + col);
    Wide<V> d = load<Wide<V>>(dz + row * dz_ld + col);
    Wide<V> d_gate, d_value;
#pragma unroll
    for (int k = 0; k < V::WIDTH; ++k) {
        d_value[k] = d[k] * gate[k];
        d_gate[k] = d[k] * value[k] * gate[k] * (1.0f - gate[k]);
    }
    store_global(dg + row * dg_ld + col, d_gate);
    store_global(dx + row * dx_ld + col, d_value);
}

#define GATE_FORWARD(V)                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        gate_forward_##V(float* g, const float* x, V::Element* z, int rows, int cols, int g_ld, int x_ld, int z_ld) { \
        gate_forward<V>(g, x, z, rows, cols, g_ld, x_ld, z_ld);                                                       \
    }
GATE_FORWARD(f32x1)
GATE_FORWARD(f32x4)
GATE_FORWARD(bf16x1)
GATE_FORWARD(bf16x4)

#define GATE_BACKWARD(V)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) gate_backward_##V(                                      \
        const float* s, const float* x, const float* dz, V::Element* dg, float* dx, int rows, int cols, int s_ld, \
        int x_ld, int dz_ld, int dg_ld, int dx_ld) {                                                              \
        gate_backward<V>(s, x, dz, dg, dx, rows, cols, s_ld, x_ld, dz_ld, dg_ld, dx_ld);                          \
    }
GATE_BACKWARD(f32x1)
GATE_BACKWARD(f32x4)
GATE_BACKWARD(bf16x1)
GATE_BACKWARD(bf16x4)
