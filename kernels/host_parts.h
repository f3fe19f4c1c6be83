// Parts of the loops that host_source.py writes: operands, sizes of tiles, random words.
//
// It is compiled once for each instruction set, so it must not define functions that the linker
// could share between them.

#pragma once

#include <math.h>

#include "host_loops.h"

// A product that compilers do not generate by themselves, of the lower halves of 64-bit lanes.
#if defined(__GNUC__) && defined(__SSE2__)
#include <immintrin.h>
#if defined(__AVX512F__)
#define XPN_VECTORS 8
#define XPN_PRODUCT(a, b) _mm512_mul_epu32((__m512i)(a), _mm512_set1_epi64((long long)(b)))
#elif defined(__AVX2__)
#define XPN_VECTORS 4
#define XPN_PRODUCT(a, b) _mm256_mul_epu32((__m256i)(a), _mm256_set1_epi64x((long long)(b)))
#else
#define XPN_VECTORS 2
#define XPN_PRODUCT(a, b) _mm_mul_epu32((__m128i)(a), _mm_set1_epi64x((long long)(b)))
#endif
typedef unsigned long long lanes_t __attribute__((vector_size(8 * XPN_VECTORS)));
namespace xpn {
static inline __attribute__((always_inline)) lanes_t product_of(lanes_t a, unsigned int b) {
    return (lanes_t)XPN_PRODUCT(a, b);
}
}  // namespace xpn
#endif

#include "functions.h"

#if defined(__GNUC__)  // a body may leave operands and variables unused
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#endif
#if defined(__clang__)  // Clang does not vectorise maxima
#pragma clang diagnostic ignored "-Wpass-failed"
#elif defined(__GNUC__)  // in GCC's immintrin.h
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define XPN_PASTE_(a, b) a##b
#define XPN_PASTE(a, b) XPN_PASTE_(a, b)

namespace {

typedef ptrdiff_t index_t;

const index_t WORDS = 512;    // random words drawn at a time
const index_t WIDTH = 2048;   // columns summed at a time
const index_t HEIGHT = 32;    // rows in a partial sum, which bounds its rounding errors
const index_t NARROW = 32;    // with at most this many columns, a rowwise operation
const index_t LANES = 32;     // processes this many rows at a time

inline index_t smaller(index_t a, index_t b) { return a < b ? a : b; }

template <class V> XPN_INLINE V* row_of(const XpnBlock& block, int operand, index_t r) {
    return reinterpret_cast<V*>(block.data[operand] + r * block.stride[operand]);
}

#if defined(XPN_VECTORS)
// Counters start .. start + 2 XPN_VECTORS - 1, one per lane; two vectors at a time hide the latency
// of the products.
XPN_INLINE void draw_vectors(unsigned int* buffer, unsigned int start, unsigned int layer,
                             unsigned int step, unsigned int purpose, unsigned int k0,
                             unsigned int k1) {
    lanes_t zero, c0[2], c1[2], c2[2], c3[2];
    for (int l = 0; l < XPN_VECTORS; ++l) {
        zero[l] = 0;
        c0[0][l] = start + (unsigned int)l;
        c0[1][l] = start + (unsigned int)(XPN_VECTORS + l);
    }
    for (int half = 0; half < 2; ++half) {
        c1[half] = zero + layer;
        c2[half] = zero + step;
        c3[half] = zero + purpose;
    }
    for (int half = 0; half < 2; ++half) {
        xpn::philox4x32(c0[half], c1[half], c2[half], c3[half], k0, k1);
    }
    for (int half = 0; half < 2; ++half) {
        for (int l = 0; l < XPN_VECTORS; ++l) {
            unsigned int* to = buffer + 4 * (half * XPN_VECTORS + l);
            to[0] = (unsigned int)c0[half][l];
            to[1] = (unsigned int)c1[half][l];
            to[2] = (unsigned int)c2[half][l];
            to[3] = (unsigned int)c3[half][l];
        }
    }
}
#endif

// Draws words first .. first + n - 1 of the stream; returns where in `buffer` they begin.
XPN_INLINE const unsigned int* draw(unsigned int* buffer, unsigned long long first, index_t n,
                                    unsigned long long seed, unsigned int layer,
                                    unsigned int step, unsigned int purpose) {
    const unsigned int start = (unsigned int)(first >> 2), skip = (unsigned int)(first & 3);
    const unsigned int k0 = (unsigned int)seed, k1 = (unsigned int)(seed >> 32);
    const int n_counters = int((skip + n + 3) >> 2);
    int i = 0;
#if defined(XPN_VECTORS)
    for (; i + 2 * XPN_VECTORS <= n_counters; i += 2 * XPN_VECTORS) {
        draw_vectors(buffer + 4 * i, start + (unsigned int)i, layer, step, purpose, k0, k1);
    }
#endif
    for (; i < n_counters; ++i) {
        unsigned int c0 = start + (unsigned int)i, c1 = layer, c2 = step, c3 = purpose;
        xpn::philox4x32(c0, c1, c2, c3, k0, k1);
        buffer[4 * i] = c0;
        buffer[4 * i + 1] = c1;
        buffer[4 * i + 2] = c2;
        buffer[4 * i + 3] = c3;
    }
    return buffer + skip;
}

// Draws words 4 i to 4 i + 3, where row r of a block is row i of the whole array.
XPN_INLINE void draw_for_row(unsigned int* words, const XpnBlock& block, index_t r,
                             unsigned long long seed, unsigned int layer, unsigned int step,
                             unsigned int purpose) {
    const unsigned long long n = block.n_columns ? (unsigned long long)block.n_columns : 1;
    words[0] = (unsigned int)(block.first / n + (unsigned long long)r);
    words[1] = layer;
    words[2] = step;
    words[3] = purpose;
    xpn::philox4x32(words[0], words[1], words[2], words[3], (unsigned int)seed,
                    (unsigned int)(seed >> 32));
}

}  // namespace

// As XpnWords.
extern "C" void XPN_PASTE(xpn_words_, XPN_VARIANT)(
    unsigned int* words, unsigned long long first, ptrdiff_t n, unsigned long long seed,
    unsigned int layer, unsigned int step, unsigned int purpose) {
    unsigned int buffer[WORDS + 8];
    for (index_t i = 0; i < n; i += WORDS) {
        const index_t m = smaller(WORDS, n - i);
        const unsigned int* drawn = draw(buffer, first + (unsigned long long)i, m, seed, layer,
                                         step, purpose);
        for (index_t k = 0; k < m; ++k) words[i + k] = drawn[k];
    }
}
