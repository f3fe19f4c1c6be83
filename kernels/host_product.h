// Matrix products by the functions of NumPy's own BLAS, divided among the threads of the team.
//
// A BLAS with its own threads divides a product as it likes, and its threads then look for work for
// milliseconds, on the processors that other loops need. Here every thread of the team calls the
// BLAS for a part of the result, and meanwhile the BLAS uses only the calling thread. The same
// threads then run the loops over the result.

#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host_loops.h"
#include "host_record.h"
#include "host_team.h"

namespace {

typedef void (*AnyFunction)();

// How many threads may take part, and into how many parts work is cut.
struct Threads {
    int processors = 1;  // of the machine; limits the number of parts
    int most = 1;        // that this process may use
    int forced = 0;      // by XPNET_THREADS; 0 leaves the choice to the team
    int limit = 0;       // by threadpoolctl; 0 for none
    int without_limit = 0;  // the number reported to threadpoolctl without a limit
    // Whether no product has run beside a second Python thread.
    std::atomic<bool> is_only_thread{true};
};

struct Blas {
    AnyFunction gemm[2];  // cblas_sgemm and cblas_dgemm; null if NumPy's BLAS is unknown
    AnyFunction gemv[2];
    bool is_64_bit;       // whether its integers have 64 bits
    bool is_fortran;      // whether gemm is Fortran's, and there is no gemv
    XpnMultiply small;    // computes small products instead of the BLAS
    int (*get_threads)();  // null if the BLAS manages its threads itself
    void (*set_threads)(int);
    Threads threads;
    std::mutex mutex;
    std::condition_variable changed;
    bool is_forking;
    int n_users, own;  // calls in progress, and the number of threads to restore
    int limit_before;  // threadpoolctl's limit when they began
    int last_above_one;
};

Blas& blas() {
    static Blas* found = new Blas();  // never destroyed: threads may outlive main
    return *found;
}

// How many threads the BLAS is meant to use; its mutex must be held.
//
// While a product runs, the BLAS is set to one thread. If another thread of the process saves the
// number at that moment and restores it later, it leaves an unwanted 1. So a 1 is treated as such a
// leftover if threadpoolctl allows more, or if it set no limit and a product has run beside another
// Python thread.
int meant_threads(Blas& b) {
    const int found = b.n_users ? b.own : b.get_threads();
    if (found > 1) b.last_above_one = found;
    const Threads& t = b.threads;
    const bool is_leftover = found == 1 && (t.limit ? t.limit > 1 : !t.is_only_thread);
    return is_leftover && b.last_above_one > 1 ? b.last_above_one : found;
}

// How many threads may take part now: no more than NumPy's BLAS would use.
int team_size() {
    Blas& b = blas();
    if (!b.get_threads) return 1;
    std::lock_guard<std::mutex> lock(b.mutex);
    const Threads& t = b.threads;
    int n = meant_threads(b);
    if (t.limit && t.limit < n) n = t.limit;
    const int most = t.forced ? t.forced : t.most;
    if (most < n) n = most;
    return n < 1 ? 1 : n < MAX_THREADS ? n : MAX_THREADS;
}

// The limit that threadpoolctl saves and restores later: without one, the BLAS's number.
int get_limit() {
    Blas& b = blas();
    if (!b.get_threads) return 1;
    std::lock_guard<std::mutex> lock(b.mutex);
    Threads& t = b.threads;
    if (t.limit) return t.limit;
    return t.without_limit = meant_threads(b);
}

void set_limit(int n) {
    Blas& b = blas();
    std::lock_guard<std::mutex> lock(b.mutex);
    Threads& t = b.threads;
    t.limit = n == t.without_limit ? 0 : n < 1 ? 1 : n;
}

// The number of parts for work whose division changes bits of the result: independent of the number
// of threads.
int most_parts() {
    const int n = blas().threads.processors;
    return n < MAX_PARTS ? n : MAX_PARTS;
}

// While an instance lives, the BLAS computes in the calling thread. The number of threads belongs
// to the whole process: if somebody else sets it meanwhile, that value stays.
struct SingleThreaded {
    SingleThreaded() {
        Blas& b = blas();
        std::unique_lock<std::mutex> lock(b.mutex);
        b.changed.wait(lock, [&b] { return !b.is_forking; });
        if (b.n_users == 0 && b.get_threads) {
            b.own = meant_threads(b);
            b.limit_before = b.threads.limit;
            if (b.own != 1) b.set_threads(1);
        }
        ++b.n_users;
    }
    ~SingleThreaded() {
        Blas& b = blas();
        std::lock_guard<std::mutex> lock(b.mutex);
        if (--b.n_users > 0) return;
        const bool is_limited = b.threads.limit == 1 && b.limit_before != 1;  // meanwhile
        if (b.get_threads && b.own != 1 && b.get_threads() == 1 && !is_limited) {
            b.set_threads(b.own);
        }
        if (b.is_forking) b.changed.notify_all();
    }
};

#if defined(XPN_POSIX)
// A fork copies only the calling thread. It waits for products in progress: otherwise threads that
// the child lacks would hold the BLAS's locks for ever.
void before_fork() {
    Blas& b = blas();
    std::unique_lock<std::mutex> lock(b.mutex);
    b.changed.wait(lock, [&b] { return !b.is_forking; });
    b.is_forking = true;
    b.changed.wait(lock, [&b] { return b.n_users == 0; });
    team().pause();
    lock.release();  // the mutex stays locked
}

void after_fork() {
    Blas& b = blas();
    b.is_forking = false;
    b.mutex.unlock();
    b.changed.notify_all();
    team().resume();
}

void after_fork_in_child() {
    new (&blas().changed) std::condition_variable;  // no thread waits for it in the child
    after_fork();
}
#endif

void prepare_for_forks() {
#if defined(XPN_POSIX)
    static bool is_done = false;  // a module may be imported again
    if (!is_done) pthread_atfork(before_fork, after_fork, after_fork_in_child);
    is_done = true;
#endif
}

// A matrix in row-major order or, if transposed, in column-major order.
struct Matrix {
    char* data;
    bool is_transposed;
    ptrdiff_t leading;  // elements from one row, or column, to the next
};

// out = A B, of shapes (m, k) and (k, n).
struct Product {
    bool is_double;
    ptrdiff_t m, n, k;
    Matrix A, B, out;
};

size_t itemsize_of(const Product& p) { return p.is_double ? sizeof(double) : sizeof(float); }

// Computes a block by the BLAS.
template <class T, class Int>
void multiply_by_blas(const Product& p, ptrdiff_t top, ptrdiff_t bottom, ptrdiff_t left,
                    ptrdiff_t right, const Matrix& out) {
    typedef void (*Gemm)(int, int, int, Int, Int, Int, T, const T*, Int, const T*, Int, T, T*, Int);
    typedef void (*Gemv)(int, int, Int, Int, T, const T*, Int, const T*, Int, T, T*, Int);
    const int row_major = 101, as_it_is = 111, transposed = 112;  // the values of CBLAS's enums
    const T* A = reinterpret_cast<const T*>(p.A.data) + top * (p.A.is_transposed ? 1 : p.A.leading);
    const T* B = reinterpret_cast<const T*>(p.B.data) + left * (p.B.is_transposed ? p.B.leading : 1);
    T* to = reinterpret_cast<T*>(out.data);
    const Int m = (Int)(bottom - top), n = (Int)(right - left), k = (Int)p.k;
    const Int A_leading = (Int)p.A.leading, B_leading = (Int)p.B.leading;
    const Gemv gemv = reinterpret_cast<Gemv>(blas().gemv[p.is_double]);
    const bool A_T = p.A.is_transposed, B_T = p.B.is_transposed;
    if (p.n == 1) {  // out = A b
        gemv(row_major, A_T ? transposed : as_it_is, A_T ? k : m, A_T ? m : k, T(1), A, A_leading, B,
             B_T ? 1 : B_leading, T(0), to, (Int)out.leading);
    } else if (p.m == 1) {  // out^T = B^T a
        gemv(row_major, B_T ? as_it_is : transposed, B_T ? n : k, B_T ? k : n, T(1), B, B_leading, A,
             A_T ? A_leading : 1, T(0), to, 1);
    } else {
        reinterpret_cast<Gemm>(blas().gemm[p.is_double])(
            row_major, A_T ? transposed : as_it_is, B_T ? transposed : as_it_is, m, n, k, T(1), A,
            A_leading, B, B_leading, T(0), to, (Int)out.leading);
    }
}

// Describes a block of the product and its result for the loops over small matrices.
template <class T>
XpnProduct block_of(const Product& p, ptrdiff_t top, ptrdiff_t bottom, ptrdiff_t left,
                    ptrdiff_t right, const Matrix& out) {
    XpnProduct block;
    block.m = bottom - top;
    block.n = right - left;
    block.k = p.k;
    block.A = p.A.data + (ptrdiff_t)sizeof(T) * top * (p.A.is_transposed ? 1 : p.A.leading);
    block.B = p.B.data + (ptrdiff_t)sizeof(T) * left * (p.B.is_transposed ? p.B.leading : 1);
    block.out = out.data;
    block.A_is_transposed = p.A.is_transposed;
    block.B_is_transposed = p.B.is_transposed;
    block.A_leading = p.A.leading;
    block.B_leading = p.B.leading;
    block.out_leading = out.leading;
    return block;
}

// Computes a product by a BLAS with Fortran's interface, whose matrices are stored by columns: the
// transpose of the result is B^T A^T.
template <class T, class Int> void multiply_by_fortran(const XpnProduct& p) {
    typedef void (*Gemm)(const char*, const char*, const Int*, const Int*, const Int*, const T*,
                         const T*, const Int*, const T*, const Int*, const T*, T*, const Int*);
    const Int m = (Int)p.m, n = (Int)p.n, k = (Int)p.k;
    const Int A_leading = (Int)p.A_leading, B_leading = (Int)p.B_leading;
    const Int out_leading = (Int)p.out_leading;
    const char A_T = p.A_is_transposed ? 'T' : 'N', B_T = p.B_is_transposed ? 'T' : 'N';
    const T one = 1, zero = 0;
    reinterpret_cast<Gemm>(blas().gemm[sizeof(T) == sizeof(double)])(
        &B_T, &A_T, &n, &m, &k, &one, static_cast<const T*>(p.B), &B_leading,
        static_cast<const T*>(p.A), &A_leading, &zero, static_cast<T*>(p.out), &out_leading);
}

// Computes a block of the product into `out`, which has the size of the block.
template <class T>
void multiply_block(const Product& p, ptrdiff_t top, ptrdiff_t bottom, ptrdiff_t left,
                    ptrdiff_t right, const Matrix& out) {
    const XpnProduct block = block_of<T>(p, top, bottom, left, right, out);
    if (blas().small(&block, p.is_double, false)) return;
    if (blas().is_fortran) {
        return (blas().is_64_bit ? multiply_by_fortran<T, long long>
                                 : multiply_by_fortran<T, int>)(block);
    }
    (blas().is_64_bit ? multiply_by_blas<T, long long> : multiply_by_blas<T, int>)(
        p, top, bottom, left, right, out);
}

const ptrdiff_t ROWS = 4;      // rows that a BLAS processes at once
const ptrdiff_t COLUMNS = 16;  // columns that share a cache line in float32 stay together

// A division of rows, of columns or of terms into parts.
struct Division {
    bool by_rows;
    ptrdiff_t length, grain;

    Division() = default;
    Division(bool by_rows, ptrdiff_t n_rows, ptrdiff_t n_columns)
        : by_rows(by_rows), length(by_rows ? n_rows : n_columns), grain(by_rows ? ROWS : COLUMNS) {}

    // Where part k of n begins, and part k - 1 ends.
    ptrdiff_t bound(int k, int n) const {
        return k == n ? length : length * k / n / grain * grain;
    }

    // The number of parts, at most `most`, each with at least `least` of the `amount`.
    int parts(double amount, double least, int most) const {
        const double worth = amount / least;
        const ptrdiff_t fit = length / grain;
        int n = most;
        if (n > worth) n = (int)worth;
        if (n > fit) n = (int)fit;
        return n < 1 ? 1 : n;
    }
};

// Whether a matrix that threads write or read is divided by rows: each part is then contiguous, and
// a processor does not prefetch from the middle of another part. Matrices with few, long rows are
// divided by columns.
bool divides_rows(ptrdiff_t n_rows, ptrdiff_t n_columns) {
    return n_rows >= n_columns || n_rows >= 32 * most_parts();
}

// The same for a product. For each part the BLAS rearranges a part of one matrix and all of the
// other, so the longer side is divided if that gives enough parts. Products of few terms spend
// their time on writing the result instead.
bool divides_rows(const Product& p) {
    const ptrdiff_t few = 64;
    if (p.k < few) return divides_rows(p.m, p.n);
    if (p.A.is_transposed && 2 * p.m >= p.n) return true;  // then the update can follow the gradient
    return p.m >= p.n || (p.n < COLUMNS * most_parts() && COLUMNS * p.m > ROWS * p.n);
}

const ptrdiff_t TEAM_ELEMENTS = 8192;        // a part of a loop that is worth a thread
const double MULTIPLICATIONS = 1 << 18;      // a part of a product that is worth a thread,
const double FAR_MULTIPLICATIONS = 1 << 21;  // or a far thread
const double FEW_MULTIPLICATIONS = 1e6;      // up to this, OpenBLAS does not rearrange (AVX-512)
const ptrdiff_t SIDE = 128;                  // of a part, with more than two parts

// The number of parts of a product, independent of the number of threads. On one thread two parts
// take up to 5 % longer than the whole product. More parts take longer the narrower they are,
// unless they are so small that nothing is rearranged.
int parts_of(const Product& p, const Division& division) {
    const double amount = (double)p.m * (double)p.n * (double)p.k;
    const int most = most_parts();
    int n = division.parts(amount, MULTIPLICATIONS, most);
    if (n < 2) return 1;
    const ptrdiff_t wide = division.length / SIDE;
    if (n > 2 && n > wide) n = wide < 2 ? 2 : (int)wide;
    while (n > 2 && amount < n * n * MULTIPLICATIONS / 2) --n;
    const int few = (int)ceil(amount / FEW_MULTIPLICATIONS);
    const bool are_few = few > n && few <= 2 * n && division.length / division.grain >= 2 * n;
    return are_few ? 2 * n : n;
}

const size_t MOST_OWN = 1 << 22;  // bytes

// Memory that a thread keeps for parts of a result; null if they are too large.
char* own_memory(size_t size) {
    const size_t cache_line = 64;
    struct Memory {
        char* data = nullptr;
        size_t size = 0;
        ~Memory() { free(data); }
    };
    static thread_local Memory memory;
    if (size > MOST_OWN) return nullptr;
    if (memory.size < size) {
        free(memory.data);
        memory.data = static_cast<char*>(malloc(size + cache_line));
        memory.size = memory.data ? size : 0;
    }
    if (!memory.data) return nullptr;
    return memory.data + (cache_line - (uintptr_t)memory.data % cache_line) % cache_line;
}

struct SharedProduct {
    Product product;
    Division division;  // of rows, of columns, or of terms
    char* sums;         // if terms are divided, a result for each part but the first; or null

    // Where the rows of a part end, of a product that is whole or divided by rows.
    ptrdiff_t end_row(int part, int n_parts) const {
        if (n_parts == 1) return part < 0 ? 0 : product.m;
        return division.bound(part + 1, n_parts);
    }
};

// Computes columns while other threads may compute the neighbouring ones. A processor prefetches
// what follows in memory, and so takes cache lines from another processor that is writing them. If
// the processors are far apart, a thread first writes to its own memory, because the BLAS goes over
// its result several times.
template <class T>
void multiply_columns(const Product& p, ptrdiff_t left, ptrdiff_t right, bool is_apart) {
    const ptrdiff_t n = right - left;
    const size_t row_size = (size_t)n * sizeof(T);
    char* own = is_apart ? own_memory((size_t)p.m * row_size) : nullptr;
    char* to = p.out.data + sizeof(T) * left;
    if (!own) return multiply_block<T>(p, 0, p.m, left, right, {to, false, p.out.leading});
    multiply_block<T>(p, 0, p.m, left, right, {own, false, n});
    for (ptrdiff_t i = 0; i < p.m; ++i) {
        memcpy(to + sizeof(T) * i * p.out.leading, own + i * row_size, row_size);
    }
}

// Computes the rows [top, bottom) of the result.
template <class T> void multiply_rows(const Product& p, ptrdiff_t top, ptrdiff_t bottom) {
    char* to = p.out.data + sizeof(T) * top * p.out.leading;
    multiply_block<T>(p, top, bottom, 0, p.n, {to, false, p.out.leading});
}

// The rows of a gradient, dW = X^T dZ, that are computed at once. A program updates the weights of
// each such tile while it is in the cache (host_program.h), and a tile's height may change bits, so
// products are cut into tiles everywhere. With many terms the BLAS would rearrange too much for
// each tile.
ptrdiff_t tile_height(const Product& p) {
    const ptrdiff_t few = 64, size = 1 << 16, grain = 16;
    if (p.k > few || !p.A.is_transposed || p.B.is_transposed) return p.m;
    const ptrdiff_t row = p.n * (ptrdiff_t)itemsize_of(p);
    const ptrdiff_t fit = size / row / grain * grain;
    return fit < 2 * grain ? 2 * grain : fit;
}

// Computes the sum over the terms [begin, end) only; neither matrix is transposed.
template <class T>
void multiply_terms(const Product& p, ptrdiff_t begin, ptrdiff_t end, const Matrix& out) {
    Product piece = p;
    piece.k = end - begin;
    piece.A.data += (ptrdiff_t)sizeof(T) * begin;
    piece.B.data += (ptrdiff_t)sizeof(T) * begin * p.B.leading;
    multiply_block<T>(piece, 0, p.m, 0, p.n, out);
}

template <class T> void multiply_part(const void* job, int part, int n_parts) {
    const SharedProduct& shared = *static_cast<const SharedProduct*>(job);
    const Product& p = shared.product;
    if (shared.sums) {
        const ptrdiff_t size = (ptrdiff_t)sizeof(T) * p.m * p.n;
        const Matrix out =
            part == 0 ? p.out : Matrix{shared.sums + (part - 1) * size, false, p.n};
        return multiply_terms<T>(p, shared.division.bound(part, n_parts),
                                 shared.division.bound(part + 1, n_parts), out);
    }
    if (n_parts > 1 && !shared.division.by_rows) {
        const ptrdiff_t begin = shared.division.bound(part, n_parts);
        const ptrdiff_t end = shared.division.bound(part + 1, n_parts);
        if (begin < end) multiply_columns<T>(p, begin, end, team().is_apart());
        return;
    }
    const ptrdiff_t end = shared.end_row(part, n_parts), height = tile_height(p);
    for (ptrdiff_t top = shared.end_row(part - 1, n_parts); top < end; top += height) {
        multiply_rows<T>(p, top, top + height < end ? top + height : end);
    }
}

// Identifies a kind of job by its work and its shape.
Pace::Kind kind_of(const void* work, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k) {
    Pace::Kind kind = (Pace::Kind)(uintptr_t)work;
    for (const ptrdiff_t number : {m, n, k}) kind = (kind ^ (Pace::Kind)number) * 0x100000001b3ull;
    return kind;
}

Terms terms_of(int n_threads, bool is_short, Pace::Kind kind) {
    return {n_threads, blas().threads.forced > 0, is_short, kind};
}

// Sums of parts, matrices, to be added up.
struct Sums {
    const char* sums;
    int n;
    bool has_first;  // whether the total has the sum of another part, to which these are added
    ptrdiff_t n_rows, n_columns;
    char* total;
    ptrdiff_t leading;  // of the total
    bool is_double;
};

template <class T> void add_up(const Sums& s, ptrdiff_t top, ptrdiff_t bottom) {
    for (ptrdiff_t i = top; i < bottom; ++i) {
        T* to = reinterpret_cast<T*>(s.total) + i * s.leading;
        for (int k = 0; k < s.n; ++k) {
            const T* from = reinterpret_cast<const T*>(s.sums) + (k * s.n_rows + i) * s.n_columns;
            if (k == 0 && !s.has_first) {
                for (ptrdiff_t j = 0; j < s.n_columns; ++j) to[j] = from[j];
            } else {
                for (ptrdiff_t j = 0; j < s.n_columns; ++j) to[j] += from[j];
            }
        }
    }
}

void add_up_part(const void* job, int part, int n_parts) {
    const Sums& s = *static_cast<const Sums*>(job);
    const Division division(true, s.n_rows, s.n_columns);
    const ptrdiff_t top = division.bound(part, n_parts), bottom = division.bound(part + 1, n_parts);
    s.is_double ? add_up<double>(s, top, bottom) : add_up<float>(s, top, bottom);
}

void submit_sums(const Sums& s) {
    const double size = (double)s.n * (double)s.n_rows * (double)s.n_columns;
    const int n_threads = size < 2 * TEAM_ELEMENTS ? 1 : team_size();
    const Division division(true, s.n_rows, s.n_columns);
    const void* work = reinterpret_cast<const void*>(add_up_part);
    submit(add_up_part, s, division.parts(size, TEAM_ELEMENTS, n_threads),
           terms_of(n_threads, false, kind_of(work, s.n_rows, s.n_columns, s.n)));
}

// Whether the terms of a product are divided. Of W in X W, each thread then reads mostly the rows
// that it has updated in the last step. Divided by columns, it would also read rows that other
// processors have just written. The sums of the parts must be small beside W.
bool divides_terms(const Product& p, int n_parts) {
    return n_parts > 1 && !p.A.is_transposed && !p.B.is_transposed && p.k >= p.n &&
           p.k >= 2 * n_parts * p.m &&
           (size_t)(n_parts * p.m * p.n) * itemsize_of(p) <= MOST_OWN;
}

void multiply(const Product& p) {
    const Division division(divides_rows(p), p.m, p.n);
    const int n_parts = parts_of(p, division);
    const double amount = (double)p.m * (double)p.n * (double)p.k;
    const bool is_short = n_parts == 1 || amount < n_parts * FAR_MULTIPLICATIONS;
    const Work work = p.is_double ? multiply_part<double> : multiply_part<float>;
    const Pace::Kind kind =
        kind_of(&blas().gemm[p.is_double], p.m,
                4 * p.n + 2 * p.B.is_transposed + p.A.is_transposed, p.k);
    const Terms terms = terms_of(n_parts == 1 ? 1 : team_size(), is_short, kind);
    SharedProduct shared = {p, division, nullptr};
    if (divides_terms(p, n_parts)) {
        const size_t size = (size_t)((n_parts - 1) * p.m * p.n) * itemsize_of(p);
        shared.sums = recording ? static_cast<char*>(recording->allocate(size)) : own_memory(size);
        if (shared.sums) shared.division = Division(false, 1, p.k);
    }
    const auto submit_all = [&] {
        submit(work, shared, n_parts, terms);
        if (!shared.sums) return;
        submit_sums({shared.sums, n_parts - 1, true, p.m, p.n, p.out.data, p.out.leading,
                     p.is_double});
    };
    if (recording) return submit_all();
    const SingleThreaded guard;
    submit_all();
}

}  // namespace
