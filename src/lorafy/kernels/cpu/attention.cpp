// Attention over ragged sequences: softmax(scale q k^T) v, each sequence and head by itself.

#include "common.h"

namespace {

// `rows` rows of T as floats behind one another, zeros up to the padded width
template <class T>
void fetch(const T* source, i64 ld, i64 rows, i64 columns, float factor, float* target, i64 ldt) {
    for (i64 i = 0; i < rows; i++)
        for (i64 c = 0; c < columns; c += 16) store(target + i * ldt + c, factor * get(source + i * ld + c, columns - c));
}

// (rows x columns) floats to (columns x rows), zeros up to the padded number of rows
inline void transpose(const float* source, i64 lds, i64 rows, i64 columns, float* target, i64 ldt) {
    for (i64 c = 0; c < columns; c++) {
        for (i64 i = 0; i < rows; i++) target[c * ldt + i] = source[i * lds + c];
        for (i64 i = rows; i < padded(rows); i++) target[c * ldt + i] = 0;
    }
}

template <class T>
void deliver(const float* source, i64 lds, i64 rows, i64 columns, float factor, T* target, i64 ld) {
    for (i64 i = 0; i < rows; i++)
        for (i64 c = 0; c < columns; c += 16) put(target + i * ld + c, factor * load(source + i * lds + c), columns - c);
}

// of a row of scores, what lies behind `seen` is -inf: its probability is zero
inline void hide(float* s, i64 seen, i64 wide) {
    for (i64 j = seen; j < wide; j++) s[j] = -INFINITY;
}

struct Shape {
    const std::int32_t *q_starts, *k_starts;  // sequence b's queries are rows q_starts[b] to q_starts[b + 1]
    i64 sequences, heads, kv_heads, width, causal;
    float scale;
    i64 queries(i64 b) const { return q_starts[b + 1] - q_starts[b]; }
    i64 keys(i64 b) const { return k_starts[b + 1] - k_starts[b]; }
    i64 longest() const {  // a sequence has no more queries than keys
        i64 most = 1;
        for (i64 b = 0; b < sequences; b++) most = keys(b) > most ? keys(b) : most;
        return most;
    }
    // the keys that query i of n sees, of `count`: its own place is i + (count - n)
    i64 seen(i64 i, i64 n, i64 count) const { return causal ? i + (count - n) + 1 : count; }
};

constexpr i64 BLOCK = 48;  // queries at a time

template <class T>
void attention(const T* q, i64 ldq, const T* k, i64 ldk, const T* v, i64 ldv, T* out, i64 ldo, float* lse,
               const Shape shape, const std::int32_t* seeds, i64 site, double p) {
    const i64 most = padded(shape.longest()), D = shape.width, Dp = padded(D), group = shape.heads / shape.kv_heads;
#pragma omp parallel
    {
        Scratch kt(Dp * most), vs(most * Dp), qs(BLOCK * Dp), scores(BLOCK * most), sums(BLOCK * Dp);
#pragma omp for schedule(dynamic) collapse(2)
        for (i64 b = 0; b < shape.sequences; b++)
            for (i64 head = 0; head < shape.heads; head++) {
                const i64 n = shape.queries(b), count = shape.keys(b), wide = padded(count);
                const i64 first = shape.q_starts[b], first_key = shape.k_starts[b], kv = head / group;
                const Dropout dropout(seeds, site + head, p);
                fetch(k + first_key * ldk + kv * D, ldk, count, D, 1.0f, vs.data, Dp);
                transpose(vs.data, Dp, count, D, kt.data, most);
                fetch(v + first_key * ldv + kv * D, ldv, count, D, 1.0f, vs.data, Dp);
                for (i64 start = 0; start < n; start += BLOCK) {
                    const i64 rows = least(BLOCK, n - start);
                    fetch(q + (first + start) * ldq + head * D, ldq, rows, D, shape.scale, qs.data, Dp);
                    product(qs.data, Dp, 1, kt.data, most, scores.data, most, rows, wide, D, false);
                    for (i64 i = 0; i < rows; i++) {
                        float* s = scores.data + i * most;
                        const i64 row = first + start + i, seen = shape.seen(start + i, n, count);
                        hide(s, seen, wide);
                        v16 tops = all(-INFINITY), totals{};
                        for (i64 j = 0; j < wide; j += 16) tops = load(s + j) > tops ? load(s + j) : tops;
                        float top = tops[0];
                        for (int j = 1; j < 16; j++) top = tops[j] > top ? tops[j] : top;
                        for (i64 j = 0; j < wide; j += 16) {
                            v16 x = load(s + j);
                            x = x == -INFINITY ? all(0) : exponential(x - top);
                            totals += x;
                            store(s + j, x);
                        }
                        const float total = sum(totals), inverse = 1.0f / total;
                        lse[row * shape.heads + head] = top + std::log(total);
                        const u32 row_seed = dropout.row(row);
                        for (i64 j = 0; j < wide; j += 16)
                            store(s + j, load(s + j) * (dropout.seeds ? inverse * dropout.factors(row_seed, j)
                                                                      : all(inverse)));
                    }
                    product(scores.data, most, 1, vs.data, Dp, sums.data, Dp, rows, Dp, count, false);
                    deliver(sums.data, Dp, rows, D, 1.0f, out + (first + start) * ldo + head * D, ldo);
                }
            }
    }
}

// d_k and d_v of a key head are summed over the query heads of its group, in their order
template <class T>
void attention_backward(const T* d_out, i64 ldo, const T* q, i64 ldq, const T* k, i64 ldk, const T* v, i64 ldv,
                        const float* lse, T* d_q, i64 ld_dq, T* d_k, i64 ld_dk, T* d_v, i64 ld_dv, const Shape shape,
                        const std::int32_t* seeds, i64 site, double p) {
    const i64 most = padded(shape.longest()), D = shape.width, Dp = padded(D), group = shape.heads / shape.kv_heads;
#pragma omp parallel
    {
        Scratch kt(Dp * most), vt(Dp * most), ks(most * Dp), qs(BLOCK * Dp), gs(BLOCK * Dp), dq(BLOCK * Dp);
        Scratch dk(most * Dp), dv(most * Dp), probs(BLOCK * most), grads(BLOCK * most);
#pragma omp for schedule(dynamic) collapse(2)
        for (i64 b = 0; b < shape.sequences; b++)
            for (i64 kv = 0; kv < shape.kv_heads; kv++) {
                const i64 n = shape.queries(b), count = shape.keys(b), wide = padded(count);
                const i64 first = shape.q_starts[b], first_key = shape.k_starts[b];
                fetch(v + first_key * ldv + kv * D, ldv, count, D, 1.0f, ks.data, Dp);
                transpose(ks.data, Dp, count, D, vt.data, most);
                fetch(k + first_key * ldk + kv * D, ldk, count, D, 1.0f, ks.data, Dp);
                transpose(ks.data, Dp, count, D, kt.data, most);
                std::memset(dk.data, 0, count * Dp * sizeof(float));
                std::memset(dv.data, 0, count * Dp * sizeof(float));
                for (i64 head = kv * group; head < (kv + 1) * group; head++) {
                    const Dropout dropout(seeds, site + head, p);
                    for (i64 start = 0; start < n; start += BLOCK) {
                        const i64 rows = least(BLOCK, n - start);
                        fetch(q + (first + start) * ldq + head * D, ldq, rows, D, shape.scale, qs.data, Dp);
                        fetch(d_out + (first + start) * ldo + head * D, ldo, rows, D, 1.0f, gs.data, Dp);
                        product(qs.data, Dp, 1, kt.data, most, probs.data, most, rows, wide, D, false);
                        product(gs.data, Dp, 1, vt.data, most, grads.data, most, rows, wide, D, false);
                        for (i64 i = 0; i < rows; i++) {
                            float *s = probs.data + i * most, *g = grads.data + i * most;
                            const i64 row = first + start + i, seen = shape.seen(start + i, n, count);
                            const float shift = lse[row * shape.heads + head];
                            const u32 row_seed = dropout.row(row);
                            hide(s, seen, wide);
                            v16 products{};  // the sum of P dP over the row
                            for (i64 j = 0; j < wide; j += 16) {
                                v16 prob = load(s + j), grad = load(g + j);
                                prob = prob == -INFINITY ? all(0) : exponential(prob - shift);
                                if (dropout.seeds) grad *= dropout.factors(row_seed, j);
                                products += prob * grad;
                                store(s + j, prob);
                                store(g + j, grad);
                            }
                            const float along = sum(products);
                            for (i64 j = 0; j < wide; j += 16) {
                                const v16 prob = load(s + j);
                                store(g + j, prob * (load(g + j) - along));
                                if (dropout.seeds) store(s + j, prob * dropout.factors(row_seed, j));
                            }
                        }
                        product(grads.data, most, 1, ks.data, Dp, dq.data, Dp, rows, Dp, count, false);
                        deliver(dq.data, Dp, rows, D, shape.scale, d_q + (first + start) * ld_dq + head * D, ld_dq);
                        product(grads.data, 1, most, qs.data, Dp, dk.data, Dp, count, Dp, rows, true);  // qs is scaled
                        product(probs.data, 1, most, gs.data, Dp, dv.data, Dp, count, Dp, rows, true);
                    }
                }
                deliver(dk.data, Dp, count, D, 1.0f, d_k + first_key * ld_dk + kv * D, ld_dk);
                deliver(dv.data, Dp, count, D, 1.0f, d_v + first_key * ld_dv + kv * D, ld_dv);
            }
    }
}

}  // namespace

#define FOR_TYPE(T, suffix)                                                                                            \
    API void attention_##suffix(const T* q, i64 ldq, const T* k, i64 ldk, const T* v, i64 ldv, T* out, i64 ldo,        \
                                float* lse, const std::int32_t* q_starts, const std::int32_t* k_starts, i64 sequences, \
                                i64 heads, i64 kv_heads, i64 width, i64 causal, float scale, DROPOUT) {                \
        const Shape shape{q_starts, k_starts, sequences, heads, kv_heads, width, causal, scale};                       \
        attention(q, ldq, k, ldk, v, ldv, out, ldo, lse, shape, seeds, site, p);                                       \
    }                                                                                                                  \
    API void attention_backward_##suffix(                                                                              \
        const T* d_out, i64 ldo, const T* q, i64 ldq, const T* k, i64 ldk, const T* v, i64 ldv, const float* lse,      \
        T* d_q, i64 ld_dq, T* d_k, i64 ld_dk, T* d_v, i64 ld_dv, const std::int32_t* q_starts,                         \
        const std::int32_t* k_starts, i64 sequences, i64 heads, i64 kv_heads, i64 width, i64 causal, float scale,      \
        DROPOUT) {                                                                                                     \
        const Shape shape{q_starts, k_starts, sequences, heads, kv_heads, width, causal, scale};                       \
        attention_backward(d_out, ldo, q, ldq, k, ldk, v, ldv, lse, d_q, ld_dq, d_k, ld_dk, d_v, ld_dv, shape, seeds,  \
                           site, p);                                                                                   \
    }

FOR_TYPE(bf16, bf16)
FOR_TYPE(float, f32)
