// The interface between the loops that host_source.py writes and the module that calls them.

#pragma once

#include <stddef.h>

enum { XPN_MAX_OPERANDS = 12, XPN_MAX_CONSTANTS = 12 };

// A constant as it was given: `real` for types of real numbers, `integer` for the others.
struct XpnConstant {
    double real;
    unsigned long long integer;
};

// Rows of columns: one matrix of every operand. An operand that has one value for each column, or
// for the whole of it, has the stride 0; one that has a value for each row, the length of that
// value. The elements of a row lie next to each other.
struct XpnBlock {
    ptrdiff_t n_rows, n_columns;
    ptrdiff_t first_column;            // of the whole array's columns, the one that comes first here
    unsigned long long first;          // index of the first element in the whole array, in C order
    char* data[XPN_MAX_OPERANDS];      // null where an operand is None
    ptrdiff_t stride[XPN_MAX_OPERANDS];  // bytes from one row to the next
    const XpnConstant* constants;
};

typedef void (*XpnLoop)(const XpnBlock*);

struct XpnEntry {
    const char* name;
    XpnLoop float_loop, double_loop;
};

// Writes n random words, from word `first` of the stream on.
typedef void (*XpnWords)(unsigned int* words, unsigned long long first, ptrdiff_t n,
                         unsigned long long seed, unsigned int layer, unsigned int step,
                         unsigned int purpose);
