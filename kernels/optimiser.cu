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
// Grid: a thread for every four parameters, a grid stride apart. Every value is read once and written once: 20
// bytes a parameter for SGD (g, u, w read; u, w written), 28 for Adam: bound by memory.
#include "elementwise.cuh"

struct SgdSettings {
    float momentum;
    float decay;
    /// Gradients are clamped to +- this after the factor; infinite for no clamp.
    float bound;
};

struct AdamSettings {
    float beta1;
    float beta2;
    /// 1 - beta, rounded once from the exact difference.
    float rest1;
    float rest2;
    float ln_beta1;
    float ln_beta2;
    float epsilon;
    float decay;
    /// As in SgdSettings.
    float bound;
};

/// Keeps NaN.
__device__ inline float clamp(float value, float bound) {
    value = value > bound ? bound : value;
    return value < -bound ? -bound : value;
}

extern "C" __global__ void __launch_bounds__(256) optimiser_sgd_f32(const float* schedule, const float* factor, const float* gradients, float* velocity, float* values, int n, SgdSettings settings) {
    const float lr = schedule[0];
    const float scale = factor ? *factor : 1.0f;
    const auto update = [=](float g, float& u, float& w) {
        g = clamp(g * scale, settings.bound) + settings.decay * w;
        u = settings.momentum * u + g;
        w -= lr * u;
    };
    if (in_groups<4>(gradients, 4) && in_groups<4>(velocity, 4) && in_groups<4>(values, 4)) {
        each_group<4>(1, n, [=](int, int first, int count) {
            if (count == 4) {
                const Group<float, 4> g = load_group<4>(gradients + first);
                Group<float, 4> u = load_group<4>(velocity + first);
                Group<float, 4> w = load_group<4>(values + first);
#pragma unroll
                for (int i = 0; i < 4; ++i) update(g.at[i], u.at[i], w.at[i]);
                store_group(velocity + first, u);
                store_group(values + first, w);
            } else {
                for (int i = first; i < n; ++i) update(gradients[i], velocity[i], values[i]);
            }
        });
    } else {
        each_group<1>(1, n, [=](int, int i, int) { update(gradients[i], velocity[i], values[i]); });
    }
}

extern "C" __global__ void __launch_bounds__(256) optimiser_adam_f32(const float* schedule, const float* factor, const float* gradients, float* means, float* squares, float* values, int n, AdamSettings settings) {
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
    if (in_groups<4>(gradients, 4) && in_groups<4>(means, 4) && in_groups<4>(squares, 4) && in_groups<4>(values, 4)) {
        each_group<4>(1, n, [=](int, int first, int count) {
            if (count == 4) {
                const Group<float, 4> g = load_group<4>(gradients + first);
                Group<float, 4> m = load_group<4>(means + first);
                Group<float, 4> v = load_group<4>(squares + first);
                Group<float, 4> w = load_group<4>(values + first);
#pragma unroll
                for (int i = 0; i < 4; ++i) update(g.at[i], m.at[i], v.at[i], w.at[i]);
                store_group(means + first, m);
                store_group(squares + first, v);
                store_group(values + first, w);
            } else {
                for (int i = first; i < n; ++i) update(gradients[i], means[i], squares[i], values[i]);
            }
        });
    } else {
        each_group<1>(1, n, [=](int, int i, int) { update(gradients[i], means[i], squares[i], values[i]); });
    }
}
