// Kernels as a network has them, for `tests/compiled.rs`. Built by
// `nvcc -arch=compute_80 -ptx layers.cu`.
#include <cooperative_groups.h>
#include <cuda_bf16.h>
namespace cg = cooperative_groups;

__constant__ float steps[4] = {1.f, 2.f, 3.f, 4.f};
__device__ int visits = 7;

// One row a CTA.
extern "C" __global__ void softmax(const __nv_bfloat16* x, float* y, int n) {
    extern __shared__ float partial[];
    const __nv_bfloat16* row = x + blockIdx.x * n;
    float top = -INFINITY;
    for (int i = threadIdx.x; i < n; i += blockDim.x) top = fmaxf(top, __bfloat162float(row[i]));
    for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = top;
    __syncthreads();
    for (int i = 0; i < blockDim.x / 32; i++) top = fmaxf(top, partial[i]);
    __syncthreads();
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf(__bfloat162float(row[i]) - top);
    for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < blockDim.x / 32; i++) sum += partial[i];
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        y[blockIdx.x * n + i] = expf(__bfloat162float(row[i]) - top) / sum;
}

// A ring of values that step by step move by one, over a grid barrier.
extern "C" __global__ void ring(float* x, int n, int count) {
    cg::grid_group grid = cg::this_grid();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    for (int s = 0; s < count; s++) {
        float v = x[(s & 1) * n + (i + 1) % n];
        x[((s + 1) & 1) * n + i] = v * 0.5f + steps[s & 3];
        grid.sync();
    }
    if (threadIdx.x == 0) atomicAdd(&visits, 1);
}

__device__ __noinline__ float gates(float a, float b, float* trace) {
    *trace = a;
    return tanhf(a) / (1.f + expf(-b)) + sinf(a) * erff(b) + logf(1.f + b * b) + powf(fabsf(a) + 1.f, b);
}

extern "C" __global__ void functions(const float* a, const float* b, float* y, float* trace) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float local[8];
    for (int k = 0; k < 8; k++) local[k] = a[i] * k;
    y[i] = gates(a[i], b[i], trace + i) + local[i * 5 % 8] + (float)cos((double)b[i]);
}
