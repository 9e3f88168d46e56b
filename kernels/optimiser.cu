// SGD with momentum and Adam over a dense range of the parameter arena, in one launch.
//
// g' = clamp(g * factor, +-bound) + decay * w
// SGD:  u <- momentum u + g', w <- w - lr u
// Adam: m <- beta1 m + (1 - beta1) g', v <- beta2 v + (1 - beta2) g'^2,
//       w <- w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
//
// What changes from step to step is read from device memory: schedule = (lr, t), and the clip factor (null: 1).
// 1 - beta^t is -expm1(t ln beta), exact to rounding where the difference would cancel.
//
// Where products read bf16, `rounded` is a copy of the parameters in it, written here (null: there is none).
//
// Grid: a thread for every vector of parameters. Every value is read once and written once: 20 bytes per parameter for SGD
// (g, u, w read; u, w written), 28 for Adam, and 2 for a copy: bound by memory.
#include "elementwise.cuh"

struct SgdSettings {
    float momentum;
    float decay;
    // Gradients are clamped to +- this after the factor; infinite for no clamp.
    float bound;
};

struct AdamSettings {
    float beta1;
    float beta2;
    // 1 - beta, rounded once from the exact difference.
    float rest1;
    float rest2;
    float ln_beta1;
    float ln_beta2;
    float epsilon;
    float decay;
    // As in SgdSettings.
    float bound;
};

// Keeps NaN.
__device__ __forceinline__ float clamp(float value, float bound) {
    value = value > bound ? bound : value;
    return value < -bound ? -bound : value;
}

template <class V>
__device__ __forceinline__ void sgd(
    const float* schedule, const float* factor, const float* gradients, float* velocity, float* values, bf16* rounded,
    int n, const SgdSettings& settings) {
    const float lr = schedule[0];
    const float scale = factor ? *factor : 1.0f;
    const auto update = [=](float g, float& u, float& w) {
        g = clamp(g * scale, settings.bound) + settings.decay * w;
        u = settings.momentum * u + g;
        w -= lr * u;
    };
    each_group<V::WIDTH>(1, n, [=](int, int first, int count) {
        if (count == V::WIDTH) {
            const V g = load<V>(gradients + first);
            V u = load<V>(velocity + first), w = load<V>(values + first);
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) update(g[i], u[i], w[i]);
            store<V>(velocity + first, u);
            store<V>(values + first, w);
            if (rounded != nullptr) store_as(rounded + first, w);
        } else {
            for (int i = first; i < n; ++i) {
                update(gradients[i], velocity[i], values[i]);
                if (rounded != nullptr) narrow(values[i], rounded[i]);
            }
        }
    });
}

#define OPTIMISER_SGD(V)                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) optimiser_sgd_##V(                                \
        const float* schedule, const float* factor, const float* gradients, float* velocity, float* values, \
        bf16* rounded, int n, SgdSettings settings) {                                                       \
        sgd<V>(schedule, factor, gradients, velocity, values, rounded, n, settings);                        \
    }
OPTIMISER_SGD(f32x1)
OPTIMISER_SGD(f32x4)

template <class V>
__device__ __forceinline__ void adam(
    const float* schedule, const float* factor, const float* gradients, float* means, float* squares, float* values,
    bf16* rounded, int n, const AdamSettings& settings) {
    const float lr = schedule[0];
    const float t = schedule[1];
    const float scale = factor ? *factor : 1.0f;
    const float rate = lr / -expm1f(t * settings.ln_beta1);
    const float correction = sqrtf(-expm1f(t * settings.ln_beta2));
    const auto update = [=](float g, float& m, float& v, float& w) {
        g = clamp(g * scale, settings.bound) + settings.decay * w;
        m = settings.beta1 * m + settings.rest1 * g;
        v = settings.beta2 * v + settings.rest2 * g * g;
        w -= rate * m / (sqrtf(v) / correction + settings.epsilon);
    };
    each_group<V::WIDTH>(1, n, [=](int, int first, int count) {
        if (count == V::WIDTH) {
            const V g = load<V>(gradients + first);
            V m = load<V>(means + first), v = load<V>(squares + first), w = load<V>(values + first);
#pragma unroll
            for (int i = 0; i < V::WIDTH; ++i) update(g[i], m[i], v[i], w[i]);
            store<V>(means + first, m);
            store<V>(squares + first, v);
            store<V>(values + first, w);
            if (rounded != nullptr) store_as(rounded + first, w);
        } else {
            for (int i = first; i < n; ++i) {
                update(gradients[i], means[i], squares[i], values[i]);
                if (rounded != nullptr) narrow(values[i], rounded[i]);
            }
        }
    });
}

#define OPTIMISER_ADAM(V)                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) optimiser_adam_##V(                             \
        const float* schedule, const float* factor, const float* gradients, float* means, float* squares, \
        float* values, bf16* rounded, int n, AdamSettings settings) {                                     \
        adam<V>(schedule, factor, gradients, means, squares, values, rounded, n, settings);               \
    }
OPTIMISER_ADAM(f32x1)
OPTIMISER_ADAM(f32x4)
