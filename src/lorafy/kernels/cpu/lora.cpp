// The small products of LoRA: r rows on one side. All adapters of a layer in one call, forward or backward.

#include "common.h"

namespace {

// `LoraTable` in compiled.py. A (r x K) and B (width x r) with its `scaling`, on the output's columns from `start` on.
// h (M x r) is dropout(x) A^T: written forward, read backward. d_A and d_B may be null.
struct Part {
    const float *A, *B;
    float *h, *d_A, *d_B;
    i64 start, width, r, site;
    double scaling, p;
};

constexpr i64 ROWS = 24;     // of a block: 24 x 3072 floats stay in the second-level cache
constexpr i64 COLUMNS = 64;  // of a block of a gradient

// A as (r x padded(K)) and scaling B^T as (r x padded(width)), zeros behind the end
class Matrices {
  public:
    Matrices(const Part* parts, i64 num_parts, i64 K) : part_(parts), K_(K), data_(size(parts, num_parts, K)) {}
    float* A(i64 i) const { return data_.data + size(part_, i, K_); }
    float* B(i64 i) const { return A(i) + part_[i].r * padded(K_); }
    void lay_out(i64 i) const {  // by all threads
        const Part& part = part_[i];
        const i64 lda = padded(K_), ldb = padded(part.width);
        float *a = A(i), *b = B(i);
#pragma omp for schedule(static) nowait
        for (i64 j = 0; j < part.r; j++) {
            std::memcpy(a + j * lda, part.A + j * K_, K_ * sizeof(float));
            for (i64 k = K_; k < lda; k++) a[j * lda + k] = 0;
            for (i64 n = 0; n < part.width; n++) b[j * ldb + n] = float(part.scaling) * part.B[n * part.r + j];
            for (i64 n = part.width; n < ldb; n++) b[j * ldb + n] = 0;
        }
    }

  private:
    static i64 size(const Part* parts, i64 count, i64 K) {
        i64 total = 0;
        for (i64 i = 0; i < count; i++) total += parts[i].r * (padded(K) + padded(parts[i].width));
        return total;
    }
    const Part* part_;
    i64 K_;
    Scratch data_;
};

// dropout(source) as floats, the first of them in column `first`
template <class T>
inline void take(const T* source, i64 count, const Dropout& dropout, u32 row_seed, i64 first, float* target) {
    for (i64 k = 0; k < count; k += 16) {
        v16 x = get(source + k, count - k);
        if (dropout.seeds) x *= dropout.factors(row_seed, first + k);
        store(target + k, x);
    }
}

// ---- out (rows x r) = a (rows x K) w^T, w (r x K); K is padded to 16

template <int R, int J>
inline void dot_tile(const float* a, i64 lda, const float* w, i64 ldw, i64 K, float* out, i64 ldo) {
    v16 sums[R][J] = {};
    for (i64 k = 0; k < K; k += 16) {
        v16 right[J];
        for (int j = 0; j < J; j++) right[j] = load(w + j * ldw + k);
        for (int m = 0; m < R; m++) {
            const v16 left = load(a + m * lda + k);
            for (int j = 0; j < J; j++) sums[m][j] += left * right[j];
        }
    }
    for (int m = 0; m < R; m++)
        for (int j = 0; j < J; j++) out[m * ldo + j] = sum(sums[m][j]);
}

inline void dots(const float* a, i64 lda, const float* w, i64 ldw, i64 rows, i64 r, i64 K, float* out) {
    for (i64 m = 0; m < rows; m += 4) {
        const bool whole = m + 4 <= rows;
        for (i64 j = 0; j < r;) {
            const bool four = j + 4 <= r;
            const float *left = a + m * lda, *right = w + j * ldw;
            float* target = out + m * r + j;
            if (whole && four) dot_tile<4, 4>(left, lda, right, ldw, K, target, r);
            else
                for (i64 n = m; n < least(m + 4, rows); n++)
                    for (i64 i = j; i < (four ? j + 4 : j + 1); i++)
                        dot_tile<1, 1>(a + n * lda, lda, w + i * ldw, ldw, K, out + n * r + i, r);
            j += four ? 4 : 1;
        }
    }
}

// ---- y (rows x N) += dropout_mask * (h (rows x r) w (r x N)) + bias; r may be 0

template <class T, int R, int V>
inline void lift_tile(T* y, i64 ldy, const float* h, i64 r, const float* w, i64 ldw, const float* bias, i64 n, i64 N,
                      const Dropout& dropout, i64 row) {
    v16 sums[R][V] = {};
    for (i64 j = 0; j < r; j++) {
        v16 right[V];
        for (int v = 0; v < V; v++) right[v] = load(w + j * ldw + n + 16 * v);
        for (int m = 0; m < R; m++)
            for (int v = 0; v < V; v++) sums[m][v] += h[m * r + j] * right[v];
    }
    for (int m = 0; m < R; m++) {
        const u32 row_seed = dropout.row(row + m);
        for (int v = 0; v < V; v++) {
            const i64 column = n + 16 * v;
            v16 update = sums[m][v];
            if (dropout.seeds) update *= dropout.factors(row_seed, column);
            if (bias) update += get(bias + column, N - column);
            T* target = y + m * ldy + column;
            put(target, get(target, N - column) + update, N - column);
        }
    }
}

template <class T, int R>
inline void lift_rows(T* y, i64 ldy, const float* h, i64 r, const float* w, i64 ldw, const float* bias, i64 N,
                      const Dropout& dropout, i64 row) {
    i64 n = 0;
    for (; n + 64 <= N; n += 64) lift_tile<T, R, 4>(y, ldy, h, r, w, ldw, bias, n, N, dropout, row);
    for (; n < N; n += 16) lift_tile<T, R, 1>(y, ldy, h, r, w, ldw, bias, n, N, dropout, row);
}

// `row`: the number of y's first row, which decides its mask
template <class T>
void lift(T* y, i64 ldy, const float* h, i64 r, const float* w, i64 ldw, const float* bias, i64 rows, i64 N,
          const Dropout& dropout, i64 row) {
    i64 m = 0;
    for (; m + 4 <= rows; m += 4) lift_rows<T, 4>(y + m * ldy, ldy, h + m * r, r, w, ldw, bias, N, dropout, row + m);
    for (; m < rows; m++) lift_rows<T, 1>(y + m * ldy, ldy, h + m * r, r, w, ldw, bias, N, dropout, row + m);
}

// ---- J rows of h^T (r x M) a (M x COLUMNS), for 32 columns

template <int J>
inline void outer_tile(const float* a, const float* h, i64 r, i64 M, float* out) {
    v16 sums[J][2] = {};
    for (i64 m = 0; m < M; m++) {
        const v16 left = load(a + m * COLUMNS), right = load(a + m * COLUMNS + 16);
        for (int j = 0; j < J; j++) {
            sums[j][0] += h[m * r + j] * left;
            sums[j][1] += h[m * r + j] * right;
        }
    }
    for (int j = 0; j < J; j++) {
        store(out + j * COLUMNS, sums[j][0]);
        store(out + j * COLUMNS + 16, sums[j][1]);
    }
}

// sums (r x COLUMNS) = h^T dropout(x), of `count` columns from `first` on
template <class T>
void outer(const T* x, i64 ldx, const float* h, i64 M, i64 r, i64 first, i64 count, const Dropout& dropout,
           float* columns, float* sums) {
    for (i64 m = 0; m < M; m++) {
        float* target = columns + m * COLUMNS;
        take(x + m * ldx + first, count, dropout, dropout.row(m), first, target);
        for (i64 k = padded(count); k < COLUMNS; k += 16) store(target + k, v16{});
    }
    for (i64 k = 0; k < count; k += 32) {
        i64 j = 0;
        for (; j + 8 <= r; j += 8) outer_tile<8>(columns + k, h + j, r, M, sums + j * COLUMNS + k);
        for (; j + 2 <= r; j += 2) outer_tile<2>(columns + k, h + j, r, M, sums + j * COLUMNS + k);
        for (; j < r; j++) outer_tile<1>(columns + k, h + j, r, M, sums + j * COLUMNS + k);
    }
}

// y (M x N) += bias, and the update of each part; the parts stand in the order of their columns
template <class T>
void lora_forward(const T* x, i64 ldx, T* y, const float* bias, i64 M, i64 K, i64 N, const Part* parts, i64 num_parts,
                  const std::int32_t* seeds) {
    const Matrices matrices(parts, num_parts, K);
#pragma omp parallel
    {
        for (i64 i = 0; i < num_parts; i++) matrices.lay_out(i);
#pragma omp barrier
        Scratch rows(ROWS * padded(K));
#pragma omp for schedule(static)
        for (i64 block = 0; block < (M + ROWS - 1) / ROWS; block++) {
            const i64 first = block * ROWS, count = least(ROWS, M - first);
            const Dropout none(nullptr, 0, 0);
            i64 end = 0;
            for (i64 i = 0; i <= num_parts; i++) {
                const i64 start = i < num_parts ? parts[i].start : N;
                if (bias && start > end)  // columns without an adapter
                    lift(y + first * N + end, N, nullptr, 0, nullptr, 0, bias + end, count, start - end, none, first);
                if (i == num_parts) break;
                const Part& part = parts[i];
                const Dropout dropout(seeds, part.site, part.p);
                if (i == 0 || dropout.seeds)  // parts without dropout read the same rows
                    for (i64 m = 0; m < count; m++)
                        take(x + (first + m) * ldx, K, dropout, dropout.row(first + m), 0, rows.data + m * padded(K));
                float* h = part.h + first * part.r;
                dots(rows.data, padded(K), matrices.A(i), padded(K), count, part.r, padded(K), h);
                lift(y + first * N + start, N, h, part.r, matrices.B(i), padded(part.width),
                     bias ? bias + start : nullptr, count, part.width, none, first);
                end = start + part.width;
            }
        }
    }
}

// dx (M x K), where given, += the parts' share; d_A (r x K) and d_B (width x r) where given
template <class T>
void lora_backward(const T* x, i64 ldx, const T* dy, i64 ldy, T* dx, i64 M, i64 K, const Part* parts, i64 num_parts,
                   const std::int32_t* seeds) {
    const Matrices matrices(parts, num_parts, K);
    i64 widest = 0, most = 0, total = 0, num_blocks = 0;
    const i64 blocks_of_K = (K + COLUMNS - 1) / COLUMNS;
    for (i64 i = 0; i < num_parts; i++) {
        widest = parts[i].width > widest ? parts[i].width : widest;
        most = parts[i].r > most ? parts[i].r : most;
        total += parts[i].r;
        num_blocks += blocks_of_K + (parts[i].width + COLUMNS - 1) / COLUMNS;
    }
    Scratch d_h(M * total);  // one part behind the other
    const Dropout none(nullptr, 0, 0);
#pragma omp parallel
    {
        for (i64 i = 0; i < num_parts; i++) matrices.lay_out(i);
#pragma omp barrier
        Scratch rows(ROWS * padded(widest));
#pragma omp for schedule(static)
        for (i64 block = 0; block < (M + ROWS - 1) / ROWS; block++) {
            const i64 first = block * ROWS, count = least(ROWS, M - first);
            float* reduced = d_h.data;
            for (i64 i = 0; i < num_parts; i++) {
                const Part& part = parts[i];
                const i64 width = padded(part.width);
                for (i64 m = 0; m < count; m++)
                    take(dy + (first + m) * ldy + part.start, part.width, none, 0, 0, rows.data + m * width);
                float* target = reduced + first * part.r;
                dots(rows.data, width, matrices.B(i), width, count, part.r, width, target);
                if (dx)
                    lift(dx + first * K, K, target, part.r, matrices.A(i), padded(K), nullptr, count, K,
                         Dropout(seeds, part.site, part.p), first);
                reduced += M * part.r;
            }
        }
        Scratch columns(M * COLUMNS), sums(most * COLUMNS);
#pragma omp for schedule(static)
        for (i64 block = 0; block < num_blocks; block++) {
            i64 rest = block, i = 0;
            const float* reduced = d_h.data;
            for (; rest >= blocks_of_K + (parts[i].width + COLUMNS - 1) / COLUMNS; i++) {
                rest -= blocks_of_K + (parts[i].width + COLUMNS - 1) / COLUMNS;
                reduced += M * parts[i].r;
            }
            const Part& part = parts[i];
            if (rest < blocks_of_K) {
                if (!part.d_A) continue;
                const i64 first = rest * COLUMNS, count = least(COLUMNS, K - first);
                const Dropout dropout(seeds, part.site, part.p);
                outer(x, ldx, reduced, M, part.r, first, count, dropout, columns.data, sums.data);
                for (i64 j = 0; j < part.r; j++)
                    std::memcpy(part.d_A + j * K + first, sums.data + j * COLUMNS, count * sizeof(float));
            } else {
                if (!part.d_B) continue;
                const i64 first = (rest - blocks_of_K) * COLUMNS, count = least(COLUMNS, part.width - first);
                outer(dy + part.start, ldy, part.h, M, part.r, first, count, none, columns.data, sums.data);
                for (i64 n = 0; n < count; n++)
                    for (i64 j = 0; j < part.r; j++)
                        part.d_B[(first + n) * part.r + j] = float(part.scaling) * sums.data[j * COLUMNS + n];
            }
        }
    }
}

}  // namespace

#define FOR_TYPE(T, suffix)                                                                                            \
    API void lora_forward_##suffix(const T* x, i64 ldx, T* y, const float* bias, i64 M, i64 K, i64 N,                  \
                                   const Part* parts, i64 num_parts, const std::int32_t* seeds) {                      \
        lora_forward(x, ldx, y, bias, M, K, N, parts, num_parts, seeds);                                               \
    }                                                                                                                  \
    API void lora_backward_##suffix(const T* x, i64 ldx, const T* dy, i64 ldy, T* dx, i64 M, i64 K, const Part* parts, \
                                    i64 num_parts, const std::int32_t* seeds) {                                        \
        lora_backward(x, ldx, dy, ldy, dx, M, K, parts, num_parts, seeds);                                             \
    }

FOR_TYPE(bf16, bf16)
FOR_TYPE(float, f32)
