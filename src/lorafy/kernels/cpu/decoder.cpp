// What decoders have beside: rotary positions with the norm of each head, and the loss over a vocabulary.

#include "common.h"

namespace {

// One head's row: normed (where gamma is not null), then its halves turned: (a, b) -> (a cos - b sin, b cos + a sin).
// cosine and sine: (width), their halves equal.
template <class T>
void turn(const T* x, T* out, const float* gamma, float epsilon, const float* cosine, const float* sine, i64 width) {
    float row[512];
    float squares = 0;
    for (i64 k = 0; k < width; k++) {
        row[k] = widened(x[k]);
        squares += row[k] * row[k];
    }
    if (gamma) {
        const float inverse = 1.0f / std::sqrt(squares / width + epsilon);
        for (i64 k = 0; k < width; k++) row[k] *= inverse * gamma[k];
    }
    const i64 half = width / 2;
    for (i64 k = 0; k < half; k++) {
        const float a = row[k], b = row[half + k];
        narrowed(out[k], a * cosine[k] - b * sine[k]);
        narrowed(out[half + k], b * cosine[half + k] + a * sine[half + k]);
    }
}

template <class T>
void turn_backward(const T* d_out, const T* x, T* d_x, const float* gamma, float epsilon, const float* cosine,
                   const float* sine, i64 width) {
    float d[512];
    const i64 half = width / 2;
    for (i64 k = 0; k < half; k++) {
        const float a = widened(d_out[k]), b = widened(d_out[half + k]);
        d[k] = a * cosine[k] + b * sine[half + k];
        d[half + k] = b * cosine[half + k] - a * sine[k];
    }
    if (gamma) {
        float squares = 0, along = 0;
        for (i64 k = 0; k < width; k++) {
            const float value = widened(x[k]);
            d[k] *= gamma[k];
            squares += value * value;
            along += d[k] * value;
        }
        const float inverse = 1.0f / std::sqrt(squares / width + epsilon);
        const float slope = along * inverse * inverse / width;
        for (i64 k = 0; k < width; k++) d[k] = inverse * (d[k] - widened(x[k]) * slope);
    }
    for (i64 k = 0; k < width; k++) narrowed(d_x[k], d[k]);
}

// Rows hold `heads` heads of `width` columns to turn, then `rest` columns that stay.
template <class T>
void rotary(const T* x, T* out, const float* gammas, float epsilon, const float* cosine, const float* sine, i64 M,
            i64 heads, i64 width, i64 rest, const T* d_out) {
    const i64 ld = heads * width + rest;
#pragma omp parallel for schedule(static)
    for (i64 m = 0; m < M; m++) {
        for (i64 head = 0; head < heads; head++) {
            const i64 at = m * ld + head * width;
            const float* gamma = gammas ? gammas + head * width : nullptr;
            if (d_out) turn_backward(d_out + at, x + at, out + at, gamma, epsilon, cosine + m * width, sine + m * width, width);
            else turn(x + at, out + at, gamma, epsilon, cosine + m * width, sine + m * width, width);
        }
        const T* kept = d_out ? d_out : x;
        std::memcpy(out + m * ld + heads * width, kept + m * ld + heads * width, rest * sizeof(T));
    }
}

// losses[m] = log sum exp(logits) - logits[label], hits[m] = whether the label has the greatest logit; both 0 where the
// label is negative. Where `gradient`, the logits become the loss's gradient: softmax less one at the label.
template <class T>
void cross_entropy(T* logits, const i64* labels, float* losses, float* hits, i64 M, i64 V, i64 gradient) {
#pragma omp parallel for schedule(static)
    for (i64 m = 0; m < M; m++) {
        T* row = logits + m * V;
        const i64 label = labels[m];
        if (label < 0) {
            losses[m] = hits[m] = 0;
            if (gradient) std::memset(row, 0, V * sizeof(T));
            continue;
        }
        const float target = widened(row[label]);
        v16 tops = all(-INFINITY), totals{};
        for (i64 k = 0; k < V; k += 16) {
            v16 x = get(row + k, V - k);
            if (V - k < 16)
                for (i64 i = V - k; i < 16; i++) x[i] = -INFINITY;
            tops = x > tops ? x : tops;
        }
        float top = tops[0];
        for (int i = 1; i < 16; i++) top = tops[i] > top ? tops[i] : top;
        for (i64 k = 0; k < V; k += 16) {
            v16 x = exponential(get(row + k, V - k) - top);
            if (V - k < 16)
                for (i64 i = V - k; i < 16; i++) x[i] = 0;
            totals += x;
        }
        const float total = sum(totals);
        losses[m] = top + std::log(total) - target;
        bool hit = target >= top;  // of equal logits the first is the answer, as argmax has it
        for (i64 k = 0; hit && k < label; k++) hit = widened(row[k]) < top;
        hits[m] = hit;
        if (!gradient) continue;
        const float inverse = 1.0f / total;
        for (i64 k = 0; k < V; k += 16) put(row + k, exponential(get(row + k, V - k) - top) * inverse, V - k);
        narrowed(row[label], std::exp(target - top) * inverse - 1.0f);
    }
}

}  // namespace

#define FOR_TYPE(T, suffix)                                                                                            \
    API void rotary_##suffix(const T* x, T* out, const float* gammas, float epsilon, const float* cosine,              \
                             const float* sine, i64 M, i64 heads, i64 width, i64 rest, const T* d_out) {               \
        rotary(x, out, gammas, epsilon, cosine, sine, M, heads, width, rest, d_out);                                   \
    }                                                                                                                  \
    API void cross_entropy_##suffix(T* logits, const i64* labels, float* losses, float* hits, i64 M, i64 V,            \
                                    i64 gradient) {                                                                    \
        cross_entropy(logits, labels, losses, hits, M, V, gradient);                                                   \
    }

FOR_TYPE(bf16, bf16)
FOR_TYPE(float, f32)
