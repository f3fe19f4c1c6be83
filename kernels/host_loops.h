// The interface between the loops that host_source.py writes and the module that calls them.

#pragma once

#include <stddef.h>

enum { XPN_MAX_OPERANDS = 12, XPN_MAX_CONSTANTS = 12 };

// A constant as given in the call: `real` for real types, `integer` for the others.
struct XpnConstant {
    double real;
    unsigned long long integer;
};

// A matrix of every operand. An operand with one value for each column, or for the whole matrix,
// has stride 0; an operand with one value for each row has the size of that value as its stride.
// The elements of a row are contiguous.
struct XpnBlock {
    ptrdiff_t n_rows, n_columns;
    ptrdiff_t first_column;            // number of the first column, in the whole array
    unsigned long long first;          // index of the first element in the whole array, in C order
    char* data[XPN_MAX_OPERANDS];      // null if an operand is None
    ptrdiff_t stride[XPN_MAX_OPERANDS];  // bytes from one row to the next
    const XpnConstant* constants;
};

typedef void (*XpnLoop)(const XpnBlock*);

struct XpnEntry {
    const char* name;
    XpnLoop float_loop, double_loop;
};

// Writes n random words, starting at word `first` of the stream.
typedef void (*XpnWords)(unsigned int* words, unsigned long long first, ptrdiff_t n,
                         unsigned long long seed, unsigned int layer, unsigned int step,
                         unsigned int purpose);

// A product out = A B, of shapes (m, k) and (k, n). Of a transposed matrix the columns are
// contiguous, of the others the rows; `leading` counts the elements from one to the next.
struct XpnProduct {
    ptrdiff_t m, n, k;
    const void *A, *B;
    void* out;
    bool A_is_transposed, B_is_transposed;
    ptrdiff_t A_leading, B_leading, out_leading;
};

// Computes a product if that is expected to take less time than by the BLAS, or if it is forced;
// returns whether it did. Without vectors (host_small.h) it never does.
typedef int (*XpnMultiply)(const XpnProduct*, int is_double, int is_forced);
