// What waiting costs on a GPU, in microseconds: `nvcc -arch=native -O3 latency.cu && ./a.out`.
//
// A step of training is a chain of small kernels, and each of its links costs one of these: a launch from the host, a node of a
// graph, a node that may begin before the one before it has ended, a barrier of all blocks inside one kernel, a barrier of a
// cluster. `src/train/profile/` takes its constants from here. Each line is the median of nine runs.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vector>

#define CHECK(call)                                                                                          \
    do {                                                                                                     \
        cudaError_t error = (call);                                                                          \
        if (error != cudaSuccess) {                                                                          \
            std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error));            \
            std::exit(1);                                                                                    \
        }                                                                                                    \
    } while (0)

constexpr int THREADS = 256;
constexpr int LINKS = 500;
constexpr int RUNS = 9;

__global__ void empty(unsigned *counter) {
    if (counter == nullptr) {
        __trap();
    }
}

// Begins while the kernel before it runs, and waits for its end.
__global__ void dependent(unsigned *counter) {
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (counter == nullptr) {
        __trap();
    }
}

__device__ unsigned acquire(const unsigned *place) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(place) : "memory");
    return value;
}

// All blocks meet at one counter, again and again.
__global__ void at_a_counter(unsigned *counter) {
    for (unsigned round = 1; round <= LINKS; ++round) {
        __syncthreads();
        if (threadIdx.x == 0) {
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
            while (acquire(counter) < round * gridDim.x) {
            }
        }
        __syncthreads();
    }
}

// Each block raises a flag of its own, 32 bytes from the next one, and its threads look at those of the others.
__global__ void at_flags(unsigned *flags) {
    for (unsigned round = 1; round <= LINKS; ++round) {
        __syncthreads();
        if (threadIdx.x == 0) {
            asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flags + 8 * blockIdx.x), "r"(round) : "memory");
        }
        for (unsigned block = threadIdx.x; block < gridDim.x; block += blockDim.x) {
            while (acquire(flags + 8 * block) < round) {
            }
        }
        __syncthreads();
    }
}

__global__ void in_a_cluster(unsigned *counter) {
    for (int round = 0; round < LINKS; ++round) {
        asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    }
    if (counter == nullptr) {
        __trap();
    }
}

struct Clock {
    cudaStream_t stream;
    cudaEvent_t start, end;

    // Prints the time of one of the LINKS links of `run`.
    template <typename Run> void report(const char *name, Run run) {
        std::vector<float> times;
        for (int i = 0; i < RUNS + 1; ++i) {
            CHECK(cudaEventRecord(start, stream));
            run();
            CHECK(cudaEventRecord(end, stream));
            CHECK(cudaEventSynchronize(end));
            float ms;
            CHECK(cudaEventElapsedTime(&ms, start, end));
            times.push_back(1000 * ms / LINKS);
        }
        std::sort(times.begin() + 1, times.end());
        std::printf("%8.3f µs  %s\n", times[1 + RUNS / 2], name);
    }
};

// A launch with an attribute, of which only the last two arguments differ.
void launch(cudaStream_t stream, void (*kernel)(unsigned *), int blocks, unsigned *counter, cudaLaunchAttribute attribute) {
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = THREADS;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    CHECK(cudaLaunchKernelEx(&config, kernel, counter));
}

template <typename Launch> cudaGraphExec_t graph(cudaStream_t stream, Launch one) {
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < LINKS; ++i) {
        one();
    }
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    return ready;
}

int main() {
    cudaDeviceProp device;
    CHECK(cudaGetDeviceProperties(&device, 0));
    int blocks = device.multiProcessorCount;
    std::printf("%s, %d multiprocessors\n", device.name, blocks);
    Clock clock;
    CHECK(cudaStreamCreate(&clock.stream));
    CHECK(cudaEventCreate(&clock.start));
    CHECK(cudaEventCreate(&clock.end));
    unsigned *counter;
    CHECK(cudaMalloc(&counter, 32 * blocks));

    auto plain = [&] { empty<<<blocks, THREADS, 0, clock.stream>>>(counter); };
    clock.report("a launch from the host", [&] {
        for (int i = 0; i < LINKS; ++i) {
            plain();
        }
    });
    cudaGraphExec_t nodes = graph(clock.stream, plain);
    clock.report("a node of a graph", [&] { CHECK(cudaGraphLaunch(nodes, clock.stream)); });
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaGraphExec_t chained = graph(clock.stream, [&] { launch(clock.stream, dependent, blocks, counter, early); });
    clock.report("a node of a graph, launched before its forerunner ends", [&] { CHECK(cudaGraphLaunch(chained, clock.stream)); });

    auto cooperative = [&](auto kernel) {
        CHECK(cudaMemsetAsync(counter, 0, 32 * blocks, clock.stream));
        void *arguments[] = {&counter};
        CHECK(cudaLaunchCooperativeKernel(reinterpret_cast<void *>(kernel), blocks, THREADS, arguments, 0, clock.stream));
    };
    clock.report("a barrier of all blocks at a counter", [&] { cooperative(at_a_counter); });
    clock.report("a barrier of all blocks at flags", [&] { cooperative(at_flags); });
    for (int size : {2, 4, 8, 16}) {
        CHECK(cudaFuncSetAttribute(in_a_cluster, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
        cudaLaunchAttribute cluster = {};
        cluster.id = cudaLaunchAttributeClusterDimension;
        cluster.val.clusterDim = {static_cast<unsigned>(size), 1, 1};
        char name[64];
        std::snprintf(name, sizeof name, "a barrier of a cluster of %d blocks", size);
        clock.report(name, [&] { launch(clock.stream, in_a_cluster, 4 * size, counter, cluster); });
    }
}
