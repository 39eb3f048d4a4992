// The small products of LoRA: r columns on one side.

#include "common.h"

namespace {

// w is (rows x columns), or its transpose where `transposed`: copied to (rows x ldt) floats, zeros behind `columns`
void lay_out(const float* w, i64 rows, i64 columns, bool transposed, float factor, float* target, i64 ldt) {
#pragma omp for schedule(static)
    for (i64 i = 0; i < rows; i++) {
        for (i64 j = 0; j < columns; j++) target[i * ldt + j] = factor * (transposed ? w[j * rows + i] : w[i * columns + j]);
        for (i64 j = columns; j < ldt; j++) target[i * ldt + j] = 0;
    }
}

// dropout(source) as floats, the first of them in column `first`
template <class T>
inline void take(const T* source, i64 count, const Dropout& dropout, u32 key, i64 first, float* target) {
    for (i64 k = 0; k < count; k += 16) {
        v16 x = get(source + k, count - k);
        if (dropout.keys) x *= dropout.factors(key, first + k);
        store(target + k, x);
    }
}

constexpr i64 ROWS = 24;     // of a block: 24 x 3072 floats stay in the second-level cache
constexpr i64 COLUMNS = 64;  // of a block of a gradient

// out (M x r) = dropout(x) (M x K) W, W (K x r) or its transpose (r x K)
template <class T>
void down(const T* x, i64 ldx, const float* w, i64 transposed, float factor, float* out, i64 M, i64 K, i64 r,
          const std::int32_t* keys, i64 site, double p) {
    const Dropout dropout(keys, site, p);
    const i64 width = padded(r);
    Scratch weights(K * width);
#pragma omp parallel
    {
        lay_out(w, K, r, transposed, factor, weights.data, width);
        Scratch rows(ROWS * padded(K)), sums(ROWS * width);
#pragma omp for schedule(static)
        for (i64 block = 0; block < (M + ROWS - 1) / ROWS; block++) {
            const i64 first = block * ROWS, count = least(ROWS, M - first);
            for (i64 m = 0; m < count; m++) {
                const T* source = x + (first + m) * ldx;
                float* target = rows.data + m * padded(K);
                take(source, K, dropout, dropout.row(first + m), 0, target);
            }
            product(rows.data, padded(K), 1, weights.data, width, sums.data, width, count, width, K, false);
            for (i64 m = 0; m < count; m++)
                std::memcpy(out + (first + m) * r, sums.data + m * width, r * sizeof(float));
        }
    }
}

// y (M x N) += dropout_mask * (h (M x r) W) + bias, W (r x N) or its transpose (N x r); r may be 0
template <class T>
void lift(T* y, i64 ldy, const float* h, const float* w, i64 transposed, float factor, const float* bias, i64 M, i64 N,
          i64 r, const std::int32_t* keys, i64 site, double p) {
    const Dropout dropout(keys, site, p);
    const i64 width = padded(N);
    Scratch weights(r * width);
#pragma omp parallel
    {
        lay_out(w, r, N, transposed, factor, weights.data, width);
        Scratch sums(ROWS * width);
#pragma omp for schedule(static)
        for (i64 block = 0; block < (M + ROWS - 1) / ROWS; block++) {
            const i64 first = block * ROWS, count = least(ROWS, M - first);
            product(h + first * r, r, 1, weights.data, width, sums.data, width, count, width, r, false);
            for (i64 m = 0; m < count; m++) {
                T* target = y + (first + m) * ldy;
                const float* source = sums.data + m * width;
                const u32 key = dropout.row(first + m);
                for (i64 n = 0; n < N; n += 16) {
                    v16 update = load(source + n);
                    if (dropout.keys) update *= dropout.factors(key, n);
                    if (bias) update += get(bias + n, N - n);
                    put(target + n, get(target + n, N - n) + update, N - n);
                }
            }
        }
    }
}

// out (K x r), or its transpose (r x K), = factor * dropout(x)^T (K x M) h (M x r)
template <class T>
void outer(const T* x, i64 ldx, const float* h, float* out, i64 transposed, float factor, i64 M, i64 K, i64 r,
           const std::int32_t* keys, i64 site, double p) {
    const Dropout dropout(keys, site, p);
    const i64 width = padded(r);
    Scratch right(M * width);
#pragma omp parallel
    {
        lay_out(h, M, r, false, factor, right.data, width);
        Scratch columns(M * COLUMNS), sums(COLUMNS * width);
#pragma omp for schedule(static)
        for (i64 block = 0; block < (K + COLUMNS - 1) / COLUMNS; block++) {
            const i64 first = block * COLUMNS, count = least(COLUMNS, K - first);
            for (i64 m = 0; m < M; m++) {
                const T* source = x + m * ldx + first;
                float* target = columns.data + m * COLUMNS;
                take(source, count, dropout, dropout.row(m), first, target);
            }
            product(columns.data, 1, COLUMNS, right.data, width, sums.data, width, count, width, M, false);
            for (i64 k = 0; k < count; k++)
                for (i64 j = 0; j < r; j++)
                    out[transposed ? j * K + first + k : (first + k) * r + j] = sums.data[k * width + j];
        }
    }
}

}  // namespace

#define FOR_TYPE(T, suffix)                                                                                            \
    API void down_##suffix(const T* x, i64 ldx, const float* w, i64 transposed, float factor, float* out, i64 M,       \
                           i64 K, i64 r, KEYS) {                                                                       \
        down(x, ldx, w, transposed, factor, out, M, K, r, keys, site, p);                                              \
    }                                                                                                                  \
    API void lift_##suffix(T* y, i64 ldy, const float* h, const float* w, i64 transposed, float factor,                \
                           const float* bias, i64 M, i64 N, i64 r, KEYS) {                                             \
        lift(y, ldy, h, w, transposed, factor, bias, M, N, r, keys, site, p);                                          \
    }                                                                                                                  \
    API void outer_##suffix(const T* x, i64 ldx, const float* h, float* out, i64 transposed, float factor, i64 M,      \
                            i64 K, i64 r, KEYS) {                                                                      \
        outer(x, ldx, h, out, transposed, factor, M, K, r, keys, site, p);                                             \
    }

FOR_TYPE(bf16, bf16)
FOR_TYPE(float, f32)
