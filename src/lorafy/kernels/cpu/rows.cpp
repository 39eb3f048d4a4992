// Operations on each row, or each value, alone: norms, dropout, activations.

#include "common.h"

namespace {

enum Activation { GELU = 0, GELU_TANH = 1, SILU = 2, RELU = 3 };

// Phi(x), the normal distribution, and its density (Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7)
inline void normal(v16 x, v16& phi, v16& density) {
    const v16 z = (x < 0 ? -x : x) * 0.70710678f, e = exponential(-z * z), t = 1.0f / (1.0f + 0.3275911f * z);
    const v16 tail =
        0.5f * e * t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    phi = x < 0 ? tail : 1.0f - tail;
    density = 0.39894228f * e;
}

template <int KIND>
inline void activate(v16 x, v16& value, v16& slope) {
    if (KIND == GELU) {
        v16 phi, density;
        normal(x, phi, density);
        value = x * phi;
        slope = phi + x * density;
    } else if (KIND == RELU) {
        value = x < 0 ? all(0) : x;  // NaN stays NaN
        slope = x > 0 ? all(1) : all(0);
    } else {  // x sigmoid(2 inner): tanh(inner) = 2 sigmoid(2 inner) - 1
        const v16 inner = KIND == SILU ? 0.5f * x : 0.79788456f * (x + 0.044715f * x * x * x);
        const v16 d_inner = KIND == SILU ? all(0.5f) : 0.79788456f * (1.0f + 0.134145f * x * x);
        const v16 sigmoid = 1.0f / (1.0f + exponential(-2.0f * inner));
        value = x * sigmoid;
        slope = sigmoid + x * 2.0f * sigmoid * (1.0f - sigmoid) * d_inner;
    }
}

// sum = residual + dropout(y); out = (sum - mean) * rstd * gamma + beta (layer norm), or without mean and beta (RMS).
// `normed` is the row before gamma and beta; `stream` the sum, or where `post` the same as `out`.
template <class T>
void add_norm(const float* residual, const T* y, const float* gamma, const float* beta, float epsilon, i64 rms,
              i64 post, float* stream, T* out, T* normed, float* rstd, i64 M, i64 H, const Dropout dropout) {
#pragma omp parallel for schedule(static)
    for (i64 m = 0; m < M; m++) {
        const u32 row_seed = dropout.row(m);
        float* z = stream + m * H;
        v16 sums{}, squares{};
        for (i64 k = 0; k < H; k += 16) {
            v16 x = get(residual + m * H + k, H - k);
            if (y) {
                const v16 added = get(y + m * H + k, H - k);
                x += dropout.seeds ? added * dropout.factors(row_seed, k) : added;
            }
            put(z + k, x, H - k);
            sums += x;
        }
        const float mean = rms ? 0 : sum(sums) / H;
        for (i64 k = 0; k < H; k += 16) {
            v16 apart = get(z + k, H - k) - mean;
            if (H - k < 16)
                for (i64 i = H - k; i < 16; i++) apart[i] = 0;
            squares += apart * apart;
        }
        const float inverse = 1.0f / std::sqrt(sum(squares) / H + epsilon);
        rstd[m] = inverse;
        for (i64 k = 0; k < H; k += 16) {
            const v16 x = (get(z + k, H - k) - mean) * inverse;
            put(normed + m * H + k, x, H - k);
            v16 value = x * get(gamma + k, H - k);
            if (beta) value += get(beta + k, H - k);
            put(out + m * H + k, value, H - k);
            if (post) put(z + k, value, H - k);
        }
    }
}

// d_residual = the sum's gradient for d_out and d_stream; d_y = dropout's mask of it. d_stream and d_y may be null.
template <class T>
void add_norm_backward(const T* d_out, const float* d_stream, const T* normed, const float* rstd, const float* gamma,
                       i64 rms, i64 post, float* d_residual, T* d_y, i64 M, i64 H, const Dropout dropout) {
    const float *d_value = post ? d_stream : nullptr, *d_sum = post ? nullptr : d_stream;
#pragma omp parallel for schedule(static)
    for (i64 m = 0; m < M; m++) {
        const i64 row = m * H;
        const auto scaled = [&](i64 k) {
            v16 d = get(d_out + row + k, H - k);
            if (d_value) d += get(d_value + row + k, H - k);
            return d * get(gamma + k, H - k);
        };
        v16 sums{}, products{};
        for (i64 k = 0; k < H; k += 16) {
            const v16 d = scaled(k);
            sums += d;
            products += d * get(normed + row + k, H - k);
        }
        const float mean = rms ? 0 : sum(sums) / H, along = sum(products) / H, inverse = rstd[m];
        const u32 row_seed = dropout.row(m);
        for (i64 k = 0; k < H; k += 16) {
            v16 d = inverse * (scaled(k) - mean - get(normed + row + k, H - k) * along);
            if (d_sum) d += get(d_sum + row + k, H - k);
            put(d_residual + row + k, d, H - k);
            if (d_y) put(d_y + row + k, dropout.seeds ? d * dropout.factors(row_seed, k) : d, H - k);
        }
    }
}

template <class T>
void drop(const T* x, T* out, i64 M, i64 H, const Dropout dropout) {
#pragma omp parallel for schedule(static)
    for (i64 m = 0; m < M; m++) {
        const u32 row_seed = dropout.row(m);
        for (i64 k = 0; k < H; k += 16)
            put(out + m * H + k, get(x + m * H + k, H - k) * dropout.factors(row_seed, k), H - k);
    }
}

// out = f(x); or, where `gated`, each row is twice as wide as the output and out = f(left half) * right half
template <class T, int KIND>
void activation(const T* x, T* out, i64 M, i64 H, i64 gated) {
#pragma omp parallel for schedule(static)
    for (i64 m = 0; m < M; m++) {
        const T* source = x + m * (gated ? 2 * H : H);
        for (i64 k = 0; k < H; k += 16) {
            v16 value, slope;
            activate<KIND>(get(source + k, H - k), value, slope);
            put(out + m * H + k, gated ? value * get(source + H + k, H - k) : value, H - k);
        }
    }
}

template <class T, int KIND>
void activation_backward(const T* d_out, const T* x, T* d_x, i64 M, i64 H, i64 gated) {
#pragma omp parallel for schedule(static)
    for (i64 m = 0; m < M; m++) {
        const i64 start = m * (gated ? 2 * H : H);
        for (i64 k = 0; k < H; k += 16) {
            const i64 count = H - k;
            const v16 d = get(d_out + m * H + k, count);
            v16 value, slope;
            activate<KIND>(get(x + start + k, count), value, slope);
            put(d_x + start + k, gated ? d * slope * get(x + start + H + k, count) : d * slope, count);
            if (gated) put(d_x + start + H + k, d * value, count);
        }
    }
}

}  // namespace

#define FOR_TYPE(T, suffix)                                                                                            \
    API void add_norm_##suffix(const float* residual, const T* y, const float* gamma, const float* beta, float epsilon, \
                               i64 rms, i64 post, float* stream, T* out, T* normed, float* rstd, i64 M, i64 H,         \
                               DROPOUT) {                                                                              \
        add_norm(residual, y, gamma, beta, epsilon, rms, post, stream, out, normed, rstd, M, H,                        \
                 Dropout(seeds, site, p));                                                                             \
    }                                                                                                                  \
    API void add_norm_backward_##suffix(const T* d_out, const float* d_stream, const T* normed, const float* rstd,     \
                                        const float* gamma, i64 rms, i64 post, float* d_residual, T* d_y, i64 M, i64 H, \
                                        DROPOUT) {                                                                     \
        add_norm_backward(d_out, d_stream, normed, rstd, gamma, rms, post, d_residual, d_y, M, H,                      \
                          Dropout(seeds, site, p));                                                                    \
    }                                                                                                                  \
    API void drop_##suffix(const T* x, T* out, i64 M, i64 H, DROPOUT) { drop(x, out, M, H, Dropout(seeds, site, p)); } \
    API void activation_##suffix(const T* x, T* out, i64 M, i64 H, i64 gated, i64 kind) {                              \
        (kind == GELU   ? activation<T, GELU>                                                                          \
         : kind == SILU ? activation<T, SILU>                                                                          \
         : kind == RELU ? activation<T, RELU>                                                                          \
                        : activation<T, GELU_TANH>)(x, out, M, H, gated);                                              \
    }                                                                                                                  \
    API void activation_backward_##suffix(const T* d_out, const T* x, T* d_x, i64 M, i64 H, i64 gated, i64 kind) {     \
        (kind == GELU   ? activation_backward<T, GELU>                                                                 \
         : kind == SILU ? activation_backward<T, SILU>                                                                 \
         : kind == RELU ? activation_backward<T, RELU>                                                                 \
                        : activation_backward<T, GELU_TANH>)(d_out, x, d_x, M, H, gated);                              \
    }

FOR_TYPE(bf16, bf16)
FOR_TYPE(float, f32)
