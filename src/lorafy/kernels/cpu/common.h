// What the operations on a CPU share. reference.py says what each operation computes.
//
// T is the type of activations (bf16 or float); inside all is float. Rows are tokens of all sequences one behind the
// other; `ld*` is the distance of two rows in elements. The interface is C, called through ctypes, so that it builds in
// seconds and needs no headers of torch. Every sum has a fixed order: the same inputs give the same bits, whatever the
// number of threads.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

using i64 = std::int64_t;
using u32 = std::uint32_t;
typedef float v16 __attribute__((vector_size(64)));  // gcc and clang split it where registers are narrower
typedef float v8 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));
typedef std::int32_t i16v __attribute__((vector_size(64)));
typedef std::uint32_t u16v __attribute__((vector_size(64)));
typedef std::uint16_t h16v __attribute__((vector_size(32)));

struct bf16 { std::uint16_t bits; };

inline i64 padded(i64 n) { return (n + 15) / 16 * 16; }
inline i64 least(i64 a, i64 b) { return a < b ? a : b; }

// ---- sixteen values at a time; of the last ones of a row only `count` are there

inline v16 load(const float* p) { v16 x; std::memcpy(&x, p, 64); return x; }
inline void store(float* p, v16 x) { std::memcpy(p, &x, 64); }
inline v16 all(float x) { return v16{} + x; }

inline v16 widen(h16v bits) { return (v16)(__builtin_convertvector(bits, u16v) << 16); }
inline h16v narrow(v16 x) {  // to nearest, ties to even; NaN stays NaN
    const u16v bits = (u16v)x, rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return __builtin_convertvector(x == x ? rounded : (u16v{} + 0x7fc0u), h16v);
}
inline v16 get(const float* p, i64 count = 16) {
    v16 x{};
    if (count >= 16) return load(p);
    std::memcpy(&x, p, count * 4);
    return x;
}
inline v16 get(const bf16* p, i64 count = 16) {
    h16v bits{};
    if (count >= 16) std::memcpy(&bits, p, 32);
    else std::memcpy(&bits, p, count * 2);
    return widen(bits);
}
inline void put(float* p, v16 x, i64 count = 16) {
    if (count >= 16) store(p, x);
    else std::memcpy(p, &x, count * 4);
}
inline void put(bf16* p, v16 x, i64 count = 16) {
    const h16v bits = narrow(x);
    if (count >= 16) std::memcpy(p, &bits, 32);
    else std::memcpy(p, &bits, count * 2);
}
inline float widened(float x) { return x; }
inline float widened(bf16 x) {
    const u32 bits = u32(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline void narrowed(float& target, float x) { target = x; }
inline void narrowed(bf16& target, float x) { target.bits = narrow(all(x))[0]; }
inline float sum(v16 x) {  // halves are added, eight, four, two
    v8 eight[2];
    v4 four[2];
    std::memcpy(eight, &x, 64);
    eight[0] += eight[1];
    std::memcpy(four, eight, 32);
    four[0] += four[1];
    return (four[0][0] + four[0][2]) + (four[0][1] + four[0][3]);
}

// ---- dropout: a mask is a function of (row's seed, site, column); `factors` in reference.py

constexpr u32 GOLDEN = 0x9e3779b9u;

template <class U>
inline U mix(U x) {  // the finalizer of MurmurHash3
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    return x ^ (x >> 16);
}

struct Dropout {
    const std::int32_t* seeds;  // one for each row; null: no dropout
    u32 site, threshold;
    float scale;
    Dropout(const std::int32_t* seeds_, i64 site_, double p)
        : seeds(p > 0 ? seeds_ : nullptr),
          site(u32(site_)),
          threshold(u32(p * 4294967296.0)),
          scale(float(1 / (1 - p))) {}
    u32 row(i64 m) const { return seeds ? mix(u32(seeds[m]) + site * GOLDEN) : 0; }
    v16 factors(u32 row_seed, i64 column) const {
        const u16v places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        return mix(row_seed + (places + u32(column)) * GOLDEN) >= threshold ? all(scale) : all(0);
    }
};

// ---- the exponential, relative error below 2e-7

inline v16 exponential(v16 x) {
    x = x < -87.0f ? all(-87) : x;
    x = x > 88.0f ? all(88) : x;
    const v16 n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // the nearest whole number
    const v16 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    v16 y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return y * (v16)((__builtin_convertvector(n, i16v) + 127) << 23);
}

// ---- C (+)= A B for small float matrices. A's element (m, k) lies at a[m * a_row + k * a_column]; N is padded to 16.

template <int ROWS, int VECTORS>
inline void tile(const float* a, i64 a_row, i64 a_column, const float* b, i64 ldb, float* c, i64 ldc, i64 K, bool add) {
    v16 sums[ROWS][VECTORS];
    for (int m = 0; m < ROWS; m++)
        for (int v = 0; v < VECTORS; v++) sums[m][v] = add ? load(c + m * ldc + 16 * v) : v16{};
    for (i64 k = 0; k < K; k++) {
        v16 row[VECTORS];
        for (int v = 0; v < VECTORS; v++) row[v] = load(b + k * ldb + 16 * v);
        for (int m = 0; m < ROWS; m++) {
            const float x = a[m * a_row + k * a_column];
            for (int v = 0; v < VECTORS; v++) sums[m][v] += x * row[v];
        }
    }
    for (int m = 0; m < ROWS; m++)
        for (int v = 0; v < VECTORS; v++) store(c + m * ldc + 16 * v, sums[m][v]);
}

template <int VECTORS>
inline void tiles(const float* a, i64 a_row, i64 a_column, const float* b, i64 ldb, float* c, i64 ldc, i64 M, i64 K,
                  bool add) {
    i64 m = 0;
    for (; m + 6 <= M; m += 6) tile<6, VECTORS>(a + m * a_row, a_row, a_column, b, ldb, c + m * ldc, ldc, K, add);
    for (; m + 2 <= M; m += 2) tile<2, VECTORS>(a + m * a_row, a_row, a_column, b, ldb, c + m * ldc, ldc, K, add);
    for (; m < M; m++) tile<1, VECTORS>(a + m * a_row, a_row, a_column, b, ldb, c + m * ldc, ldc, K, add);
}

inline void product(const float* a, i64 a_row, i64 a_column, const float* b, i64 ldb, float* c, i64 ldc, i64 M, i64 N,
                    i64 K, bool add) {
    i64 n = 0;
    for (; n + 32 <= N; n += 32) tiles<2>(a, a_row, a_column, b + n, ldb, c + n, ldc, M, K, add);
    for (; n < N; n += 16) tiles<1>(a, a_row, a_column, b + n, ldb, c + n, ldc, M, K, add);
}

// Floats of one thread, at cache lines.
class Scratch {
  public:
    explicit Scratch(i64 count) : data(static_cast<float*>(std::aligned_alloc(64, padded(count + 16) * 4))) {}
    ~Scratch() { std::free(data); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    float* const data;
};

}  // namespace

#define API extern "C" __attribute__((visibility("default")))
#define DROPOUT const std::int32_t *seeds, i64 site, double p
