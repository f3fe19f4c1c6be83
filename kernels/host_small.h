// Products of small or narrow matrices, such as those of networks with few units.
//
// A BLAS prepares a product before it multiplies: it rearranges both matrices in memory. With few
// rows, columns or terms this takes longer than the multiplications. Here one loop over the terms
// keeps a tile of the result in registers and reads the matrices where they are. Only a matrix
// whose rows cannot be read as vectors is copied first.
//
// Every element is one sum, from the first term to the last, whichever tile computes it. Only
// narrow results may be two sums, of the even and of the odd terms.
//
// It is compiled once for each instruction set, as host_parts.h is.

#pragma once

#include <string.h>

#include "host_parts.h"

#if defined(__GNUC__)

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define XPN_VECTOR_BYTES 64
#elif defined(__AVX__)
#define XPN_VECTOR_BYTES 32
#else
#define XPN_VECTOR_BYTES 16
#endif

#if defined(__clang__)
#define XPN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define XPN_UNROLL _Pragma("GCC unroll 8")
#endif

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define XPN_CAN_SHUFFLE
#endif
#endif

namespace {

// A vector in a register, and one anywhere in memory.
template <class T> struct Vector;
template <> struct Vector<float> {
    typedef float Register __attribute__((vector_size(XPN_VECTOR_BYTES)));
    typedef float Memory __attribute__((vector_size(XPN_VECTOR_BYTES), aligned(4), may_alias));
};
template <> struct Vector<double> {
    typedef double Register __attribute__((vector_size(XPN_VECTOR_BYTES)));
    typedef double Memory __attribute__((vector_size(XPN_VECTOR_BYTES), aligned(8), may_alias));
};

template <class T> constexpr index_t lanes() { return XPN_VECTOR_BYTES / sizeof(T); }

#if defined(XPN_CAN_SHUFFLE)
typedef float Floats __attribute__((vector_size(16), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(16), aligned(8), may_alias));

// Transposes a block of 16 bytes in each of its rows.
XPN_INLINE void transpose(const float* from, index_t leading, float* to, index_t to_leading) {
    const Floats a = *(const Floats*)from, b = *(const Floats*)(from + leading);
    const Floats c = *(const Floats*)(from + 2 * leading), d = *(const Floats*)(from + 3 * leading);
    const Floats ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    const Floats cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    const Floats AB = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const Floats CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(Floats*)to = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(Floats*)(to + to_leading) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    *(Floats*)(to + 2 * to_leading) = __builtin_shufflevector(AB, CD, 0, 1, 4, 5);
    *(Floats*)(to + 3 * to_leading) = __builtin_shufflevector(AB, CD, 2, 3, 6, 7);
}

XPN_INLINE void transpose(const double* from, index_t leading, double* to, index_t to_leading) {
    const Doubles a = *(const Doubles*)from, b = *(const Doubles*)(from + leading);
    *(Doubles*)to = __builtin_shufflevector(a, b, 0, 2);
    *(Doubles*)(to + to_leading) = __builtin_shufflevector(a, b, 1, 3);
}
#endif

#if defined(__AVX512F__)
const index_t MOST_VECTORS = 6;         // in a row of a tile
#else
const index_t MOST_VECTORS = 3;         // in a row of a tile
#endif
const index_t PACKED_BYTES = 24 << 10;  // of a copied matrix, which leaves room in the L1 cache

// How many terms are added at once. A transposed A is read from many cache lines, which should
// still be in the L1 cache when the next tile reads their other elements.
constexpr index_t most_terms(bool A_T) { return A_T ? 64 : 128; }

// The largest number of rows of a tile with V vectors in each. Two units that take four cycles need
// eight sums at once. The sums, a row of B and an element of A fit into 16 registers. If they need
// all of them, Clang copies one to another in each step, and takes twice the time. AVX-512 has 32:
// for 4 x 6 sums, a row of B and an element.
#if defined(__AVX512F__)
template <int V> constexpr int most_rows() { return V > 3 ? 4 : 8; }
#elif defined(__clang__)
template <int V> constexpr int most_rows() { return V == 3 ? 3 : V == 2 ? 5 : 8; }
#else
template <int V> constexpr int most_rows() { return V == 3 ? 4 : V == 2 ? 6 : 8; }
#endif

// Some columns of a product: at most MOST_VECTORS vectors, of which the last may overlap the one
// before it, or less than one vector.
template <class T> struct Panel {
    index_t k;
    const T* A;
    index_t A_leading;
    const T* B;
    index_t B_leading;
    index_t last;     // the column where the last vector begins
    index_t n_alone;  // the number of columns if they are less than one vector, or else 0
    bool is_begun;    // whether earlier terms are in the result
    bool in_pairs;    // whether a vector of B has two terms for each column
    T* out;
    index_t out_leading;
};

// Stores the first n columns, less than a vector, of a tile.
template <class T, int R, int V>
XPN_INLINE void store_alone(const typename Vector<T>::Register (&sums)[R][V], index_t n, T* out,
                            index_t leading) {
    T rows[R][lanes<T>()];
    memcpy(rows, sums, sizeof rows);
    for (int r = 0; r < R; ++r) {
        for (index_t j = 0; j < n; ++j) out[r * leading + j] = rows[r][j];
    }
}

// Two neighbouring elements, repeated.
XPN_INLINE Vector<float>::Register repeat_pair(const float* at) {
    typedef long long Pairs __attribute__((vector_size(XPN_VECTOR_BYTES)));
    long long pair;
    memcpy(&pair, at, sizeof pair);
    return (Vector<float>::Register)(Pairs{} + pair);
}

XPN_INLINE Vector<double>::Register repeat_pair(const double* at) {
#if defined(__AVX512DQ__)
    return (Vector<double>::Register)_mm512_broadcast_f64x2(_mm_loadu_pd(at));
#elif defined(__AVX__)
    return (Vector<double>::Register)_mm256_broadcast_pd((const __m128d*)at);
#else  // a vector
    return *(const Vector<double>::Memory*)at;
#endif
}

// Computes R rows of at most half a vector, with the even terms in one lane and the odd ones in the
// next. A is not transposed.
template <class T, int R> XPN_INLINE void multiply_pairs(const Panel<T>& p, const T* A, T* out) {
    typedef typename Vector<T>::Register Register;
    typedef typename Vector<T>::Memory Memory;
    Register sums[R];
    XPN_UNROLL for (int r = 0; r < R; ++r) sums[r] = Register{};
    const T* B = p.B;
    index_t l = 0;
    for (; l + 2 <= p.k; l += 2) {
        const Register b = *reinterpret_cast<const Memory*>(B);
        XPN_UNROLL for (int r = 0; r < R; ++r) sums[r] += b * repeat_pair(A + r * p.A_leading + l);
        B += lanes<T>();
    }
    if (l < p.k) {  // B has zeros beside the last term, and so must A: 0 * inf is nan
        const Register b = *reinterpret_cast<const Memory*>(B);
        XPN_UNROLL for (int r = 0; r < R; ++r) {
            const T last[2] = {A[r * p.A_leading + l], 0};
            sums[r] += b * repeat_pair(last);
        }
    }
    T rows[R][lanes<T>()];
    memcpy(rows, sums, sizeof rows);
    for (int r = 0; r < R; ++r) {
        for (index_t j = 0; j < p.n_alone; ++j) {
            out[r * p.out_leading + j] = rows[r][2 * j] + rows[r][2 * j + 1];
        }
    }
}

// Computes R rows of V vectors. A is transposed or not; B is not.
template <class T, int R, int V, bool A_T>
XPN_INLINE void multiply_tile(const Panel<T>& p, const T* A, T* out) {
    typedef typename Vector<T>::Register Register;
    typedef typename Vector<T>::Memory Memory;
    const index_t L = lanes<T>(), last = p.last, k = p.k;
    Register sums[R][V];
    XPN_UNROLL for (int r = 0; r < R; ++r) {
        XPN_UNROLL for (int v = 0; v < V; ++v) sums[r][v] = Register{};
    }
    if (p.is_begun) {
        XPN_UNROLL for (int r = 0; r < R; ++r) {
            XPN_UNROLL for (int v = 0; v < V; ++v) {
                const T* from = out + r * p.out_leading + (v == V - 1 ? last : v * L);
                sums[r][v] = *reinterpret_cast<const Memory*>(from);
            }
        }
    }
    const T* B = p.B;
    for (index_t l = 0; l < k; ++l) {
        Register b[V];
        XPN_UNROLL for (int v = 0; v < V; ++v) {
            b[v] = *reinterpret_cast<const Memory*>(B + (v == V - 1 ? last : v * L));
        }
        XPN_UNROLL for (int r = 0; r < R; ++r) {
            const T a = A[A_T ? r : r * p.A_leading];
            XPN_UNROLL for (int v = 0; v < V; ++v) sums[r][v] += b[v] * a;
        }
        A += A_T ? p.A_leading : 1;
        B += p.B_leading;
    }
    if (V == 1 && p.n_alone) {
        const index_t most = L - 1;  // avoids code that is never reached
        switch (p.n_alone) {         // the compiler copies a known number without a loop
            case 1: return store_alone<T, R, V>(sums, 1, out, p.out_leading);
            case 2: return store_alone<T, R, V>(sums, smaller(2, most), out, p.out_leading);
            case 3: return store_alone<T, R, V>(sums, smaller(3, most), out, p.out_leading);
            case 4: return store_alone<T, R, V>(sums, smaller(4, most), out, p.out_leading);
            case 5: return store_alone<T, R, V>(sums, smaller(5, most), out, p.out_leading);
            case 6: return store_alone<T, R, V>(sums, smaller(6, most), out, p.out_leading);
            case 7: return store_alone<T, R, V>(sums, smaller(7, most), out, p.out_leading);
            default: return store_alone<T, R, V>(sums, p.n_alone, out, p.out_leading);
        }
    }
    XPN_UNROLL for (int r = 0; r < R; ++r) {
        XPN_UNROLL for (int v = 0; v < V; ++v) {
            *reinterpret_cast<Memory*>(out + (v == V - 1 ? last : v * L)) = sums[r][v];
        }
        out += p.out_leading;
    }
}

// Computes `count` tiles of R rows, from row `top`.
template <class T, int R, int V, bool A_T>
void multiply_tiles(const Panel<T>& p, index_t top, index_t count) {
    const index_t step = A_T ? 1 : p.A_leading;
    for (index_t i = top; i < top + count * R; i += R) {
        const T* A = p.A + i * step;
        T* out = p.out + i * p.out_leading;
        if (V == 1 && !A_T && p.in_pairs) {
            multiply_pairs<T, R>(p, A, out);
        } else {
            multiply_tile<T, R, V, A_T>(p, A, out);
        }
    }
}

template <class T, int V, bool A_T>
void multiply_tiles(const Panel<T>& p, index_t top, index_t count, index_t n_rows) {
    const int most = most_rows<V>();
    switch (n_rows) {
        case 1: return multiply_tiles<T, 1, V, A_T>(p, top, count);
        case 2: return multiply_tiles<T, 2, V, A_T>(p, top, count);
        case 3: return multiply_tiles<T, 3, V, A_T>(p, top, count);
        case 4: return multiply_tiles<T, 4, V, A_T>(p, top, count);
        case 5: return multiply_tiles<T, most < 5 ? most : 5, V, A_T>(p, top, count);
        case 6: return multiply_tiles<T, most < 6 ? most : 6, V, A_T>(p, top, count);
        case 7: return multiply_tiles<T, most < 7 ? most : 7, V, A_T>(p, top, count);
        default: return multiply_tiles<T, most, V, A_T>(p, top, count);
    }
}

// Computes all m rows of a panel, in tiles of nearly the same size: a tile of a single row would
// wait for its sums.
template <class T, int V, bool A_T> void multiply_rows(const Panel<T>& p, index_t m) {
    const index_t n_tiles = (m + most_rows<V>() - 1) / most_rows<V>();
    const index_t n_rows = m / n_tiles, n_larger = m % n_tiles;
    if (n_larger) multiply_tiles<T, V, A_T>(p, 0, n_larger, n_rows + 1);
    multiply_tiles<T, V, A_T>(p, n_larger * (n_rows + 1), n_tiles - n_larger, n_rows);
}

template <class T> void multiply_panel(const Panel<T>& p, index_t m, bool A_T, index_t n_vectors) {
    switch (n_vectors) {
        case 1: return A_T ? multiply_rows<T, 1, true>(p, m) : multiply_rows<T, 1, false>(p, m);
        case 2: return A_T ? multiply_rows<T, 2, true>(p, m) : multiply_rows<T, 2, false>(p, m);
#if defined(__AVX512F__)
        case 4: return A_T ? multiply_rows<T, 4, true>(p, m) : multiply_rows<T, 4, false>(p, m);
        case 5: return A_T ? multiply_rows<T, 5, true>(p, m) : multiply_rows<T, 5, false>(p, m);
        case 6: return A_T ? multiply_rows<T, 6, true>(p, m) : multiply_rows<T, 6, false>(p, m);
#endif
        default: return A_T ? multiply_rows<T, 3, true>(p, m) : multiply_rows<T, 3, false>(p, m);
    }
}

// Copies the transpose of B, whose columns are contiguous.
template <class T>
void pack(const T* B, index_t B_leading, index_t k, index_t n, T* copy, index_t leading) {
    index_t j = 0;
#if defined(XPN_CAN_SHUFFLE)
    const int n_block = 16 / sizeof(T);
    for (; j + n_block <= n; j += n_block) {
        index_t l = 0;
        for (; l + n_block <= k; l += n_block) {
            transpose(B + j * B_leading + l, B_leading, copy + l * leading + j, leading);
        }
        for (; l < k; ++l) {
            for (index_t i = j; i < j + n_block; ++i) copy[l * leading + i] = B[i * B_leading + l];
        }
    }
#endif
    for (; j < n; ++j) {
        for (index_t l = 0; l < k; ++l) copy[l * leading + j] = B[j * B_leading + l];
    }
}

// Copies the columns of B, less than a vector, and fills the vectors with zeros. In pairs, a vector
// has terms l and l + 1 of a column in neighbouring lanes.
template <class T>
void pack_alone(const T* B, index_t along_k, index_t along_n, index_t k, index_t n, bool in_pairs,
                T* copy) {
    const index_t L = lanes<T>(), n_terms = in_pairs ? 2 : 1;
    memset(copy, 0, (k + n_terms - 1) / n_terms * L * sizeof(T));
    for (index_t l = 0; l < k; ++l) {
        T* to = copy + l / n_terms * L + l % n_terms;
        for (index_t j = 0; j < n; ++j) to[j * n_terms] = B[l * along_k + j * along_n];
    }
}

// Computes the product with vectors along the rows of the result.
template <class T> void multiply_along_rows(const XpnProduct& p) {
    const index_t L = lanes<T>();
    T copy[PACKED_BYTES / sizeof(T)];
    Panel<T> panel = {p.k, static_cast<const T*>(p.A), p.A_leading, static_cast<const T*>(p.B),
                      p.B_leading, 0, 0, false, false, static_cast<T*>(p.out), p.out_leading};
    if (p.n < L) {
        panel.in_pairs = !p.A_is_transposed && 2 * p.n <= L && p.k >= 16;
        const index_t along_k = p.B_is_transposed ? 1 : p.B_leading;
        const index_t along_n = p.B_is_transposed ? p.B_leading : 1;
        pack_alone(panel.B, along_k, along_n, p.k, p.n, panel.in_pairs, copy);
        panel.B = copy;
        panel.B_leading = L;
        panel.n_alone = p.n;
        return multiply_panel(panel, p.m, p.A_is_transposed, 1);
    }
    // Panels of nearly the same width, since a single vector would wait for its sums. The last
    // vector of all ends with the last column, so it may overlap the one before it.
    const index_t all_vectors = (p.n + L - 1) / L;
    const index_t n_panels = (all_vectors + MOST_VECTORS - 1) / MOST_VECTORS;
    for (index_t i = 0, left = 0; i < n_panels; ++i) {
        const index_t n_vectors = all_vectors / n_panels + (i < all_vectors % n_panels);
        const index_t right = smaller(left + n_vectors * L, p.n);
        panel.last = right - L - left;
        panel.out = static_cast<T*>(p.out) + left;
        const index_t width = p.B_is_transposed ? right - left : 1;
        const index_t fit = PACKED_BYTES / ((index_t)sizeof(T) * width);
        const index_t deep = smaller(most_terms(p.A_is_transposed), fit);
        for (index_t l = 0; l < p.k; l += deep) {
            panel.k = smaller(deep, p.k - l);
            panel.is_begun = l > 0;
            panel.A = static_cast<const T*>(p.A) + l * (p.A_is_transposed ? p.A_leading : 1);
            panel.B = static_cast<const T*>(p.B);
            if (p.B_is_transposed) {
                panel.B_leading = right - left;
                pack(panel.B + left * p.B_leading + l, p.B_leading, panel.k, right - left, copy,
                     right - left);
                panel.B = copy;
            } else {
                panel.B += l * p.B_leading + left;
            }
            multiply_panel(panel, p.m, p.A_is_transposed, n_vectors);
        }
        left = right;
    }
}

// Computes out^T = B^T A^T of a transposed A, so with vectors along the columns of the result.
template <class T> void multiply_along_columns(const XpnProduct& p) {
    const index_t L = lanes<T>(), most = 16 * lanes<T>();
    T result[lanes<T>() * most];
    const index_t n_blocks = (p.m + most - 1) / most;
    T* out = static_cast<T*>(p.out);
    for (index_t i = 0, top = 0; i < n_blocks; ++i) {
        const index_t bottom = i + 1 == n_blocks ? p.m : p.m * (i + 1) / n_blocks / L * L;
        const index_t m = bottom - top;
        const XpnProduct block = {p.n, m, p.k, p.B, static_cast<const T*>(p.A) + top, result,
                                  !p.B_is_transposed, false, p.B_leading, p.A_leading, m};
        multiply_along_rows<T>(block);
        for (index_t r = 0; r < m; ++r) {
            for (index_t j = 0; j < p.n; ++j) out[j] = result[j * m + r];
            out += p.out_leading;
        }
        top = bottom;
    }
}

// Whether vectors along the columns of a narrow result take fewer steps. With few terms, writing
// the result takes longer than that saves.
template <class T> bool is_along_columns(const XpnProduct& p) {
    const index_t L = lanes<T>();
    return p.A_is_transposed && p.n < L && p.k >= 8 && p.n * ((p.m + L - 1) / L) < p.m;
}

template <class T> void multiply_small(const XpnProduct& p) {
    is_along_columns<T>(p) ? multiply_along_columns<T>(p) : multiply_along_rows<T>(p);
}

// Whether B is copied.
template <class T> bool copies(const XpnProduct& p) {
    return !is_along_columns<T>(p) && (p.B_is_transposed || p.n < lanes<T>());
}

// Whether a copy of single vectors fits into its memory.
template <class T> bool fits(const XpnProduct& p) {
    const bool is_wide = is_along_columns<T>(p) ? p.m >= lanes<T>() : p.n >= lanes<T>();
    return is_wide || p.k * XPN_VECTOR_BYTES <= PACKED_BYTES;
}

// Whether the product is expected to take less time than by OpenBLAS. It depends on nothing but the
// shape, the type and the layout, so that results do not depend on the number of threads.
//
// The numbers were measured with AVX2 on Zen 3, in one thread, beside OpenBLAS 0.3.31: 99 of 100
// random products of up to 2^19 multiplications then took 14 % less time or better, and half of them
// less than half; of 260 from there to 3 2^19 all took less time, half of them 25 % less. Beyond,
// some take longer. A result with long rows is written page by page, and
// a copy of B pays off if many rows use it. OpenBLAS's products by vectors are as good as these.
//
// With AVX-512, OpenBLAS computes many small products without rearranging them. On an Intel
// processor (family 6 model 207), half of 437 random products of up to 2^21 multiplications took
// 65 % of OpenBLAS's time or less, 95 of 100 at most 105 %; with many terms and a narrow result,
// OpenBLAS was often faster. The baseline may compete with an OpenBLAS that uses AVX2, since not
// every compiler builds the other variants: it saves no more than the call's time.
template <class T> bool is_faster(const XpnProduct& p) {
    if (p.m < 2 || p.n < 2 || p.n > 512) return false;
    if (copies<T>(p) && p.m < 16) return false;
    const double amount = (double)p.m * (double)p.n * (double)p.k;
#if defined(__AVX512F__)
    return amount <= 1 << 21 && (p.k <= 64 || smaller(p.m, p.n) >= 8);
#elif defined(__AVX2__)
    return amount <= 3 << 19;
#else
    return amount <= 1 << 9;
#endif
}

template <class T> bool multiply_if_faster(const XpnProduct& p, bool is_forced) {
    if (!fits<T>(p) || !(is_forced || is_faster<T>(p))) return false;
    multiply_small<T>(p);
    return true;
}

}  // namespace
#endif

// As XpnMultiply.
extern "C" int XPN_PASTE(xpn_multiply_, XPN_VARIANT)(const XpnProduct* p, int is_double,
                                                    int is_forced) {
#if defined(__GNUC__)
    return is_double ? multiply_if_faster<double>(*p, is_forced != 0)
                     : multiply_if_faster<float>(*p, is_forced != 0);
#else
    (void)p, (void)is_double, (void)is_forced;
    return 0;
#endif
}
