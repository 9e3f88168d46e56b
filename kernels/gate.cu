// z = s x, s = sigmoid(g); backward from dz: dx = dz s, dg = dz x s (1 - s).
//
// Mapping: a thread takes WIDTH neighbouring columns of a row; the grid is one-dimensional over rows x packs, so
// that a narrow matrix fills blocks too.
// Bytes: forward reads g and x, writes s (over g) and z: 16 an element; backward reads three and writes two: 20.
// Each is touched once. Flops: one exponential and one division an element forward, which is far below what
// a memory access costs. Bound: memory; at attend's 32 x 2048 that is 1 MB, so the launch itself.

#include "pack.cuh"

template <int WIDTH>
__device__ __forceinline__ void gate_forward(float* g, const float* x, float* z, int rows, int cols, int g_ld,
                                             int x_ld, int z_ld) {
    unsigned packs = cols / WIDTH;
    unsigned long long i = thread_number();
    if (i >= (unsigned long long)rows * packs) return;
    size_t row = i / packs;
    size_t col = i % packs * WIDTH;
    Pack<WIDTH> gate = load<WIDTH>(g + row * g_ld + col);
    Pack<WIDTH> value = load<WIDTH>(x + row * x_ld + col);
#pragma unroll
    for (int k = 0; k < WIDTH; k++) {
        gate.at[k] = 1.0f / (1.0f + expf(-gate.at[k]));
        value.at[k] *= gate.at[k];
    }
    store<WIDTH>(g + row * g_ld + col, gate);
    store<WIDTH>(z + row * z_ld + col, value);
}

template <int WIDTH>
__device__ __forceinline__ void gate_backward(const float* s, const float* x, const float* dz, float* dg, float* dx,
                                              int rows, int cols, int s_ld, int x_ld, int dz_ld, int dg_ld,
                                              int dx_ld) {
    unsigned packs = cols / WIDTH;
    unsigned long long i = thread_number();
    if (i >= (unsigned long long)rows * packs) return;
    size_t row = i / packs;
    size_t col = i % packs * WIDTH;
    Pack<WIDTH> gate = load<WIDTH>(s + row * s_ld + col);
    Pack<WIDTH> value = load<WIDTH>(x + row * x_ld + col);
    Pack<WIDTH> d = load<WIDTH>(dz + row * dz_ld + col);
    Pack<WIDTH> d_gate, d_value;
#pragma unroll
    for (int k = 0; k < WIDTH; k++) {
        d_value.at[k] = d.at[k] * gate.at[k];
        d_gate.at[k] = d.at[k] * value.at[k] * gate.at[k] * (1.0f - gate.at[k]);
    }
    store<WIDTH>(dg + row * dg_ld + col, d_gate);
    store<WIDTH>(dx + row * dx_ld + col, d_value);
}

extern "C" __global__ void __launch_bounds__(256)
gate_forward_f32(float* g, const float* x, float* z, int rows, int cols, int g_ld, int x_ld, int z_ld) {
    gate_forward<1>(g, x, z, rows, cols, g_ld, x_ld, z_ld);
}

extern "C" __global__ void __launch_bounds__(256)
gate_forward_f32x4(float* g, const float* x, float* z, int rows, int cols, int g_ld, int x_ld, int z_ld) {
    gate_forward<4>(g, x, z, rows, cols, g_ld, x_ld, z_ld);
}

extern "C" __global__ void __launch_bounds__(256)
gate_backward_f32(const float* s, const float* x, const float* dz, float* dg, float* dx, int rows, int cols, int s_ld,
                  int x_ld, int dz_ld, int dg_ld, int dx_ld) {
    gate_backward<1>(s, x, dz, dg, dx, rows, cols, s_ld, x_ld, dz_ld, dg_ld, dx_ld);
}

extern "C" __global__ void __launch_bounds__(256)
gate_backward_f32x4(const float* s, const float* x, const float* dz, float* dg, float* dx, int rows, int cols,
                    int s_ld, int x_ld, int dz_ld, int dg_ld, int dx_ld) {
    gate_backward<4>(s, x, dz, dg, dx, rows, cols, s_ld, x_ld, dz_ld, dg_ld, dx_ld);
}
